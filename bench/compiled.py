"""`python -m bench.compiled MODULE CHIP`: compile every form of a module's kernels that is shipped for a chip, without
a GPU or its driver, and print what the compiler used, a line of JSON for each form.

A process of its own, for `bench.ahead_of_time`: where kernels are interpreted they cannot be compiled, and a compiler
that crashes takes its process along. Keys of forms that need no compiling come in on the standard input.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pyengine.kernels.chips import CHIPS, Chip, Shipped

ALIGNED = [["tt.divisibility", 16]]  # what torch allocates, and the strides of what we lay out


def main(arguments: Sequence[str]) -> None:
    module, chip = arguments[0], CHIPS[arguments[1]]
    known = set(json.load(sys.stdin))
    forms = import_module(module).shipped(chip)
    _forget_lines(module.rpartition(".")[0])
    different = {_key(_kernel(module, form), form, chip): form for form in forms}
    for key, form in different.items():
        facts = {"kernel": form.kernel, "form": _named(form, forms), **_options(form), "key": key}
        facts |= {} if key in known else _compiled(_kernel(module, form), form, chip)
        print(json.dumps(facts), flush=True)


def _forget_lines(package: str) -> None:
    """Triton's keys are of a function's source and of the line that it begins at, which is not for us to know: a line
    more above it would compile it again."""
    for module in [each for name, each in sys.modules.items() if name.startswith(f"{package}.")]:
        for kernel in vars(module).values():
            if hasattr(kernel, "starting_line_number"):
                kernel.starting_line_number = 1


def _kernel(module: str, form: Shipped) -> Any:
    """The function that ``form.kernel`` names, "module:function" beside ``module``."""
    beside, _, function = form.kernel.partition(":")
    kernel = getattr(import_module(f"{module.rpartition('.')[0]}.{beside}"), function)
    if set(form.signature) != set(kernel.arg_names):
        wrong = sorted(set(form.signature) ^ set(kernel.arg_names))
        raise ValueError(f"the signature of {form.kernel} and its parameters differ: {', '.join(wrong)}")
    return kernel


def _named(form: Shipped, forms: Sequence[Shipped]) -> str:
    """The constants, and the types that are not the same in all forms of the kernel."""
    same = [each.signature for each in forms if each.kernel == form.kernel]
    types = {name: kind for name, kind in form.signature.items() if len({each[name] for each in same}) > 1}
    return " ".join(f"{name}={value}" for name, value in {**types, **form.constants}.items())


def _options(form: Shipped) -> dict[str, int]:
    return {"num_warps": form.num_warps, "num_stages": form.num_stages}


def _key(kernel: Any, form: Shipped, chip: Chip) -> str:
    """Of everything that the compiled code depends on."""
    import triton

    parts = triton.__version__, kernel.cache_key, sorted(form.signature.items()), sorted(form.constants.items())
    aligned = _aligned(kernel, {name: form.signature[name] for name in kernel.arg_names})
    text = repr((*parts, aligned, form.num_warps, form.num_stages, form.fp_fusion, chip.capability))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _compiled(kernel: Any, form: Shipped, chip: Chip) -> dict[str, Any]:
    """What the compiler used, or the error that it ended with."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: form.signature[name] for name in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in form.constants.items()}
    attributes = {(at,): ALIGNED for at in _aligned(kernel, signature)}
    source = ASTSource(kernel, signature, constants, attributes)
    target = GPUTarget("cuda", chip.capability, 32)
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log):
            options = {**_options(form), "enable_fp_fusion": form.fp_fusion}
            made = triton.compile(source, target=target, options=options)
    except Exception as error:  # the compiler's, whatever it is: the other forms go on
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    return {"shared": made.metadata.shared, "tensor_memory": made.metadata.tmem_size, **used(log.getvalue())}


def _aligned(kernel: Any, signature: dict[str, str]) -> list[int]:
    """The parameters that are multiples of 16: pointers, and the whole numbers that a launch looks at for it."""
    looked_at = [
        kind in ("i32", "i64") and not each.do_not_specialize for kind, each in zip(signature.values(), kernel.params)
    ]
    return [at for at, kind in enumerate(signature.values()) if kind.startswith("*") or looked_at[at]]


def used(log: str) -> dict[str, int]:
    """Registers a thread, and bytes of stack and spills, of what `ptxas -v` says: the largest of what it compiled.
    Raises ValueError where it says nothing."""
    found = {
        "registers": re.findall(r"Used (\d+) registers", log),
        "stack": re.findall(r"(\d+) bytes stack frame", log),
        "spill_stores": re.findall(r"(\d+) bytes spill stores", log),
        "spill_loads": re.findall(r"(\d+) bytes spill loads", log),
    }
    if not all(found.values()):
        raise ValueError(f"ptxas did not say what it used; it said {log!r}")
    return {name: max(map(int, values)) for name, values in found.items()}


if __name__ == "__main__":
    main(sys.argv[1:])

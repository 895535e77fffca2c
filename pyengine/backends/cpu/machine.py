"""What the C++ kernels can do on this machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.problems.problem import Problem
from pyengine.refining import exact

ISAS = ("amx", "avx512", "avx2", "neon", "baseline")
MAX_DIMS = 1 << 16  # sums of byte products stay in int32
MAX_DOCUMENTS = (1 << 31) - 2
LISTED_SHARE = 3  # gathering one row in so many costs less than reading all


def missing() -> str | None:
    """Why they cannot run here, None where they can."""
    kernels = exact.native()
    if kernels is None:
        return "the compiled extension is not built: run 'pip install .' in the source tree (needs a C++ compiler)"
    try:
        kernels.isa()
    except RuntimeError as error:  # PYENGINE_CPU_ISA names what this machine does not have
        return str(error)
    return None


def beyond(dims: int, n_docs: int) -> list[str]:
    """What is too large."""
    found = []
    if dims > MAX_DIMS:
        found.append(f"it takes at most {MAX_DIMS} dimensions, and {dims} are asked for")
    if n_docs > MAX_DOCUMENTS:
        found.append(f"it takes at most {MAX_DOCUMENTS} documents, and there are {n_docs}")
    return found


def isas() -> tuple[str, dict[str, str]]:
    """The instruction set in use, and why no other."""
    kernels = exact.native()
    assert kernels is not None
    taken, present = kernels.isa(), kernels.isas()
    slower = f"{taken} was {'forced' if taken != present[0] else 'taken: it is the fastest here'}"
    rejected = {f"isa {isa}": slower for isa in present if isa != taken}
    return taken, rejected | {f"isa {isa}": "this machine does not have it" for isa in ISAS if isa not in present}


def listed_rows(problem: Problem) -> NDArray[np.int32] | None:
    """The rows that a mask for all queries allows, where they are so few that reading no others saves time."""
    if problem.mask is None or len(problem.mask) != 1 or not problem.docs.checked:
        return None
    if checks.count(problem.mask) * LISTED_SHARE > len(problem.docs) + 7:
        return None
    return np.flatnonzero(checks.unpack(problem.mask, len(problem.docs))[0]).astype(np.int32)

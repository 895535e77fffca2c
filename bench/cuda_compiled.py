"""`python -m bench.cuda_compiled`: compile every CUDA kernel for every chip, without a GPU or its driver, and write
what the compiler says of each, registers, spills and shared memory, to bench/results/cuda-compiled.csv and .md."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyengine.backends.cuda.cuda_kernels import FEW
from pyengine.backends.cuda.cuda_maxsim_backend import MOST_TOKENS
from pyengine.backends.cuda.cuda_maxsim_kernels import kernel_of, shared_bytes
from pyengine.backends.cuda.cuda_windows import SUMS, TOUCHED
from pyengine.kernels import dense_both_plan
from pyengine.kernels.chips import CHIPS, Chip
from pyengine.kernels.dense_forms import MANY, bit_kernel, bit_shared, bit_tiles
from pyengine.kernels.dense_plan import MOST_DIMS, limited_tile, tiles
from pyengine.kernels.dense_sm90_plan import plan_hopper
from pyengine.kernels.maxsim_plan import CUDA_FORMS, cuda_tiles
from pyengine.kernels.maxsim_sm90_plan import PANELS, plan_pages

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "csrc" / "cuda"
TABLE = Path(__file__).parent / "results" / "cuda-compiled.csv"
COLUMNS = ("kernel", "chip", "registers", "stack", "spill_stores", "spill_loads", "static_shared", "dynamic_shared",
           "compiler", "sources")  # fmt: skip
SERIALIZED = re.compile(r"wgmma.*serialized|warpgroup\.\w+ is injected")  # what ptxas does to wgmma that it distrusts
Row = dict[str, str]


def nvcc() -> str | None:
    """The CUDA compiler, as csrc/cuda/build.cmake looks for it; None where there is none."""
    homes = [Path(os.environ[name]) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    places = [*homes, *os.environ.get("PATH", "").split(os.pathsep), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(map(str, places)))


def units() -> list[str]:
    """The files of kernels, by name."""
    return sorted(path.stem for path in SOURCES.glob("*.cu"))


def options() -> list[str]:
    """What build.cmake gives to nvcc, but for the chips."""
    text = (SOURCES / "build.cmake").read_text(encoding="utf-8")
    (listed,) = re.findall(r"set\(NVCC_OPTIONS ([^)]*)\)", text)
    return [each for each in listed.split() if not each.startswith("-gencode") and each != "-fatbin"]


def architectures() -> dict[str, str]:
    """By chip, the architecture that build.cmake compiles for."""
    text = (SOURCES / "build.cmake").read_text(encoding="utf-8")
    return {f"sm_{re.sub('[^0-9]', '', name)}": name for name in re.findall(r"code=\[?(sm_[0-9a-z]+)", text)}


def sources(unit: str) -> str:
    """A digest of all that the code of a file is made from."""
    digest = hashlib.sha256("".join([*options(), *architectures().values()]).encode())
    texts, waiting = dict[str, str](), [f"{unit}.cu"]
    while waiting:
        name = waiting.pop()
        if name not in texts and (SOURCES / name).exists():
            texts[name] = (SOURCES / name).read_text(encoding="utf-8")
            waiting += re.findall(r'#include "([^"]+)"', texts[name])
    for _, text in sorted(texts.items()):
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def dynamic_shared(kernel: str, chip: Chip) -> int:
    """The most that a launch asks for."""
    if kernel == "dense_few":
        return 2 * FEW * MOST_DIMS
    if kernel == "dense_between_bits":
        return bit_shared(MANY, MOST_DIMS // 8)
    if kernel.startswith("dense_between"):
        return limited_tile(chip, "i8").shared_bytes("i8")
    if kernel.startswith(("dense_bits", "dense_signs")):
        return max(bit_shared(tile, MOST_DIMS // 8) for tile in bit_tiles() if kernel == bit_kernel(tile))
    if kernel.endswith("_float32") and kernel.startswith("dense"):
        return max(tile.shared_bytes("fp32") for tile in tiles(chip, "fp32") if f"dense_{tile.queries}_" in kernel)
    if kernel == "dense_both":
        return dense_both_plan.tile_for(chip).shared_bytes("i8")
    if kernel.startswith("sparse_topk"):
        return SUMS + TOUCHED * kernel.endswith("signed")
    if kernel == "maxsim_sm90":
        return max(plan_pages(chip, [tokens]).shared for tokens in PANELS)
    if kernel.startswith("maxsim"):
        asked = [(form, both, tile) for form in CUDA_FORMS for both in (False, True) for tile in cuda_tiles(form, both)]
        of_kernel = [(tile, form) for form, both, tile in asked if kernel == kernel_of(tile, both, form)]
        return max([shared_bytes(tile, MOST_TOKENS, form) for tile, form in of_kernel], default=0)
    own = [tile for tile in tiles(chip, "i8") if f"{kernel}_".startswith(f"dense_{tile.queries}_")]
    if kernel.endswith("_sm90"):
        return max(plan_hopper(chip, own[0], n_bytes, 1, 1).shared for n_bytes in range(1, 2 * MOST_DIMS, 64))
    return max([tile.shared_bytes("i8") for tile in own], default=0)


def chips(unit: str) -> list[Chip]:
    """Those that a file is compiled for."""
    return [chip for chip in CHIPS.values() if not unit.endswith("_sm90") or chip.name == "sm_90"]


def compiled(compiler: str, unit: str, chip: Chip) -> list[Row]:
    """What the compiler uses for the kernels of a file. Raises RuntimeError with what it says where it fails."""
    arch = architectures()[chip.name]
    with tempfile.TemporaryDirectory() as folder:
        target = ["-gencode", f"arch={arch.replace('sm', 'compute')},code={arch}", "-o", f"{folder}/{unit}.cubin"]
        command = [compiler, *options(), "-cubin", "-Xptxas", "-v", *target, str(SOURCES / f"{unit}.cu")]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{unit} does not compile for {chip.name}:\n{done.stderr}")
    if SERIALIZED.search(done.stderr):
        raise RuntimeError(f"{unit} has products that wait for one another on {chip.name}:\n{done.stderr}")
    return [row | {"compiler": version(compiler), "sources": sources(unit)} for row in parsed(done.stderr, chip)]


def version(compiler: str) -> str:
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    return str(re.findall(r"release ([0-9.]+)", said)[0])


def current(compiler: str, unit: str) -> list[Row]:
    """The rows of a file for every chip: those of the table, unless it has changed since."""
    known = [row for row in (read() if TABLE.exists() else []) if row["sources"] == sources(unit)]
    return known or [row for chip in chips(unit) for row in compiled(compiler, unit, chip)]


def parsed(log: str, chip: Chip) -> list[Row]:
    """The rows of what `ptxas -v` prints."""
    found = []
    for part in re.split(r"Function properties for ", log)[1:]:
        kernel = part.split()[0]
        stack, stores, loads = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", part)[:3]
        (registers,) = re.findall(r"Used (\d+) registers", part)
        shared = re.findall(r"(\d+) bytes smem", part) or ["0"]
        facts = kernel, chip.name, registers, stack, stores, loads, shared[0], str(dynamic_shared(kernel, chip))
        found.append(dict(zip(COLUMNS, facts)))
    return found


def faults(rows: Iterable[Row]) -> list[str]:
    """Why the kernels that must not be shipped must not, a sentence each."""
    found = []
    for row in rows:
        name, chip = f"{row['kernel']} on {row['chip']}", CHIPS[row["chip"]]
        if int(row["spill_stores"]) + int(row["spill_loads"]) + int(row["stack"]):
            found.append(f"{name} spills registers, or has arrays in local memory")
        if int(row["registers"]) > chip.registers:
            found.append(f"{name} takes {row['registers']} registers, and a thread has {chip.registers}")
        shared = int(row["static_shared"]) + int(row["dynamic_shared"])
        if shared > chip.shared:
            found.append(f"{name} takes {shared} bytes of shared memory, and the chip has {chip.shared}")
    return found


def read(path: Path = TABLE) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page(rows: Sequence[Row]) -> str:
    """The table to be read."""
    shown = COLUMNS[:-2]
    compilers = ", ".join(sorted({row["compiler"] for row in rows}))
    lines = [
        "# CUDA kernels, compiled",
        "",
        f"Written by `python -m bench.cuda_compiled` with nvcc {compilers}. They have not run on a GPU yet.",
        "Registers of a thread; the others are bytes, of a thread, and shared memory of a block, dynamic at its most.",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in shown) + " |",
        "|---" * len(shown) + "|",
        *("| " + " | ".join(row[name] for name in shown) + " |" for row in rows),
    ]
    return "\n".join([*lines, *(f"- FAULT: {fault}" for fault in faults(rows))]) + "\n"


def main() -> int:
    compiler = nvcc()
    if compiler is None:
        sys.exit("no nvcc was found")
    rows = [row for unit in units() for row in current(compiler, unit)]
    rows.sort(key=lambda row: (row["kernel"], CHIPS[row["chip"]].capability))
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    TABLE.with_suffix(".md").write_text(page(rows), encoding="utf-8")
    for fault in faults(rows):
        print(fault)
    print(f"wrote {TABLE}: {len(rows)} compiled kernels")
    return 1 if faults(rows) else 0


if __name__ == "__main__":
    sys.exit(main())

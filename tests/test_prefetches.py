"""Prefetches that cost nothing to lose but time: GCC may take a function that only prefetches for one that does
nothing, and drop its calls. Their callers' machine code is looked at."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", f"-I{ROOT}/csrc"]
LINK_TIME = ("cpu/rows.cpp", "cpu/refine.cpp")  # one unit, as these are when the extension is linked


@pytest.mark.parametrize(
    ("sources", "caller", "least"),
    [
        (LINK_TIME, "norms", 1),  # RowReader::soon
        (LINK_TIME, "refine|Scorer", 2),  # and the slices
        (("cpu/dense.cpp",), "sharpen", 3),  # codes, scale, residual
        (("cpu/dense.cpp",), "scan_group", 1),  # a pool's next place
        (("cpu/sparse_refine.cpp",), "refine_sparse", 4),  # offsets, terms of two lengths, weights
        (("cpu/sparse_reader.cpp",), "PostingReader", 3),  # documents and levels of a list, rare postings
    ],
)
def test_prefetches_are_kept(sources: tuple[str, ...], caller: str, least: int) -> None:
    if platform.machine() != "x86_64" or shutil.which("g++") is None:
        pytest.skip("needs g++ for x86-64")
    unit = "".join(f'#include "{source}"\n' for source in sources)
    command = ["g++", *FLAGS, "-x", "c++", "-S", "-o", "-", "-"]
    made = subprocess.run(command, input=unit, capture_output=True, text=True, check=True).stdout
    functions = re.split(r"^(\w\S*):\n", made, flags=re.MULTILINE)[1:]  # names (mangled) and bodies by turns
    kept = [body.count("\tprefetch") for name, body in zip(functions[::2], functions[1::2]) if re.search(caller, name)]
    assert max(kept, default=0) >= least

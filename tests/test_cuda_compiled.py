"""What the CUDA kernels are compiled to, on every chip; and whether the gate would notice a bad one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench import cuda_compiled
from pyengine.backends.cuda.cuda_maxsim_kernels import OWN_SHARED, kernel_of
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.dense_forms import bit_kernel, bit_tiles
from pyengine.kernels.dense_plan import tiles
from pyengine.kernels.maxsim_plan import CUDA_FORMS, cuda_tiles
from pyengine.refining import exact

native = exact.native()
COMPILER = cuda_compiled.nvcc()
needs_nvcc = pytest.mark.skipif(COMPILER is None, reason="no nvcc")
LOG = """ptxas info    : Compiling entry function 'dense_16' for 'sm_80'
ptxas info    : Function properties for dense_16
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 90000 bytes smem
ptxas info    : Compiling entry function 'refine_int8' for 'sm_80'
ptxas info    : Function properties for refine_int8
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers
"""


def test_the_table_is_that_of_the_sources_and_without_faults() -> None:
    rows = cuda_compiled.read()
    known = {row["sources"] for row in rows}
    old = [unit for unit in cuda_compiled.units() if cuda_compiled.sources(unit) not in known]
    assert not old, "changed since the table was written: run 'python -m bench.cuda_compiled'"
    assert len(known) == len(cuda_compiled.units())
    assert not cuda_compiled.faults(rows)
    assert cuda_compiled.page(rows) == cuda_compiled.TABLE.with_suffix(".md").read_text(encoding="utf-8")


def test_every_kernel_that_a_plan_asks_for_is_there_for_every_chip() -> None:
    rows = cuda_compiled.read()
    for chip in CHIPS.values():
        there = {row["kernel"] for row in rows if row["chip"] == chip.name}
        assert {"dense_few", "tighten", "select_best", "code_queries", "refine_int8"} <= there
        forms = ["", "_float16", "_bfloat16"] + ["_sm90", "_float16_sm90", "_bfloat16_sm90"] * (chip.name == "sm_90")
        assert {f"dense_{tile.queries}{form}" for tile in tiles(chip, "i8") for form in forms} <= there
        assert {
            *(f"dense_between{form}" for form in ("", "_float16", "_bfloat16", "_float32", "_bits")),
            "count_before",
            "dense_both",
        } <= there
        assert {f"dense_{tile.queries}_float32" for tile in tiles(chip, "fp32")} <= there
        assert {"split_queries", "refine_bits", *map(bit_kernel, bit_tiles())} <= there
        assert {"sparse_topk", "sparse_topk_signed", "sparse_refine_uint16_float16", "sliced_refine"} <= there
        for form in CUDA_FORMS:
            for both in (False, True):
                assert {kernel_of(tile, both, form) for tile in cuda_tiles(form, both)} <= there
        assert {"maxsim_sum", "maxsim_maxima_int8", "token_norms_int8", "maxsim_maxima_packed", "maxsim_pack"} <= there
    assert set(cuda_compiled.architectures()) == set(CHIPS)


def test_what_kernels_have_of_their_own_is_as_planned() -> None:
    """Shared memory beside what a launch asks for: plans for chips with little of it count on these figures."""
    own = {(row["kernel"], row["chip"]): int(row["static_shared"]) for row in cuda_compiled.read()}
    for chip in CHIPS.values():
        for tile in tiles(chip, "i8"):
            for form in ("", "_float16", "_bfloat16"):
                assert own[f"dense_{tile.queries}{form}", chip.name] == tile.cuda_bytes("i8") - tile.shared_bytes("i8")
    scans = [bytes_own for (kernel, _), bytes_own in own.items() if re.match(r"maxsim_(packed\d_)?\d+_", kernel)]
    assert 0 < max(scans) <= OWN_SHARED


def test_what_fits_sm_80_fits_chips_with_less_shared_memory() -> None:
    """But for kernels whose plans take fewer stages there, or shorter queries."""
    planned = re.compile(r"dense_128|maxsim_(packed\d_)?\d+_(steps|both)")
    rows = [row for row in cuda_compiled.read() if row["chip"] == "sm_80" and not planned.match(row["kernel"])]
    assert {"dense_64", "dense_between_float16", "dense_both", "sparse_topk_signed"} <= {row["kernel"] for row in rows}
    assert max(int(row["static_shared"]) + int(row["dynamic_shared"]) for row in rows) <= 101_376


def test_registers_that_warpgroups_take_are_given() -> None:
    """Of 384 threads: one warpgroup goes down to 40, two up to 232. With fewer at first they would wait forever."""
    wide = [row for row in cuda_compiled.read() if re.match(r"dense_(64|128)\w*_sm90|maxsim_sm90", row["kernel"])]
    assert len(wide) == 7
    assert {row["registers"] for row in wide} == {"168"}
    assert 3 * 168 == 40 + 2 * 232


def test_a_bad_kernel_is_noticed() -> None:
    bad, good = cuda_compiled.parsed(LOG, CHIPS["sm_80"])
    assert cuda_compiled.faults([bad]) == [
        "dense_16 on sm_80 spills registers, or has arrays in local memory",
        "dense_16 on sm_80 takes 171920 bytes of shared memory, and the chip has 166912",
    ]
    assert not cuda_compiled.faults([good])
    assert cuda_compiled.faults([good | {"registers": "256"}])


@needs_nvcc
@pytest.mark.parametrize("unit", ["refine"])
def test_some_of_the_table_is_what_the_compiler_says_now(unit: str) -> None:
    table = [row for row in cuda_compiled.read() if row["sources"] == cuda_compiled.sources(unit)]
    if cuda_compiled.version(str(COMPILER)) != table[0]["compiler"]:
        pytest.skip("the table is of another nvcc")
    again = cuda_compiled.compiled(str(COMPILER), unit, CHIPS["sm_90"])
    assert sorted(again, key=str) == sorted((row for row in table if row["chip"] == "sm_90"), key=str)


@needs_nvcc
@pytest.mark.parametrize("unit", ["refine", "maxsim_refine", "sparse_refine"])
def test_nothing_is_contracted(unit: str, tmp_path: Path) -> None:
    """The specification rounds each product and each sum on its own, and divides and takes roots to the nearest."""
    target = tmp_path / f"{unit}.ptx"
    source = cuda_compiled.SOURCES / f"{unit}.cu"
    subprocess.run([str(COMPILER), *cuda_compiled.options(), "-ptx", "-o", str(target), str(source)], check=True)
    text = target.read_text()
    assert "fma." not in text
    assert unit != "refine" or {"div.rn.f64", "sqrt.rn.f64"} <= set(text.split())


@pytest.mark.skipif(native is None or not shutil.which("ldd"), reason="no extension, or no ldd")
def test_nothing_of_cuda_is_linked() -> None:
    linked = subprocess.run(["ldd", str(getattr(native, "__file__", ""))], capture_output=True, text=True).stdout
    assert "libc" in linked
    assert "libcuda" not in linked
    assert "libnv" not in linked

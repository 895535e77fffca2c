"""The ahead-of-time gate: every compiled form that is shipped, and whether the gate would notice a bad one."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import ahead_of_time, compiled
from bench.ahead_of_time import Row
from pyengine.kernels.chips import CHIPS

TESTS = Path(__file__).parent
needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="triton is not installed")
LOG = """ptxas info    : Compiling entry function 'scan' for 'sm_90a'
ptxas info    : Function properties for scan
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers
"""


@needs_triton
def test_the_table_is_that_of_the_sources_and_without_faults() -> None:
    """Compiles what has changed since it was written."""
    table = ahead_of_time.read()
    made_with = {row["triton"] for row in table} - {version("triton")}
    if made_with:
        pytest.skip(f"the table is of triton {', '.join(made_with)}, and {version('triton')} is installed")
    rows = ahead_of_time.current(table)
    assert not ahead_of_time.faults(rows)
    assert rows == table, "run 'make ahead-of-time'"
    assert ahead_of_time.page(rows) == ahead_of_time.TABLE.with_suffix(".md").read_text(encoding="utf-8")


def test_every_module_with_compiled_forms_is_in_the_table_for_every_chip() -> None:
    there = {(row["module"], row["chip"]) for row in ahead_of_time.read()}
    assert there == {(module, chip) for module in ahead_of_time.modules() for chip in CHIPS}


@pytest.fixture(scope="module")
def bad() -> list[Row]:
    """The forms of `tests.triton_kernels`, for one chip."""
    found, failure = ahead_of_time.compile_module("tests.triton_kernels", "sm_80")
    assert not failure
    return [{**dict.fromkeys(ahead_of_time.COLUMNS, ""), **row, "chip": "sm_80"} for row in found]


@needs_triton
def test_the_compiler_says_what_it_used(bad: list[Row]) -> None:
    good = bad[0]
    assert good["form"] == "size=64"
    assert 0 < int(good["registers"]) <= 255
    assert int(good["shared"]) >= 2 * 64 * 64 * 2  # both operands, fp16
    assert good["spill_stores"] == good["spill_loads"] == "0"


@needs_triton
def test_a_form_that_must_not_be_shipped_is_a_fault(bad: list[Row]) -> None:
    faults = ahead_of_time.faults(bad)
    assert not any("(size=64)" in fault or "(size=32)" in fault for fault in faults)
    assert any(
        "product (size=256)" in fault and "bytes of shared memory, and the chip has 166912" in fault for fault in faults
    )
    assert any("hoard (size=8192)" in fault and "bytes of registers" in fault for fault in faults)
    assert any("convert (size=100) on sm_80 does not compile: CompilationError" in fault for fault in faults)
    assert len({fault.split(" on ")[0] for fault in faults}) == 3


@needs_triton
def test_what_is_known_is_not_compiled_again(bad: list[Row]) -> None:
    again, failure = ahead_of_time.compile_module("tests.triton_kernels", "sm_80", [row["key"] for row in bad])
    assert not failure
    assert [row["key"] for row in again] == [row["key"] for row in bad]
    assert not any("registers" in row or "error" in row for row in again)


@needs_triton
def test_a_module_that_ends_the_process_is_a_fault() -> None:
    found, failure = ahead_of_time.compile_module("tests.no_such_kernels", "sm_90")
    assert not found
    assert "No module named 'tests.no_such_kernels'" in failure


def test_only_what_changed_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("chips.py", "plan.py"):
        shutil.copy(ahead_of_time.KERNELS / name, tmp_path)
    (tmp_path / "one_topk.py").write_text("from pyengine.kernels import one_plan\ndef shipped(chip): ...\n")
    (tmp_path / "two_topk.py").write_text("from pyengine.kernels.chips import Chip\ndef shipped(chip): ...\n")
    (tmp_path / "one_plan.py").write_text("TILES = 1\n")
    calls: list[tuple[str, str, list[str]]] = []

    def compile_module(module: str, chip: str, known: list[str]) -> tuple[list[Row], str]:
        calls.append((module, chip, known))
        used = dict.fromkeys(ahead_of_time.USED, "0") | {"error": ""}
        new = {} if known else used
        return [{"kernel": "topk:scan", "form": "", "num_warps": "4", "num_stages": "1", "key": f"k-{chip}", **new}], ""

    monkeypatch.setattr(ahead_of_time, "compile_module", compile_module)
    monkeypatch.setattr(ahead_of_time, "version", lambda name: "3.9.0")
    first = ahead_of_time.current([], folder=tmp_path)
    assert {(module, chip) for module, chip, known in calls} == {
        (f"pyengine.kernels.{name}_topk", chip) for name in ("one", "two") for chip in CHIPS
    }
    assert ahead_of_time.current(first, folder=tmp_path) == first
    assert len(calls) == 2 * len(CHIPS)
    (tmp_path / "one_plan.py").write_text("TILES = 2\n")
    later = ahead_of_time.current(first, folder=tmp_path)
    assert calls[2 * len(CHIPS) :] == [("pyengine.kernels.one_topk", chip, [f"k-{chip}"]) for chip in CHIPS]
    assert [row["registers"] for row in later] == ["0"] * len(later)
    assert [row["sources"] for row in later] != [row["sources"] for row in first]


def test_the_log_of_ptxas_is_read() -> None:
    assert compiled.used(LOG) == {"registers": 168, "stack": 8, "spill_stores": 4, "spill_loads": 12}
    with pytest.raises(ValueError, match="did not say what it used; it said ''"):
        compiled.used("")

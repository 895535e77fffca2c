"""The ahead-of-time gate: every compiled form that is shipped, and whether the gate would notice a bad one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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


def test_the_table_is_that_of_the_sources_and_without_faults() -> None:
    rows = ahead_of_time.read()
    old = sorted({row["module"] for row in rows if row["sources"] != ahead_of_time.sources(row["module"])})
    assert not old, "changed since the table was written: run 'make ahead-of-time'"
    assert not ahead_of_time.faults(rows)
    assert ahead_of_time.page(rows) == ahead_of_time.TABLE.with_suffix(".md").read_text(encoding="utf-8")


@needs_triton
def test_some_of_the_table_is_what_the_compiler_says_now() -> None:
    """A form of each chip, drawn anew for each change of its module."""
    table = ahead_of_time.read()
    made_with = {row["triton"] for row in table} - {version("triton")}
    if made_with:
        pytest.skip(f"the table is of triton {', '.join(made_with)}, and {version('triton')} is installed")
    for chip in CHIPS:
        rows = [row for row in table if row["chip"] == chip]
        for drawn in sorted(rows, key=lambda row: row["sources"] + row["key"])[:1]:
            known = [row["key"] for row in rows if row["key"] != drawn["key"]]
            found = ahead_of_time.compile_module(f"pyengine.kernels.{drawn['module']}", chip, known)
            (again,) = (row for row in found if "registers" in row)
            assert {**drawn, **again} == drawn


def test_every_module_with_compiled_forms_is_in_the_table_for_every_chip() -> None:
    there = {(row["module"], row["chip"]) for row in ahead_of_time.read()}
    assert there == {(module, chip) for module in ahead_of_time.modules() for chip in CHIPS}


@pytest.fixture(scope="module")
def bad() -> list[Row]:
    """The forms of `tests.triton_kernels`, for one chip."""
    found = ahead_of_time.compile_module("tests.triton_kernels", "sm_80")
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
    again = list(ahead_of_time.compile_module("tests.triton_kernels", "sm_80", [row["key"] for row in bad]))
    assert [row["key"] for row in again] == [row["key"] for row in bad]
    assert not any("registers" in row or "error" in row for row in again)


@needs_triton
def test_lines_above_a_kernel_do_not_matter(bad: list[Row], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "shifted").mkdir()
    source = (TESTS / "triton_kernels.py").read_text(encoding="utf-8")
    (tmp_path / "shifted" / "triton_kernels.py").write_text("\n" + source, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    keys = [row["key"] for row in bad]
    again = ahead_of_time.compile_module("shifted.triton_kernels", "sm_80", keys)
    assert [row["key"] for row in again] == keys


@needs_triton
def test_a_module_that_ends_the_process_is_a_fault() -> None:
    (row,) = ahead_of_time.compile_module("tests.no_such_kernels", "sm_90")
    assert "No module named 'tests.no_such_kernels'" in row["error"]


def test_only_what_changed_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("chips.py", "plan.py"):
        shutil.copy(ahead_of_time.KERNELS / name, tmp_path)
    (tmp_path / "one_topk.py").write_text("from pyengine.kernels import one_plan\ndef shipped(chip): ...\n")
    (tmp_path / "two_topk.py").write_text("from pyengine.kernels.chips import Chip\ndef shipped(chip): ...\n")
    (tmp_path / "one_plan.py").write_text("TILES = 1\n")
    calls: list[tuple[str, str, list[str]]] = []

    def compile_module(module: str, chip: str, known: list[str]) -> list[Row]:
        calls.append((module, chip, known))
        used = dict.fromkeys(ahead_of_time.USED, "0") | {"error": ""}
        new = {} if known else used
        return [{"kernel": "topk:scan", "form": "", "num_warps": "4", "num_stages": "1", "key": f"k-{chip}", **new}]

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
    assert sorted(calls[2 * len(CHIPS) :]) == sorted(
        ("pyengine.kernels.one_topk", each, [f"k-{each}"]) for each in CHIPS
    )
    assert [row["registers"] for row in later] == ["0"] * len(later)
    assert [row["sources"] for row in later] != [row["sources"] for row in first]


def test_a_run_that_was_stopped_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one_topk.py").write_text("def shipped(chip): ...\n")
    kept: list[list[Row]] = []

    def compile_module(module: str, chip: str, known: list[str]) -> Iterator[Row]:
        yield {"kernel": "one_topk:scan", "key": f"first-{chip}", "registers": "7"}
        raise InterruptedError

    monkeypatch.setattr(ahead_of_time, "compile_module", compile_module)
    monkeypatch.setattr(ahead_of_time, "version", lambda name: "3.9.0")
    monkeypatch.setattr(ahead_of_time, "KEPT_EVERY", -1.0)
    with pytest.raises(InterruptedError):
        ahead_of_time.current([], folder=tmp_path, keep=kept.append)
    assert kept[-1][0]["registers"] == "7"
    assert kept[-1][0]["sources"] == ""  # so that the module is not taken for done

    def rest(module: str, chip: str, known: list[str]) -> list[Row]:
        again = [{"kernel": "one_topk:scan", "key": key} for key in known]
        return [*again, {"kernel": "one_topk:scan", "key": f"second-{chip}", "registers": "8"}]

    monkeypatch.setattr(ahead_of_time, "compile_module", rest)
    rows = [row for row in ahead_of_time.current(kept[-1], folder=tmp_path) if row["chip"] == kept[-1][0]["chip"]]
    assert [row["registers"] for row in rows] == ["7", "8"]
    assert all(row["sources"] for row in rows)


def test_the_log_of_ptxas_is_read() -> None:
    assert compiled.used(LOG) == {"registers": 168, "stack": 8, "spill_stores": 4, "spill_loads": 12}
    with pytest.raises(ValueError, match="did not say what it used; it said ''"):
        compiled.used("")

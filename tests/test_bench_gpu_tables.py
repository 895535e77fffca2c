"""What `bench.gpu` measures, and the pages and tables that it writes. Times here are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")
from bench import registry
from bench.gpus import gpu_report, gpu_shapes, gpu_table, gpu_work
from bench.gpus.gpu_report import Gate, Run
from bench.gpus.gpu_shapes import FAMILIES, TARGETS
from bench.racing.gate import Verdict
from bench.racing.row import Row
from pyengine.kernels import measured
from tests.gpu_toy import CEILINGS, MACHINE, made_up


def test_the_issue_s_rows_are_there() -> None:
    asked = [workload for family in FAMILIES.values() for heat in family.heats for workload in heat.workloads]
    assert {each for each in asked if each in TARGETS} == set(TARGETS)
    assert len(set(asked)) == len(asked)
    for family in FAMILIES.values():
        assert family.quick
        assert all(heat.table in registry.TABLES for heat in family.heats)
        assert set(gpu_work.CASES) == set(FAMILIES)


def test_floors_are_the_larger_of_bytes_and_operations() -> None:
    fp16, int8 = 2 * gpu_shapes.FEW.n_values, gpu_shapes.FEW.n_values
    assert fp16 == 2 * 5_000_000 * 768
    assert CEILINGS.floor(fp16, gpu_shapes.FEW.operations, "float16") == fp16 / 1e12
    assert CEILINGS.floor(int8, gpu_shapes.FEW.operations, "int8") == int8 / 1e12
    wide = gpu_shapes.WIDE.operations
    assert wide == 2 * 4096 * 1_000_000 * 768
    assert CEILINGS.floor(2 * gpu_shapes.WIDE.n_values, wide, "bf16") == wide / 1e14
    assert CEILINGS.floor(1e12, 1e20, "none") == 1.0
    assert CEILINGS.floor(1e12, 1e20, "fp8") is None
    assert gpu_shapes.TEXTS.n_values == 10_000 * 300 * 128
    assert gpu_shapes.PAGES.operations == 2 * 1024 * 1000 * 1024 * 128


def test_who_was_faster_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line for each class of shapes, in the place of what was known; the registry goes by it."""
    few, many = gpu_shapes.ONE, gpu_shapes.WIDE
    times = {("triton", few): 4.0, ("cuda", few): 1.0, ("triton", many): 1.0, ("cuda", many): 2.0}
    rows = [
        Row("gpu-dense", work, f"{name}-{store}", 1, "ours", Verdict(True, 1.0, ""), made_up(seconds * scale))
        for (name, work), seconds in times.items()
        for store, scale in (("int8", 1.0), ("float16", 2.0))
    ]
    run = Run("dense", MACHINE, CEILINGS, {}, rows, 1.0)
    assert "| int8 | 4,000 | 1,000 | 4 |" in gpu_report.page(run)
    table = tmp_path / "measured.csv"
    known = 'sm_90,dense,"few queries, short lists",triton,9,old,2020-01-01'
    table.write_text(",".join(measured.COLUMNS) + f"\n{known}\n")
    monkeypatch.setattr(measured, "TABLE", table)
    monkeypatch.setattr(gpu_table, "TABLE", table)
    gpu_table.save([run])
    assert table.read_text().splitlines()[1:] == [
        'sm_90,dense,"few queries, short lists",cuda,4.00,Made-up GPU,2026-01-01',
        'sm_90,dense,"many queries, short lists",triton,2.00,Made-up GPU,2026-01-01',
    ]
    assert measured.faster("sm_90", "dense", 3, 10) == "cuda"
    assert measured.faster("sm_90", "dense", 1000, 10) == "triton"
    assert measured.faster("sm_90", "dense", 3, 1000) is None
    assert measured.faster("sm_80", "dense", 3, 10) is None
    measured.table.cache_clear()


def test_nothing_is_measured_yet() -> None:
    assert measured.lines() == []  # until somebody has run `bench.gpu --save-table` on a GPU: then delete this


def test_the_page_and_the_json_tell_all(tmp_path: Path) -> None:
    work, exact = gpu_shapes.FEW, Verdict(True, 1.0, "")
    floor = CEILINGS.floor(work.n_values, work.operations, "int8")
    rows = [
        Row("gpu-dense", work, "triton-int8", 1, "ours", exact, made_up(0.005), 2.5, n_bytes=10**9,
            operations=work.operations, floor=floor),
        Row("gpu-dense", work, "torch-float16", 1, "peer", Verdict(False, 0.999, "an id"), made_up(0.0125), n_bytes=2),
        Row("gpu-dense", work, "cuvs", 1, note="pip install cuvs-cu13 (No module named 'cuvs')"),
        Row("gpu-dense", work, "triton-float16", 1, "ours", Verdict(False, 0.5, "query 1"), note="query 1 | place 2"),
    ]  # fmt: skip
    run = Run("dense", MACHINE, CEILINGS, {"triton": Gate(7, 1, 9), "cuda": Gate(absent="why")}, rows, 12.34)
    assert run.wrong
    sheet, text = gpu_report.save(run, tmp_path / "new", quick=True)
    assert sheet.name == "2026-01-01-made-up-gpu-gpu-dense-quick.json"
    page = text.read_text()
    assert "To reach: 85 % of the copy rate" in page
    assert "| triton-int8 | yes | 5 | 3.84 | 77% | 2.5 | 1 | 492 |  |  |" in page
    assert "| torch-float16 | recall 0.9990 | 12.5 |" in page
    assert "| cuvs |  |  |  |  |  |  |  |  | pip install cuvs-cu13 (No module named 'cuvs') |" in page
    assert "WRONG: query 1 / place 2" in page
    assert "- triton, conformance: 7 cases passed, 1 refused, 1 left out for want of time" in page
    assert "- cuda, conformance: not here: why" in page
    found = json.loads(sheet.read_text())
    assert found["machine"]["driver"] == "1.2"
    assert found["ceilings"]["copy"] == 1e12
    assert found["rows"][0]["all_ms"] == [5.0, 5.0, 5.0]
    assert found["rows"][0]["bytes"] == 10**9
    assert found["rows"][3]["p50_ms"] is None

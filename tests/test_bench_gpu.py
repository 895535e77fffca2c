"""`bench.gpu` where there is no GPU: its workloads, floors, gate and pages, and its contestants on the CPU. Times here
are made up, and say so."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")
import pyengine
from bench import gpu, registry
from bench.gpus import (
    gpu_arena,
    gpu_contestants,
    gpu_machine,
    gpu_report,
    gpu_sanitizer,
    gpu_shapes,
    gpu_table,
    gpu_work,
)
from bench.gpus.gpu_apart import Told
from bench.gpus.gpu_machine import Gpu, GpuCeilings
from bench.gpus.gpu_report import Gate, Run
from bench.gpus.gpu_shapes import FAMILIES, TARGETS
from bench.ours.contestants import Contestant, index
from bench.racing import measure, race
from bench.racing.gate import Verdict
from bench.racing.race import Settings
from bench.racing.row import Row
from bench.racing.timing import Samples
from bench.workloads.shapes import Heat
from bench.workloads.token_shapes import Lengths
from pyengine import conformance
from pyengine.backends.triton import triton_backend
from pyengine.kernels import measured

ROOT = Path(__file__).parent.parent
CEILINGS = GpuCeilings(1e12, {"float32": 1e13, "bf16": 1e14, "float16": 1e14, "int8": 2e14})
MACHINE = Gpu(
    "2026-01-01", "Made-up GPU", 1, 1, "sm_90", "made up", "abc", "", driver="1.2", host="no machine: a test"
)  # fmt: skip
SETTINGS = Settings(CEILINGS, rounds=3, seconds=5.0)
SHORT = Lengths(3, 3, 3)


def made_up(seconds: float) -> Samples:
    return Samples([seconds] * 3, [0.0] * 3, [0, 1, 2])


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


def test_without_a_gpu_it_says_so_and_exits_with_2(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(gpu_machine, "missing", lambda: "bench.gpu needs an NVIDIA GPU, and torch finds none")
    assert gpu.main(["--quick"]) == 2
    assert capsys.readouterr().err == "bench.gpu needs an NVIDIA GPU, and torch finds none\n"


def test_why_it_cannot_run_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_machine.missing() == "bench.gpu needs an NVIDIA GPU, and torch finds none on this machine"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu_machine.missing() is None
    monkeypatch.setitem(sys.modules, "torch", None)
    assert str(gpu_machine.missing()).startswith("bench.gpu needs torch: pip install torch")


@pytest.mark.parametrize("arguments", [["--family", "images"], ["--budget", "0.0", "--budget", "-1"], ["--fast"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main(arguments)
    assert stopped.value.code == 2


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is made up, both backends, and every step in this process."""
    pytest.importorskip("torch")
    monkeypatch.setattr(gpu_machine, "missing", lambda: None)
    monkeypatch.setattr(gpu_machine, "here", lambda: MACHINE)
    monkeypatch.setattr(gpu_machine, "measure", lambda: CEILINGS)
    absent = lambda name, family: "" if "dense" in family or "triton" in name else "no kernels"  # noqa: E731
    monkeypatch.setattr(gpu, "_absent", absent)
    for module in (gpu, gpu_work):
        monkeypatch.setattr(module, "apart", at_once)


def at_once(end: float, work: Callable[..., object], *arguments: Any) -> Told:
    """`apart` without a process: whoever raises `Died` is one that died."""
    told: list[Any] = [None]
    try:
        work(told.append, *arguments)
    except Died as death:
        return Told(told[-1], str(death))
    return Told(told[-1])


class Died(Exception):
    """In the place of a process that dies."""


@pytest.mark.parametrize("died", [False, True])
def test_the_gate_counts_what_was_passed_and_refused(died: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def run(case: int, backend: str) -> list[str]:
        seen.append(case)
        return ["no such metric"] if case % 2 else []

    told: list[Gate] = []
    monkeypatch.setattr(conformance, "run", run)
    monkeypatch.setitem(gpu_work.CASES, "dense", lambda: range(10))
    gpu_work.conformant(told.append, "dense", "triton", 60.0)
    assert told[-1] == Gate(5, 5, 10)
    assert sorted(seen) == list(range(10))
    gpu_work.conformant(told.append, "dense", "triton", -1.0)
    assert told[-1] == Gate(0, 0, 10, "no case was passed")
    failure = "its process ended with status -11" * died
    monkeypatch.setattr(gpu_work, "apart", lambda *given: Told(told[9], failure))
    assert gpu_work.gate("dense", "triton", 1.0) == Gate(5, 5, 10, failure)
    monkeypatch.setattr(gpu_work, "apart", lambda *given: Told(None, "it was stopped: its time was over"))
    assert gpu_work.gate("dense", "triton", 1.0).failure == "it was stopped: its time was over"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("bad", ["triton", "cuda"])
def test_a_backend_that_fails_its_gate_has_no_speed_and_the_other_has(
    bad: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(case: Any, backend: str) -> list[str]:
        if backend == bad:
            raise conformance.Nonconformance("query 3, place 1")
        return []

    monkeypatch.setattr(conformance, "run", run)
    monkeypatch.setattr(gpu_work, "raced", lambda tell, family, backends, *rest: tell([row_of(*backends)]))
    assert gpu.main(["--quick", "--family", "dense", "--out", str(tmp_path)]) == 1
    (sheet,) = tmp_path.glob("*.json")
    found = json.loads(sheet.read_text())
    other = {"triton": "cuda", "cuda": "triton"}[bad]
    assert [row["contestant"] for row in found["rows"]] == [f"{other}-int8"]
    assert found["gates"][bad]["failure"] == "Nonconformance: query 3, place 1"
    assert not found["gates"][other]["failure"]
    page = sheet.with_suffix(".md").read_text()
    assert f"{bad}, conformance: FAILED, so that no speed of it is reported: Nonconformance: query 3, place 1" in page


def row_of(*backends: str, seconds: float = 0.001, failed: bool = False, note: str = "") -> Row:
    row = Row("gpu-dense", gpu_shapes.ONE, f"{'+'.join(backends)}-int8", 1, "ours", note=note, failed=failed)
    return row if failed else replace(row, verdict=Verdict(True, 1.0, ""), samples=made_up(seconds))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("how", ["dies", "fails"])
def test_a_race_that_one_breaks_is_repeated_without_it(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured before stays as it is; what came later is raced by each of them alone."""
    heats = FAMILIES["dense"].heats[:2]
    good, bad = (heat.workloads[0] for heat in heats)
    raced: list[list[str]] = []

    def race(tell: Any, family: str, backends: list[str], heats: Any, *rest: Any) -> None:
        raced.append([*backends, *(heat.workloads[0].name for heat in heats)])
        rows: list[Row] = []
        for work in (heat.workloads[0] for heat in heats):
            broken = work == bad and "cuda" in backends
            if broken and how == "dies":
                raise Died("its process ended with status -9")
            rows.append(replace(row_of(*backends, failed=broken, note="an error" * broken), workload=work))
            tell(list(rows))

    monkeypatch.setattr(gpu_work, "raced", race)
    rows = gpu_work.figures("dense", ["triton", "cuda"], heats, CEILINGS, 0.1, time.monotonic() + 9)
    assert raced == [["triton", "cuda", good.name, bad.name], ["triton", bad.name], ["cuda", bad.name]]
    assert [(row.workload, row.samples is None) for row in rows] == [(good, False), (bad, False), (bad, True)]
    why = {"dies": "its process ended with status -9", "fails": "an error"}[how]
    alone = "raced with one of ours alone"
    assert [row.note for row in rows] == ["", alone, f"{why}; {alone}"]


@pytest.mark.usefixtures("here")
def test_what_a_process_took_with_it_is_said() -> None:
    def race(tell: Any, *rest: Any) -> None:
        raise Died("it was stopped: its time was over")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_work, "raced", race)
        rows = gpu_work.figures("dense", ["cuda"], FAMILIES["dense"].quick, CEILINGS, 0.1, time.monotonic() + 9)
    assert {(row.contestant, row.note) for row in rows} == {("cuda", "it was stopped: its time was over")}
    assert len(rows) == 2
    assert all(row.wrong for row in rows)


@pytest.mark.usefixtures("here")
def test_families_share_the_time_and_backends_take_those_they_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    budgets: list[tuple[str, float]] = []

    def measured(family: Any, options: Any, machine: Any, ceilings: Any, budget: float) -> Run:
        budgets.append((family.name, budget))
        return Run(family.name, machine, ceilings, {}, [], 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "_measured", measured)
        assert gpu.main(["--quick", "--out", str(tmp_path)]) == 0
    assert [name for name, _ in budgets] == list(FAMILIES)
    assert [budget for _, budget in budgets] == pytest.approx([60, 90, 180], abs=2)
    monkeypatch.setattr(gpu_work, "gate", lambda *given: Gate(1, 0, 1))
    monkeypatch.setattr(gpu_work, "figures", lambda family, backends, *rest: [row_of(*backends)])
    for asked, there in (("both", "triton"), ("triton", "triton"), ("cuda", None)):
        assert gpu.main(["--quick", "--family", "sparse", "--backend", asked, "--out", str(tmp_path)]) == 0
        (sheet,) = tmp_path.glob("*sparse*.json")
        found = json.loads(sheet.read_text())
        assert [row["contestant"] for row in found["rows"]] == ([f"{there}-int8"] if there else [])
        assert (found["gates"].get("cuda", {}).get("absent") == "no kernels") == (asked != "triton")


def test_the_sanitizer_looks_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a tool that finds errors in one of its modes, fails in another, and is content in the third."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        '#!/bin/sh\necho "$@"\ncase $1 in *memcheck) exit 86;; *racecheck) exit 3;; esac\n', encoding="utf-8"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said, clean = gpu_sanitizer.check([("dense", "cuda")], tmp_path / "out")
    assert not clean
    assert said == [
        "compute-sanitizer memcheck, dense by cuda: errors were found: see sanitizer.txt",
        "compute-sanitizer racecheck, dense by cuda: the search failed with status 3",
        "compute-sanitizer initcheck, dense by cuda: clean",
    ]
    report = (tmp_path / "out" / "sanitizer.txt").read_text()
    assert f"--tool=initcheck --error-exitcode=86 {sys.executable} -m bench.gpus.gpu_sanitizer dense cuda" in report
    tool.unlink()
    monkeypatch.setattr(gpu_sanitizer, "PLACES", ())
    assert gpu_sanitizer.check([], tmp_path) == (
        ["compute-sanitizer: not installed, so that nothing was looked for"],
        True,
    )


def test_what_the_sanitizer_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_sanitizer.search("dense", "numpy") == gpu_sanitizer.CHECKED
    monkeypatch.setattr(gpu_sanitizer, "exact_search", lambda problem, backend: conformance.specified(problem)._replace(
        ids=np.full((problem.n_queries, problem.k), -7)))  # fmt: skip
    with pytest.raises(conformance.Nonconformance):
        gpu_sanitizer.search("dense", "numpy")


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


def test_what_does_not_fit_in_the_time_is_skipped_and_said_to_be() -> None:
    family = FAMILIES["dense"]
    rows = gpu_work.measure("dense", family.heats, SETTINGS, registry.Choice(), end=0.0)
    assert {row.workload for row in rows} == {each for heat in family.heats for each in heat.workloads}
    assert all(row.note.startswith("skipped: it would take about") and row.samples is None for row in rows)


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


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be on a GPU is on the CPU, and nothing is captured."""
    pytest.importorskip("torch")
    monkeypatch.setattr(gpu_contestants, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_contestants, "_graphed", lambda score: score)
    for arena in (gpu_arena.GpuArena, gpu_arena.GpuTokenArena, gpu_arena.GpuSparseArena):
        monkeypatch.setattr(arena, "device", "cpu")


def raced(heat: Heat, keep: Callable[[Any], bool], ours: tuple[Any, ...] = ()) -> dict[str, Row]:
    """By contestant: those of the table that are to be kept, and others in the place of ours."""
    with pytest.MonkeyPatch.context() as patch:
        op = registry.op_of(heat)
        racing = (*ours, *(who for who in op.contestants if keep(who)))
        patch.setitem(registry.OPS, registry.TABLES[heat.table].op, op._replace(contestants=racing))
        return {row.contestant: row for row in measure.measure([heat], SETTINGS, registry.Choice(backends=None))}


def plain(who: Any) -> bool:
    return not who.ours and "compiled" not in who.name


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("enough", [True, False])
def test_a_graph_is_raced_where_its_certificate_holds(enough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    if not enough:
        monkeypatch.setattr(triton_backend.TritonBackend, "first_width", lambda self, problem: 1)
    docs = np.repeat(np.eye(4, dtype=np.float32), 70, axis=0)  # more ties than the fewest places
    device = "cuda" if torch.cuda.is_available() else "cpu"
    searched, search = [], pyengine.DenseIndex.search

    def watched(self: pyengine.DenseIndex, queries: Any, k: int) -> pyengine.TopK:
        searched.append(k)
        return search(self, queries, k)

    monkeypatch.setattr(pyengine.DenseIndex, "search", watched)
    who = gpu_contestants.ours_as_graph("float16")
    found = who.prepare(docs, "dot", 1)(torch.ones((1, 4), device=device), 3)
    scores, ids = who.read(found)
    assert ids.tolist() == [[0, 1, 2]]
    assert scores.tolist() == [[1.0, 1.0, 1.0]]
    assert len(searched) == (not enough)


@pytest.mark.usefixtures("on_cpu")
def test_dense_contestants() -> None:
    tiny = replace(gpu_shapes.WIDE, n_docs=3_000, dim=32, n_queries=6, k=5)
    ours = replace(index("float16"), name="ours", read=gpu_arena.on_host)
    rows = raced(Heat("gpu-dense", (tiny,)), plain, (ours,))
    assert rows["ours"].verdict == Verdict(True, 1.0, "")
    for name in ("torch-float16", "torch-float32"):
        found = rows[name].verdict
        assert found is not None, rows[name].note
        assert found.recall > 0.95
        assert rows[name].samples
    assert rows["faiss-gpu"].samples is None
    assert rows["faiss-gpu"].note


@pytest.mark.usefixtures("on_cpu")
def test_an_answer_of_ours_that_is_not_that_of_the_cpu_is_not_timed() -> None:
    tiny = replace(gpu_shapes.ONE, n_docs=500, dim=16, n_queries=3, k=4)

    def prepare(docs: Any, metric: str, threads: int) -> Any:
        right = index("float16").prepare(docs, metric, threads)

        def search(queries: Any, k: int) -> Any:
            scores, ids, _ = right(queries, k)
            scores[1, 2] = np.nextafter(np.float32(scores[1, 2]), np.float32(9))
            return scores, ids

        return search

    row = raced(
        Heat("gpu-dense", (tiny,)), lambda who: False, (Contestant("bad", prepare, True, read=gpu_arena.on_host),)
    )
    assert row["bad"].wrong
    assert row["bad"].samples is None


@pytest.mark.usefixtures("on_cpu")
def test_maxsim_contestants() -> None:
    tiny = replace(gpu_shapes.TEXTS, n_docs=40, dim=32, lengths=SHORT, query_tokens=4, n_queries=2, k=3)
    rows = raced(Heat("gpu-maxsim", (tiny,)), plain)
    assert rows["torch-einsum"].verdict is not None, rows["torch-einsum"].note
    assert rows["torch-einsum"].verdict.recall > 0.8
    assert "late-interaction-kernels" in rows["late-interaction-kernels"].note


@pytest.mark.usefixtures("on_cpu")
def test_training_contestants() -> None:
    tiny = replace(gpu_shapes.STEPS[0], n_docs=4, dim=16, n_queries=4, lengths=SHORT, query_tokens=4)
    rows = raced(Heat("gpu-training", (tiny,)), lambda who: True)
    assert rows["pyengine-torch"].verdict == Verdict(True, 1.0, "")
    assert rows["torch-einsum"].samples


@pytest.mark.usefixtures("on_cpu")
def test_sparse_contestants() -> None:
    pytest.importorskip("scipy")
    tiny = replace(gpu_shapes.SPARSE, n_docs=2_000, n_queries=5)
    rows = raced(Heat("gpu-sparse", (tiny,)), plain)
    assert rows["torch-sparse"].verdict is not None, rows["torch-sparse"].note
    assert rows["torch-sparse"].verdict.recall > 0.95
    assert "cupy" in rows["cupy"].note


def test_a_clock_of_its_own_times_the_calls() -> None:
    class Fabricated(Samples):
        def call(self, work: Callable[[], object], number: int = 0) -> object:
            self.wall.append(7.0)
            self.cpu.append(0.0)
            self.rounds.append(number)
            return work()

    row, settings = Row("search", gpu_shapes.ONE, "anybody", 1), SETTINGS._replace(clock=Fabricated)
    entry, found = race.enter(row, lambda: 5, lambda result: result, settings)
    assert found == 5
    (timed,) = race.race(Heat("search", (gpu_shapes.ONE,)), [entry], settings)
    assert timed.samples is not None
    assert timed.samples.wall == [7.0] * 3

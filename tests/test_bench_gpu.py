"""`bench.gpu` where there is no GPU: its arguments, its gate, its races and who breaks them. Times here are made up."""

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
from bench import gpu, registry
from bench.gpus import gpu_machine, gpu_sanitizer, gpu_shapes, gpu_work
from bench.gpus.gpu_apart import Told
from bench.gpus.gpu_report import Gate, Run
from bench.gpus.gpu_shapes import FAMILIES
from bench.racing.gate import Verdict
from bench.racing.row import Row
from pyengine import conformance
from tests.gpu_toy import CEILINGS, MACHINE, SETTINGS, made_up


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


def test_what_does_not_fit_in_the_time_is_skipped_and_said_to_be() -> None:
    family = FAMILIES["dense"]
    rows = gpu_work.measure("dense", family.heats, SETTINGS, registry.Choice(), end=0.0)
    assert {row.workload for row in rows} == {each for heat in family.heats for each in heat.workloads}
    assert all(row.note.startswith("skipped: it would take about") and row.samples is None for row in rows)

"""The whole of `bench.gpu` without a GPU: Triton's kernels are interpreted, those in CUDA C++ emulated, and all is
tiny. The times are the host's, mean nothing, and go nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")
pytest.importorskip("triton")
pytest.importorskip("torch")
from bench import gpu
from bench.gpus import (
    gpu_arena,
    gpu_contestants,
    gpu_machine,
    gpu_sanitizer,
    gpu_shapes,
    gpu_table,
    gpu_timing,
    gpu_work,
)
from bench.gpus.gpu_apart import Told
from bench.gpus.gpu_machine import Gpu, GpuCeilings
from bench.racing import memory, timing
from bench.racing.timing import Samples
from bench.workloads.shapes import heats
from bench.workloads.token_shapes import Lengths
from pyengine import conformance
from pyengine.kernels import measured
from tests.cuda_driver import FakeDriver

SHORT, STEP = Lengths(3, 3, 3), gpu_shapes.STEPS[0]
TINY = {
    "dense": (
        *heats("gpu-dense", replace(gpu_shapes.ONE, n_docs=60, dim=32, k=2)),
        *heats("gpu-dense", replace(gpu_shapes.SIGN, n_docs=60, dim=32, k=2)),  # the last, which all of ours can
    ),
    "maxsim": (
        *heats("gpu-maxsim", replace(gpu_shapes.TEXTS, n_docs=9, dim=32, lengths=SHORT, query_tokens=4, k=2)),
        *heats("gpu-training", replace(STEP, n_docs=3, n_queries=3, dim=16, lengths=SHORT, query_tokens=4)),
    ),
    "sparse": heats("gpu-sparse", replace(gpu_shapes.SPARSE, n_docs=60, n_queries=1, k=2)),
}  # fmt: skip
SOME = {  # what the interpreter is soon done with
    "dense": lambda: [conformance.Case("one_document", "plain", "l2", "matrix")],
    "maxsim": lambda: [case for case in conformance.maxsim_cases() if str(case).startswith("no_documents")][:1],
    "sparse": lambda: [case for case in conformance.sparse_cases() if str(case).startswith("no_documents")][:1],
}


def at_once(end: float, work: Callable[..., object], *arguments: Any) -> Told:
    """`apart`, in this process, which has the emulator."""
    told: list[Any] = [None]
    work(told.append, *arguments)
    return Told(told[-1])


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interpreter: None, emulated: FakeDriver) -> None:
    made_up = Gpu("2026-01-01", "No GPU", 1, 1, "sm_90", "a dry run", "abc", "", driver="none", host="a test")
    monkeypatch.setattr(gpu_machine, "missing", lambda: None)
    monkeypatch.setattr(gpu_machine, "here", lambda: made_up)
    monkeypatch.setattr(
        gpu_machine, "measure", lambda: GpuCeilings(1e12, {"float32": 1e13, "float16": 1e14, "int8": 2e14})
    )
    for module in (gpu, gpu_work):
        monkeypatch.setattr(module, "apart", at_once)
    for name in ("MIN_ROUNDS", "MAX_ROUNDS"):
        monkeypatch.setattr(timing, name, 1)
    monkeypatch.setattr(gpu_timing, "GpuSamples", Samples)
    monkeypatch.setattr(gpu_timing, "extra_peak", memory.extra_peak)
    monkeypatch.setattr(gpu_contestants, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_contestants, "_graphed", lambda score: score)
    monkeypatch.setattr("torch.compile", lambda score, **given: score)
    for arena in (gpu_arena.GpuArena, gpu_arena.GpuTokenArena, gpu_arena.GpuSparseArena):
        monkeypatch.setattr(arena, "device", "cpu")
    for family in TINY:
        tiny = gpu_shapes.FAMILIES[family]._replace(heats=TINY[family], quick=TINY[family])
        monkeypatch.setitem(gpu_shapes.FAMILIES, family, tiny)
        monkeypatch.setitem(gpu_work.CASES, family, SOME[family])
    for module in (measured, gpu_table):
        monkeypatch.setattr(module, "TABLE", tmp_path / "measured.csv")
    (tmp_path / "measured.csv").write_text(",".join(measured.COLUMNS) + "\n")


@pytest.mark.usefixtures("dry")
@pytest.mark.parametrize("family", TINY)
def test_every_step_of_a_family(family: str, tmp_path: Path, capsys: Any) -> None:
    """Gate, races, pages and the table, for all of ours that have the family."""
    ours = gpu_contestants.backends_of(family)
    assert gpu.main(["--quick", "--family", family, "--out", str(tmp_path), "--save-table"]) == 0, (
        capsys.readouterr().out
    )
    (sheet,) = tmp_path.glob("*.json")
    found = json.loads(sheet.read_text())
    for name, gate in found["gates"].items():
        assert (gate["passed"] == 1) == (name in ours), gate
    rows = {row["contestant"]: row for row in found["rows"] if row["role"] == "ours" and row["table"] != "gpu-training"}
    assert {name.partition("-")[0] for name in rows} == set(ours)
    assert all(row["exact"] and row["p50_ms"] for row in rows.values())
    trained = [row for row in found["rows"] if row["table"] == "gpu-training" and row["role"] == "ours"]
    assert [row["exact"] for row in trained] == [True] * (family == "maxsim")
    assert any(row["p50_ms"] for row in found["rows"] if row["role"] == "peer" and "torch" in row["contestant"])
    assert ("## CUDA beside Triton" in sheet.with_suffix(".md").read_text()) == (len(ours) == 2)
    assert len(measured.lines()) == (len(ours) == 2)
    measured.table.cache_clear()


def test_what_the_sanitizer_runs_is_a_command(emulated: FakeDriver) -> None:
    """In a process of its own, as it will be, with the emulator as its driver."""
    command = [sys.executable, "-m", "bench.gpus.gpu_sanitizer", "dense", "cuda"]
    root, folder = Path(gpu_sanitizer.__file__).parents[2], str(Path(emulated.path).parent)
    environment = {"LD_LIBRARY_PATH": folder, "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{gpu_sanitizer.CHECKED} cases\n"), done.stderr

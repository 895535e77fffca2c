"""What `bench.gpu` writes: JSON with everything, and a page to be read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.gpus.gpu_contestants import BACKENDS
from bench.gpus.gpu_machine import Gpu, GpuCeilings
from bench.gpus.gpu_shapes import TARGETS
from bench.racing import write_tables
from bench.racing.row import Row

HEADINGS = ("contestant", "exact", "median ms", "floor ms", "of the ceiling", "x best peer", "GB", "Gop", "+MB", "note")


class Gate(NamedTuple):
    """How many conformance cases a backend took on and passed, of how many, and why it failed, "" if it did not; or why
    it is ``absent``."""

    passed: int = 0
    refused: int = 0
    cases: int = 0
    failure: str = ""
    absent: str = ""

    def describe(self) -> str:
        if self.absent:
            return f"conformance: not here: {self.absent}"
        if self.failure:
            return f"conformance: FAILED, so that no speed of it is reported: {self.failure}"
        left = self.cases - self.passed - self.refused
        return f"conformance: {self.passed} cases passed, {self.refused} refused, {left} left out for want of time"


class Run(NamedTuple):
    """One family, measured; ``gates`` by backend."""

    family: str
    machine: Gpu
    ceilings: GpuCeilings
    gates: Mapping[str, Gate]
    rows: Sequence[Row]
    seconds: float

    @property
    def wrong(self) -> bool:
        return any(gate.failure for gate in self.gates.values()) or any(row.wrong for row in self.rows)


class Pair(NamedTuple):
    """One store at one workload, by both of ours; ``times`` is how many times as fast as ``triton`` ``cuda`` was."""

    triton: Row
    cuda: Row
    times: float


def pairs(rows: Sequence[Row]) -> Iterator[Pair]:
    """Those that both answered to the bit, and were timed at."""
    timed = {(row.workload, row.contestant): row for row in rows if row.samples and not row.wrong}
    for (workload, name), row in timed.items():
        backend, _, store = name.partition("-")
        other = timed.get((workload, f"{BACKENDS[1]}-{store}"))
        if backend == BACKENDS[0] and other and row.samples and other.samples:
            yield Pair(row, other, row.samples.times(other.samples))


def record(run: Run) -> dict[str, Any]:
    """Everything, as JSON has it."""
    return {
        "family": run.family,
        "machine": dataclasses.asdict(run.machine),
        "ceilings": dataclasses.asdict(run.ceilings),
        "gates": {name: gate._asdict() for name, gate in run.gates.items()},
        "seconds": round(run.seconds, 1),
        "rows": [{**row.columns(), **_work(row)} for row in run.rows],
    }


def _work(row: Row) -> dict[str, Any]:
    floor = None if row.floor is None else round(row.floor * 1e3, 6)
    return {
        "bytes": row.n_bytes,
        "operations": row.operations,
        "floor_ms": floor,
        "target": TARGETS.get(row.workload, ""),
        "all_ms": row.all_ms(),
    }


def page(run: Run) -> str:
    """A table for each workload."""
    lines = [
        f"# GPU, {run.family}",
        "",
        run.machine.describe(),
        "",
        run.ceilings.describe(),
        "",
        *(f"- {name}, {gate.describe()}" for name, gate in run.gates.items()),
        "",
    ]
    lines += [
        "Medians, by the device's clock, with a cold L2 cache. GB and Gop are what must at least be read and done;"
    ]
    lines += [
        "the floor is the larger of their times at the measured ceilings. exact: the bits of the backend `cpu`.",
        "",
    ]
    for workload in dict.fromkeys(row.workload for row in run.rows):
        rows = [row for row in run.rows if row.workload == workload]
        lines += [f"## {workload.name}", ""]
        lines += [f"To reach: {TARGETS[workload]}.", ""] if workload in TARGETS else []
        lines += ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows] + [""]
    return "\n".join(lines + _beside(run.rows))


def _beside(rows: Sequence[Row]) -> list[str]:
    """CUDA beside Triton, where both were timed."""
    lines = []
    for pair in pairs(rows):
        one, other = (row.samples.percentile(50) * 1e3 for row in (pair.triton, pair.cuda) if row.samples)
        store = pair.cuda.contestant.partition("-")[2]
        cells = (pair.cuda.workload.name, store, _figure(one), _figure(other), _figure(pair.times))
        lines.append("| " + " | ".join(cells) + " |")
    names = "| workload | store | triton ms | cuda ms | times as fast |"
    return ["## CUDA beside Triton", "", names, "|---" * 5 + "|", *lines, ""] if lines else []


def _cells(row: Row) -> list[str]:
    told, work = row.columns(), _work(row)
    exact = "" if row.verdict is None else "yes" if row.verdict.exact else f"recall {row.verdict.recall:.4f}"
    share = told["of_ceiling"]
    return [
        row.contestant,
        exact,
        _figure(told["p50_ms"]),
        _figure(work["floor_ms"] if row.samples else None),
        "" if share is None else f"{share:.0%}",
        _figure(told["vs_best_peer"]),
        _figure(row.n_bytes / 1e9 if row.samples else None),
        _figure(row.operations / 1e9 if row.samples else None),
        _figure(told["extra_mb"]),
        ("WRONG: " if row.wrong else "") + row.note.replace("|", "/")[:300],
    ]


def _figure(value: Any) -> str:
    return "" if value is None else write_tables.short(float(value))


def save(run: Run, directory: Path, quick: bool) -> list[Path]:
    """Write <date>-<gpu>-gpu-<family>.json and .md; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{run.machine.date}-{run.machine.slug}-gpu-{run.family}" + "-quick" * quick
    sheet, text = directory / f"{stem}.json", directory / f"{stem}.md"
    sheet.write_text(json.dumps(record(run), indent=1) + "\n", encoding="utf-8")
    text.write_text(page(run), encoding="utf-8")
    return [sheet, text]

"""What `bench.gpu` does with a family, each step in a process of its own: the gate of a backend, and the races. Ours
race one another, and the peers, in the same heats; where something of ours fails, each of them once more without the
others, so that what it broke is its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.gpus import gpu_machine
from bench.gpus.gpu_apart import apart
from bench.gpus.gpu_machine import GpuCeilings
from bench.gpus.gpu_report import Gate
from bench.gpus.gpu_shapes import FAMILIES
from bench.racing.measure import grouped
from bench.racing.measure import measure as race_heats
from bench.racing.race import Settings
from bench.racing.row import Row
from bench.registry import Choice
from bench.workloads.shapes import Heat
from pyengine import conformance

CASES: dict[str, Callable[[], Iterable[Any]]] = {
    "dense": conformance.cases,
    "maxsim": conformance.maxsim_cases,
    "sparse": conformance.sparse_cases,
}
GRACE = 60.0  # seconds beyond its share before a gate is taken for hanging: what it compiles, and a case that is long

Tell = Callable[[Any], object]


def look(tell: Tell) -> None:
    """Tell the machine and its ceilings."""
    tell((gpu_machine.here(), gpu_machine.measure()))


def gate(family: str, backend: str, seconds: float) -> Gate:
    """`conformant`, apart."""
    found: Gate | None
    found, failure = apart(time.monotonic() + seconds + GRACE, conformant, family, backend, seconds)
    if failure and found is not None:
        return found._replace(failure=failure)
    return found or Gate(0, 0, 0, failure)


def conformant(tell: Tell, family: str, backend: str, seconds: float) -> None:
    """Tell how far the conformance suite of that backend has come, in an order that leaves no kind of case to the end,
    for so many seconds."""
    cases = list(CASES[family]())
    end, passed, refused = time.monotonic() + seconds, 0, 0
    for at in np.random.default_rng(0).permutation(len(cases)):
        if time.monotonic() > end:
            break
        try:
            reasons = conformance.run(cases[at], backend)
        except Exception as error:  # a kernel's, whatever it is: nothing of this family is to be believed
            text = " ".join(f"{type(error).__name__}: {error}".split())
            tell(Gate(passed, refused, len(cases), text))
            return
        passed, refused = passed + (not reasons), refused + bool(reasons)
        tell(Gate(passed, refused, len(cases)))
    if not passed:
        tell(Gate(0, refused, len(cases), "no case was passed"))


def figures(
    family: str, backends: Sequence[str], heats: Sequence[Heat], ceilings: GpuCeilings, seconds: float, end: float
) -> list[Row]:
    """The rows of all these heats, ``seconds`` for the rounds of a workload, until ``end``."""
    rows, failure = apart(end, raced, family, backends, heats, ceilings, seconds, end)
    rows = rows or []
    done = {row.workload for row in rows} - {row.workload for row in rows if row.failed and row.role == "ours"}
    left = [heat for heat in heats if not done.issuperset(heat.workloads)]
    if len(backends) == 1 or not left:
        told = {row.workload for row in rows}
        lost = [(heat, each) for heat in left for each in heat.workloads if failure and each not in told]
        return rows + [_lost(heat, each, backends, failure) for heat, each in lost]
    again = []
    for place, backend in enumerate(backends):
        until = time.monotonic() + (end - time.monotonic()) / (len(backends) - place)
        again += figures(family, [backend], left, ceilings, seconds, until)
    apart_now = {row.workload for row in again}
    return [row for row in rows if row.workload not in apart_now] + _each_once(again)


def _lost(heat: Heat, workload: Any, backends: Sequence[str], why: str) -> Row:
    """In the place of those who cannot tell any more what happened."""
    return Row(heat.table, workload, ", ".join(backends), 1, "ours", note=why, failed=True)


def _each_once(rows: Sequence[Row]) -> list[Row]:
    """Of a peer that raced twice, the row with times. Each says how it raced."""
    kept: dict[Any, Row] = {}
    for row in rows:
        row = replace(row, note="; ".join(filter(None, [row.note, "raced with one of ours alone"])))
        key = row.workload, row.contestant
        if key not in kept or (kept[key].samples is None and row.samples is not None):
            kept[key] = row
    return list(kept.values())


def raced(
    tell: Tell,
    family: str,
    backends: Sequence[str],
    heats: Sequence[Heat],
    ceilings: GpuCeilings,
    seconds: float,
    end: float,
) -> None:
    """Tell the rows so far after each heat."""
    from bench.gpus import gpu_timing

    settings = Settings(ceilings, None, seconds, (), gpu_timing.GpuSamples, gpu_timing.extra_peak)
    choice = Choice(backends=frozenset(backends))
    measure(family, heats, settings, choice, end, tell)


def measure(
    family: str, heats: Sequence[Heat], settings: Settings, choice: Choice, end: float, tell: Tell = id
) -> list[Row]:
    """Corpus by corpus, those that can be made before the end."""
    rows: list[Row] = []
    for corpus, same in grouped(heats):
        before = tuple(rows)
        needed = corpus.n_bytes / FAMILIES[family].rate + settings.seconds * len(same)
        left = end - time.monotonic()
        if needed > left:
            why = f"skipped: it would take about {needed:.0f} s, and {max(0.0, left):.0f} are left"
            rows += [Row(heat.table, each, "everybody", 1, note=why) for heat in same for each in heat.workloads]
            tell(rows)
        else:
            rows += race_heats(same, settings, choice, lambda found: tell([*before, *map(_told, found)]))  # noqa: B023
    return [*map(_told, rows)]


def _told(row: Row) -> Row:
    """Without what torch cannot know: how much memory the driver gave to the backend "cuda"."""
    return replace(row, extra_bytes=None) if row.contestant.startswith("cuda-") else row

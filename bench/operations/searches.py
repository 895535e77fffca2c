"""Entries of searches: every contestant at every workload of a heat, judged by the specification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from bench.limits.ceilings import Limits
from bench.operations.arena import Arena
from bench.ours.contestants import Answer, Contestant
from bench.racing import gate
from bench.racing.race import Entry, enter, refused
from bench.racing.row import Row
from bench.workloads.shapes import Heat, Workload


def entries(heat: Heat, arena: Arena, contestants: Sequence[Contestant]) -> list[Entry]:
    """In the order of the workloads, and of the contestants within one."""
    arena.release(but=contestants)
    return [entry for workload in heat.workloads for entry in _judged(heat, workload, arena, contestants)]


def _judged(heat: Heat, workload: Workload, arena: Arena, contestants: Sequence[Contestant]) -> list[Entry]:
    """With verdicts on a sample of the queries, and on those on which ours disagree among themselves."""
    tried = [_tried(heat, workload, arena, who) for who in contestants]
    truth = arena.truth(workload)
    disputed = gate.disagreements([answer for entry, answer in tried if answer and entry.row.role == "ours"])
    checked = sorted({*truth.sample(workload.n_queries), *disputed})
    for entry, answer in tried:
        if answer:
            verdict = gate.judge(answer, truth, checked, workload.k)
            entry.row = replace(entry.row, verdict=verdict, note=verdict.reason)
    return [entry for entry, _ in tried]


def _tried(heat: Heat, workload: Workload, arena: Arena, who: Contestant) -> tuple[Entry, Answer | None]:
    """An entry and its first answer; a contestant that cannot has none."""
    row = _row(heat, workload, arena, who)
    queries, kept = arena.asked(workload), arena.filter(workload.keep)
    try:
        arena.foretell(who, workload)
        search = arena.search(who, workload)
    except Exception as error:  # a contestant's, whatever it is: the others go on
        return refused(row, error), None
    call = partial(search, queries, workload.k, *([kept] if kept else []))
    entry, answer = enter(row, call, arena.reader(who, workload), arena.settings)
    if entry.first:
        arena.took(who, workload, entry.first.wall[0])
    return entry, answer


def _row(heat: Heat, workload: Workload, arena: Arena, who: Contestant) -> Row:
    """What is known before the call."""
    n_values, operations = arena.work(workload)
    n_bytes = round(n_values * who.value_bytes)
    threads = arena.threads(workload)
    floor, bound = _floor(arena.settings.ceilings_of(threads), n_bytes, operations, who)
    return Row(
        heat.table,
        workload,
        who.name,
        threads,
        "ours" if who.ours else "peer",
        n_bytes=n_bytes,
        operations=operations,
        floor=floor,
        bound=bound,
        version=who.version,
        exactness=who.exactness,
    )


def _floor(ceilings: Limits | None, n_bytes: int, operations: int, who: Contestant) -> tuple[float | None, str]:
    """The least seconds of a call on this machine, and what takes them."""
    floor = None if ceilings is None else ceilings.floor(n_bytes, operations, who.arithmetic, who.isa)
    if ceilings is None or floor is None:
        return None, ""
    return floor, "memory" if floor == ceilings.floor(n_bytes, 0, "none") else "compute"

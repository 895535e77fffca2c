"""The race: a first call that can fail, then interleaved timing of all who passed. What is called is the business of
`bench.operations.searches`, `bench.operations.compress` and `bench.operations.life`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from bench.limits.ceilings import Limits
from bench.ours.contestants import Unavailable
from bench.racing import memory, timing
from bench.racing.row import Row
from bench.racing.timing import Samples
from bench.workloads.shapes import Heat, Workload


class Settings(NamedTuple):
    """How to race: ``rounds`` None fits as many as ``seconds`` hold for each workload, at least three. That is also how
    long one call of a peer may take at most, where it can be foretold. ``ceilings`` are those of the command's number
    of threads, ``others`` of the other numbers that a workload has. ``clock`` makes what times a contestant's calls,
    ``extra_peak`` says how much more memory one takes."""

    ceilings: Limits
    rounds: int | None = None
    seconds: float = 10.0
    others: tuple[Limits, ...] = ()
    clock: Callable[[], Samples] = Samples
    extra_peak: Callable[[Callable[[], object]], int | None] = memory.extra_peak

    @property
    def threads(self) -> int:
        return self.ceilings.threads

    def ceilings_of(self, threads: int) -> Limits | None:
        return next((each for each in (self.ceilings, *self.others) if each.threads == threads), None)


@dataclass
class Entry:
    """A contestant at one workload. ``call`` None: it is not to be timed, and its row says why. ``first`` is its warm
    call before the race."""

    row: Row
    call: Callable[[], object] | None = None
    first: Samples | None = None


def enter(row: Row, call: Callable[[], Any], read: Callable[[Any], Any], settings: Settings) -> tuple[Entry, Any]:
    """Call once for the result, as ``read`` makes it out, and, unless that takes long, again for time and memory of a
    call that is warm. What fails is a note in the row, and a fault if it is ours."""
    first, results = settings.clock(), []
    try:
        extra = settings.extra_peak(lambda: results.append(first.call(call)))
        result = read(results.pop())
        if first.wall[0] < settings.seconds / 4:
            first = settings.clock()
            extra = settings.extra_peak(lambda: first.call(call))
    except Exception as error:  # a contestant's, whatever it is: the others go on
        return refused(row, error), None
    return Entry(replace(row, extra_bytes=extra), call, first), result


def refused(row: Row, error: Exception) -> Entry:
    """The entry of one who cannot take part: it is `Unavailable`, or it failed."""
    if isinstance(error, Unavailable):
        return Entry(replace(row, note=str(error)))
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return Entry(replace(row, note=text, failed=row.role == "ours"))


def race(heat: Heat, entries: Sequence[Entry], settings: Settings) -> list[Row]:
    """The rows, with their times and ratios. One of ours that is not exact is not timed."""
    running = {at: each for at, each in enumerate(entries) if each.call and each.first and not each.row.wrong}
    samples = _once(running) if heat.once else _interleaved(heat, running, settings)
    rows = [_timed(each.row, samples.get(at)) for at, each in enumerate(entries)]
    return [replace(_compared(row, heat, rows), speedup=_speedup(row, rows)) for row in rows]


def _once(running: dict[int, Entry]) -> dict[int, Samples]:
    return {at: each.first for at, each in running.items() if each.first}


def _interleaved(heat: Heat, running: dict[int, Entry], settings: Settings) -> dict[int, Samples]:
    """Everybody gets an equal share of the time: who is fast all the rounds, who is slow fewer of them."""
    share = settings.seconds * len(heat.workloads) / max(1, len(running))
    rounds = {
        at: settings.rounds or timing.rounds_within(share, each.first.wall[0])
        for at, each in running.items()
        if each.first
    }
    return timing.interleave({at: each.call for at, each in running.items() if each.call}, rounds, settings.clock)


def _timed(row: Row, samples: Samples | None) -> Row:
    if samples is None:
        return row
    note = "; ".join(text for text in (row.note, samples.failure) if text)
    failed = bool(samples.failure) and row.role == "ours"
    return replace(row, samples=samples if samples.wall else None, note=note, failed=failed)


def _speedup(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times faster than the fastest peer at this workload."""
    peers = [each.samples for each in rows if each.workload == row.workload and each.role == "peer" and each.samples]
    best = min(peers, key=lambda peer: peer.percentile(50), default=None)
    return best.times(row.samples) if best and row.samples else None


def _compared(row: Row, heat: Heat, rows: Sequence[Row]) -> Row:
    """With the ratio of its time per query to that of what it is compared with (see `Heat`); what has a yardstick is
    compared with that."""
    same = [each for each in rows if each.contestant == row.contestant and each.workload in heat.workloads]
    place = heat.workloads.index(row.workload)
    if heat.relative and place:
        wanted = heat.workloads[0 if heat.relative == "first" else place - 1]
        other = next((each for each in same if each.workload == wanted), None)
        name = _difference(wanted, row.workload)
    else:
        other = next((each for each in rows if each.role == "yardstick" and each.workload == row.workload), None)
        name = "" if other is None else other.contestant
    if other is None or other is row or row.samples is None or other.samples is None:
        return row
    scale = max(1, other.workload.n_queries) / max(1, row.workload.n_queries)
    return replace(row, ratio=row.samples.times(other.samples) * scale, ratio_to=name)


def _difference(one: Workload, other: Workload) -> str:
    """What is in the first name only: "q32"; "none" where nothing is."""
    words = other.name.split("-")
    return "-".join(word for word in one.name.split("-") if word not in words) or "none"

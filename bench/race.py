"""The race: gate, warm-up and interleaved timing of every contestant at every workload."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from bench import data, gate, memory, timing
from bench.ceilings import Ceilings
from bench.contestants import Contestant, Search, Unavailable
from bench.report import Row
from bench.shapes import Corpus, Workload
from pyengine.types import F32

Item = TypeVar("Item")
Key = TypeVar("Key")


class Settings(NamedTuple):
    """How to race: ``rounds`` None fits as many as ``seconds`` hold."""

    ceilings: Ceilings
    rounds: int | None = None
    seconds: float = 30.0

    @property
    def threads(self) -> int:
        return self.ceilings.threads


class Entry(NamedTuple):
    """A contestant at one workload after the gate: ``call`` is the search to be timed."""

    contestant: Contestant
    call: Callable[[], object]
    verdict: gate.Verdict
    seconds: float
    extra_bytes: int | None


def measure(workloads: Sequence[Workload], contestants: Sequence[Contestant], settings: Settings) -> list[Row]:
    """A row for everybody at every workload. Corpora and indexes are made once for the workloads that share them."""
    rows: list[Row] = []
    with tqdm(total=len(workloads), unit="workload", disable=None) as bar:
        for corpus, sharing in _grouped(workloads, lambda each: each.corpus):
            bar.set_postfix_str(f"{corpus.data} {corpus.n_docs} x {corpus.dim}")
            for found in _race_over(corpus, sharing, contestants, settings):
                rows += found
                bar.update()
    return rows


def _race_over(
    corpus: Corpus, workloads: Sequence[Workload], contestants: Sequence[Contestant], settings: Settings
) -> Iterator[list[Row]]:
    """The rows of each workload over one corpus."""
    try:
        docs, queries = data.load(corpus, max(each.n_queries for each in workloads))
    except FileNotFoundError as error:
        yield from ([Row(each, "everybody", settings.threads, note=str(error))] for each in workloads)
        return
    for metric, same in _grouped(workloads, lambda each: each.metric):
        ready, skipped = prepare(contestants, docs, metric, settings.threads)
        truth = gate.Specification(docs, queries, metric, max(each.k for each in same))
        for workload in same:
            absent = [Row(workload, name, settings.threads, note=why) for name, why in skipped.items()]
            yield race(workload, ready, truth, settings) + absent


def prepare(
    contestants: Sequence[Contestant], docs: F32, metric: str, threads: int
) -> tuple[list[tuple[Contestant, Search]], dict[str, str]]:
    """Those who can run, set up, and by name why the others cannot."""
    ready: list[tuple[Contestant, Search]] = []
    skipped: dict[str, str] = {}
    for contestant in contestants:
        try:
            ready.append((contestant, contestant.prepare(docs, metric, threads)))
        except Unavailable as reason:
            skipped[contestant.name] = str(reason)
    return ready, skipped


def race(
    workload: Workload, ready: Sequence[tuple[Contestant, Search]], truth: gate.Specification, settings: Settings
) -> list[Row]:
    """One row for each contestant; one of ours that is not exact is not timed."""
    entries = _entries(workload, ready, truth)
    running = [each for each in entries if each.verdict.exact or not each.contestant.ours]
    rounds = settings.rounds or timing.rounds_within(settings.seconds, sum(each.seconds for each in running))
    samples = timing.interleave({each.contestant.name: each.call for each in running}, rounds)
    peers = [samples[each.contestant.name] for each in running if not each.contestant.ours]
    best = min(peers, key=lambda peer: peer.percentile(50), default=None)
    return [_row(workload, each, samples.get(each.contestant.name), best, settings) for each in entries]


def _entries(workload: Workload, ready: Sequence[tuple[Contestant, Search]], truth: gate.Specification) -> list[Entry]:
    """The first call of each contestant is judged; the second says how much memory it needs and how long it takes."""
    queries = truth.queries[: workload.n_queries]
    calls = [partial(search, queries, workload.k) for _, search in ready]
    answers = [who.read(call()) for (who, _), call in zip(ready, calls)]
    disputed = gate.disagreements([answer for (who, _), answer in zip(ready, answers) if who.ours])
    checked = sorted({*gate.sample(len(queries)), *disputed})
    entries = []
    for (who, _), call, answer in zip(ready, calls, answers):
        verdict = gate.judge(answer, truth, checked, workload.k)
        start = time.perf_counter()
        extra = memory.extra_peak(call)
        entries.append(Entry(who, call, verdict, time.perf_counter() - start, extra))
    return entries


def _row(
    workload: Workload, entry: Entry, samples: timing.Samples | None, best: timing.Samples | None, settings: Settings
) -> Row:
    who = entry.contestant
    n_bytes = workload.n_docs * workload.dim * who.value_bytes
    return Row(
        workload,
        who.name,
        settings.threads,
        entry.verdict,
        samples,
        speedup=samples.speedup_over(best) if samples and best else None,
        n_bytes=n_bytes,
        floor=settings.ceilings.floor(n_bytes, workload.operations, who.arithmetic),
        extra_bytes=entry.extra_bytes,
        note=entry.verdict.reason,
    )


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> list[tuple[Key, list[Item]]]:
    """Items by key, in the order in which the keys first occur."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())

"""What the workloads over one corpus share: its arrays, the contestants' setups, the specification's answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

import pyengine
from bench.ours.contestants import Answer, Contestant, Search, Unavailable, first_two
from bench.racing import gate, memory
from bench.racing.race import Settings
from bench.workloads import data
from bench.workloads.shapes import Workload
from pyengine.types import I64, Bool

T = TypeVar("T")
BATCH = 32  # from how many queries the time of more can be foretold
PATIENCE = 2  # a call of a batch may take so many times the seconds: a query of it costs less than one of 32


class Kept(NamedTuple):
    """What a filter lets through, in the forms that filters take: bool [N], bits of bytes (the first in the lowest),
    row numbers."""

    mask: Bool
    bitmap: NDArray[np.uint8]
    rows: I64


class Arena:
    """A corpus with its queries; leaving the ``with`` block deletes the files. Raises FileNotFoundError where real data
    is missing, and `Unavailable` where there is no room for it.

    This one is of dense vectors; another family overrides what says how its documents are read."""

    scans = True  # whether a search reads all that is kept of the documents
    device = "cpu"  # where those who compute with torch have their tensors

    def __init__(self, corpus: Any, n_queries: int, settings: Settings) -> None:
        memory.require(corpus.n_bytes)
        self.corpus, self.settings = corpus, settings
        self.docs, self.queries = self.load(max(1, n_queries))
        self._searches: dict[tuple[Contestant, str, int], Search] = {}
        self._speeds: dict[tuple[Contestant, str, int, float], tuple[int, float]] = {}  # queries, seconds
        self._kept: dict[Any, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="pyengine-bench-", ignore_cleanup_errors=True)

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
        self._folder.cleanup()

    def load(self, n_queries: int) -> tuple[Any, Any]:
        """Documents and queries."""
        return data.load(self.corpus, n_queries)

    def asked(self, workload: Workload) -> Any:
        """The queries of that workload."""
        return self.queries[: workload.n_queries]

    @property
    def n_vectors(self) -> int:
        return len(self.docs)

    @property
    def folder(self) -> Path:
        """For files, which go with the arena."""
        return Path(self._folder.name)

    def keep(self, key: Any, make: Callable[[], T]) -> T:
        """``make()``, made once in this arena."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    def threads(self, workload: Workload) -> int:
        return workload.threads or self.settings.threads

    def search(self, who: Contestant, workload: Workload) -> Search:
        """That contestant, set up. Raises whatever its setup raises, and `Unavailable` where there is no room."""
        key = (who, workload.metric, self.threads(workload))
        if key not in self._searches:
            memory.require(who.copies * self.corpus.n_bytes)
            self._searches[key] = who.prepare(self.docs, workload.metric, key[2])
        memory.require(float(who.pair_bytes) * workload.n_queries * len(self.docs))
        return self._searches[key]

    def release(self, but: Collection[Contestant] = ()) -> None:
        """Close and forget the setups of all but those."""
        for (who, *_), search in self._searches.items():
            if who not in but:
                who.close(search)
        self._searches = {key: search for key, search in self._searches.items() if key[0] in but}

    def foretell(self, who: Contestant, workload: Workload) -> None:
        """Raise `Unavailable` where a call would take too long, by one with fewer queries. Our kernels are spared."""
        spared = who.ours and who.backend in ("", "cpu", "triton")
        queries, seconds = self._speeds.get(self._speed_key(who, workload), (0, 0.0))
        expected, most = seconds * workload.n_queries / max(1, queries), PATIENCE * self.settings.seconds
        if queries >= BATCH and expected > most and not spared:
            raise Unavailable(
                f"a call would take about {expected:.2g} s, going by {queries} queries, and --seconds allows {most:g}"
            )

    def took(self, who: Contestant, workload: Workload, seconds: float) -> None:
        """Remember that, for `foretell`."""
        self._speeds[self._speed_key(who, workload)] = workload.n_queries, seconds

    def _speed_key(self, who: Contestant, workload: Workload) -> tuple[Contestant, str, int, float]:
        return who, workload.metric, self.threads(workload), workload.keep

    def reader(self, who: Contestant, workload: Workload) -> Callable[[Any], Answer]:
        """What makes answers of the results of `search`."""
        return who.read

    def work(self, workload: Workload) -> tuple[float, int]:
        """How many stored numbers a call must read, and how many operations it takes."""
        return workload.n_values, workload.operations

    def truth(self, workload: Workload) -> gate.Truth:
        """The specification's answers at that metric and filter."""
        return self.keep(("truth", workload.metric, workload.keep), lambda: self.judged_on(self.docs, workload))

    def judged_on(self, docs: Any, workload: Workload) -> gate.Truth:
        """The same where the documents are ``docs``: what codes decode to."""
        kept = self.filter(workload.keep)
        return gate.Specification(docs, self.queries, workload.metric, None if kept is None else kept.mask)

    def search_exactly(self, workload: Workload) -> Answer:
        """Our own answer to that workload, without a filter."""
        return first_two(pyengine.topk(self.asked(workload), self.docs, workload.k, metric=workload.metric))

    def filter(self, share: float) -> Kept | None:
        """A random ``share`` of the documents, always the same; None for 0."""
        return self.keep(("filter", share), lambda: _filter(len(self.docs), share)) if share else None


def _filter(n_docs: int, share: float) -> Kept:
    mask = np.random.default_rng([data.SEED, 5]).random(n_docs) < share
    return Kept(mask, np.packbits(mask, bitorder="little"), np.flatnonzero(mask).astype(np.int64))

"""What the tests of the benchmark share: tiny workloads, made-up ceilings, and contestants that do wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bench import registry
from bench.limits.ceilings import Ceilings
from bench.ours.contestants import Contestant, Search, Unavailable, index
from bench.peers.numpy import numpy_matmul
from bench.racing import measure
from bench.racing.race import Settings
from bench.racing.row import Row
from bench.registry import OPS, Choice
from bench.workloads.shapes import Heat, Workload
from pyengine.specification import reference
from pyengine.types import F32

TINY = (
    Workload(n_docs=300, dim=24, n_queries=5, k=7),
    Workload(n_docs=300, dim=24, n_queries=1, k=3),
    Workload(n_docs=200, dim=16, n_queries=3, k=5, metric="l2", data="scaled"),
)
HEATS = tuple(Heat("search", (each,)) for each in TINY)
EXACT = index("float32", backend="numpy")  # ours without the extension
NUMPY = Contestant("numpy", numpy_matmul)
CEILINGS = Ceilings(1, ((1 << 20, 2e10), (1 << 30, 1e10)), 8e9, 1e11, {"avx2": 1e12, "amx": 4e12}, "avx2")
SETTINGS = Settings(CEILINGS, rounds=3)
ALL = Choice(backends=None)
SMALL = Workload(n_docs=300, dim=64, n_queries=2, k=5)


def nudged(docs: F32, metric: str, threads: int) -> Search:
    """The specification, with one score of the last query off by one unit in the last place."""

    def search(queries: F32, k: int) -> tuple[F32, np.ndarray]:
        scores, ids, _ = reference.topk(queries, docs, k, metric)
        scores[-1, -1] = np.nextafter(scores[-1, -1], np.float32(2))
        return scores, ids

    return search


WRONG = Contestant("wrong", nudged, ours=True)


def absent(docs: F32, metric: str, threads: int) -> Search:
    raise Unavailable("pip install absent")


def broken(docs: F32, metric: str, threads: int) -> Search:
    raise MemoryError("17 GiB")


def measured(heats: Sequence[Heat], racing: Sequence[Contestant], settings: Settings = SETTINGS) -> list[Row]:
    """Searches with these contestants, and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for op in {registry.TABLES[heat.table].op for heat in heats}:
            patch.setitem(OPS, op, OPS[op]._replace(contestants=tuple(racing)))
        return measure.measure(heats, settings, ALL)


def raced(table: str, workload: Workload, *wanted: str) -> dict[str, Row]:
    """A heat of one workload, by contestant."""
    choice = Choice(frozenset(wanted))
    return {row.contestant: row for row in measure.measure([Heat(table, (workload,))], SETTINGS, choice)}

"""Building sparse indexes, beside what merely copying the rows takes, and beside others."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench import peers
from bench.operations.arena import Arena
from bench.operations.life import Job, Search, Worker
from bench.ours.contestants import Contestant
from bench.ours.sparse_contestants import built_of, warm
from bench.workloads.sparse_shapes import LISTED


def build(arena: Arena, backend: str = "cpu") -> Job:
    """`SparseIndex.add`."""
    return Job(lambda: built_of(arena.docs, "float32", backend=backend), _moved(arena), _searching)


def _searching(built: Any) -> Search:
    return lambda queries, k: built.search(queries, k)


def copy(arena: Arena) -> Job:
    """The rows, read and written once."""
    rows = arena.docs.rows
    return Job(lambda: (rows.indices.copy(), rows.values.copy()), _moved(arena))


def _moved(arena: Arena) -> int:
    return 2 * LISTED * int(arena.n_vectors)


def peer(who: Contestant) -> Worker:
    """Setting up that peer."""

    def prepare(arena: Arena) -> Job:
        warm(who, arena.docs, arena.settings.threads)
        return Job(partial(who.prepare, arena.docs, "dot", arena.settings.threads), _moved(arena), searching)

    def searching(search: Any) -> Search:
        return lambda queries, k: who.read(search(queries, k))

    return Worker(who.name, prepare, copies=who.copies, only_named=who.only_named)


BUILDING = (
    Worker("pyengine-float32", build, "ours", copies=1.6),
    Worker("copy", copy, "yardstick"),
    *map(peer, peers.of("sparse_topk")),
)

"""Ours who filter. A search that filters takes what is kept (`arena.Kept`) as a third argument, in every form
that a library may want, so that nobody pays for a conversion; without it, it is a search of everything."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pyengine
from bench.operations.arena import Kept
from bench.ours.contestants import BITS, Contestant, Search, Unavailable, require
from pyengine.types import F32


def by_mask(docs: F32, metric: str, threads: int) -> Search:
    """`DenseIndex.search(mask=)`, as a bitmap."""
    built = _index(docs, metric)

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        return built.search(queries, k, mask=None if kept is None else kept.bitmap, num_threads=threads)

    return search


def by_allow(docs: F32, metric: str, threads: int) -> Search:
    """`DenseIndex.search(allow=)`, a list of ids."""
    if "allow" not in signature(pyengine.DenseIndex.search).parameters:
        raise Unavailable("this pyengine has no allow=")
    built = _index(docs, metric)

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        chosen = {} if kept is None else {"allow": kept.rows}
        return built.search(queries, k, num_threads=threads, **chosen)

    return search


def _index(docs: F32, metric: str) -> Any:
    require("cpu")
    built = pyengine.DenseIndex(docs.shape[1], metric=metric, store="int8", backend="cpu")
    built.add(docs)
    return built


FILTERING = tuple(
    Contestant(name, prepare, True, "int8", 1, copies=1.3, exactness=BITS, backend="cpu")
    for name, prepare in (("pyengine-int8", by_mask), ("pyengine-allow", by_allow))
)

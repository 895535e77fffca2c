"""Ours in the tables of sparse search, and what everybody keeps. What this pyengine does not have yet says so."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import peers
from bench.operations.compress import Compressed, Compressor
from bench.operations.token_arena import offered
from bench.ours.contestants import BACKENDS, BITS, Contestant, Search, at, require
from bench.racing import memory
from bench.workloads.sparse_shapes import LISTED
from bench.workloads.sparse_text import Documents


def one_off(backend: str = "cpu") -> Contestant:
    """`pyengine.sparse_topk` on the raw rows: the postings of the queries' terms are made in every call."""

    def prepare(docs: Documents, metric: str, threads: int) -> Search:
        topk = offered("sparse_topk")
        require(backend, "sparse")
        return lambda queries, k: topk(queries, docs.rows, k, backend=backend, num_threads=threads)

    name = "pyengine-topk" + at(backend)
    return Contestant(name, prepare, ours=True, value_bytes=LISTED, exactness=BITS, backend=backend)


def index(backend: str = "cpu") -> Contestant:
    """`SparseIndex` with float32 weights."""

    def prepare(docs: Documents, metric: str, threads: int) -> Search:
        built = built_of(docs, "float32", backend=backend)
        return lambda queries, k: built.search(queries, k, num_threads=threads)

    name = "pyengine-float32" + at(backend)
    return Contestant(name, prepare, True, value_bytes=LISTED, copies=1.6, exactness=BITS, backend=backend)


def built_of(docs: Documents, weights: str, originals: str = "ram", backend: str = "cpu") -> Any:
    """A `SparseIndex` of those documents."""
    make = offered("SparseIndex")
    require(backend, "sparse")
    built = make(docs.rows.n_terms, weights=weights, originals=originals, backend=backend)
    built.add(docs.rows)
    return built


def keeping(weights: str, originals: str = "ram", backend: str = "cpu") -> Compressor:
    """`SparseIndex` with those weights: what they decode to is what it is judged on. Its bytes are those in memory."""

    def prepare(docs: Documents, threads: int) -> Compressed:
        built = built_of(docs, weights, originals, backend)
        decoded = docs if weights == "float32" else built.rows(built.ids)
        return Compressed(lambda queries, k: built.search(queries, k, num_threads=threads), bytes_of(built), decoded)

    return Compressor(f"pyengine-{weights}" + "+disk" * (originals == "disk"), prepare, ours=True)


def bytes_of(built: Any) -> int:
    """All that a `SparseIndex` keeps in memory: of rows that are on disk, where each begins."""
    stats = built.stats()
    in_memory = np.int64().nbytes * len(built) if built.originals == "disk" else stats.row_bytes
    return int(stats.posting_bytes + in_memory)


def resident(who: Contestant) -> Compressor:
    """The same peer, and the memory that its setup keeps, by the kernel's count."""

    def prepare(docs: Documents, threads: int) -> Compressed:
        warm(who, docs, threads)
        made: list[Search] = []
        n_bytes = memory.kept(lambda: made.append(who.prepare(docs, "dot", threads)))
        return Compressed(lambda queries, k: who.read(made[0](queries, k)), n_bytes)

    return Compressor(who.name, prepare, package=who.package, only_named=who.only_named)


def warm(who: Contestant, docs: Documents, threads: int) -> None:
    """Set that peer up over a few documents, so that what it loads and compiles is there. Raises what its setup
    raises."""
    who.prepare(docs.part(slice(0, 100)), "dot", threads)


OURS = tuple(who for backend in BACKENDS for who in (index(backend), one_off(backend)))
KEPT = (
    *(keeping("float32", originals) for originals in ("ram", "disk")),
    *(keeping(weights) for weights in ("float16", "uint8")),
)
RESIDENT = tuple(map(resident, peers.of("sparse_topk")))

"""A few bits a dimension, without the vectors themselves: binary codes, and residual codes beside faiss PQ and SQ4.

Ours are judged by the specification on what the codes decode to. The recall is of the table's own truth: for binary
codes the same thing, as every vector there is the signs of another; for the rest the float32 vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import pyengine
from bench.operations.arena import Arena
from bench.ours.contestants import Answer, Search, Unavailable, first_two, require, version_of
from bench.racing import gate, memory
from bench.racing.race import Entry, enter, refused
from bench.racing.row import Row
from bench.workloads.shapes import Heat, Workload
from pyengine.types import F32, I64

CHUNK = 1 << 14  # rows converted at a time
TRAINING = 10_000  # rows that a quantiser learns from: what faiss asks for with 256 centroids


class Compressed(NamedTuple):
    """A contestant that is set up: ``n_bytes`` is all that it keeps, ``decoded`` what its codes mean, where that
    defines its answers."""

    search: Search
    n_bytes: int
    decoded: Any = None


class Compressor(NamedTuple):
    """As `bench.ours.contestants.Contestant`, for those of whom what they keep is counted."""

    name: str
    prepare: Callable[[Any, int], Compressed]  # (docs, threads)
    ours: bool = False
    package: str = ""
    only_named: bool = False

    @property
    def version(self) -> str:
        return pyengine.__version__ if self.ours else version_of(self.package)


class Signs:
    """The signs of vectors, as vectors of -1 and 1, made a slice at a time."""

    def __init__(self, docs: F32) -> None:
        self.docs = docs

    def __len__(self) -> int:
        return len(self.docs)

    def __getitem__(self, part: slice) -> F32:
        signs: F32 = np.where(self.docs[part] > 0, np.float32(1), np.float32(-1))
        return signs


def _store(name: str, signs: bool = False) -> Compressor:
    """Our index with that store and nothing else."""

    def prepare(docs: F32, threads: int) -> Compressed:
        require("cpu")
        try:
            built: Any = pyengine.DenseIndex(docs.shape[1], "cosine", store=name, originals=None, backend="cpu")
        except ValueError as error:
            raise Unavailable(f"this pyengine has no such store: {error}") from None
        rows = Signs(docs) if signs else docs
        for start in range(0, len(docs), CHUNK):
            built.add(rows[start : start + CHUNK])
        decoded = rows if signs else built._problem(docs[:1], 1).docs.rows
        return Compressed(lambda queries, k: built.search(queries, k, num_threads=threads), bytes_of(built), decoded)

    return Compressor(f"pyengine-{name}", prepare, ours=True)


def bytes_of(index: Any) -> int:
    """All that an index of ours keeps for its documents."""
    return int(repr(index).rpartition("bytes=")[2].rstrip(")"))


def packed(rows: F32) -> NDArray[np.uint8]:
    """The signs as bits [n, D / 8]."""
    parts = [np.packbits(rows[start : start + CHUNK] > 0, axis=1) for start in range(0, len(rows), CHUNK)]
    return np.concatenate(parts)


def cosine_of(dim: int, distances: Any, ids: Any) -> Answer:
    """Hamming distances as what they say of the cosine."""
    return (1 - 2 * np.asarray(distances, np.float64) / dim).astype(np.float32), np.asarray(ids, np.int64)


BINARY = (_store("binary", signs=True),)
RESIDUAL = tuple(_store(f"residual{bits}") for bits in (2, 3, 4))


def binary_entries(heat: Heat, arena: Arena, contestants: Sequence[Compressor]) -> list[Entry]:
    """Documents and queries are the signs of the arena's."""
    arena.release()
    (workload,) = heat.workloads
    queries = Signs(arena.queries)[: workload.n_queries]
    truth = arena.keep("signs", lambda: gate.Specification(Signs(arena.docs), Signs(arena.queries)[:], workload.metric))
    checked = truth.sample(workload.n_queries)
    return [_entry(heat, workload, arena, who, queries, truth, checked) for who in contestants]


def residual_entries(heat: Heat, arena: Arena, contestants: Sequence[Compressor]) -> list[Entry]:
    """The true neighbours are those of our exact search, once the specification has confirmed a sample of them."""
    arena.release()
    (workload,) = heat.workloads
    queries, truth = arena.asked(workload), arena.truth(workload)
    checked = truth.sample(workload.n_queries)
    found = arena.search_exactly(workload)
    verdict = gate.judge(found, truth, checked, workload.k)
    if not verdict.exact:
        raise ArithmeticError(f"the true neighbours are not the specification's: {verdict.reason}")
    return [_entry(heat, workload, arena, who, queries, truth, checked, found[1]) for who in contestants]


def _entry(
    heat: Heat, workload: Workload, arena: Arena, who: Compressor, queries: Any, truth: gate.Truth,
    checked: Sequence[int], true_ids: I64 | None = None,
) -> Entry:  # fmt: skip
    threads = arena.threads(workload)
    row = Row(
        heat.table,
        workload,
        who.name,
        threads,
        "ours" if who.ours else "peer",
        operations=workload.operations,
        version=who.version,
    )
    try:
        memory.require(0.5 * arena.corpus.n_bytes)
        ready = who.prepare(arena.docs, threads)
    except Exception as error:  # a contestant's, whatever it is: the others go on
        return refused(row, error)
    if arena.scans:
        floor = arena.settings.ceilings.floor(ready.n_bytes, 0, "none")
        row = replace(row, n_bytes=ready.n_bytes, floor=floor)
    row = replace(row, bytes_per_vector=ready.n_bytes / max(1, arena.n_vectors))
    entry, answer = enter(row, partial(ready.search, queries, workload.k), first_two, arena.settings)
    if answer is None:
        return entry
    if who.ours and true_ids is not None:  # what its codes decode to is its truth
        truth = arena.judged_on(arena.docs if ready.decoded is None else ready.decoded, workload)
    verdict = gate.judge(answer, truth, checked, workload.k)
    if true_ids is not None:
        verdict = verdict._replace(recall=gate.recall(answer[1], true_ids))
    entry.row = replace(entry.row, verdict=verdict, note=verdict.reason)
    return entry

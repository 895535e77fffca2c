"""The ablation: a sparse index against the dense flat scan of as many documents, by latency and by bytes a document.

The published case for weighting a lexicon is a search 5.8 times as fast in an index 19.1 times as small as a dense
one's (LexLIP, ICCV 2023). The dense side here are random unit vectors of 768 dimensions, as what an exact scan takes
does not depend on what they say; the sparse side is the arena's, asked the arena's queries. "ratio" is to faiss's flat
scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import pyengine
from bench.operations import compress
from bench.operations.arena import Arena
from bench.operations.compress import Compressed, Compressor
from bench.operations.sparse_arena import one_after_another, one_by_one
from bench.ours.contestants import first_two, require, version_of
from bench.ours.sparse_contestants import keeping
from bench.peers import faiss
from bench.racing import gate, memory
from bench.racing.race import Entry, enter, refused
from bench.racing.row import Row
from bench.workloads import data
from bench.workloads.shapes import Corpus, Heat
from pyengine.types import F32

DIM = 768


class Side(NamedTuple):
    """Somebody who searches the sparse documents or the ``dense`` ones."""

    kept: Compressor
    role: str = "ours"
    dense: bool = True
    package: str = ""

    @property
    def name(self) -> str:
        return self.kept.name

    @property
    def ours(self) -> bool:
        return self.role == "ours"


def entries(heat: Heat, arena: Arena, sides: Sequence[Side]) -> list[Entry]:
    """Of one workload, asked one by one."""
    arena.release()
    return [_entry(heat, arena, side) for side in sides]


def _entry(heat: Heat, arena: Arena, side: Side) -> Entry:
    (workload,) = heat.workloads
    version = pyengine.__version__ if side.role == "ours" else version_of(side.package)
    row = Row(heat.table, workload, side.name, arena.threads(workload), side.role, version=version)
    try:
        memory.require((2 if side.dense else 1) * 4 * DIM * len(arena.docs))
        docs, queries, truth = _dense(arena, workload.n_queries) if side.dense else _sparse(arena, workload)
        ready = side.kept.prepare(docs, row.threads)
    except Exception as error:  # a contestant's, whatever it is: the others go on
        return refused(row, error)
    row = replace(row, bytes_per_vector=ready.n_bytes / max(1, len(arena.docs)))
    call, read = partial(one_by_one(ready.search), queries, workload.k), one_after_another(first_two)
    entry, answer = enter(row, call, read, arena.settings)
    if answer is not None:
        verdict = gate.judge(answer, truth, truth.sample(workload.n_queries), workload.k)
        entry.row = replace(entry.row, verdict=verdict, note=verdict.reason)
    return entry


def _sparse(arena: Arena, workload: Any) -> tuple[Any, Any, gate.Truth]:
    return arena.docs, arena.asked(workload), arena.truth(workload)


def _dense(arena: Arena, n_queries: int) -> tuple[F32, list[F32], gate.Truth]:
    """As many documents as the arena has, queries [1, D], and the specification's answers."""

    def make() -> tuple[F32, list[F32], gate.Truth]:
        docs, queries = data.load(Corpus(len(arena.docs), DIM, "gaussian"), n_queries)
        return docs, np.split(queries, n_queries), gate.Specification(docs, queries, "dot")

    return arena.keep("dense", make)


def flat(store: str, backend: str = "cpu") -> Compressor:
    """`DenseIndex`; with codes, the float32 vectors are kept beside them."""

    def prepare(docs: F32, threads: int) -> Compressed:
        require(backend)
        built = pyengine.DenseIndex(docs.shape[1], "dot", store=store, backend=backend)
        built.add(docs)
        return Compressed(lambda queries, k: built.search(queries, k, num_threads=threads), compress.bytes_of(built))

    return Compressor(f"dense-{store}", prepare, ours=True)


def faiss_flat(docs: F32, threads: int) -> Compressed:
    """faiss.IndexFlatIP."""
    return Compressed(faiss.faiss_flat(docs, "dot", threads), docs.nbytes)


SIDES = (
    Side(keeping("float32"), dense=False),
    Side(keeping("float32", "disk"), dense=False),
    *(Side(flat(store)) for store in ("float32", "int8")),
    Side(Compressor("faiss-flat", faiss_flat), "yardstick", package="faiss-cpu"),
)

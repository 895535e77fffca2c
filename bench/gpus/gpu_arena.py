"""Arenas whose contestants compute on a GPU. The truth is the CPU's answer to every query of the batch, where the
extension is built: the two backends have nothing in common but the specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pyengine
from bench.operations.arena import Arena
from bench.operations.sparse_arena import SparseArena
from bench.operations.token_arena import TokenArena
from bench.ours.contestants import Answer, module
from bench.racing import gate
from bench.workloads import data
from bench.workloads.shapes import Workload
from pyengine.inputs.ragged import Ragged
from pyengine.refining import exact
from pyengine.types import F32, I64, TopK

CHUNK = 1 << 18  # rows
DEVICE = "cuda"


class CpuTruth(gate.Truth):
    """The answers of the backend "cpu" to ``n_queries`` queries: ``search(k)`` gives those to all of them."""

    def __init__(self, search: Callable[[int], TopK], n_queries: int) -> None:
        super().__init__(0)
        self.search, self.n_queries = search, n_queries

    def find(self, query: int, k: int) -> tuple[F32, I64]:
        scores, ids, _ = self.search(k)
        self._known = dict(enumerate(zip(scores, ids)))
        return self._known[query]

    def sample(self, n_queries: int) -> list[int]:
        return list(range(min(n_queries, self.n_queries)))


def as_float16(values: F32) -> F32:
    """Rounded to it in place, so that everybody has the same vectors."""
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        part[:] = part.astype(np.float16)
    return values


def on_host(found: Any) -> Answer:
    """The answer of those who return (scores, ids, ...) on the device."""
    scores, ids = (np.asarray(each.cpu() if hasattr(each, "cpu") else each) for each in found[:2])
    return scores.astype(np.float32, copy=False), ids.astype(np.int64, copy=False)


class GpuArena(Arena):
    """Dense: what float16 holds. The queries are on the device."""

    device = DEVICE

    def load(self, n_queries: int) -> tuple[F32, F32]:
        docs, queries = data.load(self.corpus, n_queries)
        return as_float16(docs), as_float16(queries)

    def asked(self, workload: Workload) -> Any:
        torch = module("torch")
        queries = self.keep("queries", lambda: torch.from_numpy(self.queries).to(self.device))
        return self.keep(("queries", workload.n_queries), lambda: queries[: workload.n_queries].contiguous())

    def judged_on(self, docs: Any, workload: Workload) -> gate.Truth:
        if exact.native() is None:
            return super().judged_on(docs, workload)
        queries = self.queries[: workload.n_queries]
        return CpuTruth(lambda k: pyengine.topk(queries, docs, k, metric=workload.metric, backend="cpu"), len(queries))

    def truth(self, workload: Workload) -> gate.Truth:
        return self.keep(("truth", workload), lambda: self.judged_on(self.docs, workload))


class GpuTokenArena(TokenArena):
    """Late interaction: tokens that float16 holds."""

    device = DEVICE

    def load(self, n_queries: int) -> tuple[Ragged, Ragged]:
        docs, queries = super().load(n_queries)
        return Ragged(as_float16(docs.values), docs.offsets), Ragged(as_float16(queries.values), queries.offsets)

    def judged_on(self, docs: Any, workload: Workload) -> gate.Truth:
        if exact.native() is None:
            return super().judged_on(docs, workload)
        asked = self.asked(workload)
        return CpuTruth(
            lambda k: pyengine.maxsim_topk(asked, docs, k, reduce=workload.metric, backend="cpu"), len(asked)
        )


class GpuSparseArena(SparseArena):
    device = DEVICE

    def judged_on(self, docs: Any, workload: Workload) -> gate.Truth:
        if exact.native() is None:
            return super().judged_on(docs, workload)
        asked = self._kind(workload).part(slice(0, workload.n_queries))
        return CpuTruth(lambda k: pyengine.sparse_topk(asked, docs.rows, k, backend="cpu"), len(asked))

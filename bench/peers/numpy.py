"""NumPy, as people write it: a product, then the best of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.operations.arena import Kept
from bench.ours.contestants import Contestant, Search
from bench.peers._tokens import best
from pyengine.inputs.ragged import Ragged
from pyengine.types import F32


def numpy_matmul(docs: F32, metric: str, threads: int) -> Search:
    """matmul, argpartition, and a sort of the k best; l2 in its expanded form. The command sets BLAS's threads."""
    squares = np.einsum("nd,nd->n", docs, docs) if metric == "l2" else None

    def search(queries: F32, k: int) -> Any:
        rank = queries @ docs.T  # [Q, N]
        if squares is not None:
            rank *= 2
            rank -= squares
        best = np.argpartition(rank, rank.shape[1] - k, axis=1)[:, -k:]
        found = np.take_along_axis(rank, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        scores, ids = np.take_along_axis(found, order, axis=1), np.take_along_axis(best, order, axis=1)
        return (scores if squares is None else (queries * queries).sum(axis=1, keepdims=True) - scores), ids

    return search


def numpy_gather(docs: F32, metric: str, threads: int) -> Search:
    """numpy: gather the rows, then as without a filter."""

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        if kept is None:
            return numpy_matmul(docs, metric, threads)(queries, k)
        scores, places = numpy_matmul(docs[kept.rows], metric, threads)(queries, k)
        return scores, np.asarray(kept.rows)[places]

    return search


def numpy_reduceat(docs: Ragged, reduce: str, threads: int) -> Search:
    """A product with the packed tokens, then numpy.maximum.reduceat. The command sets BLAS's threads."""
    starts = docs.offsets[:-1]

    def score(query: F32) -> F32:
        found: F32 = np.maximum.reduceat(docs.values @ query.T, starts, axis=0).sum(axis=1)
        return found

    return lambda queries, k: best(np.stack([score(query) for query in queries]), k)


PEERS = {
    "dense_topk": (Contestant("numpy", numpy_matmul, pair_bytes=12, package="numpy", exactness="float32"),),
    "dense_filter": (Contestant("numpy-gather", numpy_gather, pair_bytes=12, package="numpy", exactness="float32"),),
    "maxsim": (Contestant("numpy", numpy_reduceat, package="numpy", exactness="float32; fails on empty documents"),),
}

"""SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.ours.contestants import Search
from bench.peers._sparse import matrix, padded, sparse_peer
from bench.workloads.sparse_text import Documents
from pyengine.types import F32, I64

BLOCK = 32  # queries of which all scores are made at once


def scipy_product(docs: Documents, metric: str, threads: int) -> Search:
    """A sparse product of 32 queries with the transposed documents, then argpartition; scipy has one thread."""
    postings = matrix(docs.rows).T.tocsr()

    def search(queries: Any, k: int) -> Any:
        parts = (queries.part(slice(at, at + BLOCK)) for at in range(0, len(queries), BLOCK))
        return [best for part in parts for best in _best_of_rows(matrix(part) @ postings, k)]

    return search


def _best_of_rows(scores: Any, k: int) -> list[tuple[F32, I64]]:
    return [
        _best(scores.data[first:last], scores.indices[first:last], k)
        for first, last in zip(scores.indptr[:-1], scores.indptr[1:])
    ]


def _best(scores: F32, ids: Any, k: int) -> tuple[F32, I64]:
    chosen = np.argpartition(-scores, k)[:k] if len(scores) > k else np.arange(len(scores))
    chosen = chosen[np.lexsort((ids[chosen], -scores[chosen]))]
    return scores[chosen], ids[chosen]


PEERS = {"sparse_topk": (sparse_peer("scipy", scipy_product, 2.0, read=padded, package="scipy"),)}

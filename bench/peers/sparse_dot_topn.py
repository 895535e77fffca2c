"""sparse_dot_topn."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.ours.contestants import Answer, Search, module
from bench.peers._sparse import matrix, padded, sparse_peer
from bench.workloads.sparse_text import Documents


def sparse_dot_topn(docs: Documents, metric: str, threads: int) -> Search:
    """sparse_dot_topn.sp_matmul_topn with the transposed documents."""
    multiply, postings = module("sparse_dot_topn").sp_matmul_topn, matrix(docs.rows).T.tocsr()
    workers = threads if threads > 1 else None
    return lambda queries, k: multiply(matrix(queries), postings, top_n=k, sort=True, n_threads=workers)


def _from_csr(found: Any) -> Answer:
    ends = found.indptr[1:-1]
    return padded(list(zip(np.split(found.data, ends), np.split(found.indices, ends))))


PEERS = {
    "sparse_topk": (sparse_peer("sparse_dot_topn", sparse_dot_topn, 2.0, read=_from_csr, package="sparse_dot_topn"),)
}

"""bm25s."""

from __future__ import annotations

from typing import Any

from bench.ours.contestants import Search, module
from bench.peers._sparse import columns, sparse_peer
from bench.workloads.sparse_text import Documents


def bm25s(docs: Documents, metric: str, threads: int) -> Search:
    """bm25s's numba search of the same impacts; it takes no weights of queries."""
    retrieve = module("bm25s.numba.retrieve_utils", "bm25s")._retrieve_numba_functional
    scores = columns(docs)

    def search(queries: Any, k: int) -> Any:
        terms = [queries[at][0] for at in range(len(queries))]
        return retrieve(terms, scores, k=k, show_progress=False, n_threads=threads)[::-1]

    search(docs.rows.part(slice(0, 1)), 1)  # numba compiles now
    return search


PEERS = {"bm25": (sparse_peer("bm25s", bm25s, 2.0, package="bm25s"),)}

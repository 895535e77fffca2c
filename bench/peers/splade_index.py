"""splade-index (pip install --no-deps splade-index numba: it asks for a training stack)."""

from __future__ import annotations

from typing import Any

from bench.ours.contestants import Search, module
from bench.peers._sparse import columns, sparse_peer
from bench.workloads.sparse_text import Documents


def splade_index(docs: Documents, metric: str, threads: int) -> Search:
    """splade-index's numba search of given vectors, without the model that it would ask for them."""
    retrieve = module("splade_index.numba.retrieve_utils", "splade-index")._retrieve_numba_functional
    scores = columns(docs)

    def search(queries: Any, k: int) -> Any:
        terms, weights = zip(*(queries[at] for at in range(len(queries))))
        return retrieve(terms, weights, scores, k, show_progress=False, n_threads=threads)[::-1]

    search(docs.rows.part(slice(0, 1)), 1)  # numba compiles now
    return search


PEERS = {"sparse_topk": (sparse_peer("splade-index", splade_index, 2.0, package="splade-index"),)}

"""SINDI, of pyvsag."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bench.ours.contestants import Answer, Search, module
from bench.peers._sparse import padded, sparse_peer
from bench.workloads.sparse_text import Documents


def sindi(docs: Documents, metric: str, threads: int) -> Search:
    """pyvsag's SINDI with float32 values, nothing pruned, a heap of k; a query at a time, in one thread."""
    pyvsag, rows = module("pyvsag"), docs.rows
    pyvsag.set_logger_off()
    options = {"term_id_limit": rows.n_terms, "window_size": 60_000, "doc_prune_ratio": 0.0}
    longest = max(1, int(np.diff(rows.indptr).max(initial=1)))
    about = {"dtype": "sparse", "metric_type": "ip", "dim": longest, "index_param": options}
    index = pyvsag.Index("sindi", json.dumps(about))
    index.build(*_unsigned(rows), np.arange(len(rows), dtype=np.int64))

    def search(queries: Any, k: int) -> Any:
        how = json.dumps({"sindi": {"n_candidate": k, "query_prune_ratio": 0.0}})
        asked = (queries.part(slice(at, at + 1)) for at in range(len(queries)))
        return [index.knn_search(*_unsigned(one), k, how) for one in asked]

    return search


def _unsigned(rows: Any) -> tuple[Any, Any, Any]:
    return rows.indptr.astype(np.uint32), rows.indices.astype(np.uint32), rows.values


def _from_distances(found: Any) -> Answer:
    """Pairs of ids [1, K] and 1 - score [1, K]."""
    return padded([(1 - distances[0], ids[0]) for ids, distances in found])


PEERS = {"sparse_topk": (sparse_peer("sindi", sindi, 1.5, read=_from_distances, package="pyvsag"),)}

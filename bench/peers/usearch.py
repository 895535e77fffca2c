"""usearch: `search(exact=True)`, of float32 vectors and of bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.operations.compress import Compressed, Compressor, cosine_of, packed
from bench.ours.contestants import Answer, Contestant, Search, module
from pyengine.types import F32


def usearch_exact(docs: F32, metric: str, threads: int) -> Search:
    """usearch.index.search(exact=True)."""
    usearch = module("usearch.index", "usearch")
    kind = usearch.MetricKind.L2sq if metric == "l2" else usearch.MetricKind.IP

    def search(queries: F32, k: int) -> Any:
        found = usearch.search(docs, queries, k, kind, exact=True, threads=threads)
        distances, keys = np.reshape(found.distances, (-1, k)), np.reshape(found.keys, (-1, k))
        return (distances if metric == "l2" else 1 - distances), keys

    return search


def usearch_binary(docs: F32, threads: int) -> Compressed:
    """usearch.index.search(exact=True) of b1 vectors."""
    usearch = module("usearch.index", "usearch")
    bits, dim = packed(docs), docs.shape[1]
    options = {"dtype": usearch.ScalarKind.B1, "exact": True, "threads": threads}

    def search(queries: F32, k: int) -> Answer:
        found = usearch.search(bits, packed(queries), k, usearch.MetricKind.Hamming, **options)
        return cosine_of(dim, np.reshape(found.distances, (-1, k)), np.reshape(found.keys, (-1, k)))

    return Compressed(search, bits.nbytes)


PEERS = {
    "dense_topk": (Contestant("usearch", usearch_exact, pair_bytes=16, package="usearch", exactness="float32"),),
    "dense_binary": (Compressor("usearch", usearch_binary, package="usearch"),),
}

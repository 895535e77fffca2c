"""Intel's Scalable Vector Search."""

from __future__ import annotations

from bench.ours.contestants import Contestant, Search, module
from pyengine.types import F32


def svs_flat(docs: F32, metric: str, threads: int) -> Search:
    """svs.Flat, Intel's Scalable Vector Search."""
    svs = module("svs", "scalable-vs")
    built = svs.Flat(
        docs, distance=svs.DistanceType.L2 if metric == "l2" else svs.DistanceType.MIP, num_threads=threads
    )
    return lambda queries, k: built.search(queries, k)[::-1]


PEERS = {"dense_topk": (Contestant("svs", svs_flat, copies=1.0, package="scalable-vs", exactness="float32"),)}

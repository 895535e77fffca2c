"""ScaNN."""

from __future__ import annotations

from bench.ours.contestants import Contestant, Search, module
from pyengine.types import F32


def scann_brute_force(docs: F32, metric: str, threads: int) -> Search:
    """ScaNN's score_brute_force, in float32."""
    scann = module("scann")
    kind = "squared_l2" if metric == "l2" else "dot_product"
    built = scann.scann_ops_pybind.builder(docs, 10, kind).score_brute_force().build()
    built.set_num_threads(threads)
    search = built.search_batched if threads == 1 else built.search_batched_parallel
    return lambda queries, k: search(queries, final_num_neighbors=k)[::-1]


PEERS = {"dense_topk": (Contestant("scann", scann_brute_force, copies=2.0, package="scann", exactness="float32"),)}

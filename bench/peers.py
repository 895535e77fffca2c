"""The others: each the fastest exact float32 search that its library offers, set up outside the time, with the same
number of threads. What is not installed says so.

Cosine is raced on unit vectors, where it is the inner product that all of them have.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.contestants import Answer, Contestant, Search, module
from pyengine.types import F32


def faiss_flat(docs: F32, metric: str, threads: int) -> Search:
    """faiss.IndexFlatIP or IndexFlatL2."""
    faiss = module("faiss", "faiss-cpu")
    faiss.omp_set_num_threads(threads)
    built = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(docs.shape[1])
    built.add(docs)
    return lambda queries, k: built.search(queries, k)


def torch_matmul(docs: F32, metric: str, threads: int) -> Search:
    """float32 matmul, then torch.topk; l2 in its expanded form."""
    torch = module("torch")
    torch.set_num_threads(threads)
    tensor = torch.from_numpy(docs)
    squares = (tensor * tensor).sum(dim=1) if metric == "l2" else None

    def search(queries: F32, k: int) -> Any:
        rows = torch.from_numpy(queries)
        if squares is None:
            return torch.topk(rows @ tensor.T, k, dim=1)
        nearest = torch.topk(torch.addmm(squares, rows, tensor.T, alpha=-2), k, dim=1, largest=False)
        return nearest.values + (rows * rows).sum(dim=1, keepdim=True), nearest.indices

    return search


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


def usearch_exact(docs: F32, metric: str, threads: int) -> Search:
    """usearch.index.search(exact=True)."""
    usearch = module("usearch.index", "usearch")
    kind = usearch.MetricKind.L2sq if metric == "l2" else usearch.MetricKind.IP

    def search(queries: F32, k: int) -> Any:
        found = usearch.search(docs, queries, k, kind, exact=True, threads=threads)
        distances, keys = np.reshape(found.distances, (-1, k)), np.reshape(found.keys, (-1, k))
        return (distances if metric == "l2" else 1 - distances), keys

    return search


def semantic_search(docs: F32, metric: str, threads: int) -> Search:
    """sentence_transformers.util.semantic_search: a list of dictionaries per query."""
    util, torch = module("sentence_transformers.util", "sentence-transformers"), module("torch")
    torch.set_num_threads(threads)
    tensor = torch.from_numpy(docs)
    score = (lambda a, b: -torch.cdist(a, b).square()) if metric == "l2" else util.dot_score
    return lambda queries, k: util.semantic_search(torch.from_numpy(queries), tensor, top_k=k, score_function=score)


def _from_hits(hits: Any) -> Answer:
    scores = np.array([[hit["score"] for hit in row] for row in hits], np.float32)
    return scores, np.array([[hit["corpus_id"] for hit in row] for row in hits], np.int64)


def svs_flat(docs: F32, metric: str, threads: int) -> Search:
    """svs.Flat, Intel's Scalable Vector Search."""
    svs = module("svs", "scalable-vs")
    built = svs.Flat(
        docs, distance=svs.DistanceType.L2 if metric == "l2" else svs.DistanceType.MIP, num_threads=threads
    )
    return lambda queries, k: built.search(queries, k)[::-1]


def scann_brute_force(docs: F32, metric: str, threads: int) -> Search:
    """ScaNN's score_brute_force, in float32."""
    scann = module("scann")
    kind = "squared_l2" if metric == "l2" else "dot_product"
    built = scann.scann_ops_pybind.builder(docs, 10, kind).score_brute_force().build()
    built.set_num_threads(threads)
    search = built.search_batched if threads == 1 else built.search_batched_parallel
    return lambda queries, k: search(queries, final_num_neighbors=k)[::-1]


PEERS = (
    Contestant("faiss", faiss_flat, copies=1.0),
    Contestant("torch", torch_matmul, pair_bytes=4),
    Contestant("numpy", numpy_matmul, pair_bytes=12),
    Contestant("usearch", usearch_exact, pair_bytes=16),
    Contestant("sentence-transformers", semantic_search, read=_from_hits),
    Contestant("svs", svs_flat, copies=1.0),
    Contestant("scann", scann_brute_force, copies=2.0),
)

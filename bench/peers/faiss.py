"""faiss: flat indexes, also filtered and of bits, and its codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bench.operations.arena import Kept
from bench.operations.compress import TRAINING, Compressed, Compressor, cosine_of, packed
from bench.ours.contestants import Contestant, Search, module
from pyengine.types import F32


def faiss_flat(docs: F32, metric: str, threads: int) -> Search:
    """faiss.IndexFlatIP or IndexFlatL2."""
    faiss = module("faiss", "faiss-cpu")
    faiss.omp_set_num_threads(threads)
    built = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(docs.shape[1])
    built.add(docs)
    return lambda queries, k: built.search(queries, k)


def faiss_bitmap(docs: F32, metric: str, threads: int) -> Search:
    """faiss.IndexFlat with an IDSelectorBitmap."""
    faiss = module("faiss", "faiss-cpu")
    faiss.omp_set_num_threads(threads)
    built = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(docs.shape[1])
    built.add(docs)

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        if kept is None:
            return built.search(queries, k)
        chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(kept.bitmap))
        return built.search(queries, k, params=chosen)

    return search


def faiss_binary(docs: F32, threads: int) -> Compressed:
    """faiss.IndexBinaryFlat."""
    faiss = module("faiss", "faiss-cpu")
    faiss.omp_set_num_threads(threads)
    built, dim = faiss.IndexBinaryFlat(docs.shape[1]), docs.shape[1]
    built.add(packed(docs))
    return Compressed(lambda queries, k: cosine_of(dim, *built.search(packed(queries), k)), len(docs) * dim // 8)


def trained(make: Callable[[Any, int], Any]) -> Callable[[F32, int], Compressed]:
    """A faiss index for inner products that learns from some of the rows."""

    def prepare(docs: F32, threads: int) -> Compressed:
        faiss = module("faiss", "faiss-cpu")
        faiss.omp_set_num_threads(threads)
        built = make(faiss, docs.shape[1])
        built.train(docs[:: max(1, len(docs) // TRAINING)])
        built.add(docs)
        return Compressed(lambda queries, k: built.search(queries, k), len(docs) * built.sa_code_size())

    return prepare


def pq(faiss: Any, dim: int) -> Any:
    """2 bits a dimension, as 8 for every four."""
    return faiss.IndexPQ(dim, dim // 4, 8, faiss.METRIC_INNER_PRODUCT)


def sq4(faiss: Any, dim: int) -> Any:
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_4bit, faiss.METRIC_INNER_PRODUCT)


flat = partial(Contestant, "faiss", copies=1.0, package="faiss-cpu", exactness="float32")
PEERS = {
    "dense_topk": (flat(faiss_flat),),
    "dense_filter": (flat(faiss_bitmap),),
    "dense_binary": (Compressor("faiss", faiss_binary, package="faiss-cpu"),),
    "dense_residual": (
        Compressor("faiss-pq", trained(pq), package="faiss-cpu"),
        Compressor("faiss-sq4", trained(sq4), package="faiss-cpu"),
    ),
}

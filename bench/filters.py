"""Those who filter. Their search takes what is kept (`bench.arena.Kept`) as a third argument, in every form that a
library may want, so that nobody pays for a conversion; without it, it is a search of everything."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np

import pyengine
from bench.arena import Kept
from bench.contestants import Contestant, Search, Unavailable, module, require
from bench.peers import numpy_matmul
from pyengine.types import F32


def by_mask(docs: F32, metric: str, threads: int) -> Search:
    """`DenseIndex.search(mask=)`, as a bitmap."""
    built = _index(docs, metric)

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        return built.search(queries, k, mask=None if kept is None else kept.bitmap, num_threads=threads)

    return search


def by_allow(docs: F32, metric: str, threads: int) -> Search:
    """`DenseIndex.search(allow=)`, a list of ids."""
    if "allow" not in signature(pyengine.DenseIndex.search).parameters:
        raise Unavailable("this pyengine has no allow=")
    built = _index(docs, metric)

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        chosen = {} if kept is None else {"allow": kept.rows}
        return built.search(queries, k, num_threads=threads, **chosen)

    return search


def _index(docs: F32, metric: str) -> Any:
    require("cpu")
    built = pyengine.DenseIndex(docs.shape[1], metric=metric, store="int8", backend="cpu")
    built.add(docs)
    return built


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


def torch_gather(docs: F32, metric: str, threads: int) -> Search:
    """torch: gather the rows, multiply, topk."""
    torch = _torch(metric, threads)
    tensor = torch.from_numpy(docs)

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        rows = None if kept is None else torch.from_numpy(kept.rows)
        chosen = tensor if rows is None else tensor[rows]
        found = torch.topk(torch.from_numpy(queries) @ chosen.T, k, dim=1)
        return found.values, found.indices if rows is None else rows[found.indices]

    return search


def torch_fill(docs: F32, metric: str, threads: int) -> Search:
    """torch: multiply everything, fill in -inf where the mask says no, topk."""
    torch = _torch(metric, threads)
    tensor = torch.from_numpy(docs)

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        scores = torch.from_numpy(queries) @ tensor.T
        if kept is not None:
            scores.masked_fill_(~torch.from_numpy(kept.mask), -torch.inf)
        return torch.topk(scores, k, dim=1)

    return search


def numpy_gather(docs: F32, metric: str, threads: int) -> Search:
    """numpy: gather the rows, then as without a filter."""

    def search(queries: F32, k: int, kept: Kept | None = None) -> Any:
        if kept is None:
            return numpy_matmul(docs, metric, threads)(queries, k)
        scores, places = numpy_matmul(docs[kept.rows], metric, threads)(queries, k)
        return scores, np.asarray(kept.rows)[places]

    return search


def _torch(metric: str, threads: int) -> Any:
    if metric == "l2":
        raise Unavailable("only inner products are filtered here")
    torch = module("torch")
    torch.set_num_threads(threads)
    return torch


FILTERING = (
    Contestant("pyengine-int8", by_mask, ours=True, arithmetic="int8", value_bytes=1, copies=1.3),
    Contestant("pyengine-allow", by_allow, ours=True, arithmetic="int8", value_bytes=1, copies=1.3),
    Contestant("faiss", faiss_bitmap, copies=1.0),
    Contestant("torch-gather", torch_gather, pair_bytes=4),
    Contestant("torch-fill", torch_fill, pair_bytes=4),
    Contestant("numpy-gather", numpy_gather, pair_bytes=12),
)

"""PyTorch, as people write it: a product, then the best of it."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.operations.arena import Kept
from bench.ours.contestants import Contestant, Search, Unavailable, module
from bench.peers._tokens import Packed, Padded
from pyengine.inputs.ragged import Ragged
from pyengine.types import F32


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


def _torch(metric: str, threads: int) -> Any:
    if metric == "l2":
        raise Unavailable("only inner products are filtered here")
    torch = module("torch")
    torch.set_num_threads(threads)
    return torch


def torch_einsum(docs: Ragged, reduce: str, threads: int) -> Search:
    """What people write: einsum, -inf where there is no token, amax, sum."""
    torch = module("torch")

    def score(queries: Any, padded: Any, mask: Any) -> Any:
        products = torch.einsum("qid,njd->qnij", queries, padded)
        return products.masked_fill_(~mask[None, :, None], -torch.inf).amax(dim=3).sum(dim=2)

    return Padded(docs, threads).search(score)


def torch_segments(docs: Ragged, reduce: str, threads: int) -> Search:
    """A product with the packed tokens, then torch.segment_reduce."""
    packed = Packed(docs, threads)
    segments = packed.torch.segment_reduce

    def score(query: Any) -> Any:
        return segments(packed.values @ query.T, "max", lengths=packed.lengths, axis=0).sum(dim=1)

    return packed.search(score)


product = partial(Contestant, pair_bytes=4, package="torch", exactness="float32")
PEERS = {
    "dense_topk": (product("torch", torch_matmul),),
    "dense_filter": (product("torch-gather", torch_gather), product("torch-fill", torch_fill)),
    "maxsim": (
        Contestant("torch-einsum", torch_einsum, copies=3.0, package="torch", exactness="float32"),
        Contestant("torch-segments", torch_segments, package="torch", exactness="float32"),
    ),
}

"""Searches as torch operators, so that they may be part of a model: `torch.ops.pyengine.dense_topk` and `sparse_topk`,
once `pyengine.torch` is imported.

`DENSE` and `SPARSE` are their schemas. Both return (scores float32 [Q, K], ids int64 [Q, K]) on the device of the
queries: the specification's bits, from the backend "cpu" for tensors of the host, from "triton" for those of a GPU, or
from the next backend that can run there. The arguments are those of `pyengine.topk` and `pyengine.sparse_topk`; sparse
rows are CSR: offsets int64 [n + 1], and for each entry its term int64 and its weight. They work under
`torch.compile(fullgraph=True)`, and have no gradient. A search waits for its certificate, so that no CUDA graph can
hold it; `pyengine.torch.captured` makes one that does not wait.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyengine.backends import registry
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.searches import dense, plain, sparse

Found = tuple[Tensor, Tensor]

_untyped: Any = torch
_library, _check = _untyped.library.Library("pyengine", "FRAGMENT"), _untyped._check
DENSE = (
    'dense_topk(Tensor queries, Tensor docs, int k, str metric="cosine", Tensor? mask=None, Tensor? bias=None)'
    " -> (Tensor, Tensor)"
)
SPARSE = (
    "sparse_topk(Tensor query_offsets, Tensor query_terms, Tensor query_weights, Tensor doc_offsets, Tensor doc_terms,"
    " Tensor doc_weights, int n_terms, int k, Tensor? bias=None) -> (Tensor, Tensor)"
)


def _dense_topk(
    queries: Tensor,
    docs: Tensor,
    k: int,
    metric: str = "cosine",
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Found:
    _refuse_capture(queries, "dense_topk", "use pyengine.torch.captured")
    backend = _backend(queries, "dense")
    rows = plain.array(queries)
    found: Any = dense.topk(rows, docs, k, metric=metric, mask=_host(mask), bias=_host(bias), backend=backend)
    if rows is queries:
        return found.scores, found.ids
    return torch.from_numpy(found.scores), torch.from_numpy(found.ids)


def _dense_shapes(queries: Tensor, docs: Tensor, k: int, *rest: Any, **more: Any) -> Found:
    shapes = f"[Q, D] and [N, D]; got {tuple(queries.shape)} and {tuple(docs.shape)}"
    _check(queries.dim() == 2 and docs.dim() == 2, lambda: f"queries and docs must have shapes {shapes}")
    _check(queries.shape[1] == docs.shape[1], lambda: f"queries and docs must have shapes {shapes}")
    return _places(queries, queries.shape[0], k)


def _sparse_topk(
    query_offsets: Tensor, query_terms: Tensor, query_weights: Tensor, doc_offsets: Tensor, doc_terms: Tensor,
    doc_weights: Tensor, n_terms: int, k: int, bias: Tensor | None = None,
) -> Found:  # fmt: skip
    _refuse_capture(query_weights, "sparse_topk", "it cannot be captured")
    queries = SparseRows(_host(query_offsets), _host(query_terms), _host(query_weights), n_terms)
    docs = SparseRows(_host(doc_offsets), _host(doc_terms), _host(doc_weights), n_terms)
    found = sparse.sparse_topk(queries, docs, k, bias=_host(bias), backend=_backend(query_weights, "sparse"))
    scores, ids = (torch.from_numpy(each).to(query_weights.device) for each in found[:2])
    return scores, ids


def _sparse_shapes(
    query_offsets: Tensor, query_terms: Tensor, query_weights: Tensor, doc_offsets: Tensor, doc_terms: Tensor,
    doc_weights: Tensor, n_terms: int, k: int, bias: Tensor | None = None,
) -> Found:  # fmt: skip
    for offsets, name in ((query_offsets, "query_offsets"), (doc_offsets, "doc_offsets")):
        _check(offsets.dim() == 1, lambda: f"{name} must have shape [n + 1]; got {tuple(offsets.shape)}")  # noqa: B023
    return _places(query_weights, query_offsets.shape[0] - 1, k)


def _places(like: Tensor, n_queries: Any, k: int) -> Found:
    _check(k >= 1, lambda: f"k must be at least 1; got {k}")
    scores = like.new_empty((n_queries, k), dtype=torch.float32)
    return scores, like.new_empty((n_queries, k), dtype=torch.int64)


def _host(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().cpu().numpy()


def _refuse_capture(tensor: Tensor, name: str, instead: str) -> None:
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"{name} waits for its certificate, which a CUDA graph cannot: {instead}")


def _backend(tensor: Tensor, family: str) -> str:
    """On a GPU our own kernels, where they can run; else the first backend that can."""
    ours = registry.of_family("triton", family) if tensor.is_cuda and "triton" in registry.names() else None
    return "triton" if ours is not None and ours.missing() is None else "auto"


for schema, search, shapes in ((DENSE, _dense_topk, _dense_shapes), (SPARSE, _sparse_topk, _sparse_shapes)):
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _library.impl(name, search, key)
    torch.library.register_fake(f"pyengine::{name}", shapes, lib=_library)

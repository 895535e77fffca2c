"""What the faces of sentence-transformers share: its own functions, its score functions, its kinds of embeddings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.indexes.index import DenseIndex
from pyengine.indexes.sparse_index import SparseIndex
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.searches.dense import topk
from pyengine.searches.sparse import sparse_topk
from pyengine.types import TopK

METRICS = {  # the names of the library's score functions
    "cos_sim": "cosine",
    "pytorch_cos_sim": "cosine",
    "dot_score": "dot",
    "euclidean_sim": "l2",
}
REPLACED: dict[str, Any] = {}  # by name, the library's functions while it is patched


def own(name: str, module: str = "util") -> Any:
    """The library's own function."""
    return REPLACED[name] if name in REPLACED else getattr(library(module), name)


def library(module: str) -> Any:
    try:
        return import_module(f"sentence_transformers.{module}")
    except ModuleNotFoundError as error:
        if error.name != "sentence_transformers":
            raise
        raise ImportError(
            "this needs sentence-transformers, which is not installed: run 'pip install sentence-transformers'"
        ) from error


def metric_of(score_function: Callable[..., Any]) -> str | None:
    """What a score function of the library, or its double of ours, is here; None for another, or one that is not its
    own."""
    module, name = (getattr(score_function, each, "") for each in ("__module__", "__name__"))
    known = module.startswith(("sentence_transformers.", "pyengine.integrations.sentence_transformers"))
    return METRICS.get(name) if known else None


def outside(*embeddings: Any) -> bool:
    """Whether any tensor of these, or of these lists, wants gradients or lies on an accelerator."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    for each in embeddings:
        tensors = each if isinstance(each, (list, tuple)) else [each]
        for tensor in filter(checks.is_torch, tensors):
            if tensor.device.type != "cpu" or (tensor.requires_grad and torch.is_grad_enabled()):
                return True
    return False


def matrix(embeddings: Any) -> Any:
    """As the engine takes them: an array or a tensor [n, D], or `SparseRows`."""
    if isinstance(embeddings, (list, tuple)) and embeddings and all(checks.is_torch(each) for each in embeddings):
        torch = sys.modules["torch"]
        embeddings = torch.stack(list(embeddings))
    if isinstance(embeddings, SparseRows):
        return embeddings
    if checks.is_torch(embeddings) and embeddings.is_sparse:
        return SparseRows.of(embeddings if embeddings.dim() == 2 else embeddings[None], name="embeddings")
    rows = embeddings if checks.is_torch(embeddings) else np.asarray(embeddings)
    return rows[None] if rows.ndim == 1 and rows.shape[0] else rows


def search(queries: Any, corpus: Any, k: int, metric: str, exclude: Any = None) -> TopK:
    if isinstance(corpus, DenseIndex):
        if corpus.metric != metric:
            raise ValueError(f"corpus_embeddings must be an index with metric {metric!r}; got {corpus.metric!r}")
        return corpus.search(queries, k, exclude=exclude)
    if isinstance(corpus, SparseIndex):
        if metric != "dot":
            raise ValueError(
                f"corpus_embeddings must be dense for this score function; got a SparseIndex, for {metric!r}"
            )
        return corpus.search(queries, k, exclude=exclude)
    if not isinstance(queries, SparseRows) and not isinstance(corpus, SparseRows):
        queries = queries.to(checks.device_of(corpus) or "cpu") if checks.is_torch(queries) else queries
        return topk(queries, corpus, k, metric=metric, exclude=exclude)
    return sparse_topk(sparse(queries, metric), sparse(corpus, metric), k, exclude=exclude)


def sparse(rows: Any, metric: str) -> SparseRows:
    if metric == "l2":
        raise ValueError("score_function must be cos_sim or dot_score for sparse embeddings; got euclidean_sim")
    if not isinstance(rows, SparseRows):
        dense = checks.host_array(rows, "embeddings").astype(np.float32, copy=False)
        lengths, (_, terms) = np.count_nonzero(dense, axis=1), np.nonzero(dense)
        rows = SparseRows(np.concatenate([[0], np.cumsum(lengths)]), terms, dense[dense != 0], dense.shape[1])
    if metric == "dot":
        return rows  # type: ignore[no-any-return]
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    values = rows.values.astype(np.float64)
    lengths = np.sqrt(np.bincount(owner, values**2, minlength=len(rows)))
    return SparseRows(rows.indptr, rows.indices, (values / lengths[owner]).astype(np.float32), rows.n_terms)


def scored(found: TopK, metric: str) -> Any:
    """The scores as the library has them: distances are negative, and not squared."""
    scores = np.asarray(found.scores.cpu() if checks.is_torch(found.scores) else found.scores)
    return -np.sqrt(scores) if metric == "l2" else scores

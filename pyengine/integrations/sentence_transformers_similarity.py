"""The similarities of `sentence_transformers.util` as whole matrices: the float64 specification's, rounded to float32.

Such a matrix takes two to ten times as long as the library's products in float32: whoever wants the best of it, and not
the matrix, saves its memory and most of the work with `semantic_search`.

Different from the library: always float32, of integers and float64 too; NaN or inf is a ValueError. Where a tensor
wants gradients or lies on an accelerator, for pairs of sparse embeddings and for their distances, the library's own
function answers. Manhattan distances and AnglE are the library's own business.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyengine import checks
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.integrations import sentence_transformers_parts as parts
from pyengine.searches.dense_scores import dense_scores, paired_scores
from pyengine.searches.sparse import sparse_topk
from pyengine.types import F32


def cos_sim(a: Any, b: Any) -> Any:
    """Tensor float32 [n, m]: the cosine of every row of ``a`` with every row of ``b``, 0 where one has no length.

    ``a`` [n, D] and ``b`` [m, D], or [D] for one row, are tensors (dense, or sparse COO), arrays or lists.
    """
    return _scores("cos_sim", a, b)


def dot_score(a: Any, b: Any) -> Any:
    """Tensor float32 [n, m]: the product of every row of ``a`` with every row of ``b``, which are as for `cos_sim`."""
    return _scores("dot_score", a, b)


def euclidean_sim(a: Any, b: Any) -> Any:
    """Tensor float32 [n, m]: the negative distances of the rows, which are as for `cos_sim`."""
    return _scores("euclidean_sim", a, b)


def pairwise_cos_sim(a: Any, b: Any) -> Any:
    """Tensor float32 [n]: the cosine of each row of ``a`` with the row of ``b`` of the same number, or with the only
    one; of two vectors a number. Otherwise as `cos_sim`."""
    return _paired("cos_sim", a, b)


def pairwise_dot_score(a: Any, b: Any) -> Any:
    """Tensor float32 [n]: the products, as `pairwise_cos_sim`."""
    return _paired("dot_score", a, b)


def pairwise_euclidean_sim(a: Any, b: Any) -> Any:
    """Tensor float32 [n]: the negative distances, as `pairwise_cos_sim`."""
    return _paired("euclidean_sim", a, b)


def _scores(name: str, a: Any, b: Any) -> Any:
    first, second = (None, None) if parts.outside(a, b) else (parts.matrix(a), parts.matrix(b))
    metric, sparse = parts.METRICS[name], isinstance(first, SparseRows) or isinstance(second, SparseRows)
    if first is None or (sparse and metric == "l2"):
        return parts.own(name)(a, b)
    return _tensor(
        _sparse_scores(first, second, metric) if sparse else dense_scores(first, second, metric=metric), metric
    )


def _sparse_scores(a: Any, b: Any, metric: str) -> F32:
    scores = np.zeros((len(a), len(b)), np.float32)
    if scores.size:
        found = sparse_topk(parts.sparse(a, metric), parts.sparse(b, metric), len(b))
        np.put_along_axis(scores, np.asarray(found.ids), np.asarray(found.scores), axis=1)
    return scores


def _paired(name: str, a: Any, b: Any) -> Any:
    first, second = (None, None) if parts.outside(a, b) else (parts.matrix(a), parts.matrix(b))
    if any(each is None or isinstance(each, SparseRows) or each.ndim > 2 for each in (first, second)):
        return parts.own(f"pairwise_{name}")(a, b)
    first, second = (checks.vectors(each, which) for each, which in ((first, "a"), (second, "b")))
    count = max(len(first), len(second))
    first, second = (np.repeat(each, count, axis=0) if len(each) == 1 else each for each in (first, second))
    scores = _tensor(paired_scores(first, second, metric=parts.METRICS[name]), parts.METRICS[name])
    return scores[0] if np.ndim(a) == np.ndim(b) == 1 else scores


def _tensor(scores: F32, metric: str) -> Any:
    import torch

    return torch.from_numpy(-np.sqrt(scores) if metric == "l2" else scores)

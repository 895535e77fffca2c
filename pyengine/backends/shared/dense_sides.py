"""The terms of a dense search in both directions by one pass on a GPU (`kernels/dense_both.py`,
`csrc/cuda/dense_both.cu`), of torch tensors or of NumPy arrays alike.

A pair (x, y) has one score in every metric, whoever asks; only the units differ. With c its cosine, w = 1 (cosine) or
|y| (dot, l2), h = -|y|^2 in l2, in units of the largest of all y,

    s = alpha w c + beta h,    alpha unit = |x| (2 |x| in l2, 1 in cosine) times the unit of w,    beta unit that of h

as in `dense_terms`, for an owner x and what it may get, y. The coded rows and columns bound c for both directions at
once, by |c - c'| <= e + (1 + e) R as there; what rounding does to the terms, less than 2^-20 of each, R has room for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pyengine.backends.shared.dense_terms import (
    DocumentTerms,
    Lengths,
    Scale,
    array_namespace,
    document_terms,
    scale_of,
)


class SideTerms(NamedTuple):
    """Of rows or columns: ``columns`` float32 [5, N] are weight, gain, high, low and lift; and the scale of the bounds
    in their pools."""

    columns: Any
    scale: Scale


def side_terms(own: Any, others: Any, metric: str, dims: int) -> SideTerms:
    """Of vectors of the norms ``own`` float64 [N], which look for ``others`` of those norms."""
    xp, items = array_namespace(own), _as_items(own, metric, dims)
    weight_unit, offset_unit = _as_items(others, metric, dims).units
    gain = weight_unit * {"cosine": xp.ones_like(own), "dot": own, "l2": 2 * own}[metric]
    gain = xp.where(own > 0, gain, 0.0)
    unit = xp.maximum(gain, offset_unit)
    unit = xp.where(unit > 0, unit, 1.0)
    base = -own * own if metric == "l2" else xp.zeros_like(own)
    weight, none = items.columns[2], xp.zeros_like(items.columns[2])
    high, low = items.columns[3:] if metric == "l2" else (none, none)
    columns = weight, gain / unit, high, low, offset_unit / unit
    terms = xp.stack([xp.asarray(each, dtype=xp.float32) for each in columns])
    return SideTerms(terms, scale_of(xp.stack([unit, base]).T, dims))


def cosines(norms: Any, scale: Any, residual: Any, dims: int) -> Any:
    """float32 [3, N]: the terms of int8 codes, as `dense_terms` derives them, for cosines."""
    return document_terms(Lengths(norms, scale, residual, norms), False, None, "cosine", dims).columns


def _as_items(norms: Any, metric: str, dims: int) -> DocumentTerms:
    """The terms of vectors that are what is coded, so that nothing is added for that."""
    xp = array_namespace(norms)
    exactly = xp.zeros_like(norms)
    return document_terms(Lengths(norms, exactly, exactly, norms), False, None, metric, dims)

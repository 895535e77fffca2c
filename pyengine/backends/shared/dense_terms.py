"""The terms and bounds of the dense scan on a GPU (`kernels/dense_topk.py`, `csrc/cuda/dense_topk.cu`), of torch
tensors or of NumPy arrays alike.

A rank score is unit s + base, chosen for each query so that |s| is about 1 at most and nothing overflows float32:

    s = alpha w <u_q, u_d> + beta h,    u = x / |x|,    0 <= alpha, beta <= 1,    w and |h| <= 1

              w                         h                      base
    cosine    1, or |d| / |prefix|      bias                   0
    dot       |d|                       bias                   0
    l2        |d|                       -(|d|^2 + bias)        -|q|^2

each w in units of the largest, each h of the largest |h|; alpha unit is |q| (2 |q| in l2, 1 in cosine) times the unit
of w, beta unit that of h. What is multiplied is q' and d', near u_q and u_d:

    |u_q - q'| <= e, measured when the query is coded (int8 codes, or its 16 bits; with a second part about 2^-16)
    |u_d - d'| <= r, the residual of int8 codes; 0 for documents of 16 bits, which are what is multiplied (their length
                  is in the factor); 2^-10 in tf32, which cuts off all but 10 bits of the fraction

By Cauchy-Schwarz |<u_q, u_d> - <q', d'>| <= e |d'| + r |u_q| <= e (1 + r) + r = e + r (1 + e). Integer products are
exact; those of tensor cores in float32 are off by at most A (1 + e) (1 + r), A = `float32.error_factor` as for reduced
precision, four times what rounding to nearest would give, since they align and cut off what they add (which costs less
than three times as much; of two parts of a query the magnitudes add up to 2^-8 more than q', which the rest covers); of
float32 without tensor cores A is that of sums that are rounded to nearest. So

    |s - s'| <= alpha w (e + (1 + e) R) + beta o,    R = r + A (1 + r) + 2^-19,    o = 2^-20 |h| + (D + 16) 2^-50 H

where 2^-19 and 2^-20 are for every float32 rounding of a term, fewer than 2^5 in all, each of at most 2^-24 of what it
belongs to, and H = |d|^2 + |bias|, which may cancel in h, for the float64 roundings of the norms, of h and of the
specification. In l2 those of |q|^2, which all scores of a query share, are (D + 16) 2^-50 |q|^2, added to what is
dropped.

A document that float32 products may overflow or underflow for (|d| beyond 2^60 or below 2^-60, where it is not coded),
or whose w is beyond 2^20 in cosine, has an error of +inf: it always passes. Products that flush denormals lose less
than 2^-100 of what they belong to.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from pyengine.backends.shared.float32 import UNIT, error_factor

STEP = 2.0**-120  # by so much bounds may be off through underflow: `selection.STEP`
RELATIVE, OFFSET, FLOAT64 = 2.0**-19, 2.0**-20, 2.0**-50
UP = 1 + 2.0**-22  # more than rounding to float32
TF32 = 2.0**-10
LARGEST = 2.0**60
HEAVIEST = 2.0**20  # weight in cosine: of a prefix, relative to the whole


class Lengths(NamedTuple):
    """Of documents as they are scanned: ``norms`` float64 [N] of what is scored; and of int8 codes ``scale`` and
    ``residual`` float32 [N] and the norms of what they are codes of, ``whole`` float64 [N]."""

    norms: Any
    scale: Any = None
    residual: Any = None
    whole: Any = None


class DocumentTerms(NamedTuple):
    """``columns`` float32 [3 or 5, N] as the kernel takes them; ``units`` float64 [2] of w and of h."""

    columns: Any
    units: Any


def document_terms(
    known: Lengths, tf32: bool, bias: Any, metric: str, dims: int, rounded: bool = False
) -> DocumentTerms:  # fmt: skip
    """The terms of documents, scanned as codes if those are known, else as they are (in ``tf32``, in 16 bits, or in
    float32 with each sum ``rounded`` to nearest), of which ``dims`` dimensions are scored; ``bias`` float64 [N] or
    None."""
    xp, norms = array_namespace(known.norms), known.norms
    some = norms > 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if known.scale is None:
            whole, scale = norms, xp.where(some, 1 / norms, 0.0)
            far = some & ~((norms <= LARGEST) & (norms >= 1 / LARGEST))
            residual, adding = xp.full_like(norms, TF32 if tf32 else 0.0), error_factor(dims, 0.0 if rounded else UNIT)
        else:
            whole, adding = known.whole, 0.0
            scale, residual = (xp.asarray(each, dtype=xp.float64) for each in (known.scale, known.residual))
            far = norms < 0  # none
        weight = whole
        if metric == "cosine":
            weight = xp.where(some, whole / norms, 0.0)
            far = far | (weight > HEAVIEST)
        weight = xp.where(far, 0.0, weight)
        weight_unit = _unit(xp, weight.max())
        weight = weight / weight_unit
        error = weight * (residual + adding * (1 + residual) + RELATIVE) * UP
        columns = [scale * weight, xp.where(far, xp.inf, error), weight * UP]
        offset_unit = 0 * weight_unit
        if bias is not None or metric == "l2":
            offset = xp.zeros_like(norms) if bias is None else bias
            size = abs(offset)
            if metric == "l2":
                offset, size = -offset - norms**2, size + norms**2
            offset_unit = abs(offset).max()
            by = _unit(xp, offset_unit)
            margin = (OFFSET * abs(offset) + (dims + 16) * FLOAT64 * size) / by
            columns += [offset / by + margin, offset / by - margin]
        single = [xp.asarray(each, dtype=xp.float32) for each in columns]
    return DocumentTerms(xp.stack(single), xp.stack([weight_unit, offset_unit]))


def array_namespace(array: Any) -> Any:
    """numpy, or torch, which has the functions that are used here by the same names."""
    return np if isinstance(array, np.ndarray) else import_module("torch")


def _unit(xp: Any, largest: Any) -> Any:
    return xp.where(largest > 0, largest, 1.0)


class Scale(NamedTuple):
    """From s to rank scores and back, for some queries: ``unit``, ``base`` and ``slack`` float64 [Q]."""

    unit: Any
    base: Any
    slack: Any

    @property
    def centre(self) -> Any:
        """float32 [Q], as `selection.tighten` takes it."""
        return _single(self.base / self.unit)

    def floors(self, rank: Any) -> Any:
        """float32 [Q]: thresholds at which all that is dropped has a rank score of at most ``rank``."""
        s = array_namespace(rank).clip((rank - self.base - 2 * self.slack) / self.unit, None, 1e38)
        return _single(s - 2.0**-20 * abs(s) - 8 * STEP)

    def ceilings(self, rank: Any) -> Any:
        """float32 [Q]: limits such that what is bounded above them has a rank score of at least ``rank``."""
        return -Scale(self.unit, -self.base, self.slack).floors(-rank)

    def dropped(self, s: Any) -> Any:
        """float64 [Q]: the bound on rank scores that a bound on s is."""
        xp = array_namespace(s)
        rank = self.unit * (xp.asarray(s, dtype=xp.float64) + STEP)
        with np.errstate(invalid="ignore"):  # -inf + inf
            bound = rank + FLOAT64 * abs(rank) + self.base + self.slack
        return xp.where(s == -xp.inf, -xp.inf, bound)

    def estimates(self, lower: Any, upper: Any) -> Any:
        """float64 [Q, C]: rank scores in the middle between bounds on s; of what has none, of s = 0."""
        xp = array_namespace(lower)
        with np.errstate(invalid="ignore"):  # -inf + inf
            middle = (xp.asarray(lower, dtype=xp.float64) + upper) / 2
        known = xp.where(xp.isfinite(middle), middle, 0.0)
        return self.unit[:, None] * known + self.base[:, None]


def _single(array: Any) -> Any:
    xp = array_namespace(array)
    return xp.asarray(array, dtype=xp.float32)


def scale_of(scaling: Any, dims: int) -> Scale:
    """Of unit and base float64 [Q, 2], as queries are coded."""
    unit, base = scaling[:, 0], scaling[:, 1]
    return Scale(unit, base, (dims + 16) * FLOAT64 * abs(base))

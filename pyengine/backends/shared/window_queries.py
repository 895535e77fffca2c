"""Sparse queries as the scan of `csrc/cuda/sparse_topk.cu` reads them: what a level of each term counts, and how far
the sums may be off. Documents are those of `posting_windows`, whose letters these are.

A query has a unit U, a power of two, and each of its n terms a factor F_t = q_t D_t / U, rounded to an integer and,
where there is no bias, never 0. With L_t the largest level of a term and M = sum_t |q_t| D_t L_t, U is chosen so that
M / U is 2^29 to 2^30: sums of integers stay below 2^30 + 2^13 n <= 2^30 + 2^29, and no product or sum wraps. A product
of a document's weight w, whose level is l, is off by

    |q w - U F l|  <=  |q| |w - D l| + |q D / U - F| U |l|  <=  |q| r_t + |q D / U - F| U L_t

so that a score lies within ``slack`` = sum_t |q_t| r_t / U + |q_t D_t / U - F_t| L_t of its sum, in units of U. Then
2^-21 of sum_t |F_t| L_t are added, for the sum as float32 (2^-24), its bounds (2^-22), and the roundings in float64 of
the specification (n 2^-53) and of these. Where all weights are integers, the levels and factors are exact, and M is at
most 2^24, sums are the scores, exact as float32, and ``slack`` is 0.

Where nothing is negative a posting adds 1 at least: a sum of 0 says that no term is shared. With a bias b, U is at
least 2^-120 and 2^-60 of the largest |b| that float32 holds, so that b / U is a float32, but for less than 1, which is
added.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pyengine.backends.shared.posting_windows import WHOLE, Windows
from pyengine.backends.shared.row_pools import above
from pyengine.inputs.sparse_rows import I32, SparseRows
from pyengine.types import F32, F64, I64

MOST_TERMS = 1 << 16  # of a query, so that sums do not wrap
SUM_BITS = 30
ROUNDED = 2.0**-21
SMALLEST_UNIT, OF_BIAS = 2.0**-120, 2.0**-60


class WindowQueries(NamedTuple):
    """Q queries of M terms that documents have: ``offsets`` int64 [Q + 1]; ``first`` int64, ``held`` and ``factors``
    int32 [M]: the segments of a term, and F. ``slack`` and ``inverse``, 1 / U, are float32 [Q], ``units`` float64 [Q].
    ``signed``: products may be negative."""

    offsets: I64
    first: I64
    held: I32
    factors: I32
    slack: F32
    inverse: F32
    units: F64
    signed: bool


def window_queries(queries: SparseRows, docs: Windows, bias: F64 | None) -> WindowQueries:
    """The queries for a scan of these documents, whose scores have this bias."""
    known, number = docs.numbers(queries.indices)
    owner = np.repeat(np.arange(len(queries)), queries.lengths)[known]
    weights = queries.values[known].astype(np.float64)
    sizes, levels = np.abs(weights), docs.largest[number]
    largest = _sums(owner, sizes * docs.scales[number] * levels, len(queries))
    units = _units(largest, bias)
    exact_factors = sizes * docs.scales[number] / units[owner]
    factors = np.rint(exact_factors)
    if bias is None:
        factors = np.maximum(factors, 1.0)
    lost = sizes * docs.residuals[number] / units[owner] + np.abs(exact_factors - factors) * levels
    rough = np.bincount(owner, (lost > 0) | (weights != np.rint(weights)), len(queries)) > 0
    rough |= (largest > WHOLE) | (not docs.integers or bias is not None)
    slack = _sums(owner, 1.001 * lost + np.where(rough[owner], ROUNDED * factors * levels, 0.0), len(queries))
    with np.errstate(over="ignore", under="ignore"):
        inverse = (1 / units).astype(np.float32)
    return WindowQueries(
        np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(queries)))]).astype(np.int64),
        docs.first[number], docs.held[number], (np.sign(weights) * factors).astype(np.int32),
        above(slack if bias is None else slack + 1), inverse, units,
        docs.signed or bool((weights < 0).any()),
    )  # fmt: skip


def _sums(owner: I64, values: F64, count: int) -> F64:
    """float64 [Q]."""
    return np.bincount(owner, values, count).astype(np.float64)


def _units(largest: F64, bias: F64 | None) -> F64:
    """U of queries whose sums have at most these magnitudes."""
    units = np.ldexp(1.0, np.where(largest > 0, np.frexp(largest)[1] - SUM_BITS, 0))
    if bias is None:
        return units
    size = np.abs(bias)
    held = float(size[size <= np.finfo(np.float32).max].max(initial=0))
    exponent = int(np.frexp(max(SMALLEST_UNIT, OF_BIAS * held))[1])
    found: F64 = np.maximum(units, np.ldexp(1.0, exponent))
    return found

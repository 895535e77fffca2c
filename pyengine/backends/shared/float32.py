"""Upper bounds on scores by one float32 matrix product: what the backends `torch` and `faiss` propose by.

A document becomes the row [w d, c, r] and a query the row [q', 1, a]. Their inner product is the rank score, plus a
shift per query, plus the most by which float32 can have made it too small:

    cosine   q' = q/|q|   w = 1/|d|   c = bias          a = 1      r = G           shift = 0
    dot      q' = q       w = 1       c = bias          a = |q|    r = G |d|       shift = 0
    l2       q' = 2q      w = 1       c = -bias-|d|^2   a = 2|q|   r = G |d|       shift = |q|^2

with G (|bias| + |d|^2 in l2) added to c. So documents are ranked by a bound on their score, and the first that is
left out bounds all the others.

G = g / (1 - g), since what is added is rounded too, and g = gamma_{D+12}, where gamma_n = n u / (1 - n u), u = 2^-24. A
sum of D + 2 products, in any order, with or without fused multiply-add, is off by at most gamma_{D+2} times the sum of
their magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1). The other ten are for rounding q',
w d, c, a and r to float32, and for the float64 roundings of the specification, (D + 16) 2^-53 of the same magnitudes.
A product that rounds its inputs first (TF32, bf16) adds 2 v + v^2 for their relative error v.

Denormals that are flushed to zero are bounded absolutely (`QueryTerms.slack`). Norms above 2^60 could overflow: such a
document is always proposed (so is one below 2^-60 in cosine, whose w is above), and such a query proves nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pyengine.inputs.rows import Rows
from pyengine.problems.problem import DenseProblem
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Candidates

UNIT = 2.0**-24
TINY = 2.0**-126  # the smallest normal number: what flushing a denormal to zero may lose
LARGEST = 2.0**60  # norms up to here cannot overflow: 2 |q| |d| + |d|^2 + |bias| stays below 2^123
UNKNOWN = np.float32(2.0**126)  # stands for +inf, without the NaN that 0 * inf would be


class DocumentTerms(NamedTuple):
    """``columns`` float32 [N, 3] are w, c and r; ``size`` >= 1 is the largest of w and w |d|."""

    columns: F32
    size: float


class QueryTerms(NamedTuple):
    """``rows`` float32 [Q, D+2], ``shift`` float64 [Q] to subtract, ``slack`` float64 [Q] to add to a bound."""

    rows: F32
    shift: F64
    slack: F64


def error_factor(dims: int, rounding: float = 0.0) -> float:
    """G. ``rounding`` is the relative error of the product's inputs; inf where nothing is proven."""
    n = (dims + 12) * UNIT * (4 if rounding else 1)  # tensor cores align and truncate what they add
    if not (n < 0.25 and rounding < 0.1):
        return np.inf
    g = (1 + rounding) ** 2 / (1 - n) - 1  # (1 + v)^2 (1 + gamma) - 1
    return g / (1 - g)


def norms(rows: F32 | Rows, dims: int | None = None) -> F64:
    """float64 [N] of the first ``dims`` dimensions, in blocks: the order of the sum does not matter here."""
    squares = np.empty(len(rows))
    for start in range(0, len(rows), 1024):
        block = rows[start : start + 1024][:, :dims].astype(np.float64)
        np.einsum("nd,nd->n", block, block, out=squares[start : start + 1024])
    return np.sqrt(squares)


def document_terms(norms: F64, bias: F64 | None, metric: str, error: float) -> DocumentTerms:
    """The columns w, c, r of documents with these norms [N]; see the module."""
    weight = np.ones_like(norms)
    if metric == "cosine":
        weight = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    constant = np.zeros_like(norms) if bias is None else bias
    magnitude = np.abs(constant)
    if metric == "l2":
        constant, magnitude = -constant - norms**2, magnitude + norms**2
    with np.errstate(invalid="ignore"):  # 0 * inf
        columns = np.stack([weight, constant + error * magnitude, error * norms * weight], axis=1)
    outside = (np.maximum(norms, weight) > LARGEST) | (magnitude > LARGEST**2) | (error == np.inf)
    size = np.maximum(weight, norms * weight)[~outside].max(initial=1.0)
    columns[outside] = 0.0, UNKNOWN, 0.0
    return DocumentTerms(columns.astype(np.float32), float(size))


def query_terms(queries: F32, metric: str, size: float) -> QueryTerms:
    """The rows of queries [Q, D], against documents of that `DocumentTerms.size`."""
    n_queries, dims = queries.shape
    length = norms(queries)
    outside = (length > LARGEST) & (metric != "cosine")
    factor = np.where(outside, 0.0, 2.0 if metric == "l2" else 1.0)
    if metric == "cosine":
        factor = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    reach = length * factor
    rows = np.ones((n_queries, dims + 2), np.float32)
    rows[:, :dims] = queries * factor[:, None]
    rows[:, dims + 1] = reach
    shift = length**2 if metric == "l2" else np.zeros(n_queries)
    slack = 8 * (dims + 2) * TINY * size * (1 + reach) + shift * (dims + 16) * 2.0**-50
    return QueryTerms(rows, shift, np.where(outside, np.inf, slack))


def candidates(
    problem: DenseProblem, width: int, bounds: F32, rows: I64, docs: DocumentTerms, queries: QueryTerms
) -> Candidates:
    """The first ``width`` of the best bounds, float32 [Q, M] falling, at ``rows`` int64 [Q, M]. A bound of -inf is an
    empty place; the one after the last listed bounds what was dropped, so M must be above ``width`` or N."""
    last = bounds[:, width] if bounds.shape[1] > width else np.full(len(bounds), -np.inf, np.float32)
    with np.errstate(invalid="ignore"):  # -inf + inf
        proven = last.astype(np.float64) - queries.shift + queries.slack
    dropped = np.where(last == -np.inf, -np.inf, np.where(last < UNKNOWN / 2, proven, np.inf))
    bounds, rows = bounds[:, :width], rows[:, :width]
    listed = bounds != -np.inf
    offsets = np.concatenate([[0], np.cumsum(listed.sum(axis=1))]).astype(np.int64)
    return Candidates(rows[listed], offsets, _estimates(problem.metric, bounds, rows, docs, queries)[listed], dropped)


def _estimates(metric: str, bounds: F32, rows: I64, docs: DocumentTerms, queries: QueryTerms) -> F32:
    """The scores [Q, M] without the terms a r that were added for the error; of `UNKNOWN` the inner product is 0."""
    added = queries.rows[:, -1:].astype(np.float64) * docs.columns[rows, 2]
    known = np.where(np.abs(bounds) < UNKNOWN / 2, bounds, 0.0)
    rank = known - added - queries.shift[:, None]
    return reference.round_score(-rank if metric == "l2" else rank)

"""Proposing MaxSim with torch: float32 products of unit tokens, maxima and sums by segments, and a running merge of the
best bounds.

A product of unit tokens is off by at most G (`float32.error_factor`, which covers the rounding of the tokens too), and
one that flushes denormals by `TINY` for each dimension more. Times |q_i| |d_j|, in float64, it is s_ij. A maximum is
off by at most the largest error of what it is taken over. So a score sum_i a_i M_i + sum_j c_j C_j (`_coefficients`) is
off by at most

    G (sum_i |a_i| |q_i|  max_j |d_j|  +  max_i |q_i|  sum_j |c_j| |d_j|)

where |q_i| and |d_j| are 1 for normalised tokens; sums of n float64 terms add n 2^-52 to G, more than they can lose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends.shared import float32
from pyengine.backends.torch.torch_float32 import Best, rounding
from pyengine.inputs.rows import Rows
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Candidates

QUERY_TOKENS, DOC_TOKENS = 512, 8192  # in one product; more where one query or eight documents have more
PROPOSED = ("sum", "mean", "symmetric")
UNKNOWN = 1e30  # stands for an error of +inf, without the NaN that 0 * inf would be


class _Side(NamedTuple):
    """Queries, or documents: token vectors, which are decoded block by block, with ``offsets``. ``unit`` float64 [T]
    makes them unit vectors and ``size`` [T] undoes it; ``coefficient`` [T] are those of their maxima."""

    values: F32 | Rows
    offsets: I64
    unit: F64
    size: F64
    coefficient: F64

    def units(self, part: slice) -> Tensor:
        """float32 [t, D] of these tokens; in NumPy, which does not flush denormals."""
        return torch.from_numpy((self.values[part] * self.unit[part, None]).astype(np.float32))

    def largest(self) -> F64:
        return _segments(np.maximum, self.size, self.offsets)

    def total(self) -> F64:
        return _segments(np.add, np.abs(self.coefficient) * self.size, self.offsets)


def propose(problem: MaxSimProblem, width: int) -> Candidates:
    """The documents of the ``width`` best bounds of each query, and the bound that comes next."""
    queries, docs = problem.queries, problem.docs
    a, c = _coefficients(problem)
    known = docs.tokens.norms
    if known is None:
        known = docs.tokens.derived("float32 norms", lambda: float32.norms(docs.tokens.rows))
    left = _side(queries.values, queries.offsets, float32.norms(queries.values), a, problem.normalize)
    right = _side(docs.tokens.rows, docs.offsets, known, c, problem.normalize)
    errors = _errors(problem, left, right)
    empty = np.empty((0, width + 1))
    found = [_best(problem, left, right, errors, part, width + 1) for part in _blocks(left.offsets, QUERY_TOKENS, 1)]
    bounds = np.concatenate([empty, *(_wide(each.bounds, width + 1, -np.inf) for each in found)])
    rows = np.concatenate([empty.astype(np.int64), *(_wide(each.columns, width + 1, 0) for each in found)])
    listed = bounds[:, :width] > -np.inf
    offsets = np.concatenate([[0], np.cumsum(listed.sum(axis=1))]).astype(np.int64)
    owner, chosen = np.nonzero(listed)[0], rows[:, :width][listed]
    estimates = reference.round_score(bounds[:, :width][listed] - errors.of(owner, chosen))
    return Candidates(chosen, offsets, estimates, bounds[:, width])


def _coefficients(problem: MaxSimProblem) -> tuple[F64, F64]:
    """a [Tq] and c [Td] of the score, sum_i a_i M_i + sum_j c_j C_j."""
    weights = problem.query_weights, problem.doc_weights
    offsets = problem.queries.offsets, problem.docs.offsets

    def plain(lengths: I64) -> F64:
        return np.repeat(1 / np.maximum(1, np.where(problem.reduce == "sum", 1, lengths)), lengths)

    a, c = (plain(np.diff(n)) if weight is None else weight.astype(float) for weight, n in zip(weights, offsets))
    return (a / 2, c / 2) if problem.reduce == "symmetric" else (a, np.zeros(len(c)))


def _side(values: F32 | Rows, offsets: I64, lengths: F64, coefficient: F64, normalize: bool) -> _Side:
    unit = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return _Side(values, offsets, unit, (lengths > 0).astype(float) if normalize else lengths, coefficient)


class _Errors(NamedTuple):
    """By how much a score may be off: ``factor`` (query[0] doc[0] + query[1] doc[1]) + rest, of float64 [2, Q],
    [2, N] and [N]."""

    factor: float
    query: F64
    doc: F64
    rest: F64

    def of(self, q: I64 | slice, d: I64 | slice) -> F64:
        """Of these queries and documents, paired; or of all of both [q, n], where they are slices."""
        query, doc = self.query[:, q], self.doc[:, d]
        if isinstance(q, slice):
            query, doc = query[:, :, None], doc[:, None]
        error: F64 = self.factor * (query * doc).sum(axis=0) + self.rest[d]
        return error


def _errors(problem: MaxSimProblem, left: _Side, right: _Side) -> _Errors:
    dim = problem.docs.dim
    factor = min(UNKNOWN, float32.error_factor(dim, rounding(torch.device("cpu"))) + 8 * dim * float32.TINY)
    factor += 2.0**-52 * (16 + max(np.diff(side.offsets).max(initial=0) for side in (left, right)))
    rest = np.zeros(len(problem.docs)) if problem.bias is None else 2.0**-50 * np.abs(problem.bias)
    return _Errors(factor, np.stack([left.total(), left.largest()]), np.stack([right.largest(), right.total()]), rest)


def _best(problem: MaxSimProblem, left: _Side, right: _Side, errors: _Errors, which: slice, keep: int) -> Best:
    """The ``keep`` best bounds of these queries."""
    spans = slice(*left.offsets[[which.start, which.stop]])
    units, mask = left.units(spans), problem.mask
    best = Best(torch.empty((which.stop - which.start, 0), dtype=torch.float64), torch.empty((0,), dtype=torch.int64))
    best = best._replace(columns=best.bounds.long())
    for docs in _blocks(right.offsets, DOC_TOKENS, 8):
        bounds = _estimates(problem, left, right, which, docs, units) + torch.from_numpy(errors.of(which, docs))
        if mask is not None:
            own = mask[which if len(mask) > 1 else slice(None), docs.start // 8 :]
            bounds.masked_fill_(torch.from_numpy(~checks.unpack(own, docs.stop - docs.start)), -torch.inf)
        best = best.merge(bounds, docs.start, keep)
    return best


def _estimates(problem: MaxSimProblem, left: _Side, right: _Side, which: slice, docs: slice, units: Tensor) -> Tensor:
    """float64 [q, n]: the scores, by float32 products. What may be mapped from a read-only file, which torch warns of,
    is copied."""
    spans = [slice(*side.offsets[[part.start, part.stop]]) for side, part in ((left, which), (right, docs))]
    lengths = [torch.from_numpy(np.diff(side.offsets)[part]) for side, part in ((left, which), (right, docs))]
    size, coefficient = (
        [torch.from_numpy(getattr(side, name)[span].copy()) for side, span in zip((left, right), spans)]
        for name in ("size", "coefficient")
    )
    products = right.units(spans[1]) @ units.T
    if not problem.normalize:
        products = products.double() * size[1][:, None] * size[0]
    maxima = torch.segment_reduce(products, "max", lengths=lengths[1], axis=0).double() * coefficient[0]
    scores = torch.segment_reduce(maxima.T.contiguous(), "sum", lengths=lengths[0], axis=0)
    if problem.reduce == "symmetric":
        maxima = torch.segment_reduce(products.T.contiguous(), "max", lengths=lengths[0], axis=0).double()
        maxima = (maxima * coefficient[1]).T.contiguous()
        scores += torch.segment_reduce(maxima, "sum", lengths=lengths[1], axis=0).T
    scores.masked_fill_(lengths[1] == 0, -torch.inf)
    scores.masked_fill_((lengths[0] == 0)[:, None], 0.0)
    return scores if problem.bias is None else scores + torch.from_numpy(problem.bias[docs].copy())


def _blocks(offsets: I64, n_tokens: int, multiple: int) -> Iterator[slice]:
    """Slices of rows that hold about so many tokens, and begin at a multiple."""
    start, end = 0, len(offsets) - 1
    while start < end:
        stop = int(np.searchsorted(offsets, offsets[start] + n_tokens, side="right")) - 1
        stop = min(end, start + max(multiple, (stop - start) // multiple * multiple))
        yield slice(start, stop)
        start = stop


def _segments(ufunc: np.ufunc, values: F64, offsets: I64) -> F64:
    """Of each row; 0 where it is empty."""
    found, filled = np.zeros(len(offsets) - 1), np.diff(offsets) > 0
    if filled.any():
        found[filled] = ufunc.reduceat(values, offsets[:-1][filled])
    return found


def _wide(values: Tensor, width: int, fill: float) -> np.ndarray:
    """[q, m] as [q, width]."""
    array = np.full((len(values), width), fill, values.numpy().dtype)
    array[:, : values.shape[1]] = values.numpy()
    return array

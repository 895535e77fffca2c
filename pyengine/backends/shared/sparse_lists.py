"""From the scores of the documents that share terms with a query to candidates: what the backends `numpy`, `scipy` and
`torch` do alike.

They sum in float64, where a product of two float32 weights is exact. A sum of n terms, in any order, is off by at most
gamma_{n-1} times the sum of their magnitudes, gamma_n = n u / (1 - n u), u = 2^-53 (Higham, "Accuracy and Stability of
Numerical Algorithms", 3.1). So is the specification's, and the sum of magnitudes itself. ``ERROR`` n times that sum
covers the three with room, and adding a bias another 2^-52 of its result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyengine.inputs.sparse_rows import I32
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Candidates

ERROR = 2.0**-50
SMALL_IDS = 1 << 16  # 16-bit keys are sorted by radix


class Sharing(NamedTuple):
    """All documents that share a term with a query: ``rows`` int64 [m], their ``scores`` and the sums of the
    ``magnitudes`` of the terms of those, float64 [m]."""

    rows: I64
    scores: F64
    magnitudes: F64


class Inverted(NamedTuple):
    """The weights of each of the rising ``terms`` [T], ``starts[t]:starts[t + 1]`` of ``docs`` int32 and ``weights``
    float64 [P], by rising documents. ``signed``: some are negative."""

    terms: I32
    starts: I64
    docs: I32
    weights: F64
    signed: bool

    def of(self, terms: I32) -> I64:
        """int64: the places of these terms in ``terms``, -1 for one that no document has."""
        if not len(self.terms):
            return np.full(len(terms), -1, np.int64)
        at = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        return np.where(self.terms[at] == terms, at, -1)


def inverted(problem: SparseProblem) -> Inverted:
    """Of the documents: kept with them where they outlive the search, else of the terms of the queries alone."""
    docs = problem.docs
    if docs.cache is not None:
        return docs.derived("inverted", lambda: _invert(problem, None))
    return _invert(problem, np.unique(problem.queries.indices))


def _invert(problem: SparseProblem, wanted: I32 | None) -> Inverted:
    rows = problem.docs.sparse_rows()
    owner = np.repeat(np.arange(len(rows), dtype=np.int32), rows.lengths)
    terms, weights = rows.indices, rows.values
    if wanted is not None:
        kept = np.isin(terms, wanted)
        owner, terms, weights = owner[kept], terms[kept], weights[kept]
    small = rows.n_terms <= SMALL_IDS
    order = np.argsort(terms.astype(np.uint16) if small else terms, kind="stable")
    terms = terms[order]
    starts = np.flatnonzero(np.diff(terms, prepend=-1))
    ends = np.append(starts, len(terms)).astype(np.int64)
    return Inverted(terms[starts], ends, owner[order], weights[order].astype(np.float64), bool((weights < 0).any()))


def candidates(problem: SparseProblem, found: Iterable[Sharing], width: int) -> Candidates:
    """The ``width`` best bounds of each query, and the bound that comes next."""
    each = [_of_query(problem, q, own, width) for q, own in enumerate(found)]
    rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _, _ in each)])
    estimates = np.concatenate([np.empty(0, np.float32), *(estimates for _, estimates, _ in each)])
    offsets = np.cumsum([0, *(len(rows) for rows, _, _ in each)]).astype(np.int64)
    return Candidates(rows, offsets, estimates, np.array([dropped for _, _, dropped in each], np.float64))


def _of_query(problem: SparseProblem, q: int, found: Sharing, width: int) -> tuple[I64, F32, float]:
    n_terms, bias = len(problem.queries[q][0]), problem.bias
    error = ERROR * n_terms * found.magnitudes
    if bias is None:
        rows, scores, others = found.rows, found.scores, 0.0
    else:  # those without shared terms do not tie
        rows, scores, others = np.arange(len(problem.docs)), bias.copy(), -np.inf
        scores[found.rows] += found.scores
        wide = 2.0**-50 * np.abs(scores)
        wide[found.rows] += error + 2.0**-50 * np.abs(found.scores)
        error = wide
    kept = _allowed(problem, q, rows)
    rows, scores, bounds = rows[kept], scores[kept], (scores + error)[kept]
    if len(rows) <= width:
        return rows, reference.round_score(scores), others
    split = len(rows) - width
    order = np.argpartition(bounds, (split - 1, split))
    best = order[split:]
    return rows[best], reference.round_score(scores[best]), max(others, float(bounds[order[split - 1]]))


def _allowed(problem: SparseProblem, q: int, rows: I64) -> NDArray[np.bool_] | slice:
    if problem.mask is None:
        return slice(None)
    bits = problem.mask[q if len(problem.mask) > 1 else 0]
    kept: NDArray[np.bool_] = (bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(bool)
    return kept

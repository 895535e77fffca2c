"""The sparse specification on candidate lists: the C++ kernels where they are built, NumPy where not.

Both give the same bits. What does not depend on the family is in `exact`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from pyengine import exact, reference, reference_sparse
from pyengine.lists import first_rows
from pyengine.problem_sparse import Postings, SparseProblem, TermRows
from pyengine.types import F32, I64, Candidates

PAIR_WEIGHTS = 1 << 20  # weights of candidates that the NumPy form gathers together


def native() -> ModuleType | None:
    """The compiled extension, if it has the sparse kernels."""
    kernels = exact.native()
    return kernels if hasattr(kernels, "sparse_propose") else None


def native_rows(rows: TermRows) -> Any:
    """Rows as the extension takes them."""
    kernels = native()
    assert kernels is not None
    values = rows.values.view(np.uint16) if rows.values.dtype == np.float16 else rows.values
    return kernels.TermRows(rows.offsets, rows.terms, values, rows.n_terms, low=rows.low, step=rows.step)


def build(rows: TermRows, first: int, last: int, terms: I64 | None = None, num_threads: int = 1) -> Postings:
    """The inverted form of the rows first .. last-1; only of these rising terms, where given. Needs the extension."""
    kernels = native()
    assert kernels is not None
    wanted = None if terms is None else terms.astype(np.int32)
    arrays = kernels.build_postings(native_rows(rows), first, last, wanted, num_threads)
    return Postings(first, last - first, arrays)


def refine(problem: SparseProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates (see `reference_sparse.scores`)."""
    kernels = native()
    if kernels is None:
        return _refine(problem, candidates)
    queries, docs = (native_rows(rows) for rows in (TermRows.of(problem.queries), problem.docs.rows))
    scores: F32 = kernels.sparse_refine(
        queries, docs, problem.bias, candidates.rows, candidates.offsets, problem.num_threads
    )
    return scores


def _refine(problem: SparseProblem, candidates: Candidates) -> F32:
    """`refine` in NumPy, so many candidates at a time that little memory is held."""
    docs, owner = problem.docs.rows, first_rows(candidates.offsets)
    ends = np.cumsum(docs.offsets[candidates.rows + 1] - docs.offsets[candidates.rows])
    scores = np.empty(len(owner))
    start = 0
    while start < len(owner):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + PAIR_WEIGHTS, side="right")))
        part = slice(start, stop)
        scores[part] = reference_sparse.pair_sums(problem.queries, owner[part], docs.decoded(candidates.rows[part]))
        start = stop
    if problem.bias is not None:
        scores += problem.bias[candidates.rows]
    return reference.round_score(scores)

"""What the specification says of a problem, of any family: what the conformance suite compares with."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyengine import checks
from pyengine.inputs.filters import Filters
from pyengine.inputs.lists import first_rows
from pyengine.problems.problem import DenseProblem, Problem
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.specification import reference, reference_maxsim, reference_sliced, reference_sparse
from pyengine.types import F64, Bool, TopK


def rank_scores(problem: Problem) -> F64:
    """float64 [Q, N]: what ``dropped`` has to bound, before any rounding to float32."""
    if isinstance(problem, MaxSimProblem):
        return reference_maxsim.unrounded_scores(problem.queries, problem.docs.ragged(), **problem.scoring())
    if isinstance(problem, SlicedProblem):
        return reference_sliced.unrounded_scores(problem.queries, problem.docs.rows, problem.bias)
    if isinstance(problem, SparseProblem):
        return reference_sparse.unrounded_scores(problem.queries, problem.docs.sparse_rows(), problem.bias)
    assert isinstance(problem, DenseProblem)
    rows = problem.docs.vectors()[:, : problem.dims]
    scores = np.empty((problem.n_queries, len(rows)))
    for q, query in enumerate(problem.queries[:, None, : problem.dims]):
        scores[q] = reference.unrounded_scores(query, rows, problem.metric, problem.bias)
    return -scores if problem.metric == "l2" else scores


def allowed(problem: Problem) -> Bool:
    """bool [Q, N]: which documents each query may get."""
    shape = (problem.n_queries, len(problem.docs))
    mask = np.ones((1, 1), bool) if problem.mask is None else checks.unpack(problem.mask, len(problem.docs))
    return np.broadcast_to(mask, shape)


def specified(problem: Problem) -> TopK:
    """The answer, by `pyengine.specification.reference`."""
    filters = problem.filters or Filters()
    sign = -1.0 if problem.metric == "l2" else 1.0
    options: dict[str, Any] = {
        "mask": permitted(problem),
        "ids": problem.ids,
        "groups": filters.groups,
        "per_group": filters.per_group,
        "after": None if filters.after is None else (sign * filters.after.rank, filters.after.ids),
        "threshold": None if filters.threshold is None else sign * filters.threshold,
    }
    if isinstance(problem, MaxSimProblem):
        docs = problem.docs.ragged()
        return reference_maxsim.topk(problem.queries, docs, problem.k, **problem.scoring(), **options)
    if isinstance(problem, SlicedProblem):
        return reference_sliced.topk(problem.queries, problem.docs.rows, problem.k, bias=problem.bias, **options)
    if isinstance(problem, SparseProblem):
        rows = problem.docs.sparse_rows()
        return reference_sparse.topk(problem.queries, rows, problem.k, bias=problem.bias, **options)
    assert isinstance(problem, DenseProblem)
    return reference.topk(
        problem.queries, problem.docs.vectors(), problem.k, problem.metric,
        bias=problem.bias, dims=problem.dims, **options,
    )  # fmt: skip


def permitted(problem: Problem) -> Bool:
    """bool [Q, N]: what the mask allows and ``exclude`` leaves."""
    may: Bool = allowed(problem).copy()
    gone = None if problem.filters is None else problem.filters.excluded
    if gone is not None:
        may[first_rows(gone.offsets), gone.rows] = False
    return may

"""Ranks of given documents, for recall, mean reciprocal rank and the like, without a queries x documents matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.backends.base import Proposer
from pyengine.backends.cuda.cuda_inputs import operands
from pyengine.inputs import filters
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.lists import first_rows
from pyengine.problems.problem import ALL, DenseProblem, Documents
from pyengine.refining import exact
from pyengine.searches.dense import prepare
from pyengine.searches.request import answer, as_input
from pyengine.specification import reference
from pyengine.types import F32, I64, Bool, Candidates

PAIRS = 1024  # queries with one target each, counted together


@exact.arithmetic()
def rank_of(
    queries: Any,
    docs: Any,
    targets: Any,
    *,
    metric: str = "cosine",
    mask: Any = None,
    allow: Any = None,
    deny: Any = None,
    exclude: Any = None,
    bias: Any = None,
    dims: int | None = None,
    backend: str = "auto",
    num_threads: int | None = None,
) -> Any:
    """The exact rank of target documents: 1 for the best, ties by smaller id.

    Parameters
    ----------
    targets : int [Q] or [Q, T]
        Ids (here: row numbers) of one or T documents for each query.

    The rank is 1 + the number of *other* documents, of those that the filters allow, which have a better score, or the
    same score and a smaller id. So it is defined for a target that is itself masked out, denied or excluded, too: the
    "filtered" rank of link prediction excludes all known positives and ranks each of them. The other arguments, and
    the errors, are those of `pyengine.topk`; a target that is unknown is a ValueError. ``cpu``, ``triton``
    and ``cuda`` count in one pass over codes; other backends score every document by the specification, once for each
    target.

    Returns
    -------
    int64, of the shape of ``targets``
    """
    asked, rows = operands(queries, docs)
    checks.finite(rows, "docs")
    given = FilterArguments(allow=allow, deny=deny, exclude=exclude)
    problem = prepare(
        asked, Documents(rows, checked=True), ALL, metric=metric, mask=mask, filters=given, bias=bias, dims=dims,
        num_threads=num_threads,
    )  # fmt: skip
    return run(problem, targets, backend, like=queries)


def run(problem: DenseProblem, targets: Any, backend: str, like: Any) -> Any:
    """Check the targets, choose the backend, count, and give the result in the caller's kind of array."""
    rows = _target_rows(problem, targets)
    counted = answer(problem, backend, lambda problem, chosen: ranks(problem, chosen, rows))
    return as_input(counted, like)


def _target_rows(problem: DenseProblem, targets: Any) -> I64:
    """int64 [Q] or [Q, T]."""
    given = filters.integers(targets, "targets")
    n_queries = problem.n_queries
    if given.ndim not in (1, 2) or len(given) != n_queries:
        raise ValueError(f"targets must have shape ({n_queries},) or ({n_queries}, T); got {given.shape}")
    rows = problem.docs.rows_of(problem.ids, filters.as_ids(given))
    if (rows < 0).any():
        raise ValueError(f"targets must hold ids of documents; got {given[rows < 0][0]}, which is unknown")
    return rows


def ranks(problem: DenseProblem, backend: Proposer[DenseProblem], rows: I64) -> I64:
    """The ranks of these rows, [Q] or [Q, T], each for its query."""
    problem = backend.lasting(replace(problem, docs=problem.docs.without_loose_codes()))
    flat = rows.ravel()
    owner = np.repeat(np.arange(problem.n_queries), 1 if rows.ndim == 1 else rows.shape[1])
    found = np.empty(len(flat), np.int64)
    for start in range(0, len(flat), PAIRS):
        part = slice(start, start + PAIRS)
        found[part] = 1 + _count_better(problem.only(owner[part]), backend, flat[part])
    return found.reshape(rows.shape)


def _count_better(problem: DenseProblem, backend: Proposer[DenseProblem], targets: I64) -> I64:
    """int64 [Q]: how many allowed documents rank before the target of each query."""
    alone = Candidates(targets, np.arange(len(targets) + 1), np.empty(len(targets), np.float32), np.empty(0))
    rank = reference.rank_score(backend.refine(problem, alone), problem.metric)
    exactly = rank.astype(np.float64)
    sought = replace(problem, floor=filters.below(exactly), ceiling=filters.above(exactly))
    count = backend.before(sought, targets, rank)
    if count is None:
        count = np.zeros(len(targets), np.int64)
        for which, listed, above in backend.within(sought):
            count[which] = above + _better(problem.only(which), backend, listed, targets[which], rank[which])
    gone = None if problem.filters is None else problem.filters.excluded
    if gone is not None:  # they were counted with the others, be it among those above
        listed = Candidates(gone.rows, gone.offsets, np.empty(len(gone.rows), np.float32), np.empty(0))
        count -= _better(problem, backend, problem.allowed(listed), targets, rank)
    return count


def _better(problem: DenseProblem, backend: Proposer[DenseProblem], listed: Candidates, targets: I64, rank: F32) -> I64:
    """int64 [Q]: how many of the listed documents rank before the target, of this rank score, of their query."""
    scores = reference.rank_score(backend.refine(problem, listed), problem.metric)
    owner = first_rows(listed.offsets)
    own = rank[owner]
    tied_before = problem.ids_of(listed.rows) < problem.ids_of(targets)[owner]
    better: Bool = (scores > own) | ((scores == own) & tied_before)
    return np.bincount(owner[better], minlength=problem.n_queries)

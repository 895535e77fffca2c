"""Range search: every document whose score reaches a threshold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from pyengine import checks
from pyengine.backends.base import Proposer
from pyengine.backends.cuda.cuda_inputs import operands
from pyengine.inputs import lists
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import ALL, Documents, Problem
from pyengine.refining import exact
from pyengine.searches.dense import prepare
from pyengine.searches.request import answer, as_input
from pyengine.searches.search import refined
from pyengine.specification import reference
from pyengine.types import Ranges

P = TypeVar("P", bound=Problem)


@exact.arithmetic()
def range_search(
    queries: Any,
    docs: Any,
    threshold: Any,
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
) -> Ranges:
    """Every document of a float32 score of at least ``threshold`` (at most, for ``l2``), exact to the bit.

    Parameters
    ----------
    threshold : real, or real [Q]
        -inf (inf for ``l2``) asks for every document.

    The other arguments, and the errors, are those of `pyengine.topk`. ``cpu``, ``triton`` and ``cuda``
    find them in one pass over codes; other backends score every document by the specification.

    Returns
    -------
    Ranges
        ``scores`` float32 [M], ``ids`` int64 [M], ``offsets`` int64 [Q+1]: of each query best first, ties by smaller
        id.
    """
    asked, rows = operands(queries, docs)
    checks.finite(rows, "docs")
    given = FilterArguments(allow=allow, deny=deny, exclude=exclude, threshold=required(threshold))
    problem = prepare(
        asked, Documents(rows, checked=True), ALL, metric=metric, mask=mask, filters=given, bias=bias, dims=dims,
        num_threads=num_threads,
    )  # fmt: skip
    return run(problem, backend, like=queries)


def required(threshold: Any) -> Any:
    if threshold is None:
        raise TypeError("threshold must be a number, or one per query; got None")
    return threshold


def run(problem: Problem, backend: str, like: Any) -> Ranges:
    """Choose the backend, search, and give the result in the caller's kind of array."""
    return Ranges(*(as_input(part, like) for part in answer(problem, backend, reaching)))


def reaching(problem: P, backend: Proposer[P]) -> Ranges:
    """Everything that the problem's filters leave. Parts come in the order of the queries."""
    problem = backend.lasting(replace(problem, docs=problem.docs.without_loose_codes()))
    parts = []
    for which, listed, _ in backend.within(problem.asking(problem.k)):
        part = problem.only(which)
        parts.append(_ordered(part, part.eligible(refined(part, backend, part.not_excluded(listed)))))
    offsets = np.zeros(problem.n_queries + 1, np.int64)
    np.cumsum(np.concatenate([np.empty(0, np.int64), *(np.diff(part.offsets) for part in parts)]), out=offsets[1:])
    scores = np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)])
    return Ranges(scores, np.concatenate([np.empty(0, np.int64), *(part.ids for part in parts)]), offsets)


def _ordered(problem: Problem, found: Any) -> Ranges:
    ids = problem.ids_of(found.rows)
    order = lists.best_first(found, reference.rank_score(found.estimates, problem.metric), ids)
    return Ranges(found.estimates[order], ids[order], found.offsets)

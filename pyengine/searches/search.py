"""The search core: propose -> refine -> certify -> select. The guarantee lives here, above all backends."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from pyengine.backends.base import Proposer, score_all
from pyengine.inputs import lists
from pyengine.problems.problem import ALL, Problem
from pyengine.specification import reference
from pyengine.types import F32, F64, Attempt, Bool, Candidates, TopK

P = TypeVar("P", bound=Problem)
WIDEN = 8  # how much longer the candidate lists get when a certificate fails
SCAN_FRACTION = 4  # lists longer than N / SCAN_FRACTION are not worth proposing: score everything


def exact_search(problem: P, backend: Proposer[P]) -> TopK:
    """Top-k equal to the specification. What cannot be certified is proposed again with longer lists, and at last
    scored in full."""
    problem = backend.readied(problem.among(problem.docs.without_loose_codes()))
    asked = problem.asking(problem.places())
    width = backend.first_width(asked)
    result = _propose_and_refine(problem, backend, asked, width)
    while True:
        if result.certified.all():
            return result
        open_queries = np.flatnonzero(~result.certified)
        if backend.presumes and not problem.sure:  # perhaps what failed is only what was presumed
            problem = replace(problem, sure=True)
            rest = problem.only(open_queries)
            better = _propose_and_refine(rest, backend, rest.asking(asked.k), width)
        else:
            width *= WIDEN
            rest = problem.only(open_queries)
            # Without filters, k places suffice; with them, more are asked for, since some are taken by what may not be.
            asked = rest.asking(rest.k if rest.filters is None else max(rest.places(), min(asked.k * WIDEN, ALL)))
            wide = max(width, asked.k) < len(problem.docs) // SCAN_FRACTION
            better = _propose_and_refine(rest, backend, asked, width) if wide else _scan(rest, backend)
        for old, new in zip(result, better):
            old[open_queries] = new


def exact_both(forth: P, back: P, backend: Proposer[P]) -> tuple[TopK, TopK]:
    """`exact_search` of two problems, of which each has the other's documents as its queries."""
    forth, back = backend.lasting(forth), backend.lasting(back)
    found = backend.both(forth, back)
    if found is None:
        return exact_search(forth, backend), exact_search(back, backend)
    return _completed(forth, backend, found[0]), _completed(back, backend, found[1])


def _completed(problem: P, backend: Proposer[P], found: Attempt) -> TopK:
    """What was found, and another search for what of it is not certified."""
    result = TopK(found.scores, found.ids, certified(problem, found.dropped, found.scores))
    open_queries = np.flatnonzero(~result.certified)
    if len(open_queries):
        for old, new in zip(result, exact_search(problem.only(open_queries), backend)):
            old[open_queries] = new
    return result


def fast_search(problem: P, backend: Proposer[P], rescore: int | None = None) -> TopK:
    """Top-k by the proposer's own scores, or of the ``rescore`` k best of them by the specification's; never certified.
    How far the proposer's may be off is the backend's to document; where they are `only_bounds`, ``rescore`` is 1."""
    if rescore is None and backend.only_bounds(problem):
        rescore = 1
    problem = backend.readied(problem.among(problem.docs.trusting_loose_codes()))
    problem = replace(problem, sure=True)  # nobody would notice a failure
    asked = problem.asking(min(problem.places() * (rescore or 1), ALL))
    candidates = problem.not_excluded(backend.propose(asked, backend.first_width(asked)))
    if rescore is not None:
        candidates = refined(problem, backend, _best(problem, candidates, asked.k))
    candidates = problem.eligible(candidates)
    scores, ids = backend.select(problem, candidates, candidates.estimates)
    return TopK(scores, ids, np.zeros(problem.n_queries, bool))


def refined(problem: P, backend: Proposer[P], candidates: Candidates) -> Candidates:
    """The same candidates, with the specification's scores."""
    return candidates._replace(estimates=backend.refine(problem, candidates))


def _propose_and_refine(problem: P, backend: Proposer[P], asked: P, width: int) -> TopK:
    found = backend.attempt(problem, asked, width)
    if found is None:
        candidates = problem.not_excluded(backend.propose(asked, width))
        candidates = problem.eligible(refined(problem, backend, candidates))
        found = Attempt(*backend.select(problem, candidates, candidates.estimates), candidates.dropped)
    return TopK(found.scores, found.ids, certified(problem, found.dropped, found.scores))


def _scan(problem: P, backend: Proposer[P]) -> TopK:
    """Top-k with every document scored by the specification: the last resort, and always right."""
    return backend.scan(problem) if problem.filters is None else score_all(problem, backend)


def _best(problem: Problem, candidates: Candidates, count: int) -> Candidates:
    """The best of each query by their estimates."""
    rank = reference.rank_score(candidates.estimates, problem.metric)
    order = lists.best_first(candidates, rank, problem.ids_of(candidates.rows))
    return lists.take(candidates, lists.places(candidates, order) < count)


def certified(problem: Problem, dropped: F64, top_scores: F32) -> Bool:
    """bool [Q]: whether nothing of what was ``dropped``, float64 [Q], can belong to the top k.

    The last score must beat the bound on the dropped, rounded to float32 as a score would be: strictly, since an
    equal score with a smaller id would come first. A short list (pads) is whole only if nothing was dropped, or
    nothing that reaches the threshold.
    """
    nothing: Bool = dropped == -np.inf
    if nothing.all():
        return nothing
    whole = problem.filters is None or np.isfinite(top_scores[:, -1]).all()
    places = problem.k if whole else problem.most()
    last = reference.rank_score(top_scores[:, places - 1], problem.metric)
    could_be = reference.round_score(dropped)  # at most the largest float32, whatever the bound
    proven: Bool = nothing | (could_be < last)
    if problem.filters is not None and problem.filters.threshold is not None:
        proven |= could_be < problem.filters.threshold
    return proven

"""The search core: propose -> refine -> certify -> select. The guarantee lives here, above all backends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pyengine import reference
from pyengine.backends.base import Backend
from pyengine.problem import DenseProblem
from pyengine.types import F32, Bool, Candidates, TopK

WIDEN = 8  # how much longer the candidate lists get when a certificate fails
SCAN_FRACTION = 4  # lists longer than N / SCAN_FRACTION are not worth proposing: score everything


def exact_search(problem: DenseProblem, backend: Backend) -> TopK:
    """Top-k equal to the specification. What cannot be certified is proposed again with longer lists, and at last
    scored in full."""
    problem = replace(problem, docs=problem.docs.without_loose_codes())
    width = backend.first_width(problem)
    result = _propose_and_refine(problem, backend, width)
    while True:
        open_queries = np.flatnonzero(~result.certified)
        if open_queries.size == 0:
            return result
        width *= WIDEN
        rest = problem.only(open_queries)
        wide = width < len(problem.docs) // SCAN_FRACTION
        better = _propose_and_refine(rest, backend, width) if wide else backend.scan(rest)
        for old, new in zip(result, better):
            old[open_queries] = new


def fast_search(problem: DenseProblem, backend: Backend) -> TopK:
    """Top-k by the proposer's own scores; never certified. How far they may be off is the backend's to document."""
    problem = replace(problem, docs=problem.docs.trusting_loose_codes())
    candidates = backend.propose(problem, backend.first_width(problem))
    scores, ids = backend.select(problem, candidates, candidates.estimates)
    return TopK(scores, ids, np.zeros(problem.n_queries, bool))


def _propose_and_refine(problem: DenseProblem, backend: Backend, width: int) -> TopK:
    candidates = backend.propose(problem, width)
    scores = backend.refine(problem, candidates)
    top_scores, top_ids = backend.select(problem, candidates, scores)
    return TopK(top_scores, top_ids, certified(problem, candidates, top_scores))


def certified(problem: DenseProblem, candidates: Candidates, top_scores: F32) -> Bool:
    """bool [Q]: whether nothing that was dropped can belong to the top k.

    The k-th score must beat the bound on the dropped, rounded to float32 as a score would be: strictly, since an
    equal score with a smaller id would come first. A short list (pads) is whole only if nothing was dropped.
    """
    kth = reference.rank_score(top_scores[:, -1], problem.metric)
    nothing_dropped = candidates.dropped == -np.inf
    could_be = reference.round_score(candidates.dropped)
    beaten = (could_be < kth) & (candidates.dropped < np.inf) & (kth > -np.inf)
    proven: Bool = nothing_dropped | beaten
    return proven

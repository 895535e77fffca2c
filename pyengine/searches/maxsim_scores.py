"""MaxSim scores of all pairs, or of listed ones: each made by the specification, where the tokens lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pyengine.backends.base import Proposer
from pyengine.inputs.filters import integers
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.refining import exact
from pyengine.searches.request import answer
from pyengine.types import F32, I64, Candidates

PairsOf = Callable[[slice], tuple[I64, I64]]  # the query numbers and document rows of some of a list of pairs


def matrix(problem: MaxSimProblem, backend: Proposer[MaxSimProblem]) -> F32:
    """float32 [Q, documents], in the order of their rows."""
    problem = backend.readied(problem)
    scores = np.empty((problem.n_queries, problem.docs.n_living), np.float32)
    for which in exact.portions(problem):
        part = problem.only(which)
        scores[which] = backend.refine(part, exact.everything(part)).reshape(len(which), -1)
    return scores


def pair_list(pairs: object) -> np.ndarray:
    """int [P, 2], as given."""
    chosen = integers(pairs, "pairs")
    chosen = chosen.reshape(0, 2) if not chosen.size else chosen
    if chosen.ndim != 2 or chosen.shape[1] != 2:
        raise ValueError(f"pairs must have shape [P, 2]; got shape {chosen.shape}")
    return chosen


def parts(count: int) -> Iterator[slice]:
    """Of a list of pairs, so many at a time that little memory is held."""
    return (slice(start, min(start + exact.EVERYTHING, count)) for start in range(0, count, exact.EVERYTHING))


def listed(problem: MaxSimProblem, backend: str, count: int, pairs_of: PairsOf) -> F32:
    """float32 [count]: of these pairs, in any order and any number of times."""

    def search(problem: MaxSimProblem, chosen: Proposer[MaxSimProblem]) -> F32:
        problem, scores = chosen.readied(problem), np.empty(count, np.float32)
        for part in parts(count):
            scores[part] = _of_pairs(problem, chosen, *pairs_of(part))
        return scores

    return answer(problem, backend, search)


def _of_pairs(problem: MaxSimProblem, backend: Proposer[MaxSimProblem], owner: I64, rows: I64) -> F32:
    order = np.argsort(owner, kind="stable")
    offsets = np.searchsorted(owner[order], np.arange(problem.n_queries + 1))
    scores = np.empty(len(order), np.float32)
    grouped = Candidates(rows[order], offsets, np.empty(len(order), np.float32), np.empty(0))
    scores[order] = backend.refine(problem, grouped)
    return scores

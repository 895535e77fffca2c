"""The specification itself as a backend: every document is scored in float64, and the best are proposed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pyengine import checks
from pyengine.backends.base import Backend, MaxSimBackend, SlicedBackend, SparseBackend, best_of
from pyengine.backends.shared import sparse_lists
from pyengine.backends.shared.sparse_lists import Sharing
from pyengine.problems.problem import DenseProblem, Problem
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.specification import reference, reference_maxsim, reference_sliced, reference_sparse
from pyengine.types import Bool, Candidates


class NumpyBackend(Backend):
    """float64 NumPy, readable and slow: what all others are compared with. Its estimates are exact."""

    name = "numpy"

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        found = reference.topk(
            problem.queries, problem.docs.rows, width, problem.metric,
            mask=_mask(problem), bias=problem.bias, dims=problem.dims,
        )  # fmt: skip
        return best_of(found, problem, width)


class NumpyMaxSim(MaxSimBackend):
    """The same for late interaction."""

    name = "numpy"

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        docs = problem.docs.ragged()
        found = reference_maxsim.topk(problem.queries, docs, width, mask=_mask(problem), **problem.scoring())
        return best_of(found, problem, width)


class NumpySliced(SlicedBackend):
    """The same for sliced vectors."""

    name = "numpy"

    def propose(self, problem: SlicedProblem, width: int) -> Candidates:
        rows = problem.docs.rows
        found = reference_sliced.topk(problem.queries, rows, width, mask=_mask(problem), bias=problem.bias)
        return best_of(found, problem, width)


class NumpySparse(SparseBackend):
    """The same for sparse rows: every weight of every document is looked at, for each query."""

    name = "numpy"

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        return sparse_lists.candidates(problem, _sharing(problem), width)


def _sharing(problem: SparseProblem) -> Iterator[Sharing]:
    docs = problem.docs.sparse_rows()
    owner, all_to_one = np.repeat(np.arange(len(docs)), docs.lengths), np.zeros(len(docs), np.int64)
    for q in range(problem.n_queries):
        places, products = reference_sparse.shared(problem.queries.part(slice(q, q + 1)), all_to_one, docs)
        scores = np.bincount(owner[places], products, len(docs)).astype(np.float64)  # of nothing, they are integers
        rows = np.unique(owner[places])
        yield Sharing(rows, scores[rows], np.zeros(len(rows)))  # these are the scores, without an error


def _mask(problem: Problem) -> Bool | None:
    """bool [1 or Q, N]."""
    return None if problem.mask is None else checks.unpack(problem.mask, len(problem.docs))

"""The specification itself as a backend: every document is scored in float64, and the best are proposed."""

from __future__ import annotations

from pyengine import checks, reference, reference_maxsim
from pyengine.backends.base import Backend, MaxSimBackend, best_of
from pyengine.problem import DenseProblem
from pyengine.problem_maxsim import MaxSimProblem
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


def _mask(problem: DenseProblem | MaxSimProblem) -> Bool | None:
    """bool [1 or Q, N]."""
    return None if problem.mask is None else checks.unpack(problem.mask, len(problem.docs))

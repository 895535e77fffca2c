"""What the backends of GPUs do alike, whichever kernels they have."""

from __future__ import annotations

from dataclasses import replace

from pyengine.backends.base import Backend, MaxSimBackend
from pyengine.kernels.dense_plan import first_places
from pyengine.problems.problem import DenseProblem
from pyengine.problems.problem_maxsim import MaxSimProblem


class DenseOnGpu(Backend):
    """Dense search; norms are made of whole documents where they are copied."""

    def checks_finite(self, problem: DenseProblem) -> bool:
        some = problem.n_queries > 0 and len(problem.docs) > 0
        return some and problem.dims == problem.docs.dim  # then the norms show it

    def first_width(self, problem: DenseProblem) -> int:
        return first_places(problem.k)

    def lasting(self, problem: DenseProblem) -> DenseProblem:
        """Documents that come with one call are copied to the GPU once for it."""
        docs = problem.docs
        return problem if docs.cache is not None else replace(problem, docs=replace(docs, cache={}))


class MaxSimOnGpu(MaxSimBackend):
    """Late interaction."""

    def first_width(self, problem: MaxSimProblem) -> int:
        return 2 * problem.k + 256

    def readied(self, problem: MaxSimProblem) -> MaxSimProblem:
        """Documents that come with one search are copied to the GPU once for it."""
        docs = problem.docs
        return problem if docs.cache is not None else replace(problem, docs=replace(docs, cache={}))

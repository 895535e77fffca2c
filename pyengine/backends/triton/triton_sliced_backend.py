"""Sliced vectors by the Triton kernels: what they can do, and how."""

from __future__ import annotations

from pyengine.backends.base import SlicedBackend
from pyengine.backends.triton import triton_refusals
from pyengine.backends.triton.triton_refusals import beyond, too_large
from pyengine.kernels import sliced_plan
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.types import F32, Attempt, Candidates


class TritonSliced(SlicedBackend):
    """Sliced vectors: sums of half-precision products on the device where the indices agree, with the bound that
    `pyengine.kernels.sliced_topk` derives, which is how far the estimates of ``precision="fast"`` are off. Documents
    are copied to the GPU, as they are and in half precision."""

    name = "triton"

    def missing(self) -> str | None:
        return triton_refusals.missing()

    def refusals(self, problem: SlicedProblem) -> list[str]:
        docs = problem.docs
        reasons = beyond(docs.dim, sliced_plan.MOST_DIMS, len(docs)) + too_large(docs, 8 * len(docs) * docs.dim)
        return super().refusals(problem) + reasons

    def first_width(self, problem: SlicedProblem) -> int:
        return 8 * problem.k

    def propose(self, problem: SlicedProblem, width: int) -> Candidates:
        from pyengine.backends.triton import triton_sliced

        return triton_sliced.propose(problem, width)

    def attempt(self, problem: SlicedProblem, asked: SlicedProblem, width: int) -> Attempt | None:
        from pyengine.backends.triton import triton_sliced

        return triton_sliced.attempt(problem, asked, width)

    def refine(self, problem: SlicedProblem, candidates: Candidates) -> F32:
        from pyengine.backends.triton import triton_sliced

        return triton_sliced.refine(problem, candidates)

    def describe(self, problem: SlicedProblem) -> tuple[dict[str, str], dict[str, str]]:
        from pyengine.backends.triton import triton_sliced

        facts, _ = super().describe(problem)
        more, rejected = triton_sliced.describe(problem)
        return facts | more, rejected

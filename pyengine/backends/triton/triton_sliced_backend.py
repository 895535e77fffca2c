"""Sliced vectors by the Triton kernels: what they can do, and how."""

from __future__ import annotations

from pyengine.backends.base import SlicedBackend
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.backends.triton import triton_refusals
from pyengine.backends.triton.triton_refusals import beyond
from pyengine.kernels import sliced_plan
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.refining import exact_sliced
from pyengine.types import F32, Attempt, Candidates


class TritonSliced(SlicedBackend):
    """Sliced vectors: sums of half-precision products on the device where the indices agree, with the bound that
    `pyengine.kernels.sliced_topk` derives, which is how far the estimates of ``precision="fast"`` are off. Documents
    are copied to the GPU, as they are and in half precision; where it cannot hold them all, they pass through it in
    parts, and are refined on the host."""

    name = "triton"

    def missing(self) -> str | None:
        return triton_refusals.missing()

    def refusals(self, problem: SlicedProblem) -> list[str]:
        from pyengine.backends.triton import triton_sliced, triton_stream

        reasons = super().refusals(problem) + beyond(problem.docs.dim, sliced_plan.MOST_DIMS, len(problem.docs))
        return reasons or triton_stream.refusals(problem.docs, triton_sliced.footprint(problem))

    def _parts(self, problem: SlicedProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        from pyengine.backends.triton import triton_sliced, triton_stream

        return triton_stream.cuts(problem.docs, triton_sliced.footprint(problem))

    def first_width(self, problem: SlicedProblem) -> int:
        return 8 * problem.k

    def propose(self, problem: SlicedProblem, width: int) -> Candidates:
        from pyengine.backends.triton import triton_sliced, triton_stream

        return triton_stream.propose(
            problem, self._parts(problem), lambda part: triton_sliced.tiles_of(part.docs),
            lambda part: triton_sliced.propose(part, width), exact_sliced.refine,
        )  # fmt: skip

    def attempt(self, problem: SlicedProblem, asked: SlicedProblem, width: int) -> Attempt | None:
        from pyengine.backends.triton import triton_sliced

        return None if self._parts(problem) is not None else triton_sliced.attempt(problem, asked, width)

    def refine(self, problem: SlicedProblem, candidates: Candidates) -> F32:
        from pyengine.backends.triton import triton_sliced

        if self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return triton_sliced.refine(problem, candidates)

    def describe(self, problem: SlicedProblem) -> tuple[dict[str, str], dict[str, str]]:
        from pyengine.backends.triton import triton_sliced

        facts, parts = super().describe(problem)[0], self._parts(problem)
        more, rejected = triton_sliced.describe(problem) if parts is None else (part_facts(parts), {})
        return facts | more, rejected

"""Triton kernels propose, refine and select on an NVIDIA GPU; without one, Triton's interpreter checks them: dense
search. `triton_maxsim_backend`, `triton_sparse_backend` and `triton_sliced_backend` are the other families."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyengine.backends.base import foreign
from pyengine.backends.shared.on_gpu import DenseOnGpu
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.backends.triton import triton_refusals
from pyengine.backends.triton.triton_refusals import beyond
from pyengine.kernels.dense_plan import MOST_DIMS
from pyengine.problems.problem import DenseProblem
from pyengine.refining import exact
from pyengine.types import F32, I64, Attempt, Candidates, TopK

if TYPE_CHECKING:
    from pyengine.backends.triton.triton_standing import Standing


class TritonBackend(DenseOnGpu):
    """Products on tensor cores of int8 codes, of 16-bit vectors as they are, or in tf32, with the bounds that
    `dense_terms` derives; what they leave is refined and selected on the device.

    Documents on the host are copied to the GPU, float32 ones with int8 codes of them, and stay there as long as their
    index does not change; where it cannot hold them all, they pass through it in parts, and are refined on the host.
    With ``precision="fast"`` scores are off by at most half the distance of these bounds.
    """

    name = "triton"

    def missing(self) -> str | None:
        return triton_refusals.missing()

    def refusals(self, problem: DenseProblem) -> list[str]:
        from pyengine.backends.triton import triton_dense, triton_stream

        docs = problem.docs
        reasons = foreign(docs) + beyond(problem.dims, MOST_DIMS, len(docs))
        return reasons or triton_stream.refusals(docs, triton_dense.footprint(problem))

    def _parts(self, problem: DenseProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        from pyengine.backends.triton import triton_dense, triton_stream

        return triton_stream.cuts(problem.docs, triton_dense.footprint(problem))

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        from pyengine.backends.triton import triton_dense, triton_stream

        return triton_stream.propose(
            problem, self._parts(problem), triton_dense.scanned, lambda part: triton_dense.propose(part, width),
            exact.refine,
        )  # fmt: skip

    def attempt(self, problem: DenseProblem, asked: DenseProblem, width: int) -> Attempt | None:
        from pyengine.backends.triton import triton_between, triton_dense

        if self._parts(problem) is not None:
            return None
        if problem.filters is not None:
            return triton_between.attempt(problem, asked, width)
        return triton_dense.attempt(problem, asked, width)

    def refine(self, problem: DenseProblem, candidates: Candidates) -> F32:
        from pyengine.backends.triton import triton_dense

        if self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return triton_dense.refine(problem, candidates)

    def within(self, problem: DenseProblem) -> Iterator[tuple[I64, Candidates, I64]]:
        from pyengine.backends.triton import triton_between

        if self._parts(problem) is not None:
            return super().within(problem)
        return triton_between.within(problem)

    def before(self, problem: DenseProblem, targets: I64, rank: F32) -> I64 | None:
        from pyengine.backends.triton import triton_between

        return None if self._parts(problem) is not None else triton_between.before(problem, targets, rank)

    def both(self, forth: DenseProblem, back: DenseProblem) -> tuple[Attempt, Attempt] | None:
        from pyengine.backends.triton import triton_both

        if any(self._parts(each) is not None for each in (forth, back)):
            return None
        return triton_both.attempt(forth, back)

    def describe(self, problem: DenseProblem) -> tuple[dict[str, str], dict[str, str]]:
        from pyengine.backends.triton import triton_plan

        if problem.n_queries == 0 or len(problem.docs) == 0:
            return super().describe(problem)
        facts, rejected = triton_plan.describe(problem, self.first_width(problem))
        return facts | part_facts(self._parts(problem)), rejected

    def scan(self, problem: DenseProblem) -> TopK:
        from pyengine.backends.triton import triton_dense

        return triton_dense.score_everything(problem)

    def standing(self, problem: DenseProblem) -> Standing:
        """The same search again and again, without a wait: see `pyengine.torch.captured`. Raises RuntimeError where
        that cannot be."""
        from pyengine.backends.triton import triton_standing

        if self._parts(problem) is not None:
            raise RuntimeError(triton_refusals.IN_PARTS)
        return triton_standing.dense(problem, self.first_width(problem))

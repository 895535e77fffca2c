"""Sliced vectors by the CUDA kernels: what they can do, and how."""

from __future__ import annotations

from pyengine.backends.base import SlicedBackend
from pyengine.backends.cuda import cuda_device, cuda_sliced, cuda_stream
from pyengine.backends.shared.counts import too_many
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.backends.shared.window_queries import MOST_TERMS
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.refining import exact_sliced
from pyengine.types import F32, Attempt, Candidates


class CudaSliced(SlicedBackend):
    """Sliced vectors: the scan of sparse rows, over the terms that positions and indices are, with the bound that
    `window_queries` derives, which is how far the estimates of ``precision="fast"`` are off. Documents are copied to
    the GPU, as they are and as postings; where it cannot hold them all, they pass through it in parts, and are refined
    on the host."""

    name = "cuda"

    def missing(self) -> str | None:
        return cuda_device.missing()

    def refusals(self, problem: SlicedProblem) -> list[str]:
        docs = problem.docs
        reasons = super().refusals(problem) + cuda_device.unusable(docs) + too_many(len(docs))
        if docs.dim > MOST_TERMS:
            reasons.append(f"its kernels take at most {MOST_TERMS:,} dimensions, and {docs.dim:,} are scored")
        return reasons or cuda_stream.refusals(docs, cuda_sliced.footprint(problem))

    def _parts(self, problem: SlicedProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        return cuda_stream.cuts(problem.docs, cuda_sliced.footprint(problem))

    def first_width(self, problem: SlicedProblem) -> int:
        return 8 * problem.k

    def propose(self, problem: SlicedProblem, width: int) -> Candidates:
        return cuda_stream.propose(
            problem, self._parts(problem), lambda part, gpu: cuda_sliced.windows_of(part.docs, gpu),
            lambda part: cuda_sliced.propose(part, width), exact_sliced.refine,
        )  # fmt: skip

    def attempt(self, problem: SlicedProblem, asked: SlicedProblem, width: int) -> Attempt | None:
        if problem.n_queries == 0 or self._parts(problem) is not None:
            return None
        return cuda_sliced.attempt(problem, asked, width)

    def refine(self, problem: SlicedProblem, candidates: Candidates) -> F32:
        if self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return cuda_sliced.refine(problem, candidates)

    def describe(self, problem: SlicedProblem) -> tuple[dict[str, str], dict[str, str]]:
        facts, parts = super().describe(problem)[0], self._parts(problem)
        return facts | (cuda_sliced.describe(problem) if parts is None else part_facts(parts)), {}

"""Sparse rows by the CUDA kernels: what they can do, and how."""

from __future__ import annotations

from pyengine.backends.base import SparseBackend
from pyengine.backends.cuda import cuda_device, cuda_sparse, cuda_stream
from pyengine.backends.shared.counts import too_many
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.backends.shared.window_queries import MOST_TERMS
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.refining import exact_sparse
from pyengine.types import F32, Attempt, Candidates


class CudaSparse(SparseBackend):
    """Sparse rows: integer sums over postings in shared memory, a window of documents and a query at a time, with the
    bound that `window_queries` derives, which is how far the estimates of ``precision="fast"`` are off. Documents are
    copied to the GPU, as they are and as postings, and stay there as long as their index does not change; where it
    cannot hold them all, they pass through it in parts, and are refined on the host."""

    name = "cuda"

    def missing(self) -> str | None:
        return cuda_device.missing()

    def refusals(self, problem: SparseProblem) -> list[str]:
        docs, longest = problem.docs, int(problem.queries.lengths.max(initial=0))
        reasons = super().refusals(problem) + cuda_device.unusable(docs) + too_many(len(docs))
        if longest > MOST_TERMS:
            reasons.append(f"its kernels take queries of at most {MOST_TERMS:,} terms, and one has {longest:,}")
        return reasons or cuda_stream.refusals(docs, cuda_sparse.footprint(problem))

    def _parts(self, problem: SparseProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        return cuda_stream.cuts(problem.docs, cuda_sparse.footprint(problem))

    def first_width(self, problem: SparseProblem) -> int:
        return 8 * problem.k

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        return cuda_stream.propose(
            problem, self._parts(problem), lambda part, gpu: cuda_sparse.windows_of(part.docs, gpu),
            lambda part: cuda_sparse.propose(part, width), exact_sparse.refine,
        )  # fmt: skip

    def attempt(self, problem: SparseProblem, asked: SparseProblem, width: int) -> Attempt | None:
        if problem.n_queries == 0 or self._parts(problem) is not None:
            return None
        return cuda_sparse.attempt(problem, asked, width)

    def refine(self, problem: SparseProblem, candidates: Candidates) -> F32:
        if self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return cuda_sparse.refine(problem, candidates)

    def describe(self, problem: SparseProblem) -> tuple[dict[str, str], dict[str, str]]:
        facts, parts = super().describe(problem)[0], self._parts(problem)
        return facts | (cuda_sparse.describe(problem) if parts is None else part_facts(parts)), {}

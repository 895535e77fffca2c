"""Sparse rows by the Triton kernels: what they can do, and how."""

from __future__ import annotations

from pyengine.backends.base import SparseBackend
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.backends.triton import triton_refusals
from pyengine.backends.triton.triton_refusals import beyond
from pyengine.kernels import sparse_plan
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.refining import exact_sparse
from pyengine.types import F32, Attempt, Candidates


class TritonSparse(SparseBackend):
    """Sparse rows: sums of half-precision products on the device, with the bound that `pyengine.kernels.sparse_topk`
    derives, which is how far the estimates of ``precision="fast"`` are off. Documents are copied to the GPU, twice (as
    they are, and as the scan reads them), and stay there for as long as the index keeps what is derived from it; where
    it cannot hold them all, they pass through it in parts, and are refined on the host."""

    name = "triton"

    def missing(self) -> str | None:
        return triton_refusals.missing()

    def refusals(self, problem: SparseProblem) -> list[str]:
        from pyengine.backends.triton import triton_sparse, triton_stream

        longest, most = int(problem.queries.lengths.max(initial=0)), sparse_plan.MOST_TERMS
        reasons = super().refusals(problem) + beyond(1, 1, len(problem.docs))
        if longest > most:
            reasons.append(f"its kernels take queries of at most {most:,} terms, and one has {longest:,}")
        return reasons or triton_stream.refusals(problem.docs, triton_sparse.footprint(problem))

    def _parts(self, problem: SparseProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        from pyengine.backends.triton import triton_sparse, triton_stream

        return triton_stream.cuts(problem.docs, triton_sparse.footprint(problem))

    def first_width(self, problem: SparseProblem) -> int:
        return 8 * problem.k

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        from pyengine.backends.triton import triton_sparse, triton_stream

        return triton_stream.propose(
            problem, self._parts(problem), lambda part: triton_sparse.tiles_of(part.docs),
            lambda part: triton_sparse.propose(part, width), exact_sparse.refine,
        )  # fmt: skip

    def attempt(self, problem: SparseProblem, asked: SparseProblem, width: int) -> Attempt | None:
        from pyengine.backends.triton import triton_sparse

        return None if self._parts(problem) is not None else triton_sparse.attempt(problem, asked, width)

    def refine(self, problem: SparseProblem, candidates: Candidates) -> F32:
        from pyengine.backends.triton import triton_sparse

        if self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return triton_sparse.refine(problem, candidates)

    def describe(self, problem: SparseProblem) -> tuple[dict[str, str], dict[str, str]]:
        from pyengine.backends.triton import triton_sparse

        facts, parts = super().describe(problem)[0], self._parts(problem)
        more, rejected = triton_sparse.describe(problem) if parts is None else (part_facts(parts), {})
        return facts | more, rejected

"""Sparse rows by the Triton kernels: what they can do, and how."""

from __future__ import annotations

from pyengine.backends.base import SparseBackend
from pyengine.backends.triton import triton_refusals
from pyengine.backends.triton.triton_refusals import beyond, too_large
from pyengine.kernels import sparse_plan
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.types import F32, Attempt, Candidates


class TritonSparse(SparseBackend):
    """Sparse rows: sums of half-precision products on the device, with the bound that `pyengine.kernels.sparse_topk`
    derives, which is how far the estimates of ``precision="fast"`` are off. Documents are copied to the GPU, twice (as
    they are, and as the scan reads them), and stay there for as long as the index keeps what is derived from it."""

    name = "triton"

    def missing(self) -> str | None:
        return triton_refusals.missing()

    def refusals(self, problem: SparseProblem) -> list[str]:
        longest, most = int(problem.queries.lengths.max(initial=0)), sparse_plan.MOST_TERMS
        long = (
            [f"its kernels take queries of at most {most:,} terms, and one has {longest:,}"] if longest > most else []
        )
        docs = problem.docs
        return super().refusals(problem) + beyond(1, 1, len(docs)) + long + too_large(docs, 2 * docs.rows.nbytes)

    def first_width(self, problem: SparseProblem) -> int:
        return 8 * problem.k

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        from pyengine.backends.triton import triton_sparse

        return triton_sparse.propose(problem, width)

    def attempt(self, problem: SparseProblem, asked: SparseProblem, width: int) -> Attempt | None:
        from pyengine.backends.triton import triton_sparse

        return triton_sparse.attempt(problem, asked, width)

    def refine(self, problem: SparseProblem, candidates: Candidates) -> F32:
        from pyengine.backends.triton import triton_sparse

        return triton_sparse.refine(problem, candidates)

    def describe(self, problem: SparseProblem) -> tuple[dict[str, str], dict[str, str]]:
        from pyengine.backends.triton import triton_sparse

        facts, _ = super().describe(problem)
        more, rejected = triton_sparse.describe(problem)
        return facts | more, rejected

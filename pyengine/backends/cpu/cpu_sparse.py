"""The C++ kernels for sparse rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pyengine.backends.base import SparseBackend
from pyengine.backends.cpu import machine
from pyengine.problems.problem import ALL
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.refining import exact_sparse
from pyengine.types import I64, Candidates

FEW_QUERIES = 3  # so many read all rows in the time in which these are inverted


class CpuSparse(SparseBackend):
    """Sums over postings: of quantised weights, with a bound on what that leaves out, which is how far the estimates of
    ``precision="fast"`` are off. Documents without postings get them for the terms of the queries, where these are more
    than a few; else they are read as they are."""

    name = "cpu"
    presumes = True

    def missing(self) -> str | None:
        reason = machine.missing()
        if reason is None and exact_sparse.native() is None:
            return "the compiled extension is from before the sparse kernels: run 'pip install .' in the source tree"
        return reason

    def refusals(self, problem: SparseProblem) -> list[str]:
        return super().refusals(problem) + machine.beyond(1, len(problem.docs))

    def readied(self, problem: SparseProblem) -> SparseProblem:
        docs = problem.docs
        if docs.postings or docs.cache is not None or not len(docs) or problem.n_queries <= FEW_QUERIES:
            return problem
        terms = np.unique(problem.queries.indices).astype(np.int64)
        built = exact_sparse.build(docs.rows, 0, len(docs), terms)
        return replace(problem, docs=replace(docs, postings=(built,), cache={}))

    def first_width(self, problem: SparseProblem) -> int:
        return 8 * problem.k + 1024  # of quantised weights that are close, many are kept

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        return self._proposed(problem, problem.k, width)

    def within(self, problem: SparseProblem) -> Iterator[tuple[I64, Candidates, I64]]:
        """What reaches floors above 0 shares a term: one pass over the postings lists it."""
        if problem.bias is not None or problem.floor is None or not (problem.floor > 0).all():
            yield from super().within(problem)
            return
        none_above = np.zeros(problem.n_queries, np.int64)
        yield np.arange(problem.n_queries), self._proposed(self.readied(problem), ALL, 4 * ALL), none_above

    def _proposed(self, problem: SparseProblem, k: int, width: int) -> Candidates:
        kernels = exact_sparse.native()
        assert kernels is not None
        found = kernels.sparse_propose(
            exact_sparse.asked(problem), exact_sparse.corpus(problem.docs), exact_sparse.native_postings(problem.docs),
            k, width,
            mask=problem.mask, bias=problem.bias, floor=problem.floor, sure=problem.sure, by_row=problem.by_row,
            num_threads=problem.num_threads,
        )  # fmt: skip
        return Candidates(*found)

    def describe(self, problem: SparseProblem) -> tuple[dict[str, str], dict[str, str]]:
        facts, _ = super().describe(problem)
        isa, rejected = machine.isas()
        postings = problem.docs.postings
        covered = sum(each.count for each in postings)
        held = sum(array.nbytes for each in postings for array in each.arrays.values())
        kept = f"of {covered} documents in {len(postings)} ranges, {held:,} bytes"
        facts |= {
            "postings": kept if postings else self._without(problem),
            "candidates": f"about {self.first_width(problem)} per query before widening",
        }
        return {"isa": isa} | facts, rejected

    def _without(self, problem: SparseProblem) -> str:
        if problem.docs.cache is not None or problem.n_queries <= FEW_QUERIES:
            return "none: the rows are read as they are"
        return "built of the queries' terms, for this search"

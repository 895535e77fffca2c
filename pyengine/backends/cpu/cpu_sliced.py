"""The C++ kernels on sliced vectors: integer products of int8 codes where the indices agree."""

from __future__ import annotations

from pyengine.backends.base import SlicedBackend
from pyengine.backends.cpu import machine
from pyengine.kernels.plan import DensePlan, plan_dense
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.refining import exact, exact_sliced
from pyengine.types import Candidates

READ = 2  # bytes of a code and an index


class CpuSliced(SlicedBackend):
    """int8 codes with the bound of `CpuBackend`: what the indices leave out of a product is also left out of its
    error, and a part of a vector is no longer than the whole. Codes are made at the first search, and kept with the
    documents."""

    name = "cpu"
    presumes = True

    def missing(self) -> str | None:
        return machine.missing()

    def refusals(self, problem: SlicedProblem) -> list[str]:
        return super().refusals(problem) + machine.beyond(problem.docs.dim, len(problem.docs))

    def first_width(self, problem: SlicedProblem) -> int:
        return 8 * problem.k + (4096 if problem.ceiling is None else 16384)

    def plan(self, problem: SlicedProblem, width: int, n_docs: int) -> DensePlan:
        """The tiles and limits of the scan of ``n_docs`` documents."""
        dim = problem.docs.dim
        return plan_dense(
            problem.n_queries, n_docs, dim, problem.k, width, READ * dim, problem.num_threads, problem.sure
        )

    def propose(self, problem: SlicedProblem, width: int) -> Candidates:
        kernels = exact.native()
        assert kernels is not None
        listed = machine.listed_rows(problem)
        launch = self.plan(problem, width, len(problem.docs) if listed is None else len(listed)).launch()
        *found, _ = kernels.propose(
            exact_sliced.corpus(problem, kernels, scan=True), problem.queries.values, problem.k, **launch,
            floor=problem.floor, ceiling=problem.ceiling, listed=listed, query_slices=problem.queries.padded,
        )  # fmt: skip
        return Candidates(*found)

    def describe(self, problem: SlicedProblem) -> tuple[dict[str, str], dict[str, str]]:
        listed = machine.listed_rows(problem)
        plan = self.plan(problem, self.first_width(problem), len(problem.docs) if listed is None else len(listed))
        isa, rejected = machine.isas()
        facts = {
            "isa": isa,
            "store": "int8 codes and indices, of which the codes are made once",
            "tile": f"{plan.tile} documents",
            "candidates": f"at most {plan.width} per query before widening",
            "reads": f"{plan.bytes_read:,} bytes",
            "computes": f"{plan.operations:,} int8 operations and half as many comparisons",
        }
        return facts, rejected | plan.rejected

"""The C++ kernels of late interaction: exact integer products of int8 codes of tokens, with a bound on what they leave
out."""

from __future__ import annotations

from pyengine import exact, exact_maxsim
from pyengine.backends.base import MaxSimBackend
from pyengine.backends.cpu_backend import MAX_DIMS, MAX_DOCUMENTS, row_bytes
from pyengine.kernels.plan import MaxSimPlan, plan_maxsim
from pyengine.problem_maxsim import MaxSimProblem
from pyengine.types import Candidates

SCANNED = ("sum", "mean")  # the reductions that the scan knows


class CpuMaxSim(MaxSimBackend):
    """int8 codes of unit tokens: every product of tokens is off by at most |q| (e + r (1 + e)) of the document token's
    norm, e and r being what rounding leaves of the query token and of the document token. So is every maximum, and
    their sum by the sum of that (DESIGN.md, "Bounds"). ``symmetric`` is scored by the specification throughout.
    """

    name = "cpu"
    presumes = True

    def missing(self) -> str | None:
        if exact.native() is None:
            return "the compiled extension is not built: run 'pip install .' in the source tree (needs a C++ compiler)"
        if exact_maxsim.native("maxsim_propose") is None:
            return "the compiled extension is older than this package: run 'pip install .' in the source tree"
        return None

    def refusals(self, problem: MaxSimProblem) -> list[str]:
        found = super().refusals(problem)
        if problem.docs.dim > MAX_DIMS:
            found.append(f"it takes at most {MAX_DIMS} dimensions, and there are {problem.docs.dim}")
        if len(problem.docs) > MAX_DOCUMENTS:
            found.append(f"it takes at most {MAX_DOCUMENTS} documents, and there are {len(problem.docs)}")
        return found

    def first_width(self, problem: MaxSimProblem) -> int:
        return 8 * problem.k + 4096

    def plan(self, problem: MaxSimProblem, width: int) -> MaxSimPlan:
        """The tiles and limits of the scan."""
        docs = problem.docs
        scanned = row_bytes(docs.tokens.rows if docs.codes is None else docs.codes.codes)
        return plan_maxsim(
            len(problem.queries.values), len(docs), len(docs.tokens), docs.dim, problem.k, width, scanned,
            problem.num_threads, problem.sure,
        )  # fmt: skip

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        kernels = exact_maxsim.native("maxsim_propose")
        if kernels is None or problem.reduce not in SCANNED:
            return super().propose(problem, width)
        *found, _ = kernels.maxsim_propose(
            exact_maxsim.query_tokens(problem, kernels), exact_maxsim.corpus(problem, kernels, scan=True), problem.k,
            normalize=problem.normalize, reduce=problem.reduce, query_weights=problem.query_weights, mask=problem.mask,
            bias=problem.bias, floor=problem.floor, ceiling=problem.ceiling, **self.plan(problem, width).launch(),
        )  # fmt: skip
        return Candidates(*found)

    def describe(self, problem: MaxSimProblem) -> tuple[dict[str, str], dict[str, str]]:
        kernels = exact.native()
        assert kernels is not None
        if problem.reduce not in SCANNED:
            return super().describe(problem)
        plan = self.plan(problem, self.first_width(problem))
        facts = {
            "isa": kernels.isa(),
            "store": problem.docs.store + ("" if problem.docs.codes else ", coded as int8 while it is scanned"),
            "tile": f"{plan.tile} document tokens",
            "queries": f"{plan.query_tokens} tokens per pass, {plan.num_threads} threads",
            "sample": f"{plan.sample} documents for a first threshold" if plan.sample else "none",
            "candidates": f"at most {plan.width} per query before widening",
            "reads": f"{plan.bytes_read:,} bytes, and the tokens of each candidate refined",
            "computes": f"{plan.operations:,} int8 operations",
        }
        return facts, plan.rejected

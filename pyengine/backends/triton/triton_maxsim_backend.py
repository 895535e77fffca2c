"""Late interaction by the Triton kernels: what they can do, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyengine.backends.shared.on_gpu import MaxSimOnGpu
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.backends.shared.token_terms import SCANNED
from pyengine.backends.triton import triton_refusals
from pyengine.backends.triton.triton_refusals import beyond
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.refining import exact_maxsim
from pyengine.types import F32, Attempt, Candidates

if TYPE_CHECKING:
    from pyengine.backends.triton.triton_standing import Standing

MOST_TOKEN_DIMS = 1 << 16  # sums of int8 products stay in int32


class TritonMaxSim(MaxSimOnGpu):
    """Late interaction by products of int8 codes, where a store has them, else of float16 values, with the bounds that
    `kernels/maxsim_topk.py` derives; refined in float64 by `kernels/maxsim_refine.py`. Documents are copied to the GPU
    once: their codes, and the vectors that define the scores; tokens of few bits as they are, which both decode. What
    it cannot hold passes through it in parts, and is refined on the host.

    With ``precision="fast"`` scores are off by at most these bounds. "softmax" is bounded by "mean", and refined on the
    host; "pooled" and "aligned", which no maxima bound, are scored there throughout.
    """

    name = "triton"

    def missing(self) -> str | None:
        return triton_refusals.missing()

    def refusals(self, problem: MaxSimProblem) -> list[str]:
        from pyengine.backends.triton import triton_stream, triton_tokens

        docs = problem.docs
        reasons = super().refusals(problem) + beyond(docs.dim, MOST_TOKEN_DIMS, len(docs))
        return reasons or triton_stream.refusals(docs, triton_tokens.footprint(problem))

    def _parts(self, problem: MaxSimProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        from pyengine.backends.triton import triton_stream, triton_tokens

        return triton_stream.cuts(problem.docs, triton_tokens.footprint(problem))

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        from pyengine.backends.triton import triton_maxsim, triton_stream, triton_tokens

        if problem.upper().reduce not in SCANNED:
            return super().propose(problem, width)
        return triton_stream.propose(
            problem, self._parts(problem), triton_tokens.mirror,
            lambda part: triton_maxsim.propose(part.upper(), width), exact_maxsim.refine,
        )  # fmt: skip

    def attempt(self, problem: MaxSimProblem, asked: MaxSimProblem, width: int) -> Attempt | None:
        from pyengine.backends.triton import triton_maxsim

        if problem.reduce not in SCANNED or self._parts(problem) is not None:
            return None
        return triton_maxsim.attempt(problem, asked, width)

    def refine(self, problem: MaxSimProblem, candidates: Candidates) -> F32:
        from pyengine.backends.triton import triton_maxsim

        if problem.reduce not in SCANNED or self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return triton_maxsim.refine(problem, candidates)

    def standing(self, problem: MaxSimProblem) -> Standing:
        """The same search again and again, without a wait: see `pyengine.torch.captured`. Raises RuntimeError where
        that cannot be."""
        from pyengine.backends.triton import triton_standing

        if problem.reduce not in SCANNED:
            raise RuntimeError(f"reduce={problem.reduce!r} is scored on the host, which no graph waits for")
        if self._parts(problem) is not None:
            raise RuntimeError(triton_refusals.IN_PARTS)
        return triton_standing.maxsim(problem, self.first_width(problem))

    def describe(self, problem: MaxSimProblem) -> tuple[dict[str, str], dict[str, str]]:
        from pyengine.backends.triton import triton_maxsim

        upper = problem.upper()
        if upper.reduce not in SCANNED:
            return super().describe(problem)
        plan = triton_maxsim.plan(upper)
        facts = {
            "store": f"{problem.docs.store}, scanned as {plan.form}",
            "tile": f"query tokens by document tokens: {plan.tile}",
            "launch": f"{plan.tile.num_warps} warps, {plan.tile.num_stages} stages",
            "candidates": f"pools of {2 * self.first_width(problem)} per query before widening",
            "reads": f"{plan.bytes_read:,} bytes or more",
            "computes": f"{plan.operations:,} operations",
        }
        facts |= {} if upper is problem else {"bounded by": upper.reduce}
        return facts | part_facts(self._parts(problem)), plan.rejected

"""Late interaction by the CUDA kernels: what they can do, and how."""

from __future__ import annotations

import numpy as np

from pyengine.backends.cuda import cuda_device, cuda_maxsim, cuda_stream, cuda_tokens
from pyengine.backends.shared.counts import too_many
from pyengine.backends.shared.on_gpu import MaxSimOnGpu
from pyengine.backends.shared.parts import facts as part_facts
from pyengine.backends.shared.token_terms import SCANNED
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.refining import exact_maxsim
from pyengine.types import F32, Attempt, Candidates

MOST_TOKEN_DIMS = 1 << 16  # sums of int8 products stay in int32
MOST_TOKENS = 1 << 14  # of a query, where its maxima are kept in shared memory


class CudaMaxSim(MaxSimOnGpu):
    """Late interaction by products of int8 codes of tokens, with the bounds that `kernels/maxsim_topk.py` derives;
    refined in float64 by `csrc/cuda/maxsim_refine.cu`. Documents are copied to the GPU once: their codes, and the
    vectors that define the scores. Tokens of few bits stay so, and are decoded as they are read. What the GPU cannot
    hold passes through it in parts, and is refined on the host.

    With ``precision="fast"`` scores are off by at most these bounds. "softmax" is bounded by "mean", and refined on the
    host; "pooled" and "aligned", which no maxima bound, are scored there throughout.
    """

    name = "cuda"

    def missing(self) -> str | None:
        return cuda_device.missing()

    def refusals(self, problem: MaxSimProblem) -> list[str]:
        docs = problem.docs
        reasons = super().refusals(problem) + cuda_device.unusable(docs)
        if reasons:
            return reasons
        if docs.dim > MOST_TOKEN_DIMS:
            reasons.append(f"its kernels take at most {MOST_TOKEN_DIMS:,} dimensions, and {docs.dim:,} are scored")
        reasons += too_many(len(docs))
        longest = int(np.diff(problem.queries.offsets).max(initial=0))
        most = min(MOST_TOKENS, cuda_maxsim.most_tokens(cuda_device.gpu_of(docs)))
        if longest > most and (docs.dim > 128 or problem.reduce == "symmetric"):
            reasons.append(
                f"its kernels take queries of at most {most:,} tokens where these have more than 128 "
                f"dimensions, or both sides are summed, and one has {longest:,}"
            )
        return reasons or cuda_stream.refusals(docs, cuda_tokens.footprint(problem))

    def _parts(self, problem: MaxSimProblem) -> list[slice] | None:
        """The parts in which documents of the host pass through a GPU that cannot hold them all."""
        return cuda_stream.cuts(problem.docs, cuda_tokens.footprint(problem))

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        if problem.upper().reduce not in SCANNED or not _some(problem):
            return super().propose(problem, width)
        return cuda_stream.propose(
            problem, self._parts(problem), cuda_tokens.mirror, lambda part: cuda_maxsim.propose(part.upper(), width),
            exact_maxsim.refine,
        )  # fmt: skip

    def attempt(self, problem: MaxSimProblem, asked: MaxSimProblem, width: int) -> Attempt | None:
        if problem.reduce not in SCANNED or not _some(problem):
            return None
        return None if self._parts(problem) is not None else cuda_maxsim.attempt(problem, asked, width)

    def refine(self, problem: MaxSimProblem, candidates: Candidates) -> F32:
        if problem.reduce not in SCANNED or not len(candidates.rows) or self._parts(problem) is not None:
            return super().refine(problem, candidates)
        return cuda_maxsim.refine(problem, candidates)

    def describe(self, problem: MaxSimProblem) -> tuple[dict[str, str], dict[str, str]]:
        upper = problem.upper()
        if upper.reduce not in SCANNED or not _some(problem):
            return super().describe(problem)
        gpu, places = cuda_device.gpu_of(problem.docs), cuda_maxsim.places(upper, self.first_width(problem))
        plan, (form, why) = cuda_maxsim.plan(upper, gpu), cuda_maxsim.form(upper, gpu)
        facts = {
            "store": f"{problem.docs.store}, scanned as {plan.form}",
            "tile": f"query tokens by document tokens: {plan.tile}",
            "form": f"{form}: {why}",
            "places": f"{places:,} for each query",
            "reads": f"{plan.bytes_read:,} bytes or more",
            "computes": f"{plan.operations:,} operations",
        }
        facts |= {} if upper is problem else {"bounded by": upper.reduce}
        return facts | part_facts(self._parts(problem)), plan.rejected


def _some(problem: MaxSimProblem) -> bool:
    return problem.n_queries > 0 and len(problem.docs) > 0

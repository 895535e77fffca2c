"""The C++ kernels of late interaction: exact integer products of int8 codes of tokens, with a bound on what they leave
out."""

from __future__ import annotations

from pyengine import exact, exact_maxsim
from pyengine.backends.base import MaxSimBackend
from pyengine.problem_maxsim import MaxSimProblem
from pyengine.types import Candidates

SCANNED = ("sum", "mean")  # the reductions that the scan knows


class CpuMaxSim(MaxSimBackend):
    """int8 codes of unit tokens: every product of tokens is off by at most |q| (e + r (1 + e)) of the document token's
    norm, e and r being what rounding leaves of the query token and of the document token. So is every maximum, and
    their sum
    by the sum of that (DESIGN.md, "Bounds"). ``symmetric`` is scored by the specification throughout.
    """

    name = "cpu"

    def missing(self) -> str | None:
        if exact.native() is None:
            return "the compiled extension is not built: run 'pip install .' in the source tree (needs a C++ compiler)"
        if exact_maxsim.native("maxsim_pairs") is None:
            return "the compiled extension is older than this package: run 'pip install .' in the source tree"
        return None

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        kernels = exact_maxsim.native("maxsim_propose")
        if kernels is None or problem.reduce not in SCANNED:
            return super().propose(problem, width)
        return super().propose(problem, width)

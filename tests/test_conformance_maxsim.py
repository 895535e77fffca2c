"""Every backend of this machine passes the conformance suite of late interaction, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.numpy_backend import NumpyMaxSim
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.types import Candidates

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]
CASES = conformance.maxsim_cases()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(engine: str, case: conformance.MaxSimCase) -> None:
    if registry.of_family(engine, "maxsim") is None:
        pytest.skip(f"{engine} has no MaxSim")
    assert conformance.run(case, engine) == []


def test_a_backend_without_the_family_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="'faiss' has nothing for maxsim"):
        conformance.run(CASES[0], "faiss")


class TooSure(NumpyMaxSim):
    """Says that nothing better was left out."""

    name = "too_sure"

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        found = super().propose(problem, problem.k)
        return found._replace(dropped=np.full_like(found.dropped, -np.inf))


def test_a_wrong_bound_is_caught() -> None:
    with pytest.raises(conformance.Nonconformance, match="dropped is -inf, but document"):
        conformance.run(next(case for case in CASES if case.corpus == "random"), TooSure())

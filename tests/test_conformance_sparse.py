"""Every backend of this machine passes the conformance suite of sparse rows, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from pyengine import conformance
from pyengine.backends.numpy_backend import NumpySparse
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.types import Candidates

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]
CASES = conformance.sparse_cases()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(sparse_engine: str, case: conformance.SparseCase) -> None:
    assert conformance.run(case, sparse_engine) == []


class TooSure(NumpySparse):
    """Says that nothing better was left out."""

    name = "too_sure"

    def propose(self, problem: SparseProblem, width: int) -> Candidates:
        found = super().propose(problem, problem.k)
        return found._replace(dropped=np.full_like(found.dropped, -np.inf))


class Forgetful(NumpySparse):
    """Says that all that may score above 0 is listed, and lists a part."""

    name = "forgetful"

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        found = super().listed(problem, problem.k)
        return found._replace(dropped=np.zeros_like(found.dropped))


@pytest.mark.parametrize(("backend", "dropped"), [(TooSure(), "-inf"), (Forgetful(), "0.0")])
def test_a_wrong_bound_is_caught(backend: NumpySparse, dropped: str) -> None:
    with pytest.raises(conformance.Nonconformance, match=f"dropped is {dropped}, but document"):
        conformance.run(next(case for case in CASES if case.corpus == "random"), backend)

"""What a backend is: candidates with an error bound. Subclass `Backend`, implement `propose`, and the search core
makes it exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from pyengine import exact
from pyengine.problem import DenseProblem
from pyengine.types import F32, I64, Candidates, TopK


class Backend:
    """A proposer of candidates.

    A third-party package joins by an entry point in the group ``pyengine.backends`` that names such a class, and
    can run the project's own conformance suite on it (`pyengine.conformance`).
    """

    name: ClassVar[str]
    presumes: ClassVar[bool] = False
    """Whether it proposes by what is merely likely, unless the problem is ``sure``."""

    def missing(self) -> str | None:
        """None if this backend can run on this machine, else one sentence: why not, and the remedy."""
        return None

    def refusals(self, problem: DenseProblem) -> list[str]:
        """The reasons why this backend cannot run this problem; empty when it can."""
        if problem.docs.device is not None:
            return [f"it reads host memory, and the documents are on {problem.docs.device}"]
        return []

    def checks_finite(self, problem: DenseProblem) -> bool:
        """Whether `propose` raises ArithmeticError for documents with NaN or inf, so that no pass need look first."""
        return False

    def readied(self, problem: DenseProblem) -> DenseProblem:
        """The same problem, with what is worth deriving once for all its queries. May raise ArithmeticError as
        `propose` does."""
        return problem

    def first_width(self, problem: DenseProblem) -> int:
        """How many candidates per query to ask for at first."""
        return problem.k + max(16, problem.k // 4)

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        """At most about ``width`` candidates per query (k at least), and a bound on all others: see `Candidates`."""
        raise NotImplementedError(f"{type(self).__name__} must implement propose")

    def describe(self, problem: DenseProblem) -> tuple[dict[str, str], dict[str, str]]:
        """How `propose` would run, for `explain`: facts by name, and what was rejected with the reason."""
        docs, dims = problem.docs, problem.dims
        facts = {
            "store": f"{docs.store}, of which the float32 vectors are read",
            "reads": f"{4 * len(docs) * dims:,} bytes or more",
            "computes": f"{2 * len(docs) * dims * problem.n_queries:,} operations",
        }
        return facts, {}

    def refine(self, problem: DenseProblem, candidates: Candidates) -> F32:
        """float32 [M]: the specification's scores of the candidates, wherever the documents live."""
        return exact.refine(problem, candidates)

    def select(self, problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        """The k best candidates of each query as ([Q, K] scores, [Q, K] ids)."""
        return exact.select(problem, candidates, scores)

    def scan(self, problem: DenseProblem) -> TopK:
        """Top-k with every document scored by the specification, where nothing is filtered but by the mask."""
        return exact.scan(problem)

    def within(self, problem: DenseProblem) -> Iterator[tuple[I64, Candidates, I64]]:
        """Every allowed document that may lie between ``problem.floor`` and ``problem.ceiling``, in parts: some query
        numbers [q], their candidates (nothing that matters is dropped), and int64 [q] how many allowed documents more
        are certainly above the ceiling. A backend that can tell lists fewer than all."""
        for which in exact.portions(problem):
            yield which, exact.everything(problem.only(which)), np.zeros(len(which), np.int64)

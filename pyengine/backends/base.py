"""What a backend is: candidates with an error bound. Subclass `Backend` (dense), `MaxSimBackend` or
`SparseBackend`, implement `propose` (`listed` of the last), and the search core makes it exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar

import numpy as np

from pyengine.inputs.device_arrays import DeviceArray
from pyengine.problems.problem import Corpus, DenseProblem, Problem
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.refining import exact, exact_maxsim, exact_sliced, exact_sparse
from pyengine.specification import reference
from pyengine.types import F32, I64, Attempt, Candidates, TopK

P = TypeVar("P", bound=Problem)


class Proposer(Generic[P]):
    """What the backends of every family are, P being its problems."""

    name: ClassVar[str]
    presumes: ClassVar[bool] = False
    """Whether it proposes by what is merely likely, unless the problem is ``sure``."""

    def missing(self) -> str | None:
        """None if this backend can run on this machine, else one sentence: why not, and the remedy."""
        return None

    def refusals(self, problem: P) -> list[str]:
        """The reasons why this backend cannot run this problem; empty when it can."""
        if problem.docs.device is not None:
            return [f"it reads host memory, and the documents are on {problem.docs.device}"]
        return []

    def checks_finite(self, problem: P) -> bool:
        """Whether `propose` raises ArithmeticError for documents with NaN or inf, so that no pass need look first."""
        return False

    def readied(self, problem: P) -> P:
        """The same problem, with what is worth deriving once for all its queries. May raise ArithmeticError as
        `propose` does."""
        return problem

    def lasting(self, problem: P) -> P:
        """The same problem, of which more than one thing will be asked: what is derived of its documents is kept
        meanwhile, where that is worth it."""
        return problem

    def only_bounds(self, problem: P) -> bool:
        """Whether its estimates are those of another score, which bounds this one: no answer, however fast."""
        return False

    def first_width(self, problem: P) -> int:
        """How many candidates per query to ask for at first."""
        return problem.k + max(16, problem.k // 4)

    def propose(self, problem: P, width: int) -> Candidates:
        """At most about ``width`` candidates per query (k at least), and a bound on all others: see `Candidates`."""
        raise NotImplementedError(f"{type(self).__name__} must implement propose")

    def attempt(self, problem: P, asked: P, width: int) -> Attempt | None:
        """`propose` for what is ``asked``, `refine`, and `select` for the ``problem`` in one, where that saves copies
        between devices; None where the search core is to take the steps one by one."""
        return None

    def describe(self, problem: P) -> tuple[dict[str, str], dict[str, str]]:
        """How `propose` would run, for `explain`: facts by name, and what was rejected with the reason."""
        raise NotImplementedError(f"{type(self).__name__} must implement describe")

    def refine(self, problem: P, candidates: Candidates) -> F32:
        """float32 [M]: the specification's scores of the candidates, wherever the documents live."""
        raise NotImplementedError(f"{type(self).__name__} must implement refine")

    def select(self, problem: P, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        """The k best candidates of each query as ([Q, K] scores, [Q, K] ids)."""
        return exact.select(problem, candidates, scores)

    def scan(self, problem: P) -> TopK:
        """Top-k with every document scored by the specification, where nothing is filtered but by the mask."""
        return score_all(problem, self)

    def within(self, problem: P) -> Iterator[tuple[I64, Candidates, I64]]:
        """Every allowed document that may lie between ``problem.floor`` and ``problem.ceiling``, in parts: some query
        numbers [q], their candidates (nothing that matters is dropped), and int64 [q] how many allowed documents more
        are certainly above the ceiling. A backend that can tell lists fewer than all."""
        for which in exact.portions(problem):
            yield which, exact.everything(problem.only(which)), np.zeros(len(which), np.int64)

    def before(self, problem: P, targets: I64, rank: F32) -> I64 | None:
        """int64 [Q]: how many allowed documents rank before the row ``targets`` int64 [Q] of each query, whose rank
        score is ``rank`` float32 [Q] and lies between the problem's limits; None where the core is to count what
        `within` lists."""
        return None

    def both(self, forth: P, back: P) -> tuple[Attempt, Attempt] | None:
        """`attempt` of two problems at once, of which each has the other's documents as its queries; None where these
        are two searches."""
        return None


class Backend(Proposer[DenseProblem]):
    """A proposer of dense vectors.

    A third-party package joins by an entry point in the group ``pyengine.backends`` that names such a class, and
    can run the project's own conformance suite on it (`pyengine.conformance`).
    """

    def describe(self, problem: DenseProblem) -> tuple[dict[str, str], dict[str, str]]:
        docs, dims = problem.docs, problem.dims
        facts = {
            "store": f"{docs.store}, of which the float32 vectors are read",
            "reads": f"{4 * len(docs) * dims:,} bytes or more",
            "computes": f"{2 * len(docs) * dims * problem.n_queries:,} operations",
        }
        return facts, {}

    def refine(self, problem: DenseProblem, candidates: Candidates) -> F32:
        return exact.refine(problem, candidates)

    def scan(self, problem: DenseProblem) -> TopK:
        return exact.scan(problem)


class MaxSimBackend(Proposer[MaxSimProblem]):
    """A proposer of late interaction. One that has nothing cheaper scores everything by the specification."""

    def only_bounds(self, problem: MaxSimProblem) -> bool:
        return problem.upper() is not problem

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        return best_of(self.scan(problem.row_numbers(width)), problem, width)

    def describe(self, problem: MaxSimProblem) -> tuple[dict[str, str], dict[str, str]]:
        docs, pairs = problem.docs, len(problem.queries.values) * len(problem.docs.tokens)
        facts = {
            "store": f"{docs.store}, of which the float32 vectors are read",
            "reads": f"{4 * len(docs.tokens) * docs.dim:,} bytes or more",
            "computes": f"{2 * pairs * docs.dim:,} operations",
        }
        return facts, {}

    def refine(self, problem: MaxSimProblem, candidates: Candidates) -> F32:
        return exact_maxsim.refine(problem, candidates)


class SlicedBackend(Proposer[SlicedProblem]):
    """A proposer of sliced vectors."""

    def describe(self, problem: SlicedProblem) -> tuple[dict[str, str], dict[str, str]]:
        weights = len(problem.docs) * problem.docs.dim
        facts = {
            "store": "float32 weights and their indices",
            "reads": f"{5 * weights:,} bytes or more",
            "computes": f"{2 * weights * problem.n_queries:,} operations",
        }
        return facts, {}

    def refine(self, problem: SlicedProblem, candidates: Candidates) -> F32:
        return exact_sliced.refine(problem, candidates)


class SparseBackend(Proposer[SparseProblem]):
    """A proposer of sparse rows, which implements `listed`."""

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        """At most about ``width`` candidates per query (k at least), and a bound on all others, as `propose`. That is
        exactly 0.0 where every document that may score above 0 is listed. Without filters, a document may also score
        the next float32 above the bound, if it comes after k listed ones that score this or more."""
        raise NotImplementedError(f"{type(self).__name__} must implement listed")

    def propose(self, problem: SparseProblem, width: int) -> Candidates:
        return exact_sparse.fill_zeros(problem, self.listed(problem, width), problem.k)

    def describe(self, problem: SparseProblem) -> tuple[dict[str, str], dict[str, str]]:
        docs, queries = problem.docs, problem.queries
        facts = {
            "store": f"{docs.store}, {docs.rows.nbytes:,} bytes",
            "queries": f"{queries.nnz / max(1, len(queries)):.1f} terms each",
            "documents": f"{docs.rows.nnz / max(1, len(docs)):.1f} terms each",
        }
        return facts, {}

    def refine(self, problem: SparseProblem, candidates: Candidates) -> F32:
        return exact_sparse.refine(problem, candidates)


def score_all(problem: P, backend: Proposer[P]) -> TopK:
    """Top-k with every document refined, a few queries at a time: whatever is filtered."""
    result = TopK(
        np.empty((problem.n_queries, problem.k), np.float32),
        np.empty((problem.n_queries, problem.k), np.int64),
        np.ones(problem.n_queries, bool),
    )
    for which in exact.portions(problem):
        part = problem.only(which)
        listed = part.not_excluded(exact.everything(part))
        found = part.eligible(listed._replace(estimates=backend.refine(part, listed)))
        result.scores[which], result.ids[which] = backend.select(part, found, found.estimates)
    return result


def foreign(docs: Corpus) -> list[str]:
    """Why a backend that uses torch cannot read these documents: they are on a GPU, in an array that is not torch's."""
    if not isinstance(getattr(docs, "rows", None), DeviceArray):
        return []
    return [f"it reads tensors, and the documents are another array on {docs.device}: pass torch.from_dlpack of both"]


def best_of(found: TopK, problem: Problem, width: int) -> Candidates:
    """The best ``width`` by the specification, ids being row numbers, as candidates."""
    kept = found.ids >= 0
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
    full = kept.all(axis=1) & (width < len(problem.docs))
    last = reference.rank_score(found.scores[:, -1], problem.metric)
    # What was dropped rounds to `last` at most, so in float64 it lies below the next float32.
    with np.errstate(over="ignore"):
        above = np.nextafter(last, np.float32(np.inf)).astype(np.float64)
    return Candidates(found.ids[kept], offsets, found.scores[kept], np.where(full, above, -np.inf))

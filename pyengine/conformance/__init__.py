"""The conformance suite: what a backend must do, ours or a third party's. It needs only NumPy.

    @pytest.mark.parametrize("case", conformance.cases(), ids=str)
    def test_my_backend(case: conformance.Case) -> None:
        conformance.run(case, MyBackend())

or, without pytest, ``conformance.check(MyBackend())``. `maxsim_cases` are those of late interaction, `sliced_cases`
those of sliced vectors, `sparse_cases` those of sparse rows. Two things are asked, in every case:

- what `propose` lists keeps the contract of `Candidates`, for lists of several widths; above all ``dropped`` bounds
  the float64 rank score of every allowed document that is not listed, which is what makes the answer exact;
- the answer equals the specification to the bit, whatever the k, the batch and the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from pyengine.backends import registry
from pyengine.backends.base import Proposer
from pyengine.conformance import conformance_sparse
from pyengine.conformance.conformance_cases import Case, cases
from pyengine.conformance.conformance_maxsim import MaxSimCase, maxsim_cases
from pyengine.conformance.conformance_sliced import SlicedCase, sliced_cases
from pyengine.conformance.conformance_sparse import SparseCase, sparse_cases
from pyengine.conformance.conformance_spec import allowed, permitted, rank_scores, specified
from pyengine.inputs.filters import Filters
from pyengine.inputs.lists import first_rows
from pyengine.problems.problem import ALL, DenseProblem, Problem
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.searches.ranges import reaching
from pyengine.searches.ranks import ranks
from pyengine.searches.search import exact_search, fast_search
from pyengine.specification import reference
from pyengine.types import F64, I64, Bool, Candidates, TopK

P = TypeVar("P", bound=Problem)
AnyCase: TypeAlias = Case | MaxSimCase | SlicedCase | SparseCase

__all__ = [
    "Case",
    "MaxSimCase",
    "Nonconformance",
    "SlicedCase",
    "SparseCase",
    "allowed",
    "cases",
    "check",
    "check_candidates",
    "maxsim_cases",
    "rank_scores",
    "run",
    "same",
    "sliced_cases",
    "sparse_cases",
    "specified",
]


class Nonconformance(AssertionError):
    """A backend broke its contract. The message says in which case, where first, and what was expected."""


def check(backend: Proposer[Any] | str, chosen: Iterable[AnyCase] | None = None) -> int:
    """Run the cases (all by default) and return how many the backend took on. Raises `Nonconformance` at the first
    that fails, and RuntimeError when the backend cannot run on this machine."""
    return sum(not run(case, backend) for case in (cases() if chosen is None else chosen))


def run(case: AnyCase, backend: Proposer[Any] | str) -> list[str]:
    """Run one case. Returns the backend's reasons for refusing it: empty when it took it on, and passed.

    Raises `Nonconformance` when it fails, RuntimeError when the backend cannot run on this machine.
    """
    problem: Any = case.problem()
    backend = _instance(backend, problem.family)
    refusals = backend.refusals(problem)
    if refusals:
        return refusals
    try:
        check_proposals(problem, backend)
        check_fast(problem, backend)
        check_answers(problem, backend)
        if problem.family == "dense":
            check_ranges_and_ranks(problem, backend)
        if problem.family == "sparse":
            check_ranges(problem, backend)
    except Nonconformance as failure:
        raise Nonconformance(f"backend {backend.name!r}, case {case}: {failure}") from None
    return []


def _instance(given: Proposer[Any] | str, family: str) -> Proposer[Any]:
    backend: Proposer[Any] | None = registry.of_family(given, family) if isinstance(given, str) else given
    if backend is None:
        raise RuntimeError(f"backend {given!r} has nothing for {family}")
    missing = backend.missing()
    if missing is not None:
        raise RuntimeError(f"backend {backend.name!r} cannot run here: {missing}")
    return backend


def check_proposals(problem: P, backend: Proposer[P]) -> None:
    """`propose` keeps the contract of `Candidates` for lists from k to all documents."""
    problem = problem.asking(problem.places())
    scores = rank_scores(problem)
    first = backend.first_width(problem)
    for width in sorted({problem.k, first, 8 * first, max(problem.k, len(problem.docs)) + 1}):
        try:
            check_candidates(problem, backend.propose(problem, width), scores)
        except Nonconformance as failure:
            raise Nonconformance(f"propose(width={width}): {failure}") from None


def check_candidates(problem: Problem, candidates: Candidates, scores: F64) -> None:
    """One proposal against the contract, given the `rank_scores` of the problem."""
    _check_form(problem, candidates)
    n_queries, n_docs = scores.shape
    owner = first_rows(candidates.offsets)
    times = np.zeros((n_queries, n_docs), np.int64)
    np.add.at(times, (owner, candidates.rows), 1)
    may = allowed(problem)
    _refuse(times > 1, lambda q, d: f"lists document {d} of query {q} {times[q, d]} times")
    _refuse((times > 0) & ~may, lambda q, d: f"lists document {d} for query {q}, which the mask forbids")
    bounds = candidates.dropped[:, None]
    if isinstance(problem, SparseProblem):
        bounds = conformance_sparse.dropped(problem, candidates, scores)
    above = may & (times == 0) & ~(scores <= bounds)
    if problem.ceiling is not None:
        above &= scores <= problem.ceiling[:, None]
    _refuse(
        above,
        lambda q, d: (
            f"query {q}: dropped is {float(candidates.dropped[q])}, but document {d}, allowed and not listed, has rank "
            f"score {float(scores[q, d])} ({np.count_nonzero(above)} such in all)"
        ),
    )


def _check_form(problem: Problem, candidates: Candidates) -> None:
    n_queries, n_docs = problem.n_queries, len(problem.docs)
    listed = len(candidates.rows)
    expected = {
        "rows": (np.int64, (listed,)),
        "offsets": (np.int64, (n_queries + 1,)),
        "estimates": (np.float32, (listed,)),
        "dropped": (np.float64, (n_queries,)),
    }
    for name, (dtype, shape) in expected.items():
        _check_array(getattr(candidates, name), name, dtype, shape)
    rows, offsets, estimates, dropped = candidates
    if offsets[0] != 0 or offsets[-1] != listed or (np.diff(offsets) < 0).any():
        raise Nonconformance(f"offsets must rise from 0 to the {listed} rows listed; got {offsets}")
    _refuse((rows < 0) | (rows >= n_docs), lambda i: f"rows[{i}] is {rows[i]}, and there are {n_docs} documents")
    _refuse(~np.isfinite(estimates), lambda i: f"estimates[{i}] is {estimates[i]}")
    _refuse(np.isnan(dropped), lambda q: f"dropped[{q}] is nan")


def check_fast(problem: P, backend: Proposer[P]) -> None:
    """``precision="fast"`` says that it is not certified, and gives allowed documents, each once, best first."""
    result = fast_search(problem, backend)
    _check_result(problem, result)
    _refuse(result.certified, lambda q: f"fast: query {q} claims to be certified")
    may, sign = permitted(problem), -1.0 if problem.metric == "l2" else 1.0
    for q, (scores, ids) in enumerate(zip(result.scores, result.ids)):
        found = ids[ids >= 0]
        if (ids[: len(found)] < 0).any():
            raise Nonconformance(f"fast: query {q} has pads before documents: {ids}")
        if len(set(found.tolist())) < len(found) or not may[q, found].all():
            raise Nonconformance(f"fast: query {q} has a document twice, or one that it may not get: {ids}")
        if (sign * scores[:-1] < sign * scores[1:]).any():
            raise Nonconformance(f"fast: the scores of query {q} are not best first: {scores}")


def check_answers(problem: P, backend: Proposer[P]) -> None:
    """The answer is the specification's, whatever is asked for beside it."""
    want = specified(problem)
    for what, asked, which, k in _variations(problem):
        expected = TopK(want.scores[which, :k], want.ids[which, :k], want.certified[which])
        same(exact_search(asked, backend), expected, what)
    same(exact_search(problem, _narrow(backend)), want, "from the shortest lists")
    ids = np.random.default_rng(0).permutation(len(problem.docs)) * 3 + (1 << 40)
    named = replace(problem, ids=ids)
    same(exact_search(named, backend), specified(named), "with ids that are not row numbers")


def _narrow(backend: Proposer[P]) -> Proposer[P]:
    """The same backend, but its first lists are as short as may be, so that the search has to widen them."""
    narrow = copy(backend)
    vars(narrow)["first_width"] = lambda problem: problem.k
    return narrow


def check_ranges_and_ranks(problem: DenseProblem, backend: Proposer[DenseProblem]) -> None:
    """`within` finds what reaches the score of the last result, and counts what is before the first and the last."""
    arguments: dict[str, Any] = {"bias": problem.bias, "dims": problem.dims, "ids": problem.ids}
    plain, may = replace(problem, filters=None), permitted(problem)
    corpus = (problem.queries, problem.docs.vectors())
    ends = reference.topk(*corpus, problem.k, problem.metric, mask=may, **arguments)
    rank = reference.rank_score(ends.scores, problem.metric).astype(np.float64)
    threshold = np.where(rank > -np.inf, rank, np.inf).min(axis=1)
    filters = replace(problem.filters or Filters(), groups=None, after=None, threshold=threshold)
    got = reaching(replace(problem, k=ALL, filters=filters), backend)
    limit = -threshold if problem.metric == "l2" else threshold
    want = reference.range_search(*corpus, limit, problem.metric, mask=may, **arguments)
    if any(each.tobytes() != expected.tobytes() for each, expected in zip(got, want)):
        raise Nonconformance(f"range_search: got {got}, expected {want}")
    if len(problem.docs):
        targets = np.maximum(ends.ids[:, [0, -1]], 0)
        ranked = ranks(plain, backend, targets)
        expected = reference.rank_of(*corpus, targets, problem.metric, mask=allowed(problem), **arguments)
        _refuse(ranked != expected, lambda q, t: f"rank_of: query {q}: got {ranked[q, t]}, expected {expected[q, t]}")


def check_ranges(problem: P, backend: Proposer[P]) -> None:
    """`within` finds what reaches the score of the last result, and what is positive."""
    may = replace(problem.filters or Filters(), groups=None, after=None, threshold=None)
    found = specified(replace(problem, filters=may)).scores.astype(np.float64)
    last = np.where(np.isfinite(found), found, np.inf).min(axis=1)
    for threshold in (last, np.maximum(last, float(np.finfo(np.float32).smallest_subnormal))):
        asked = replace(problem, k=max(1, len(problem.docs)), filters=replace(may, threshold=threshold))
        got, want = reaching(replace(asked, k=ALL), backend), specified(asked)
        kept = want.ids >= 0
        expected = want.scores[kept], want.ids[kept], np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        if any(each.tobytes() != other.tobytes() for each, other in zip(got, expected)):
            raise Nonconformance(f"range_search: got {got}, expected {expected}")


def _variations(problem: P) -> Iterator[tuple[str, P, I64, int]]:
    """What is varied, the problem, and the part of the answer that it must give: these queries, the first so many."""
    everyone = np.arange(problem.n_queries)
    yield "topk", problem, everyone, problem.k
    for k in sorted({1, (problem.k + 1) // 2}):
        yield f"the first {k} of k={problem.k}", replace(problem, k=k), everyone, k
    for threads in (1, 16):
        yield f"num_threads={threads}", replace(problem, num_threads=threads), everyone, problem.k
    batches = {
        "the first query alone": everyone[:1],
        "the queries in reverse": everyone[::-1],
        "the queries three times over": np.tile(everyone, 3),
    }
    for what, which in batches.items():
        yield what, problem.only(which), which, problem.k


def same(result: TopK, want: TopK, what: str) -> None:
    """Raise `Nonconformance` unless two results are equal: ids, certificates, and scores to the bit."""
    for name, got, expected in zip(TopK._fields, result, want):
        _check_array(got, f"{what}: {name}", expected.dtype.type, expected.shape)
    differs = (result.scores.view(np.int32) != want.scores.view(np.int32)) | (result.ids != want.ids)

    def first(q: int, place: int) -> str:
        got, expected = ((part.ids[q, place], part.scores[q, place]) for part in (result, want))
        return (
            f"{what}: query {q}, place {place}: got id {got[0]} with score {_bits(got[1])}, "
            f"expected id {expected[0]} with {_bits(expected[1])} ({np.count_nonzero(differs)} places differ)"
        )

    _refuse(differs, first)
    _refuse(result.certified != want.certified, lambda q: f"{what}: query {q} has certified={result.certified[q]}")


def _check_result(problem: Problem, result: TopK) -> None:
    shape = (problem.n_queries, problem.k)
    _check_array(result.scores, "scores", np.float32, shape)
    _check_array(result.ids, "ids", np.int64, shape)
    _check_array(result.certified, "certified", np.bool_, shape[:1])


def _check_array(array: Any, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise Nonconformance(f"{name} must be {np.dtype(dtype)} {list(shape)}; got {got}")


def _bits(score: np.float32) -> str:
    return f"{score!s} (0x{score.view(np.uint32):08x})"


def _refuse(bad: Bool, message: Callable[..., str]) -> None:
    """Raise with the message of the first place that is True."""
    if bad.any():
        raise Nonconformance(message(*np.argwhere(bad)[0]))

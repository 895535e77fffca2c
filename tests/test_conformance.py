"""Every backend of this machine passes the conformance suite, and the suite catches backends that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pyengine import DenseIndex, TopK, conformance, topk
from pyengine.backends.base import Backend
from pyengine.backends.numpy_backend import NumpyBackend
from pyengine.inputs.lists import first_rows
from pyengine.problems.problem import DenseProblem
from pyengine.specification import reference
from pyengine.types import F32, I64, Candidates

pytestmark = pytest.mark.filterwarnings("error")

CASES = conformance.cases()
ALL_ROUNDERS = ("cpu", "numpy")  # the backends that may refuse nothing


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(engine: str, case: conformance.Case) -> None:
    refusals = conformance.run(case, engine)
    if refusals:
        assert engine not in ALL_ROUNDERS
        assert all(reason.strip() for reason in refusals)
        pytest.skip(f"{engine} refuses: {'; '.join(refusals)}")


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("metric", reference.METRICS)
def test_golden_answers(engine: str, store: str, golden: dict[str, Any], metric: str) -> None:
    """Another implementation's bits, without the reference in between."""
    queries, docs = golden["queries"], golden["docs"]
    index = DenseIndex(docs.shape[1], metric, store, backend=engine)
    index.add(docs)
    for k in {1, 10, 2 * len(docs)}:
        want = TopK(golden[f"top{k}_{metric}_scores"], golden[f"top{k}_{metric}_ids"], np.ones(len(queries), bool))
        conformance.same(topk(queries, docs, k, metric=metric, backend=engine), want, f"topk, k={k}")
        conformance.same(index.search(queries, k), want, f"{store} index, k={k}")


def test_poison_is_poison(poison: None) -> None:
    assert np.isnan(np.empty((2, 3), np.float32)).all()
    assert (np.empty(4, np.int64) == -999).all()


def test_a_case_is_the_same_problem_each_time() -> None:
    for case in CASES:
        first, second = case.problem(), case.problem()
        np.testing.assert_array_equal(first.queries, second.queries)
        np.testing.assert_array_equal(first.docs.rows, second.docs.rows)
        np.testing.assert_array_equal(first.mask, second.mask)
        np.testing.assert_array_equal(first.bias, second.bias)


def test_cases_have_names_of_their_own() -> None:
    assert len(set(map(str, CASES))) == len(CASES)


def test_check_counts_what_was_taken_on() -> None:
    some = [case for case in CASES if case.corpus in ("ties", "one_document")]
    assert conformance.check(Honest(), some) == len(some)
    assert conformance.check(RefusesL2(), some) == sum(case.metric != "l2" for case in some)


def test_a_backend_that_is_missing_is_an_error_not_a_pass() -> None:
    with pytest.raises(RuntimeError, match="'absent' cannot run here: no such machine"):
        conformance.check(Absent())


class Honest(NumpyBackend):
    """NumPy's lists, and as ``dropped`` the best float64 rank score that is not listed."""

    name = "toy"

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        found = super().propose(problem, width)
        scores = np.where(conformance.allowed(problem), conformance.rank_scores(problem), -np.inf)
        scores[first_rows(found.offsets), found.rows] = -np.inf
        return found._replace(dropped=scores.max(axis=1, initial=-np.inf))


class CannotTell(Honest):
    """Lists nothing and promises nothing: the search core must do everything."""

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        n_queries = problem.n_queries
        nothing = np.empty(0, np.int64)
        dropped = np.full(n_queries, np.inf)
        return Candidates(nothing, np.zeros(n_queries + 1, np.int64), nothing.astype(np.float32), dropped)


class Unsorted(Honest):
    """Lists in no order, with estimates that are far off: neither is promised."""

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        found = super().propose(problem, width)
        order = np.lexsort((found.rows % 7, first_rows(found.offsets)))
        return found._replace(rows=found.rows[order], estimates=np.cos(found.estimates))


class RefusesL2(Honest):
    def refusals(self, problem: DenseProblem) -> list[str]:
        return ["it has no l2"] if problem.metric == "l2" else []


class Absent(Honest):
    name = "absent"

    def missing(self) -> str:
        return "no such machine"


@pytest.mark.parametrize("backend", [Honest, CannotTell, Unsorted])
def test_the_suite_passes_what_keeps_the_contract(backend: type[Backend]) -> None:
    assert conformance.check(backend(), SOME) == len(SOME)


SOME = [case for case in CASES if case.store == "matrix" and case.corpus in ("random", "ties", "duplicates", "zeros")]


def altered(change: Callable[[DenseProblem, Candidates], Candidates]) -> Backend:
    """The honest backend, with its proposals changed."""

    class Altered(Honest):
        def propose(self, problem: DenseProblem, width: int) -> Candidates:
            return change(problem, super().propose(problem, width))

    return Altered()


def drop_the_best(problem: DenseProblem, found: Candidates) -> Candidates:
    best = found.offsets[:-1][np.diff(found.offsets) > 0]
    fewer = np.concatenate([[0], np.cumsum(np.maximum(np.diff(found.offsets) - 1, 0))])
    return found._replace(
        rows=np.delete(found.rows, best), estimates=np.delete(found.estimates, best), offsets=fewer.astype(np.int64)
    )


def list_everything(problem: DenseProblem, found: Candidates) -> Candidates:
    n_queries, n_docs = problem.n_queries, len(problem.docs)
    rows = np.tile(np.arange(n_docs), n_queries)
    return Candidates(rows, np.arange(n_queries + 1) * n_docs, np.zeros(len(rows), np.float32), found.dropped)


def list_twice(problem: DenseProblem, found: Candidates) -> Candidates:
    return Candidates(np.repeat(found.rows, 2), found.offsets * 2, np.repeat(found.estimates, 2), found.dropped)


def just_below(problem: DenseProblem, found: Candidates) -> Candidates:
    return found._replace(dropped=np.nextafter(found.dropped, -np.inf))


def forget_the_bias(problem: DenseProblem, found: Candidates) -> Candidates:
    scores = conformance.rank_scores(replace(problem, bias=None))
    scores[first_rows(found.offsets), found.rows] = -np.inf
    return found._replace(dropped=scores.max(axis=1, initial=-np.inf))


WRONG_PROPOSALS: dict[str, tuple[Callable[[DenseProblem, Candidates], Candidates], str]] = {
    "drops a document": (drop_the_best, "allowed and not listed, has rank score"),
    "bound too low": (lambda problem, found: found._replace(dropped=found.dropped - 1e-3), "dropped is"),
    "bound too low by one float64": (just_below, "dropped is"),
    "claims to list everything": (
        lambda problem, found: found._replace(dropped=np.full_like(found.dropped, -np.inf)),
        "dropped is -inf, but document",
    ),
    "bound without the bias": (forget_the_bias, "-bias-.* dropped is"),
    "bound is nan": (lambda problem, found: found._replace(dropped=found.dropped * np.nan), r"dropped\[0\] is nan"),
    "lists a masked row": (list_everything, "which the mask forbids"),
    "duplicates": (list_twice, "lists document .* of query 0 2 times"),
    "rows beyond the documents": (
        lambda problem, found: found._replace(rows=found.rows + len(problem.docs)),
        r"rows\[0\] is .*, and there are 611 documents",
    ),
    "rows of -1": (lambda problem, found: found._replace(rows=np.full_like(found.rows, -1)), r"rows\[0\] is -1"),
    "offsets without the last": (
        lambda problem, found: found._replace(offsets=found.offsets[:-1]),
        r"offsets must be int64 \[7\]; got int64 \[6\]",
    ),
    "offsets from one": (lambda problem, found: found._replace(offsets=found.offsets + 1), "offsets must rise from 0"),
    "int32 rows": (
        lambda problem, found: found._replace(rows=found.rows.astype(np.int32)),
        "rows must be int64 .* got int32",
    ),
    "float64 estimates": (
        lambda problem, found: found._replace(estimates=found.estimates.astype(np.float64)),
        "estimates must be float32 .* got float64",
    ),
    "float32 bound": (
        lambda problem, found: found._replace(dropped=found.dropped.astype(np.float32)),
        "dropped must be float64 .* got float32",
    ),
    "a list, not an array": (
        lambda problem, found: found._replace(estimates=found.estimates.tolist()),
        "estimates must be float32 .* got list",
    ),
    "estimates of nan": (
        lambda problem, found: found._replace(estimates=found.estimates * np.nan),
        r"estimates\[0\] is nan",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_PROPOSALS)
def test_the_suite_catches_wrong_proposals(wrong: str) -> None:
    change, message = WRONG_PROPOSALS[wrong]
    with pytest.raises(conformance.Nonconformance, match=f"backend 'toy', case .*{message}"):
        conformance.check(altered(change), SOME)


class RefinesInFloat32(Honest):
    def refine(self, problem: DenseProblem, candidates: Candidates) -> F32:
        rows = problem.docs.rows[candidates.rows, : problem.dims]
        queries = problem.queries[first_rows(candidates.offsets), : problem.dims]
        if problem.metric != "dot" or problem.bias is not None:
            return super().refine(problem, candidates)
        scores: F32 = np.einsum("md,md->m", queries, rows, dtype=np.float32)
        return scores


class TiesToTheLargerId(Honest):
    def select(self, problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        highest = len(problem.docs) if problem.ids is None else int(problem.ids.max(initial=0))
        ids = np.arange(len(problem.docs)) if problem.ids is None else problem.ids
        scores, found = super().select(replace(problem, ids=highest - ids), candidates, scores)
        return scores, np.where(np.isinf(scores), -1, highest - found)


class MinusZero(Honest):
    def select(self, problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        scores, found = super().select(problem, candidates, scores)
        return np.where(scores == 0, np.float32(-0.0), scores), found


class IgnoresIds(Honest):
    def select(self, problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        return super().select(replace(problem, ids=None), candidates, scores)


class WrongWithThreads(Honest):
    def select(self, problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        scores, found = super().select(problem, candidates, scores)
        return scores + np.float32(problem.num_threads == 16), found


class WrongInLargeBatches(Honest):
    def select(self, problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        scores, found = super().select(problem, candidates, scores)
        found[16:] = found[16:, ::-1]
        return scores, found


class WrongForSmallK(Honest):
    def select(self, problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        scores, found = super().select(problem, candidates, scores)
        return (scores, found - 1) if problem.k == 1 else (scores, found)


class FastRepeatsItself(Honest):
    def select(self, problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
        scores, found = super().select(problem, candidates, scores)
        return scores, np.repeat(found[:, :1], problem.k, axis=1)


WRONG_ANSWERS: dict[str, tuple[type[Backend], str]] = {
    "float32 scores": (RefinesInFloat32, r"topk: query 0, place \d+: got id .* expected id .* places differ"),
    "ties to the larger id": (TiesToTheLargerId, "topk: query .* got id .* expected id"),
    "minus zero": (MinusZero, r"got id \d+ with score -0.0 \(0x80000000\), expected id \d+ with 0.0"),
    "ids ignored": (IgnoresIds, "with ids that are not row numbers"),
    "wrong with threads": (WrongWithThreads, "num_threads=16: query 0, place 0"),
    "wrong in large batches": (WrongInLargeBatches, "the queries three times over: query 16"),
    "wrong for small k": (WrongForSmallK, "the first 1 of k=10"),
    "fast repeats itself": (FastRepeatsItself, "fast: query 0 has a document twice"),
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
def test_the_suite_catches_wrong_answers(wrong: str) -> None:
    backend, message = WRONG_ANSWERS[wrong]
    with pytest.raises(conformance.Nonconformance, match=f"backend 'toy', case .*: {message}"):
        conformance.check(backend(), SOME)


def test_same_compares_bits_ids_certificates_and_types() -> None:
    want = reference.topk(np.eye(2, dtype=np.float32), np.eye(3, 2, dtype=np.float32), 2)
    conformance.same(want, want, "itself")
    for different in (
        want._replace(scores=np.nextafter(want.scores, np.float32(2))),
        want._replace(ids=want.ids[:, ::-1]),
        want._replace(certified=~want.certified),
        want._replace(scores=want.scores.astype(np.float64)),
        want._replace(ids=want.ids.astype(np.int32)),
        want._replace(ids=want.ids[:, :1]),
    ):
        with pytest.raises(conformance.Nonconformance, match=r"^this: "):
            conformance.same(different, want, "this")

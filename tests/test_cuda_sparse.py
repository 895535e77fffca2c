"""Sparse search by the CUDA kernels, run by an emulator: bounds that hold in float64, answers of the specification to
the bit, nothing written where nothing is."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyengine
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_device, cuda_sparse, cuda_windows
from pyengine.backends.cuda.cuda_sparse_backend import CudaSparse
from pyengine.backends.shared import row_pools
from pyengine.backends.shared.posting_windows import WINDOW
from pyengine.conformance.conformance_sparse import rows
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.searches.explain import explain
from pyengine.specification import reference_sparse
from pyengine.types import Candidates
from tests import sparse_cases
from tests.cuda_driver import FakeDriver
from tests.sparse_cases import OPTIONS, WEIGHTS, prepared, problem, rows_of_any_weights

check = partial(sparse_cases.check, name="cuda")
pytestmark = pytest.mark.usefixtures("emulated", "poison")


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_of_all_kinds(weights: str) -> None:
    check(problem(values=WEIGHTS[weights]))


@pytest.mark.parametrize("weights", ["plain", "signed"])
@pytest.mark.parametrize("store", ["rows", "float16", "uint8"])
def test_stores(store: str, weights: str) -> None:
    check(problem(longest=40, n_terms=70, n_docs=300, store=store, values=WEIGHTS.get(weights)))


@pytest.mark.parametrize("n_docs", [0, 1, 31, 32, 33, WINDOW - 1, WINDOW, WINDOW + 1, 65_535, 65_536, 65_537])
def test_numbers_of_documents(n_docs: int) -> None:
    """As many as windows have, and fours of those that 16 bits number: the last document is the best."""
    asked = problem(n_docs=n_docs, n_queries=1, longest=3, n_terms=20, k=3)
    check(asked)
    if n_docs > 1:
        queries, docs = asked.queries, asked.docs.sparse_rows()
        first = slice(0, docs.indptr[-2])
        best = SparseRows(
            np.append(docs.indptr[:-1], docs.indptr[-2] + len(queries.indices)),
            np.append(docs.indices[first], queries.indices), np.append(docs.values[first], 9 * queries.values), 20,
        )  # fmt: skip
        found = pyengine.sparse_topk(queries, best, 1, backend="cuda")
        assert found.ids.tolist() == [[n_docs - 1]]


@pytest.mark.parametrize("n_queries", [0, 1, 7])
def test_numbers_of_queries(n_queries: int) -> None:
    check(problem(n_docs=70, n_queries=n_queries))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("weights", ["plain", "signed"])
def test_options(options: str, weights: str) -> None:
    check(problem(values=WEIGHTS.get(weights), **OPTIONS[options]))


@pytest.mark.parametrize("option", ["mask", "bias", "ids"])
def test_options_of_several_windows(option: str) -> None:
    """Each part of a scan but the first meets a threshold; whole windows are masked."""
    count, rng = 3 * WINDOW + 5, np.random.default_rng(2)
    options: dict[str, Any] = {"bias": rng.standard_normal(count), "ids": rng.permutation(count)}
    options["mask"] = (rng.random(count) < 0.3) & (np.arange(count) >= WINDOW)
    check(problem(n_docs=count, n_queries=2, longest=4, n_terms=30, k=7, **{option: options[option]}))


def test_special_problems() -> None:
    check(sparse_cases.of_a_million_terms())
    for sign in (1, -1):
        check(sparse_cases.with_few_matches(sign))
    for queries in (False, True):
        check(sparse_cases.with_empty(queries))


def test_long_queries_and_lists() -> None:
    """More terms than are looked up together, and more postings than all warps take at once."""
    check(problem(n_docs=5000, n_queries=1, longest=700, n_terms=701, k=4, seed=3))
    check(problem(n_docs=9000, n_queries=2, longest=3, n_terms=3, k=4))


def test_a_window_is_thinned(emulated: FakeDriver) -> None:
    """Where more than a few pass, those that k others of the window leave no chance are not listed."""
    asked = problem(n_docs=3000, longest=12, n_terms=20, k=3)
    found = cuda_sparse.propose(asked, 8 * asked.k)
    assert (np.diff(found.offsets) < 60).all()
    assert (np.count_nonzero(conformance.rank_scores(asked) > 0, axis=1) > cuda_windows.MANY).all()
    conformance.check_candidates(asked, found, conformance.rank_scores(asked))
    assert [line.split()[0] for line in emulated.log] == ["sparse_topk", "tighten"]


@pytest.mark.parametrize("weights", ["plain", "signed", "binary"])
def test_full_pools(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools with hardly a place to spare: what finds no room is bounded."""
    monkeypatch.setattr(row_pools, "ROOM", 2)
    check(problem(n_docs=2 * WINDOW + 700, n_queries=2, longest=5, k=30, values=WEIGHTS.get(weights)))


@pytest.mark.parametrize("options", ["plain", "mask", "rising ids", "ids"])
@pytest.mark.parametrize("k", [10, 700])
def test_ties_go_to_the_first_rows(options: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlaps, of which thousands are equal: the first are found without scoring all, unless ids have another order;
    and weights of either sign."""
    count, rng = 2 * WINDOW + 300, np.random.default_rng(8)
    given: dict[str, Any] = {"rising ids": {"ids": 3 * np.arange(count)}, "ids": {"ids": rng.permutation(count)}}
    given["mask"] = {"mask": rng.random(count) < 0.4}
    for weights in ("binary", "cancelling"):
        asked = problem(
            n_docs=count, n_queries=2, longest=5, n_terms=9, k=k, values=WEIGHTS[weights], **given.get(options, {})
        )
        assert asked.by_row == (options != "ids")
        check(asked)
        if asked.by_row:
            found = cuda_sparse.propose(asked, 8 * k)
            assert (np.diff(found.offsets) == k).all()
            monkeypatch.setattr(CudaSparse, "scan", lambda self, problem: pytest.fail("not certified"))
            check(asked)


def test_queries_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_pools, "PLACES", 200)
    check(problem(n_queries=3))
    monkeypatch.setattr(cuda_windows, "MOST_BLOCKS", 2)
    check(problem(n_queries=3))


def listed(asked: SparseProblem) -> Candidates:
    """All documents whose bound is above 0."""
    return cuda_sparse.propose(asked, len(asked.docs))


def test_overlaps_are_counted_exactly() -> None:
    asked = problem(values=WEIGHTS["binary"], n_docs=200, n_terms=70, longest=30, k=200)
    sparse_cases.check_overlaps(asked, listed(asked))


def test_what_cancels_is_told_from_what_shares_nothing() -> None:
    """Sums are 0 of both: the first may score above 0 all the same, and alone is listed."""
    asked = problem(values=lambda rng, count: rng.choice([-0.3, 0.3], count), n_docs=400, k=400)
    shared = reference_sparse.scores(_magnitudes(asked.queries), _magnitudes(asked.docs.sparse_rows())) > 0
    scores, found = conformance.rank_scores(asked), listed(asked)
    for q, own in enumerate(scores):
        rows = found.rows[slice(*found.offsets[q : q + 2])]
        assert shared[q, rows].all()
        assert np.isin(np.flatnonzero(shared[q] & (own == 0)), rows).all()
        assert (shared[q] & (own == 0)).any()


def _magnitudes(given: SparseRows) -> SparseRows:
    return SparseRows(given.indptr, given.indices, np.abs(given.values), given.n_terms)


@pytest.mark.parametrize("weights", ["plain", "signed", "far_apart", "all_magnitudes"])
def test_bounds_hold(weights: str) -> None:
    """Of every document, one by one."""
    asked = problem(values=WEIGHTS.get(weights), k=150, longest=30, n_terms=70, bias=np.zeros(150))
    gpu = cuda_device.gpu_of(asked.docs)
    found = cuda_sparse.scanned(asked, 150, gpu)
    scores = reference_sparse.unrounded_scores(asked.queries, asked.docs.sparse_rows())
    pools = [gpu.host(each) for each in found.pools[:4]]
    sparse_cases.check_bounds(scores, found.units, pools, narrow=weights == "plain")


@pytest.mark.parametrize("store", ["rows", "float32", "float16", "uint8"])
@pytest.mark.parametrize("bias", [None, "bias", "bias_huge"])
def test_refined_scores_are_the_specifications(store: str, bias: str | None) -> None:
    sparse_cases.check_refined("cuda", store, {} if bias is None else OPTIONS[bias])


def test_an_index_that_changes() -> None:
    sparse_cases.check_an_index_that_changes("cuda")


def test_documents_stay_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = problem()
    check(asked)
    monkeypatch.setattr(cuda_sparse, "windows", lambda *given: pytest.fail("made again"))
    check(asked)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(queries=rows_of_any_weights(2), docs=rows_of_any_weights(20), k=st.integers(1, 25))
def test_any_rows(queries: SparseRows, docs: SparseRows, k: int) -> None:
    check(prepared(queries, docs, k, "rows"))


def test_what_the_kernels_cannot_do_is_refused(emulated: FakeDriver) -> None:
    some = rows(np.random.default_rng(0), 3, 5, 70_000)
    long = prepared(SparseRows([0, 70_000], np.arange(70_000), None, 70_000), some, 3)
    backend = registry.of_family("cuda", "sparse")
    assert backend.refusals(long) == ["its kernels take queries of at most 65,536 terms, and one has 70,000"]
    emulated.tell(megabytes=0)
    (said,) = backend.refusals(prepared(some, some, 3))
    assert said.startswith("it needs 0 MB of the GPU")


def test_explain() -> None:
    plan = explain(problem(), "cuda")
    assert plan.backend == "cuda"
    assert plan.facts["tile"] == "16,384 documents and a query"
    assert plan.facts["blocks"] == "2, of 1 windows"

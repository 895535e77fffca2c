"""`sparse_topk` and `explain_terms` as users meet them, on every backend."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.conformance import conformance_sparse
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseDocuments, TermRows
from pyengine.refining import exact_sparse
from pyengine.searches import request, sparse
from pyengine.searches.explain import explain
from pyengine.specification import reference_sparse as spec
from pyengine.types import Candidates, TopK

pytestmark = [
    pytest.mark.filterwarnings("error", "ignore:Sparse"),  # torch says once what is in beta and what it does not check
    pytest.mark.usefixtures("poison"),
]
RNG = np.random.default_rng(0)
QUERIES, DOCS = conformance_sparse.CORPORA["random"](RNG)
ZERO = np.zeros(1, np.float32)
BIAS = RNG.standard_normal(len(DOCS))


def same(found: TopK, want: TopK, what: str = "sparse_topk") -> None:
    conformance.same(TopK(*(np.asarray(part) for part in found)), want, what)


def dicts(rows: SparseRows) -> list[dict[int, float]]:
    return [dict(zip(terms.tolist(), weights.tolist())) for terms, weights in rows]


@pytest.mark.parametrize(("queries", "docs"), [([], [{3: 1.0}]), ([{3: 1.0}], []), ([], [])])
def test_lists_of_dicts_may_be_empty(queries: list[Any], docs: list[Any]) -> None:
    found = pe.sparse_topk(queries, docs, 2)
    assert found.ids.tolist() == [[-1, -1]] * len(queries)
    assert found.scores.shape == (len(queries), 2)


@pytest.mark.parametrize("k", [1, 10, 299, 300, 310])
def test_topk(sparse_engine: str, k: int) -> None:
    same(pe.sparse_topk(QUERIES, DOCS, k, backend=sparse_engine), spec.topk(QUERIES, DOCS, k))
    biased = pe.sparse_topk(QUERIES, DOCS, k, bias=BIAS, backend=sparse_engine)
    same(biased, spec.topk(QUERIES, DOCS, k, bias=BIAS))


def test_every_form_of_input_gives_the_same(sparse_engine: str) -> None:
    pytest.importorskip("scipy")
    from scipy import sparse as scipy_sparse

    want = spec.topk(QUERIES, DOCS, 7)
    parts = [(each.values, each.indices, each.indptr) for each in (QUERIES, DOCS)]
    csr = [scipy_sparse.csr_matrix(part, shape=(len(part[2]) - 1, QUERIES.n_terms)) for part in parts]
    for queries in (QUERIES, csr[0], csr[0].tocoo(), dicts(QUERIES)):
        for docs in (DOCS, csr[1], csr[1].tocsc(), dicts(DOCS)):
            same(pe.sparse_topk(queries, docs, 7, backend=sparse_engine), want)


def test_tensors_give_tensors() -> None:
    torch = pytest.importorskip("torch")
    queries, docs = (
        torch.sparse_csr_tensor(
            *map(torch.from_numpy, (each.indptr.copy(), each.indices.astype(np.int64), each.values)),
            size=(len(each), each.n_terms),
        )
        for each in (QUERIES, DOCS)
    )
    for given in (queries, queries.to_sparse_coo()):
        found = pe.sparse_topk(given, docs, 5)
        assert all(isinstance(part, torch.Tensor) for part in found)
        same(found, spec.topk(QUERIES, DOCS, 5))
    assert isinstance(pe.sparse_topk(QUERIES, docs, 5).ids, np.ndarray)


def test_every_filter_at_once(sparse_engine: str) -> None:
    mask = RNG.random(len(DOCS)) < 0.7
    options: dict[str, Any] = {
        "mask": mask, "deny": np.array([3, 9]), "exclude": [np.array([0, 1]), *[np.empty(0, int)] * 4],
        "groups": np.arange(len(DOCS)) % 40, "per_group": 2, "threshold": 0.0,
    }  # fmt: skip
    same(pe.sparse_topk(QUERIES, DOCS, 20, **options, backend=sparse_engine), spec.topk(QUERIES, DOCS, 20, **options))


def test_pages_follow_on_one_another_through_the_zeros(sparse_engine: str) -> None:
    queries, docs = conformance_sparse.CORPORA["few_matches"](RNG)
    whole = spec.topk(queries, docs, 60)
    page = None
    for start in range(0, 60, 15):
        page = pe.sparse_topk(queries, docs, 15, after=page, backend=sparse_engine)
        same(page, TopK(whole.scores[:, start : start + 15], whole.ids[:, start : start + 15], whole.certified), "page")


def test_fast_says_that_it_is_not_certified(sparse_engine: str) -> None:
    found = pe.sparse_topk(QUERIES, DOCS, 10, precision="fast", backend=sparse_engine)
    assert not found.certified.any()
    recalled = [np.isin(got, want).mean() for got, want in zip(found.ids, spec.topk(QUERIES, DOCS, 10).ids)]
    assert np.mean(recalled) > 0.8


def test_stored_weights_are_the_truth(sparse_engine: str) -> None:
    for store in ("float16", "uint8"):
        docs = conformance_sparse.documents(DOCS, store)
        problem = sparse.prepare(QUERIES, docs, 10)
        found = request.run(problem, sparse_engine, "exact", like=QUERIES)
        same(found, spec.topk(QUERIES, docs.rows.decoded(), 10), store)


def test_without_the_extension_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = sparse.prepare(QUERIES, conformance_sparse.documents(DOCS, "uint8"), 10, bias=BIAS)
    rows = np.random.default_rng(5).integers(0, len(DOCS), 400)
    pairs = Candidates(rows, np.array([0, 10, 10, 300, 301, 400]), np.empty(400, np.float32), np.empty(0))
    before = exact_sparse.refine(problem, pairs)
    monkeypatch.setattr(exact_sparse, "native", lambda: None)
    for together in (1 << 20, 50, 1):
        monkeypatch.setattr(exact_sparse, "PAIR_WEIGHTS", together)
        np.testing.assert_array_equal(exact_sparse.refine(problem, pairs).view(np.int32), before.view(np.int32))
    same(pe.sparse_topk(QUERIES, DOCS, 10), spec.topk(QUERIES, DOCS, 10))
    reason = registry.of_family("cpu", "sparse").missing()
    assert reason is not None
    assert "pip install ." in reason


def filled(problem: Any, width: int) -> Candidates:
    """What is proposed, beside what is listed."""
    backend = registry.of_family("numpy", "sparse")
    found: Candidates = backend.propose(problem, width)
    return found


def test_zeros_fill_up_without_a_scan(sparse_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, docs = conformance_sparse.CORPORA["few_matches"](np.random.default_rng(3))
    backend = registry.of_family(sparse_engine, "sparse")
    monkeypatch.setattr(type(backend), "scan", lambda self, problem: pytest.fail("all documents were scored"))
    mask = np.random.default_rng(4).random((len(queries), len(docs))) < 0.5
    for k in (1, 10, 100):
        same(pe.sparse_topk(queries, docs, k, backend=sparse_engine), spec.topk(queries, docs, k))
        found = pe.sparse_topk(queries, docs, k, mask=mask, backend=sparse_engine)
        same(found, spec.topk(queries, docs, k, mask=mask))


def test_zeros_come_by_id_and_not_by_row(sparse_engine: str) -> None:
    queries, docs = SparseRows.of([{0: 1.0}], 2), SparseRows.of([{1: 1.0}] * 9 + [{0: 1.0}] + [{}] * 90, 2)
    ids = np.random.default_rng(0).permutation(100) + 1000
    for kept in (False, True):
        corpus = SparseDocuments(TermRows.of(docs), cache={} if kept else None)
        problem = sparse.prepare(queries, corpus, 5, ids=ids)
        found = request.run(problem, sparse_engine, "exact", like=None)
        assert found.ids.tolist() == [[ids[9], *[each for each in range(1000, 1005) if each != ids[9]][:4]]]


@pytest.mark.parametrize("listed", [0, 3])
def test_what_shares_a_term_and_scores_below_zero_does_not_pass_for_a_zero(listed: int) -> None:
    """The first rows that are not listed score below 0: those of 0 come behind them."""
    docs = SparseRows.of([{0: -1.0}] * 5 + [{}] * 30 + [{0: 1.0, 1: -1.0}] * listed, 2)
    problem = sparse.prepare(SparseRows.of([{0: 1.0, 1: 1.0}], 2), SparseDocuments(TermRows.of(docs)), 4)
    rows = np.arange(35, 35 + listed)
    only = Candidates(rows, np.array([0, listed]), np.ones(listed, np.float32), np.zeros(1))
    found = exact_sparse.fill_zeros(problem, only, 4)
    assert found.dropped.tolist() == [exact_sparse.BELOW_ZERO]
    assert set(range(5, 9)) <= set(found.rows.tolist())


def test_where_all_are_listed_nothing_was_dropped() -> None:
    problem = sparse.prepare([{0: 1.0}], SparseDocuments(TermRows.of(SparseRows.of([{}, {0: -1.0}, {0: 1.0}], 2))), 3)
    found = filled(problem, 3)
    assert sorted(found.rows.tolist()) == [0, 1, 2]
    assert found.dropped.tolist() == [-np.inf]


@pytest.mark.parametrize("arguments", [{"bias": np.zeros(300)}, {"threshold": 0.0}])
def test_no_zeros_are_added_where_they_do_not_tie_or_a_short_list_could_be_whole(arguments: dict[str, Any]) -> None:
    options = dict(arguments)
    filters = FilterArguments(threshold=options.pop("threshold", None))
    queries, docs = conformance_sparse.CORPORA["apart"](RNG)
    options = {name: value[: len(docs)] for name, value in options.items()}
    problem = sparse.prepare(queries, SparseDocuments(TermRows.of(docs)), 4, filters=filters, **options)
    nothing = Candidates(
        np.empty(0, np.int64), np.zeros(len(queries) + 1, np.int64), np.empty(0, np.float32), np.zeros(len(queries))
    )
    assert exact_sparse.fill_zeros(problem, nothing, 4) is nothing


def test_explain(sparse_engine: str) -> None:
    problem = sparse.prepare(QUERIES, SparseDocuments(TermRows.of(DOCS)), 10)
    plan = explain(problem, sparse_engine)
    assert plan.backend == sparse_engine
    assert plan.problem.startswith("sparse top-10, dot, queries float32 [5] of")
    assert plan.rejected["backend faiss"] == "it has nothing for sparse"
    assert "terms each" in str(plan)


def test_explain_terms() -> None:
    found = pe.explain_terms({1: 2.0, 3: 4.0, 7: 1.0}, {3: 0.5, 1: 1, 9: 2})
    assert (found.terms.tolist(), found.contributions.tolist()) == ([1, 3], [2.0, 2.0])
    rows = pe.explain_terms(QUERIES.part(slice(1, 2)), DOCS.part(slice(4, 5)))
    assert (np.diff(rows.contributions) <= 0).all()
    assert pe.explain_terms(QUERIES.part(slice(1, 2)), {0: 1.0}).terms.size <= 1
    nothing = pe.explain_terms({}, {3: 0.5})
    assert [(each.dtype.name, each.size) for each in nothing] == [("int64", 0), ("float32", 0)]


def test_nothing_optional_is_imported() -> None:
    code = (
        "import sys, pyengine as pe\n"
        "found = pe.sparse_topk([{1: 1.0}], [{1: 2.0}, {0: 1.0}], 2)\n"
        "assert found.ids.tolist() == [[0, 1]], found\n"
        "print(sorted({'scipy', 'torch', 'faiss'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    missing = registry.of_family("cpu", "sparse").missing()
    assert missing is not None or out.strip() == "[]"


def test_inputs_are_not_changed(sparse_engine: str) -> None:
    before = [each.copy() for each in (QUERIES.values, QUERIES.indices, DOCS.values, DOCS.indices)]
    pe.sparse_topk(QUERIES, DOCS, 3, backend=sparse_engine)
    for got, want in zip((QUERIES.values, QUERIES.indices, DOCS.values, DOCS.indices), before):
        np.testing.assert_array_equal(got, want)


def test_listed_zeros_do_not_come_before_smaller_ids_that_are_not_listed(sparse_engine: str) -> None:
    """Filters take the first zeros that fill up, and the last documents share terms but score 0."""
    docs = SparseRows.of([{}] * 20 + [{0: 1.0, 1: -1.0}] * 5, 3)
    queries, rows = SparseRows.of([{0: 1.0, 1: 1.0}], 3), np.arange(25)
    options: dict[str, Any]
    for options in ({"exclude": [rows[:4]]}, {"groups": np.minimum(rows // 4, 5)}, {"after": (ZERO, rows[3:4])}):
        found = pe.sparse_topk(queries, docs, 4, **options, backend=sparse_engine)
        same(found, spec.topk(queries, docs, 4, **options))

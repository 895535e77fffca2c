"""Sliced vectors: their arrays, their specification, and `pe.sliced_topk`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.problems.problem_sliced import SlicedDocuments
from pyengine.refining import exact, exact_sliced
from pyengine.searches import sliced
from pyengine.searches.explain import explain
from pyengine.specification import reference_sliced, reference_sparse
from pyengine.types import F32, F64

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]
NATIVE: Any = exact.native()


def some_rows(n: int, dim: int, n_indices: int = 4, seed: int = 0) -> pe.SlicedRows:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, dim)) * (rng.random((n, dim)) < 0.7)
    return pe.SlicedRows(values, rng.integers(0, n_indices, (n, dim)))


def plain_scores(queries: pe.SlicedRows, docs: pe.SlicedRows) -> F32:
    """The definition, one addition at a time."""
    scores = np.zeros((len(queries), len(docs)), np.float32)
    for q, (wanted, indices) in enumerate(queries):
        for d, (values, slices) in enumerate(docs):
            total = 0.0
            for p in range(docs.dim):
                if indices[p] == slices[p]:
                    total += float(wanted[p]) * float(values[p])
            scores[q, d] = np.float32(total)
    return scores


@pytest.mark.parametrize("dim", [1, 8, 65])
def test_the_specification_is_the_definition(dim: int) -> None:
    queries, docs = some_rows(4, dim), some_rows(30, dim, seed=1)
    assert (reference_sliced.scores(queries, docs) == plain_scores(queries, docs)).all()


@pytest.mark.parametrize("case", conformance.sliced_cases(), ids=str)
def test_it_is_that_of_sparse_rows(case: conformance.SlicedCase) -> None:
    problem = case.problem()
    queries, docs, bias = problem.queries, problem.docs.rows, problem.bias
    want = reference_sparse.scores(queries.sparse(), docs.sparse(), bias)
    assert (reference_sliced.scores(queries, docs, bias).view(np.int32) == want.view(np.int32)).all()


@pytest.mark.parametrize("native", [False, True], ids=["numpy", "native"])
@pytest.mark.parametrize("corpus", ["lexical", "odd129", "huge", "subnormal"])
def test_refining_gives_its_bits(native: bool, corpus: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(exact, "native", lambda: None)
        monkeypatch.setattr(exact_sliced, "PAIR_WEIGHTS", 1000)
    for options in ("plain", "bias") if corpus == "lexical" else ("plain",):
        problem = conformance.SlicedCase(corpus, options).problem()
        found = exact_sliced.refine(problem, exact.everything(problem))
        want = reference_sliced.scores(problem.queries, problem.docs.rows, problem.bias)
        assert (found.view(np.int32) == want.ravel().view(np.int32)).all()


LAUNCHES = st.fixed_dictionaries(
    {
        "tile": st.sampled_from([1, 3, 16, 17, 96]),
        "sample": st.sampled_from([0, 1, 7]),
        "sample_rank": st.sampled_from([1, 3]),
        "deviations": st.sampled_from([0.0, 2.0, float("inf")]),
        "query_block": st.sampled_from([16, 48]),
        "num_threads": st.integers(1, 3),
    }
)
SCALES = {"plain": 1.0, "huge": 1e37, "tiny": 1e-42, "whole": 0.0}


@given(
    n_queries=st.sampled_from([1, 2, 4, 5, 33, 40]),
    n_docs=st.sampled_from([7, 16, 17, 100]),
    dim=st.sampled_from([1, 63, 64, 65, 200]),
    n_indices=st.sampled_from([1, 2, 256]),
    signs=st.sampled_from(["none", "queries", "docs", "both"]),
    scale=st.sampled_from(sorted(SCALES)),
    coded=st.booleans(),
    masked=st.sampled_from(["none", "all", "each"]),
    listed=st.booleans(),
    k=st.sampled_from([1, 5]),
    launch=LAUNCHES,
    seed=st.integers(0, 1 << 30),
)
def test_dropped_is_a_bound(
    isa: str, n_queries: int, n_docs: int, dim: int, n_indices: int, signs: str, scale: str, coded: bool, masked: str,
    listed: bool, k: int, launch: dict[str, Any], seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)

    def rows(n: int, signed: bool) -> pe.SlicedRows:
        values = rng.standard_normal((n, dim)) * SCALES[scale] if SCALES[scale] else rng.integers(-2, 3, (n, dim))
        return pe.SlicedRows(values if signed else np.abs(values), rng.integers(0, n_indices, (n, dim)))

    queries, docs = rows(n_queries, signs in ("queries", "both")), rows(n_docs, signs in ("docs", "both"))
    may = rng.random((1 if masked == "all" else n_queries, n_docs)) < 0.6
    if listed:
        chosen = np.flatnonzero(rng.random(n_docs) < 0.5).astype(np.int32)
        launch["sample"] = min(launch["sample"], len(chosen))
    mask = None if masked == "none" else np.packbits(may, axis=1, bitorder="little")
    problem = sliced.prepare(queries, SlicedDocuments(docs, cache={}), k, mask=mask, num_threads=2)
    corpus = exact_sliced.corpus(problem, NATIVE, scan=coded)
    rows, offsets, estimates, dropped, _ = NATIVE.propose(
        corpus, queries.values, k, width=40, row_queries=4, **launch, query_slices=queries.padded,
        listed=chosen if listed else None,
    )  # fmt: skip
    allowed = np.broadcast_to(may if mask is not None else True, (n_queries, n_docs)) & (
        np.isin(np.arange(n_docs), chosen) if listed else True
    )
    check(rows, offsets, estimates, dropped, reference_sliced.unrounded_scores(queries, docs), allowed)


def check(rows: Any, offsets: Any, estimates: F32, dropped: F64, scores: F64, allowed: Any) -> None:
    assert offsets[-1] == len(rows) == len(estimates)
    assert np.isfinite(estimates).all()
    for q, own in enumerate(allowed):
        listed = rows[offsets[q] : offsets[q + 1]]
        assert len(set(listed.tolist())) == len(listed)
        assert own[listed].all()
        left = own.copy()
        left[listed] = False
        assert (scores[q, left] <= dropped[q]).all()


def test_few_are_listed(isa: str) -> None:
    problem = sliced.prepare(some_rows(5, 768), SlicedDocuments(some_rows(3000, 768, seed=1)), 10, num_threads=1)
    backend = registry.of_family("cpu", "sliced")
    found = backend.propose(problem, backend.first_width(problem))
    assert np.diff(found.offsets).max() < 300


@pytest.mark.parametrize("n_queries", [1, 3, 40])
def test_threads_and_batches_change_nothing(isa: str, n_queries: int) -> None:
    queries, docs = some_rows(n_queries, 100), some_rows(900, 100, seed=1)
    want = reference_sliced.topk(queries, docs, 20)
    for threads in (1, 2, 3):
        conformance.same(pe.sliced_topk(queries, docs, 20, num_threads=threads, backend="cpu"), want, str(threads))


def test_arguments_that_do_not_fit_the_extension() -> None:
    docs, queries = some_rows(9, 5), some_rows(2, 5)
    rows = NATIVE.Rows(docs.values, "float32", 5)
    corpus = NATIVE.Corpus(rows, 5, "dot", slices=docs.padded)
    lists = np.zeros(0, np.int64), np.zeros(3, np.int64)
    for slices in (None, queries.padded[:1], queries.slices.copy()):
        with pytest.raises(ValueError, match=r"query_slices must have shape \[Q, D padded to 64\]"):
            NATIVE.refine(corpus, queries.values, *lists, 1, query_slices=slices)
    with pytest.raises(ValueError, match="query_slices must have shape"):
        NATIVE.refine(NATIVE.Corpus(rows, 5, "dot"), queries.values, *lists, 1, query_slices=queries.padded)
    for metric, slices in (("l2", docs.padded), ("dot", docs.padded[:3]), ("dot", docs.slices.copy())):
        with pytest.raises(ValueError, match=r"slices must have shape \[N, D padded to 64\], and go with all of 'dot'"):
            NATIVE.Corpus(rows, 5, metric, slices=slices)


def test_rows_are_not_copied_and_cannot_be_set() -> None:
    values, slices = np.ones((3, 64), np.float32), np.zeros((3, 64), np.uint8)
    rows = pe.SlicedRows(values, slices)
    assert rows.values is values
    assert np.shares_memory(rows.slices, slices)
    assert (len(rows), rows.dim, repr(rows)) == (3, 64, "SlicedRows(3 rows, 64 slices)")
    with pytest.raises(AttributeError):
        rows.values = values  # type: ignore[misc]
    with pytest.raises(IndexError, match="row must be one of the 3 rows; got 3"):
        rows[3]


def test_rows_of_other_forms() -> None:
    values, slices = [[1.5, 0, -2]], [[255, 7, 0]]
    for made in (pe.SlicedRows(values, slices), pe.SlicedRows(np.array(values)[:, ::-1][:, ::-1], np.array(slices))):
        assert (made.values == np.array(values, np.float32)).all()
        assert made.slices.tolist() == slices
        assert [(row.tolist(), index.tolist()) for row, index in made] == [(values[0], slices[0])]
    sparse = made.sparse()
    assert (sparse.n_terms, sparse.indices.tolist(), sparse.values.tolist()) == (768, [255, 512], [1.5, -2.0])


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize(("n_terms", "dims"), [(50, 7), (50, 50), (50, 60), (50, 1), (256, 1), (1000, 4)])
def test_densified(monkeypatch: pytest.MonkeyPatch, n_terms: int, dims: int, strided: bool) -> None:
    monkeypatch.setattr("pyengine.inputs.sliced_rows.PORTION", 40)
    rng = np.random.default_rng(0)
    dense = rng.integers(-3, 4, (20, n_terms)) * (rng.random((20, n_terms)) < 0.2)
    dense[3] = 0
    owner, terms = np.nonzero(dense)
    rows = pe.SparseRows(np.searchsorted(owner, np.arange(21)), terms, dense[owner, terms], n_terms)
    made, width = pe.SlicedRows.of(rows, dims, strided=strided), -(-n_terms // dims)
    assert made.values.shape == (20, dims)
    for row, (values, slices) in zip(dense, made, strict=True):
        for p in range(dims):
            own = [t for t in range(n_terms) if (t % dims if strided else t // width) == p and row[t]]
            best = min(own, key=lambda t: (-abs(row[t]), t), default=None)
            index = 0 if best is None else best // dims if strided else best % width
            assert (values[p], slices[p]) == (0 if best is None else row[best], index)


def test_too_few_slices() -> None:
    rows = pe.SparseRows([0, 1], [600], None, 601)
    with pytest.raises(ValueError, match="dims must be at least 3, so that a slice has 256 terms at most; got 2"):
        pe.SlicedRows.of(rows, 2)
    assert pe.SlicedRows.of(rows, 3).sparse().nnz == 1


OK = np.ones((2, 3), np.float32)
WRONG_ROWS: list[tuple[Any, Any, type[Exception], str]] = [
    (OK, np.zeros((2, 4), int), ValueError, r"slices must have the shape of values, \(2, 3\); got \(2, 4\)"),
    (OK, np.zeros((2, 3)), TypeError, "slices must be integers; got dtype float64"),
    (OK, np.full((2, 3), 256), ValueError, r"slices must lie in 0 .. 255; got values from 256 to 256"),
    (OK, np.full((2, 3), -1, np.int8), ValueError, r"slices must lie in 0 .. 255; got values from -1 to -1"),
    (OK[0], np.zeros(3, int), ValueError, r"values must have shape \[n, D\]"),
    ([[1, 2], [np.nan, 0]], np.zeros((2, 2), int), ValueError, "values must be finite in float32; row 1 holds NaN"),
    ([[1e39]], [[0]], ValueError, "values must be finite in float32; row 0"),
    ([["a"]], [[0]], TypeError, "values must hold real numbers"),
]


@pytest.mark.parametrize(("values", "slices", "error", "message"), WRONG_ROWS)
def test_wrong_rows(values: Any, slices: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pe.SlicedRows(values, slices)


def test_a_search_of_densified_rows() -> None:
    rng = np.random.default_rng(0)
    rows = [{int(t): 1.0 + t % 7 for t in rng.choice(30522, 120, replace=False)} for _ in range(200)]
    docs = pe.SlicedRows.of(pe.SparseRows.of(rows, 30522), 768)
    found = pe.sliced_topk(docs.take(slice(5, 8)), docs, 3)
    assert found.ids[:, 0].tolist() == [5, 6, 7]
    assert found.certified.all()


def test_wrong_arguments() -> None:
    rows = some_rows(4, 5)
    with pytest.raises(TypeError, match=r"queries must be a pyengine.SlicedRows \(of SparseRows: SlicedRows.of\); got"):
        pe.sliced_topk(rows.values, rows)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"docs must be a pyengine.SlicedRows"):
        pe.sliced_topk(rows, rows.sparse())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="queries must have 5 slices, as docs have; got 6"):
        pe.sliced_topk(some_rows(2, 6), rows)
    with pytest.raises(ValueError, match="k must be a positive integer"):
        pe.sliced_topk(rows, rows, 0)
    with pytest.raises(RuntimeError, match=r"(?s)'faiss' cannot run sliced top-10, .*has nothing for sliced"):
        pe.sliced_topk(rows, rows, backend="faiss")


def test_a_plan_is_explained(engine: str) -> None:
    if registry.of_family(engine, "sliced") is None:
        pytest.skip(f"{engine} has no sliced vectors")
    problem = sliced.prepare(some_rows(2, 5), SlicedDocuments(some_rows(9, 5)), 3)
    shown = str(explain(problem, engine))
    assert "sliced top-3, gated dot, queries float32 [2, 5], documents [9, 5]" in shown
    assert f"backend: {engine}" in shown

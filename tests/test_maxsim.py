"""The MaxSim functions against their specification, whatever the backend."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.registry import FAMILIES
from pyengine.inputs.ragged import Ragged
from pyengine.problems import problem_maxsim
from pyengine.problems.problem import Documents
from pyengine.problems.problem_maxsim import TokenDocuments
from pyengine.refining import exact
from pyengine.searches import maxsim_request
from pyengine.searches.explain import explain
from pyengine.specification import reference_maxsim as spec
from pyengine.types import F32
from tests.engines import SLOW

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]


def bits(scores: Any) -> np.ndarray:
    array = np.asarray(scores)
    assert array.dtype == np.float32
    return array.view(np.int32)


def some(seed: int, lengths: list[int], dim: int = 7) -> Ragged:
    rng = np.random.default_rng(seed)
    return Ragged.of([rng.standard_normal((length, dim)).astype(np.float32) for length in lengths], dim=dim)


def peak(call: Callable[[], Any]) -> int:
    """Bytes that NumPy and Python hold at most, what is returned included."""
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Any]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape),
    "huge": lambda rng, shape: rng.uniform(-3e38, 3e38, shape),
    "tiny": lambda rng, shape: rng.uniform(-1e-41, 1e-41, shape),
    "zeros": lambda rng, shape: rng.standard_normal(shape) * rng.integers(0, 2, (shape[0], 1)),
}
QUERIES = some(0, [4, 0, 1, 9])
DOCS = some(1, [3, 20, 0, 1, 7, 150, 2, 33])
RNG = np.random.default_rng(2)
W: F32 = RNG.standard_normal(14).astype(np.float32)
V: F32 = RNG.standard_normal(216).astype(np.float32)
BIAS = RNG.standard_normal(8)
SCORINGS: dict[str, dict[str, Any]] = {
    "sum": {},
    "cosine": {"normalize": True},
    "mean": {"reduce": "mean"},
    "symmetric": {"reduce": "symmetric", "normalize": True},
    "weighted": {"query_weights": W},
    "weighted_both": {"reduce": "symmetric", "query_weights": W, "doc_weights": V},
}
scorings = pytest.mark.parametrize("scoring", SCORINGS)


@pytest.fixture(params=["auto", *(name for name in FAMILIES["maxsim"] if name not in SLOW)])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that has MaxSim, and can run here."""
    name = str(request.param)
    missing = None if name == "auto" else registry.of_family(name, "maxsim").missing()
    if missing:
        pytest.skip(missing)
    return name


@scorings
def test_the_matrix_pairs_and_lists_are_the_specification(scoring: str, backend: str) -> None:
    options = {**SCORINGS[scoring], "bias": BIAS}
    want = spec.scores(QUERIES, DOCS, **options)
    options["backend"] = backend
    np.testing.assert_array_equal(bits(pe.maxsim(QUERIES, DOCS, **options)), bits(want))
    rng = np.random.default_rng(3)
    pairs = np.stack([rng.integers(0, 4, 50), rng.integers(0, 8, 50)], axis=1)
    np.testing.assert_array_equal(bits(pe.maxsim_pairs(QUERIES, DOCS, pairs, **options)), bits(want[tuple(pairs.T)]))
    lists = [rng.integers(0, 8, length) for length in (3, 0, 20, 1)]
    for row, own, scores in zip(want, lists, pe.maxsim_candidates(QUERIES, DOCS, lists, **options)):
        np.testing.assert_array_equal(bits(scores), bits(row[own]))


@scorings
@pytest.mark.parametrize("k", [1, 3, 20])
def test_topk_is_the_specification(scoring: str, backend: str, k: int) -> None:
    mask = np.random.default_rng(4).random((4, 8)) < 0.7
    for options in ({}, {"mask": mask[0]}, {"mask": mask, "bias": BIAS}):
        given: dict[str, Any] = {**SCORINGS[scoring], **options}
        want = spec.topk(QUERIES, DOCS, k, **given)
        conformance.same(pe.maxsim_topk(QUERIES, DOCS, k, backend=backend, **given), want, str(options))


def test_candidates(backend: str) -> None:
    lists = [[5, 1, 5, 2], [], [0, 7], [3, 2]]
    may = np.zeros((4, 8), bool)
    for own, listed in zip(may, lists):
        own[listed] = True
    want = spec.topk(QUERIES, DOCS, 3, mask=may, bias=BIAS)
    conformance.same(pe.maxsim_topk(QUERIES, DOCS, 3, candidates=lists, bias=BIAS, backend=backend), want, "lists")
    padded = np.full((4, 5), -1)
    for own, listed in zip(padded, lists):
        own[1 : 1 + len(listed)] = listed
    conformance.same(pe.maxsim_topk(QUERIES, DOCS, 3, candidates=padded, bias=BIAS, backend=backend), want, "padded")
    mask = np.arange(8) != 7
    want = spec.topk(QUERIES, DOCS, 3, mask=may & mask)
    conformance.same(pe.maxsim_topk(QUERIES, DOCS, 3, candidates=lists, mask=mask, backend=backend), want, "mask")


def test_align() -> None:
    query, doc = QUERIES[3], np.concatenate([DOCS[5], DOCS[5]])
    found = pe.maxsim_align(query, doc, normalize=True)
    products = spec.similarities(query, doc, normalize=True)
    assert found.tokens.tolist() == products.argmax(axis=1).tolist()
    np.testing.assert_array_equal(bits(found.scores), bits(products.max(axis=1).astype(np.float32)))
    nothing = pe.maxsim_align(query, doc[:0])
    assert nothing.tokens.tolist() == [-1] * 9
    assert np.isneginf(nothing.scores).all()
    assert pe.maxsim_align(query[:0], doc).tokens.shape == (0,)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", ["normal", "ties", "huge", "tiny", "zeros"])
def test_align_is_the_specification(kind: str, normalize: bool, built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not built:
        monkeypatch.setattr(exact, "native", lambda: None)
    rng = np.random.default_rng(5)
    query, doc = (KINDS[kind](rng, (length, 33)).astype(np.float32) for length in (37, 301))
    with np.errstate(all="ignore"):
        products = spec.similarities(query, doc, normalize)
        found = pe.maxsim_align(query, doc, normalize=normalize)
    assert found.tokens.tolist() == spec.winners(products).tolist()
    np.testing.assert_array_equal(bits(found.scores), bits(spec.round_score(products.max(axis=1))))


def test_align_holds_no_matrix() -> None:
    tokens = np.random.default_rng(6).standard_normal((3000, 8)).astype(np.float32)
    assert peak(lambda: pe.maxsim_align(tokens, tokens)) < 4 << 20  # the matrix has 69 MB
    with pytest.raises(TypeError, match="normalize must be True or False; got 1"):
        pe.maxsim_align(tokens, tokens, normalize=1)  # type: ignore[arg-type]


SOME = [[4, 1], [], [1], [5, 7, 4]]  # documents, of each query


@pytest.mark.parametrize("block", [1 << 20, 21, 7])
@pytest.mark.parametrize("scoring", [*SCORINGS, "softmax"])
def test_documents_that_are_not_listed_may_hold_nan(
    scoring: str, block: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem_maxsim, "MANY_VALUES", block)
    monkeypatch.setattr(problem_maxsim, "MANY_ROWS", 3)
    options = SCORINGS.get(scoring, {"reduce": "softmax", "temperature": 0.5}) | {"backend": backend}
    pairs = np.array([(q, d) for q, own in enumerate(SOME) for d in own])
    holed = DOCS.values.copy()
    holed[~np.isin(np.repeat(np.arange(8), DOCS.lengths), pairs[:, 1])] = np.nan
    docs = Ragged(holed, DOCS.offsets)
    np.testing.assert_array_equal(
        bits(pe.maxsim_pairs(QUERIES, docs, pairs, **options)), bits(pe.maxsim_pairs(QUERIES, DOCS, pairs, **options))
    )
    for found, want in zip(*(pe.maxsim_candidates(QUERIES, each, SOME, **options) for each in (docs, DOCS))):
        np.testing.assert_array_equal(bits(found), bits(want))
    found, want = (pe.maxsim_topk(QUERIES, each, 2, candidates=SOME, **options) for each in (docs, DOCS))
    conformance.same(found, want, scoring)


@pytest.mark.parametrize("block", [1 << 20, 21, 7])
def test_listed_documents_may_not_hold_nan(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_maxsim, "MANY_VALUES", block)
    monkeypatch.setattr(problem_maxsim, "MANY_ROWS", 3)
    for value in (np.nan, np.inf, -np.inf):
        holed = DOCS.values.copy()
        holed[DOCS.offsets[5] + 140, 6] = value
        docs = Ragged(holed, DOCS.offsets)
        calls: list[Callable[[], Any]] = [
            lambda docs=docs: pe.maxsim_pairs(QUERIES, docs, [[0, 1], [1, 5], [0, 7]]),  # type: ignore[misc]
            lambda docs=docs: pe.maxsim_candidates(QUERIES, docs, SOME),  # type: ignore[misc]
            lambda docs=docs: pe.maxsim_topk(QUERIES, docs, 2, candidates=SOME),  # type: ignore[misc]
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"docs must be finite in float32; token 140 of row 5"):
                call()


@pytest.mark.parametrize("block", [1, 3, 7])
def test_pairs_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    want = spec.scores(QUERIES, DOCS)
    rng = np.random.default_rng(7)
    pairs = np.stack([rng.integers(0, 4, 50), rng.integers(0, 8, 50)], axis=1)
    monkeypatch.setattr(exact, "EVERYTHING", block)
    np.testing.assert_array_equal(bits(pe.maxsim_pairs(QUERIES, DOCS, pairs)), bits(want[tuple(pairs.T)]))
    for row, own, scores in zip(want, SOME, pe.maxsim_candidates(QUERIES, DOCS, SOME)):
        np.testing.assert_array_equal(bits(scores), bits(row[np.array(own, int)]))
    with pytest.raises(ValueError, match=r"pairs\[:, 1\] must hold numbers of the 8 documents; got 8"):
        pe.maxsim_pairs(QUERIES, DOCS, [*pairs, [0, 8]])
    with pytest.raises(ValueError, match="lists must hold numbers of the 8 documents; got -1"):
        pe.maxsim_candidates(QUERIES, DOCS, [*SOME[:3], [2, 0, -1]])


def test_many_pairs_take_little_memory() -> None:
    pairs = np.zeros((3_000_000, 2), np.int64)
    docs = some(8, [1], 2)
    assert peak(lambda: pe.maxsim_pairs(docs, docs, pairs)) < 4 * len(pairs) + (32 << 20)


def test_no_rows_and_no_tokens() -> None:
    assert pe.maxsim([], DOCS).shape == (0, 8)
    assert pe.maxsim(QUERIES, []).shape == (4, 0)
    assert pe.maxsim_topk(QUERIES, [], 2).ids.tolist() == [[-1, -1]] * 4
    assert pe.maxsim_pairs(QUERIES, DOCS, []).shape == (0,)
    assert pe.maxsim_candidates([], DOCS, []) == []
    nothing = [np.empty((0, 7), np.float32)] * 3
    assert pe.maxsim(nothing, nothing).tolist() == [[0.0] * 3] * 3
    assert pe.maxsim_topk(QUERIES, nothing, 1).ids.tolist() == [[-1], [0], [-1], [-1]]


def test_fast_says_that_it_is_not_certified() -> None:
    found = pe.maxsim_topk(QUERIES, DOCS, 5, precision="fast")
    assert not found.certified.any()
    assert found.ids[0].tolist().count(-1) == 0


def test_every_form_of_the_input_gives_the_same() -> None:
    torch = pytest.importorskip("torch")
    want = bits(pe.maxsim(QUERIES, DOCS))
    padded = np.full((4, 11, 7), np.nan, np.float32)
    mask = np.zeros((4, 11), bool)
    for i, query in enumerate(QUERIES):
        mask[i, 11 - len(query) :] = True
        padded[i, mask[i]] = query
    for queries in (list(QUERIES), Ragged.padded(padded, mask), [query.astype(np.float64) for query in QUERIES]):
        np.testing.assert_array_equal(bits(pe.maxsim(queries, list(DOCS))), want)
    tensors = [torch.from_numpy(query) for query in QUERIES]
    found = pe.maxsim(tensors, DOCS)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(bits(found), want)
    np.testing.assert_array_equal(bits(pe.maxsim(QUERIES, [torch.from_numpy(doc) for doc in DOCS])), want)
    assert isinstance(pe.maxsim_topk(tensors, DOCS, 2).ids, torch.Tensor)
    weights = [W[QUERIES.offsets[q] : QUERIES.offsets[q + 1]] for q in range(4)]
    listed, flat = (pe.maxsim(QUERIES, DOCS, query_weights=each) for each in (weights, W))
    np.testing.assert_array_equal(bits(listed), bits(flat))


@pytest.mark.parametrize("reduce", [*spec.MAXIMA, "softmax"])
def test_explain_says_what_would_run(backend: str, reduce: str) -> None:
    docs = TokenDocuments(Documents(DOCS.values), DOCS.offsets)
    temperature, said = (0.1, " at temperature 0.1") if reduce == "softmax" else (None, "")
    plan = explain(maxsim_request.prepare(QUERIES, docs, 3, reduce=reduce, temperature=temperature), backend)
    assert f"maxsim top-3, {reduce}{said} of dot, queries float32 [4] of 14 tokens" in plan.problem
    assert plan.backend in registry.FAMILIES["maxsim"]
    assert plan.rejected["backend faiss"] == "it has nothing for maxsim"
    assert "reads" in plan.facts

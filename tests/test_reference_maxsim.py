"""The MaxSim specification itself: golden files, an exact model of its sums in rationals, and its edge cases."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyengine import conformance
from pyengine.inputs.ragged import Ragged
from pyengine.specification import reference_maxsim as spec
from pyengine.types import F32, TopK

pytestmark = pytest.mark.filterwarnings("error")
GOLDEN = sorted((Path(__file__).parent / "golden").glob("maxsim_*.npz"))


def bits(scores: F32) -> np.ndarray:
    assert scores.dtype == np.float32
    return scores.view(np.int32)


def ragged(seed: int, lengths: list[int], dim: int = 5, scale: float = 1.0) -> Ragged:
    rng = np.random.default_rng(seed)
    return Ragged.of([(scale * rng.standard_normal((length, dim))).astype(np.float32) for length in lengths])


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    with np.load(request.param) as file:
        return dict(file)


def test_every_golden_file_is_here() -> None:
    assert [path.stem for path in GOLDEN] == ["maxsim_negative", "maxsim_small", "maxsim_typical"]


def test_golden_scores_and_topk(golden: dict[str, Any]) -> None:
    queries = Ragged(golden["query_values"], golden["query_offsets"])
    docs = Ragged(golden["doc_values"], golden["doc_offsets"])
    np.testing.assert_array_equal(bits(spec.scores(queries, docs)), bits(golden["scores_sum"]))
    want = TopK(golden["top10_scores"], golden["top10_ids"], np.ones(len(queries), bool))
    conformance.same(spec.topk(queries, docs, 10), want, "golden")


def total(terms: list[float]) -> float:
    so_far = 0.0
    for term in terms:
        so_far = float(Fraction(so_far) + Fraction(term))
    return so_far


def product(weight: float, value: float) -> float:
    return float(Fraction(weight) * Fraction(value))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_reductions_equal_the_exact_model(seed: int, normalize: bool) -> None:
    rng = np.random.default_rng(seed)
    query, doc = rng.standard_normal((6, 9)).astype(np.float32), rng.standard_normal((11, 9)).astype(np.float32)
    w, v = rng.standard_normal(6).astype(np.float32), rng.standard_normal(11).astype(np.float32)
    products = spec.similarities(query, doc, normalize)
    forth, back = products.max(axis=1).tolist(), products.max(axis=0).tolist()
    weighted_forth = total([product(float(a), b) for a, b in zip(w, forth)])
    weighted_back = total([product(float(a), b) for a, b in zip(v, back)])
    assert spec.reduced(products, "sum") == total(forth)
    assert spec.reduced(products, "mean") == total(forth) / 6
    assert spec.reduced(products, "sum", w) == weighted_forth
    assert spec.reduced(products, "symmetric") == (total(forth) / 6 + total(back) / 11) / 2
    assert spec.reduced(products, "symmetric", w, v) == (weighted_forth + weighted_back) / 2


@pytest.mark.parametrize("reduce", spec.MAXIMA)
def test_no_tokens(reduce: str) -> None:
    queries, docs = ragged(0, [3, 0]), ragged(1, [0, 2, 0])
    scores = spec.scores(queries, docs, reduce=reduce, bias=np.array([1.0, 0.0, -2.0]))
    assert np.isneginf(scores[0]).tolist() == [True, False, True]
    assert scores[1].tolist() == [1.0, 0.0, -2.0]
    top = spec.topk(queries, docs, 3, reduce=reduce)
    assert top.ids.tolist() == [[1, -1, -1], [0, 1, 2]]
    assert top.scores[0, 1:].tolist() == [-np.inf, -np.inf]


def test_weights_do_not_revive_a_document_without_tokens() -> None:
    weights = np.array([0.0, -1.0], np.float32)
    assert spec.scores(ragged(0, [2]), ragged(1, [0]), query_weights=weights).tolist() == [[-np.inf]]


def test_negative_maxima_survive() -> None:
    queries, docs = Ragged.of([[[1.0], [2.0]]]), Ragged.of([[[-3.0], [-1.0]], [[-2.0]]])
    assert spec.scores(queries, docs).tolist() == [[-3.0, -6.0]]
    assert spec.scores(queries, docs, reduce="symmetric").tolist() == [[(-1.5 - 2) / 2, (-3 - 2) / 2]]


def test_huge_sums_are_clamped_and_stay_finite() -> None:
    queries, docs = Ragged.of([[[3e38], [3e38]]]), Ragged.of([[[3e38]], [[-3e38]]])
    largest = float(np.finfo(np.float32).max)
    assert spec.scores(queries, docs).tolist() == [[largest, -largest]]


def test_winners_are_the_first_of_equals() -> None:
    products = spec.similarities(np.array([[1], [0]], np.float32), np.array([[2], [3], [3]], np.float32))
    assert spec.winners(products).tolist() == [1, 0]
    assert spec.winners(products.T).tolist() == [0, 0, 0]
    assert spec.winners(products[:, :0]).tolist() == [-1, -1]


def test_the_score_does_not_depend_on_what_lies_beside_it() -> None:
    queries, docs = ragged(0, [4, 1, 7], dim=17), ragged(1, [3, 0, 30, 1], dim=17)
    together = spec.scores(queries, docs)
    for q, query in enumerate(queries):
        for d, doc in enumerate(docs):
            assert spec.scores(Ragged.of([query]), Ragged.of([doc]))[0, 0] == together[q, d]

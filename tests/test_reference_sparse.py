"""The sparse specification itself: golden files, an exact model of its sums in rationals, and its edge cases."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.conformance import conformance_sparse
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.specification import reference
from pyengine.specification import reference_sparse as spec
from pyengine.types import F32, TopK

pytestmark = pytest.mark.filterwarnings("error")
GOLDEN = sorted((Path(__file__).parent / "golden").glob("sparse_*.npz"))


def bits(scores: F32) -> np.ndarray:
    assert scores.dtype == np.float32
    return scores.view(np.int32)


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    with np.load(request.param) as file:
        return dict(file)


def sides(golden: dict[str, Any]) -> tuple[SparseRows, SparseRows]:
    n_terms = int(golden["n_terms"])
    queries, docs = (
        SparseRows(golden[f"{side}_indptr"], golden[f"{side}_indices"], golden[f"{side}_values"], n_terms)
        for side in "qd"
    )
    return queries, docs


def test_every_golden_file_is_here() -> None:
    assert [path.stem for path in GOLDEN] == ["sparse_negative_empty", "sparse_plain"]


def test_golden_scores_and_topk(golden: dict[str, Any]) -> None:
    queries, docs = sides(golden)
    np.testing.assert_array_equal(bits(spec.scores(queries, docs)), bits(golden["scores"]))
    want = TopK(golden["top10_scores"], golden["top10_ids"], np.ones(len(queries), bool))
    conformance.same(spec.topk(queries, docs, 10), want, "golden")


@pytest.mark.usefixtures("poison")
def test_every_backend_gives_the_golden_bits(golden: dict[str, Any], sparse_engine: str) -> None:
    want = TopK(golden["top10_scores"], golden["top10_ids"], np.ones(len(golden["q_indptr"]) - 1, bool))
    conformance.same(pe.sparse_topk(*sides(golden), 10, backend=sparse_engine), want, "golden")


def modelled(query: SparseRows, doc: SparseRows) -> float:
    """The float64 score of two rows."""
    (terms, weights), (others, theirs) = query[0], doc[0]
    mine = dict(zip(terms.tolist(), weights.tolist()))
    total = 0.0
    for term, weight in zip(others.tolist(), theirs.tolist()):  # by ascending term
        if term in mine:
            product = float(Fraction(mine[term]) * Fraction(weight))
            total = float(Fraction(total) + Fraction(product))
    return total


@pytest.mark.parametrize("corpus", ["random", "normal", "huge", "tiny", "all_magnitudes", "cancelling", "many_terms"])
def test_scores_are_the_model_s(corpus: str) -> None:
    queries, docs = conformance_sparse.CORPORA[corpus](np.random.default_rng(0))
    docs = docs.part(slice(0, 60))
    want = [[modelled(query, doc) for doc in map(docs.take, rows(docs))] for query in map(queries.take, rows(queries))]
    got = spec.unrounded_scores(queries, docs)
    np.testing.assert_array_equal(got.view(np.int64), np.array(want).view(np.int64))
    np.testing.assert_array_equal(bits(spec.scores(queries, docs)), bits(reference.round_score(np.array(want))))


def rows(sides: SparseRows) -> np.ndarray:
    return np.arange(len(sides))[:, None]


def test_terms_are_added_one_after_another() -> None:
    ones = SparseRows([0, 4], [0, 1, 2, 3], None, 4)
    weights = [1.0, 2.0**54, 1.0, -(2.0**54)]
    doc = SparseRows([0, 4], [0, 1, 2, 3], weights, 4)
    assert spec.unrounded_scores(ones, doc)[0, 0] == ((1.0 + 2.0**54) + 1.0) - 2.0**54 == 0.0
    reversed_terms = SparseRows([0, 4], [3, 2, 1, 0], weights, 4)
    assert spec.unrounded_scores(ones, reversed_terms)[0, 0] == ((-(2.0**54) + 1.0) + 2.0**54) + 1.0


def test_without_a_shared_term_a_score_is_plus_zero() -> None:
    queries, docs = SparseRows.of([{}, {0: -1.0}], 3), SparseRows.of([{}, {1: 1.0}, {0: 1e-45}], 3)
    scores = spec.scores(queries, docs)
    np.testing.assert_array_equal(bits(scores), bits(np.array([[0, 0, 0], [0, 0, -1e-45]], np.float32)))


def test_a_bias_is_added_in_float64_and_clamped_once() -> None:
    queries = SparseRows.of([{0: 3e38}], 1)
    docs = SparseRows.of([{0: 3e38}, {0: 1.0}, {}], 1)
    score = spec.scores(queries, docs, np.array([-9e76, -3e38, 0.1]))
    products = float(np.float32(3e38)) ** 2 - 9e76, float(np.float32(3e38)) - 3e38, 0.1
    np.testing.assert_array_equal(bits(score), bits(reference.round_score(np.array([products]))))


def test_documents_without_shared_terms_fill_up_by_id_before_negative_scores() -> None:
    docs = SparseRows.of([{0: -1.0}, {1: 1.0}, {0: 2.0}, {}, {0: -0.5}], 2)
    found = spec.topk(SparseRows.of([{0: 1.0}], 2), docs, 6)
    assert found.ids.tolist() == [[2, 1, 3, 4, 0, -1]]
    assert found.scores.tolist() == [[2.0, 0.0, 0.0, -0.5, -1.0, -np.inf]]


def test_contributions() -> None:
    query, doc = SparseRows.of([{1: 2.0, 3: 4.0, 7: 1.0, 8: -1.0}], 9), SparseRows.of([{3: 0.5, 1: 1, 2: 2, 8: 3}], 9)
    terms, each = spec.contributions(query, doc)
    assert (terms.tolist(), each.tolist()) == ([1, 3, 8], [2.0, 2.0, -3.0])
    assert [terms.dtype.name, each.dtype.name] == ["int64", "float32"]

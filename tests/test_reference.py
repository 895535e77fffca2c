"""The specification itself: golden files, an exact model of its arithmetic in rationals, and its properties."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyengine import conformance
from pyengine.specification import reference
from pyengine.types import F32, TopK

METRICS = reference.METRICS
pytestmark = pytest.mark.filterwarnings("error")
metrics = pytest.mark.parametrize("metric", METRICS)


def bits(scores: F32) -> np.ndarray:
    assert scores.dtype == np.float32
    return scores.view(np.int32)


def corpus(seed: int = 0, n_queries: int = 4, n_docs: int = 60, dim: int = 13) -> tuple[F32, F32]:
    rows = np.random.default_rng(seed).standard_normal((n_queries + n_docs, dim)).astype(np.float32)
    return rows[:n_queries], rows[n_queries:]


def test_every_golden_file_is_here() -> None:
    names = "clustered huge odd offset ties_zeros tiny tiny_values"
    here = sorted(path.stem for path in (Path(__file__).parent / "golden").glob("dense_*.npz"))
    assert here == [f"dense_{name}" for name in names.split()]


@metrics
def test_golden_scores(golden: dict[str, Any], metric: str) -> None:
    scores = reference.scores(golden["queries"], golden["docs"], metric)
    np.testing.assert_array_equal(bits(scores), bits(golden[f"scores_{metric}"]))


@metrics
def test_golden_topk(golden: dict[str, Any], metric: str) -> None:
    n_docs = len(golden["docs"])
    for k in {1, 10, 2 * n_docs}:
        want = TopK(
            golden[f"top{k}_{metric}_scores"], golden[f"top{k}_{metric}_ids"], np.ones(len(golden["queries"]), bool)
        )
        conformance.same(reference.topk(golden["queries"], golden["docs"], k, metric), want, f"k={k}")


def test_golden_bias(golden: dict[str, Any]) -> None:
    bias = golden["bias"].astype(np.float64)
    scores = reference.scores(golden["queries"], golden["docs"], "cosine", bias=bias)
    np.testing.assert_array_equal(bits(scores), bits(golden["scores_cosine_bias"]))


def test_golden_dims(golden: dict[str, Any]) -> None:
    if golden["docs"].shape[1] >= 8:
        scores = reference.scores(golden["queries"], golden["docs"], "cosine", dims=8)
        np.testing.assert_array_equal(bits(scores), bits(golden["scores_cosine_dims8"]))
    else:
        assert "scores_cosine_dims8" not in golden


def rounded(x: Fraction, precision: int, smallest: int) -> Fraction:
    """To the nearest multiple of a unit in the last place, ties to even: a binary float of ``precision`` bits whose
    smallest positive value is 2**smallest."""
    if x == 0:
        return x
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    exponent += abs(x) >= Fraction(2) ** exponent  # now 2**(exponent-1) <= |x| < 2**exponent
    unit = Fraction(2) ** max(exponent - precision, smallest)
    return round(x / unit) * unit  # Python rounds a Fraction half to even


def double(x: Fraction) -> Fraction:
    return rounded(x, 53, -1074)


def single(x: Fraction) -> float:
    largest = (2 - Fraction(2) ** -23) * 2**127
    return float(rounded(min(max(x, -largest), largest), 24, -149))


def root(x: Fraction) -> Fraction:
    """The correctly rounded square root. Where it is irrational, any number between the same neighbours will do."""
    scale = 4 ** (200 + max(0, x.denominator.bit_length()))
    scaled = x * scale
    below = isqrt(scaled.numerator // scaled.denominator)
    exact = below * below == scaled
    return double((below if exact else below + Fraction(1, 2)) / Fraction(isqrt(scale)))


def lanes(terms: list[Fraction]) -> Fraction:
    total = [Fraction(0)] * 8
    for i, term in enumerate(terms):
        total[i % 8] = double(total[i % 8] + double(term))
    while len(total) > 1:  # ((0+1)+(2+3)) + ((4+5)+(6+7))
        total = [double(a + b) for a, b in zip(total[::2], total[1::2])]
    return total[0]


def modelled(query: F32, doc: F32, metric: str, bias: float | None) -> float:
    q, d = ([Fraction(float(x)) for x in row] for row in (query, doc))
    if metric == "l2":
        differences = [double(a - b) for a, b in zip(q, d)]
        score = lanes([x * x for x in differences])
    else:
        score = lanes([a * b for a, b in zip(q, d)])
    if metric == "cosine":
        norms = double(root(lanes([a * a for a in q])) * root(lanes([b * b for b in d])))
        score = double(score / norms) if norms else Fraction(0)
    return single(score if bias is None else double(score + Fraction(bias)))


ROWS = {
    "ordinary": lambda rng, shape: rng.standard_normal(shape),
    "integers": lambda rng, shape: rng.integers(-2, 3, shape),
    "huge": lambda rng, shape: 3.4e38 * rng.uniform(-1, 1, shape),
    "tiny": lambda rng, shape: 1e-44 * rng.uniform(-1, 1, shape),
    "all magnitudes": lambda rng, shape: 10.0 ** rng.uniform(-44, 38, shape) * rng.choice([-1, 1], shape),
    "offset": lambda rng, shape: 1000 + rng.standard_normal(shape),
}


@metrics
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dim", [1, 2, 7, 8, 9, 16, 25])
def test_scores_equal_the_exact_model(dim: int, rows: str, metric: str) -> None:
    rng = np.random.default_rng(dim)
    queries = ROWS[rows](rng, (3, dim)).astype(np.float32)
    docs = ROWS[rows](rng, (5, dim)).astype(np.float32)
    for bias in (None, rng.standard_normal(5)):
        expected = [
            [modelled(q, d, metric, None if bias is None else float(bias[i])) for i, d in enumerate(docs)]
            for q in queries
        ]
        scores = reference.scores(queries, docs, metric, bias)
        np.testing.assert_array_equal(bits(scores), bits(np.array(expected, np.float32) + np.float32(0)))


@metrics
def test_topk_sorts_by_score_then_id(metric: str) -> None:
    rng = np.random.default_rng(1)
    queries, docs = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (4, 90))
    scores = reference.scores(queries, docs, metric)
    sign = 1 if metric == "l2" else -1
    for row, ids in zip(scores, reference.topk(queries, docs, 90, metric).ids):
        assert ids.tolist() == sorted(range(90), key=lambda i: (sign * float(row[i]), i))


def test_rounding_is_to_nearest_even_and_happens_once() -> None:
    one = np.float64(1)
    half_unit = 2.0**-24
    scores = np.array([one + half_unit, one + 3 * half_unit, one + half_unit + 2.0**-50])
    assert reference.round_score(scores).tolist() == [1.0, 1 + 4 * half_unit, 1 + 2 * half_unit]


def test_rounding_clamps_what_float32_cannot_hold() -> None:
    assert reference.round_score(np.array([1e300, -1e300])).tolist() == [reference.FLOAT32_MAX, -reference.FLOAT32_MAX]


def test_zero_is_positive() -> None:
    scores = reference.round_score(np.array([-0.0, 0.0, -1e-300]))
    assert bits(scores).tolist() == [0, 0, 0]


def test_lanes_are_added_in_pairs() -> None:
    big = 2.0**60
    assert reference.lane_sum(np.array([big, -big, 1, 0, 0, 0, 0, 0])) == 1
    assert reference.lane_sum(np.array([big, 1, -big, 0, 0, 0, 0, 0])) == 0  # (big + 1) + (-big + 0)
    assert reference.lane_sum(np.array([big, 0, 0, 0, 1, 0, 0, 0, -big])) == 1  # elements 0 and 8 share a lane


@pytest.mark.parametrize("zero", ["query", "document", "both"])
def test_cosine_with_a_zero_vector_is_zero(zero: str) -> None:
    queries, docs = corpus(n_queries=1, n_docs=1)
    queries, docs = queries * (zero == "document"), docs * (zero == "query")
    assert bits(reference.scores(queries, docs, "cosine")).tolist() == [[0]]


def test_cosine_does_not_change_with_scale() -> None:
    queries, docs = corpus()
    powers = np.float32(2.0) ** np.arange(-30, 30, dtype=np.float32)[:, None]
    scores, scaled = reference.scores(queries, docs), reference.scores(queries * 4, docs * powers)
    np.testing.assert_array_equal(bits(scores), bits(scaled))


@metrics
def test_scores_are_symmetric(metric: str) -> None:
    queries, docs = corpus()
    np.testing.assert_array_equal(
        bits(reference.scores(queries, docs, metric)), bits(reference.scores(docs, queries, metric).T.copy())
    )


def test_l2_is_squared_not_expanded_and_zero_for_the_same_vector() -> None:
    queries = np.array([[3e3 + 2**-10, 4]], np.float32)
    docs = np.array([[3e3, 4], [3e3 + 2**-10, 4], [3e3 + 2**-10, 1]], np.float32)
    assert reference.scores(queries, docs, "l2").tolist() == [[2.0**-20, 0.0, 9.0]]
    assert reference.topk(queries, docs, 3, "l2").ids.tolist() == [[1, 0, 2]]


@metrics
def test_a_shorter_list_is_a_prefix_of_a_longer_one(metric: str) -> None:
    rng = np.random.default_rng(2)
    queries, docs = (rng.integers(-1, 2, (n, 4)).astype(np.float32) for n in (3, 50))
    whole = reference.topk(queries, docs, 60, metric)
    for k in range(1, 60):
        prefix = TopK(whole.scores[:, :k], whole.ids[:, :k], whole.certified)
        conformance.same(reference.topk(queries, docs, k, metric), prefix, f"k={k}")


@metrics
def test_dims_means_slicing(metric: str) -> None:
    queries, docs = corpus()
    for dims in (1, 5, 13):
        sliced = reference.topk(queries[:, :dims], docs[:, :dims], 9, metric)
        conformance.same(reference.topk(queries, docs, 9, metric, dims=dims), sliced, f"dims={dims}")


@metrics
def test_a_mask_means_that_the_others_are_not_there(metric: str) -> None:
    queries, docs = corpus()
    mask = np.arange(len(docs)) % 3 == 1
    kept = np.flatnonzero(mask)
    want = reference.topk(queries, docs[kept], 25, metric, ids=kept)
    conformance.same(reference.topk(queries, docs, 25, metric, mask=mask), want, "one mask")
    per_query = np.stack([mask, ~mask, mask & False, mask | True])
    result = reference.topk(queries, docs, 25, metric, mask=per_query)
    for q, own in enumerate(per_query):
        alone = reference.topk(queries[q : q + 1], docs, 25, metric, mask=own)
        conformance.same(TopK(*(part[q : q + 1] for part in result)), alone, f"query {q}")


@metrics
def test_pads_fill_what_no_document_can(metric: str) -> None:
    queries, docs = corpus(n_docs=3)
    result = reference.topk(queries, docs, 5, metric)
    assert (np.sort(result.ids[:, :3], axis=1) == [0, 1, 2]).all()
    assert (result.ids[:, 3:] == -1).all()
    assert (result.scores[:, 3:] == (np.inf if metric == "l2" else -np.inf)).all()
    nothing = reference.topk(queries, docs[:0], 2, metric)
    assert (nothing.ids == -1).all()


def test_bias_is_added_before_the_one_rounding() -> None:
    queries, docs = np.ones((1, 1), np.float32), np.ones((3, 1), np.float32)
    bias = np.array([2.0**-24, 2.0**-24 + 2.0**-40, -1])
    assert reference.scores(queries, docs, "dot", bias).tolist() == [[1.0, 1 + 2.0**-23, 0.0]]
    assert reference.topk(queries, docs, 3, "dot", bias=bias).ids.tolist() == [[1, 0, 2]]
    assert reference.topk(queries, docs, 3, "l2", bias=bias).ids.tolist() == [[2, 0, 1]]


@metrics
def test_ties_go_to_the_smaller_id_wherever_its_row_is(metric: str) -> None:
    docs = np.ones((4, 3), np.float32)
    result = reference.topk(docs[:1], docs, 3, metric, ids=np.array([7, 2**62, 0, 5]))
    assert result.ids.tolist() == [[0, 5, 7]]


@metrics
def test_blocks_do_not_show(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    queries, docs = (rng.integers(-1, 2, (n, 4)).astype(np.float32) for n in (3, 50))
    whole = reference.topk(queries, docs, 20, metric)
    monkeypatch.setattr(reference, "BLOCK_ELEMENTS", 4 * 7)
    conformance.same(reference.topk(queries, docs, 20, metric), whole, "in blocks of 7 documents")

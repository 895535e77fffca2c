"""Fusion of rankings, against a specification in plain Python."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine.specification.reference import round_score

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]

List = list[tuple[int, float]]  # ids and scores, best first
WAYS = [("rrf", "none"), ("product", "minmax"), *(("convex", how) for how in ("minmax", "zscore", "none"))]


def made(*rows: List, width: int = 0, certified: bool = True) -> pe.TopK:
    """A ranking of these rows, padded."""
    width = max([width, *map(len, rows)])
    scores = np.full((len(rows), width), -np.inf, np.float32)
    ids = np.full((len(rows), width), -1, np.int64)
    for row, entries in enumerate(rows):
        for place, (doc, score) in enumerate(entries):
            ids[row, place], scores[row, place] = doc, score
    return pe.TopK(scores, ids, np.full(len(rows), certified))


def normalized(entries: dict[int, float], how: str, floor: float | None) -> tuple[dict[int, float], float]:
    """The values by id, and what a missing one gets."""
    values = [entries[doc] for doc in sorted(entries)]
    low, high = min(values) if floor is None else floor, max(values)
    if how == "minmax":
        flat = 1.0 if floor is None else 0.0
        return {doc: (s - low) / (high - low) if high > low else flat for doc, s in entries.items()}, 0.0
    if how == "zscore":
        mean = in_order(values) / len(values)
        deviation = math.sqrt(in_order([(s - mean) ** 2 for s in values]) / len(values))
        scaled = {doc: (s - mean) / deviation if high > low else 0.0 for doc, s in entries.items()}
        return scaled, min(scaled.values())
    return entries, min(values)


def in_order(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def fused(
    lists: list[List], method: str, how: str, weights: list[float], floors: list[float | None], constant: float = 60
) -> List:
    """The specification, for one query: every candidate, best first."""
    docs = sorted({doc for entries in lists for doc, _ in entries})
    total = dict.fromkeys(docs, 1.0 if method == "product" else 0.0)
    for entries, weight, floor in zip(lists, weights, floors):
        if method == "rrf":
            for place, (doc, _) in enumerate(entries, 1):
                total[doc] += weight / (constant + place)
        elif entries:
            values, least = normalized({doc: float(np.float32(score)) for doc, score in entries}, how, floor)
            for doc in docs:
                value = values.get(doc, least)
                total[doc] = total[doc] * value if method == "product" else total[doc] + weight / sum(weights) * value
    return sorted(((doc, float(round_score(np.float64(s)))) for doc, s in total.items()), key=lambda e: (-e[1], e[0]))


def assert_equal(found: pe.TopK, rows: list[List], k: int) -> None:
    expected = made(*(row[:k] for row in rows), width=k)
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert found.scores.dtype == np.float32
    np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))


scores = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3, width=32), st.sampled_from([3e38, -3e38, 1e-45]))
ranking = st.lists(st.tuples(st.integers(0, 12), scores), max_size=6, unique_by=lambda entry: entry[0]).map(
    lambda entries: sorted(entries, key=lambda entry: -entry[1])
)


@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.sampled_from(WAYS), st.booleans())
def test_every_method_is_its_specification(
    data: st.DataObject, n_lists: int, n_queries: int, k: int, way: tuple[str, str], floored: bool
) -> None:
    method, how = way
    lists = [[data.draw(ranking) for _ in range(n_queries)] for _ in range(n_lists)]
    weights = (
        [1.0] * n_lists
        if method == "product"
        else data.draw(st.lists(st.sampled_from([0.5, 1.0, 0.1, 3.0]), min_size=n_lists, max_size=n_lists))
    )
    options: dict[str, Any] = {} if method == "product" else {"weights": weights}
    floors: list[float | None] = [None] * n_lists
    if floored and how == "minmax":
        floors = options["floors"] = [-3.1e38, *[None] * (n_lists - 1)]
    found = pe.fuse([made(*rows, width=3) for rows in lists], k, method=method, normalize=how, **options)
    expected = [fused([rows[q] for rows in lists], method, how, weights, floors) for q in range(n_queries)]
    assert_equal(found, expected, k)
    assert found.certified.all()


def test_reciprocal_ranks_are_those_of_the_paper() -> None:
    found = pe.fuse([made([(7, 9.0), (3, 8.0)]), made([(3, 0.2), (5, 0.1)])])
    assert found.ids.tolist() == [[3, 7]]  # the longest list has two places
    assert found.scores.tolist() == [[np.float32(1 / 62 + 1 / 61), np.float32(1 / 61)]]
    found = pe.fuse([made([(7, 9.0), (3, 8.0)]), made([(3, 0.2), (5, 0.1)])], 4, weights=[2, 1], constant=1)
    assert found.ids.tolist() == [[3, 7, 5, -1]]
    assert found.scores.tolist() == [[np.float32(2 / 3 + 1 / 2), 1.0, np.float32(1 / 3), -np.inf]]


def test_ties_go_to_the_smaller_id_and_pads_count_for_nothing() -> None:
    padded = pe.TopK(np.array([[np.nan, 2, -np.inf, 1]], np.float32), np.array([[-1, 9, -1, 4]]), None)
    found = pe.fuse([padded, made([(4, 2.0), (9, 1.0)])])
    assert found.ids.tolist() == [[4, 9, -1, -1]]
    assert found.scores[0, 0] == found.scores[0, 1]
    assert not found.certified.any()
    nothing = pe.fuse([made([], []), made([], [])], 3, method="convex")
    assert nothing.ids.tolist() == [[-1] * 3] * 2
    assert pe.fuse([made()]).ids.shape == (0, 1)


@pytest.mark.parametrize(("method", "how"), WAYS)
def test_one_ranking_keeps_its_order_and_order_of_rankings_hardly_matters(method: str, how: str) -> None:
    rng = np.random.default_rng(0)
    first, second = (
        made(*([(int(doc), -float(s)) for s, doc in enumerate(rng.permutation(30)[:9])] for _ in range(20)))
        for _ in range(2)
    )
    if method == "product" or how != "none":
        alone = pe.fuse([first], method=method, normalize=how)
        assert alone.ids.tolist() == first.ids.tolist()
    one, other = (pe.fuse(pair, method=method, normalize=how) for pair in ([first, second], [second, first]))
    np.testing.assert_array_equal(one.ids, other.ids)  # a sum of two is the same either way
    np.testing.assert_array_equal(one.scores, other.scores)


def test_what_a_ranking_lacks_is_rescored() -> None:
    docs = np.array([0.9, 0.5, 0.1, 0.7], np.float32)
    asked: list[Any] = []

    def score(ids: np.ndarray) -> np.ndarray:
        asked.append(ids.tolist())
        return np.where(ids >= 0, docs[ids], np.nan)

    lists = [made([(0, 0.9), (3, 0.7)], [(0, 0.9)]), made([(2, 5.0), (1, 4.0), (0, 1.0)], [(0, 2.0), (1, 1.0)])]
    found = pe.fuse(lists, method="convex", normalize="none", missing="rescore", rescore=[score, None])
    assert asked == [[[1, 2], [1, -1]]]
    dense = [[(0, 0.9), (3, 0.7), (1, 0.5), (2, 0.1)], [(0, 0.9), (1, 0.5)]]
    lexical = [[(2, 5.0), (1, 4.0), (0, 1.0)], [(0, 2.0), (1, 1.0)]]
    expected = [fused([a, b], "convex", "none", [1, 1], [None, None]) for a, b in zip(dense, lexical)]
    assert_equal(found, expected, 3)
    assert not found.certified.any()
    full = made([(0, 0.9), (1, 0.5)])
    assert pe.fuse([full], method="convex", missing="rescore", rescore=[score]).ids.tolist() == full.ids.tolist()
    assert len(asked) == 1  # nothing was missing


def test_tensors_come_back_as_tensors() -> None:
    torch = pytest.importorskip("torch")
    result = pe.TopK(torch.tensor([[2.0, 1.0]]), torch.tensor([[5, 3]]), torch.tensor([True]))
    found = pe.fuse([result, made([(3, 1.0)])])
    assert all(torch.is_tensor(part) for part in found)
    assert found.ids.tolist() == [[3, 5]]
    assert found.certified.tolist() == [True]


A = made([(0, 2.0), (1, 1.0)], [(2, 1.0)])
WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (A, {}, TypeError, "results must be a list with one entry for each ranking; got a TopK"),
    ([], {}, ValueError, "results must hold at least one TopK"),
    ([A, (1, 2)], {}, TypeError, r"results[1] must be a TopK; got a tuple"),
    ([A, made([])], {}, ValueError, r"results[1] must have 2 rows, as results[0] has; got 1"),
    ([A._replace(ids=[[0, 1]])], {}, ValueError, "results[0] must have scores and ids of one shape [Q, K]"),
    ([A._replace(ids=A.ids * 1.0)], {}, TypeError, "results[0].ids must be integers; got dtype float64"),
    ([A._replace(ids=A.ids - 1)], {}, ValueError, "results[0].ids must lie in 0 .. 2^63-1, or be -1"),
    ([A._replace(ids=A.ids * 0)], {}, ValueError, "must have a document once per query; row 0 repeats id 0"),
    ([A._replace(scores=A.scores > 0)], {}, TypeError, "results[0].scores must hold real numbers"),
    ([A._replace(certified=[True])], {}, ValueError, "results[0].certified must be bool of shape (2,), or None"),
    ([A._replace(scores=A.scores * np.nan)], {"method": "convex"}, ValueError, "finite in float32; row 0 has others"),
    ([A, made([(1, -2.0), (2, -1.0)], [])], {"method": "convex"}, ValueError, "results[1] must be best first; row 0"),
    ([A], {"k": 0}, ValueError, "k must be a positive integer"),
    ([A], {"method": "sum"}, ValueError, "method must be one of 'rrf', 'convex', 'product'; got 'sum'"),
    ([A], {"normalize": None}, ValueError, "normalize must be one of"),
    ([A], {"missing": "zero"}, ValueError, "missing must be one of 'floor', 'rescore'; got 'zero'"),
    ([A], {"weights": [1, 2]}, ValueError, "weights must have shape (1,), one for each of the results; got (2,)"),
    ([A], {"weights": [-1]}, ValueError, "weights must be finite, none negative and not all 0; got [-1.0]"),
    ([A], {"weights": [0]}, ValueError, "weights must be finite, none negative and not all 0; got [0.0]"),
    ([A], {"weights": [1], "method": "product"}, ValueError, "weights must come with method='rrf' or 'convex'"),
    ([A], {"constant": 0}, ValueError, "constant must be above 0; got 0"),
    ([A], {"constant": np.inf}, ValueError, "constant must be one finite number; got inf"),
    ([A], {"floors": [0]}, ValueError, "floors must come with normalize='minmax', and not with method='rrf'"),
    ([A], {"floors": [0], "method": "convex", "normalize": "zscore"}, ValueError, "floors must come with"),
    ([A], {"floors": [1, 2], "method": "convex"}, ValueError, "floors must have one entry for each of the 1 results"),
    ([A], {"floors": ["x"], "method": "convex"}, ValueError, "floors[0] must be one finite number; got 'x'"),
    ([A], {"floors": [1.5], "method": "convex"}, ValueError, "must not exceed a score; results[0] has 1 in row 0"),
    ([A], {"method": "product", "normalize": "zscore"}, ValueError, "results[0] must have no negative score"),
    ([A], {"missing": "rescore"}, ValueError, "missing='rescore' must come with method='convex' or 'product'"),
    ([A], {"missing": "rescore", "method": "convex"}, ValueError, "must come with rescore, and rescore with it; got"),
    ([A], {"rescore": [None], "method": "convex"}, ValueError, "must come with rescore, and rescore with it; got"),
]  # fmt: skip
SCORED: list[tuple[Any, type[Exception], str]] = [
    ([1, None], TypeError, "rescore[0] must be a function of ids, or None; got 1"),
    ([None], ValueError, "rescore must have one entry for each of the 2 results; got 1"),
    ([lambda ids: ids[0], None], ValueError, "rescore[0] must return scores of the shape of its ids, (2, 1); got"),
    ([lambda ids: ids * np.nan, None], ValueError, "rescore[0] must return scores that are finite in float32; row 0"),
    ([lambda ids: "x", None], TypeError, "the result of rescore[0] must hold real numbers"),
]


@pytest.mark.parametrize(("results", "options", "error", "message"), WRONG, ids=lambda value: None)
def test_wrong_arguments_are_named(results: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        pe.fuse(results, **options)


@pytest.mark.parametrize(("rescore", "error", "message"), SCORED, ids=lambda value: None)
def test_wrong_functions_are_named(rescore: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        pe.fuse([A, made([(7, 1.0)], [(2, 1.0)])], method="convex", missing="rescore", rescore=rescore)

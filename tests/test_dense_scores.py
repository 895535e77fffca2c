"""Whole matrices of scores: the specification's bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pyengine.searches import dense_scores
from pyengine.specification import reference
from pyengine.specification.reference import METRICS
from pyengine.types import F32

RNG = np.random.default_rng(3)


def rows(count: int, dim: int, kind: str) -> F32:
    found = RNG.standard_normal((count, dim))
    if kind == "integers":  # many products are 0 or tie
        found = RNG.integers(-2, 3, (count, dim)).astype(np.float64)
    elif kind == "sparse":
        found *= RNG.random(found.shape) < 0.05
    elif kind == "huge":
        found *= 10.0 ** RNG.integers(-38, 38, (count, 1))
    elif kind == "offset":  # distances cancel
        found = 1000 + found * 1e-3
    return found.clip(-3e38, 3e38).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["normal", "integers", "sparse", "huge", "offset"])
@pytest.mark.parametrize(
    ("n_queries", "n_docs", "dim"), [(1, 1, 1), (5, 33, 7), (13, 100, 24), (2, 40, 100), (0, 3, 4)]
)
def test_the_matrix(metric: str, kind: str, n_queries: int, n_docs: int, dim: int) -> None:
    queries, docs = rows(n_queries, dim, kind), rows(n_docs, dim, kind)
    queries[: n_queries // 2] = docs[: n_queries // 2]
    docs[-1] = 0
    with np.errstate(over="ignore"):
        want = reference.scores(queries, docs, metric)
    np.testing.assert_array_equal(dense_scores.dense_scores(queries, docs, metric=metric), want)
    both = min(n_queries, n_docs)
    paired = dense_scores.paired_scores(queries[:both], docs[:both], metric=metric)
    np.testing.assert_array_equal(paired, want.diagonal())


def test_more_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_scores, "BLOCK", 100)
    queries, docs = rows(23, 9, "normal"), rows(57, 9, "integers")
    for metric in METRICS:
        found = dense_scores.dense_scores(queries, docs, metric=metric)
        np.testing.assert_array_equal(found, reference.scores(queries, docs, metric))
    assert dense_scores.dense_scores(queries, docs[:0]).shape == (23, 0)


@pytest.mark.parametrize("metric", METRICS)
def test_a_poor_product_is_put_right(monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    """Whatever lies within the bound of the specification gives its bits."""
    queries, docs = rows(9, 31, "normal"), rows(77, 31, "offset")
    proposed = dense_scores._proposed

    def shifted(*arguments: object) -> object:
        scores, error = proposed(*arguments)  # type: ignore[arg-type]
        return scores + 1e6 * error * RNG.uniform(-1, 1, scores.shape), error * 1.001e6

    monkeypatch.setattr(dense_scores, "_proposed", shifted)
    found = dense_scores.dense_scores(queries, docs, metric=metric)
    np.testing.assert_array_equal(found, reference.scores(queries, docs, metric))


def test_bad_input_is_a_sentence() -> None:
    docs = rows(5, 3, "normal")
    bad = docs.copy()
    bad[2, 1] = np.nan
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: dense_scores.dense_scores(docs, bad), "docs must be finite in float32; row 2"),
        (lambda: dense_scores.dense_scores(bad, docs), "queries must be finite in float32; row 2"),
        (lambda: dense_scores.dense_scores(docs, docs[:, :2]), "dimensions"),
        (lambda: dense_scores.dense_scores(docs, docs, metric="manhattan"), "metric must be"),
        (lambda: dense_scores.paired_scores(docs, docs[:4]), "as many rows"),
    ]
    for call, words in calls:
        with pytest.raises(ValueError, match=words):
            call()

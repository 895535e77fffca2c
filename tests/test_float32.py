"""The bound of `pyengine.backends.shared.float32` holds for every way in which a float32 product may be computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.backends.shared import float32
from pyengine.specification import reference
from pyengine.types import F32, F64

DOWN = np.float32(-np.inf)


def _flush(values: F32) -> F32:
    return np.where(np.abs(values) < np.float32(float32.TINY), np.float32(0), values)


def _in_order(products: F32) -> F32:
    return np.add.accumulate(products, axis=-1, dtype=np.float32)[..., -1]


def _large_first(products: F32) -> F32:
    return _in_order(np.take_along_axis(products, np.argsort(-np.abs(products), axis=-1), -1))


def _flushed(products: F32) -> F32:
    total = np.zeros(products.shape[:-1], np.float32)
    for product in np.moveaxis(_flush(products), -1, 0):
        total = _flush(total + product)
    return total


def _rounded_down(products: F32) -> F32:
    """Every product and sum below the true one: what truncation does to positive numbers."""
    total = np.zeros(products.shape[:-1], np.float32)
    for product in np.moveaxis(np.nextafter(products, DOWN), -1, 0):
        total = np.nextafter(total + product, DOWN)
    return total


def _truncated(bits: int) -> Callable[[F32], F32]:
    """float32 with its last bits dropped."""
    return lambda values: (values.view(np.uint32) & np.uint32(0x100000000 - (1 << bits))).view(np.float32)


def _pairwise(products: F32) -> F32:
    total: F32 = products.sum(axis=-1, dtype=np.float32)
    return total


# How the inputs are rounded, by how much at most, and how the products are summed.
MACHINES: dict[str, tuple[Callable[[F32], F32], float, Callable[[F32], F32]]] = {
    "in_order": (np.asarray, 0.0, _in_order),
    "large_first": (np.asarray, 0.0, _large_first),
    "pairwise": (np.asarray, 0.0, _pairwise),
    "flushed": (_flush, 0.0, _flushed),
    "tf32": (_truncated(13), 2.0**-10, _rounded_down),
    "bf16": (_truncated(16), 2.0**-7, _rounded_down),
}


def _bounds(queries: F32, docs: F32, metric: str, bias: F64 | None, machine: str) -> tuple[F64, F64]:
    """The bounds [Q, N] that the machine computes, inf where it says nothing, and the float64 rank scores."""
    inputs, rounding, total = MACHINES[machine]
    error = float32.error_factor(docs.shape[1], rounding)
    terms = float32.document_terms(float32.norms(docs), bias, metric, error)
    asked = float32.query_terms(queries, metric, terms.size)
    rows = np.hstack([docs * terms.columns[:, :1], terms.columns[:, 1:]])
    found = total(inputs(asked.rows)[:, None] * inputs(rows)[None]).astype(np.float64)
    found = np.where(found < float32.UNKNOWN / 2, found - asked.shift[:, None] + asked.slack[:, None], np.inf)
    scores = reference.unrounded_scores(queries[:, None], docs[None], metric, bias)
    return found, -scores if metric == "l2" else scores


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("metric", reference.METRICS)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.sampled_from([1, 2, 3, 7, 64, 700]),
    scale=st.sampled_from([-42.0, -38.0, -22.0, -18.0, -9.0, 0.0, 4.0, 17.0, 18.0, 19.0, 38.0]),
    spread=st.sampled_from([0.0, 0.0, 1.0, 6.0]),
    shape=st.sampled_from(["normal", "positive", "constant", "opposite"]),
    bias_scale=st.sampled_from([None, -30.0, 0.0, 12.0, 37.0, 300.0]),
)
def test_no_bound_is_below_the_score(
    machine: str, metric: str, seed: int, dim: int, scale: float, spread: float, shape: str, bias_scale: float | None
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((15, dim)) * 10 ** (scale + rng.normal(0, spread, (15, dim)))
    if shape != "normal":
        rows = np.abs(rows) if shape == "positive" else np.repeat(rows[:, :1], dim, axis=1)
    if shape == "opposite":
        rows[:3] *= np.where(np.arange(dim) % 2, -1, 1)
    vectors = np.clip(rows, -reference.FLOAT32_MAX, reference.FLOAT32_MAX).astype(np.float32)
    bias = None if bias_scale is None else rng.standard_normal(12) * 10.0**bias_scale
    bounds, scores = _bounds(vectors[:3], vectors[3:], metric, bias, machine)
    assert (bounds >= scores).all(), np.min(bounds - scores)


@pytest.mark.parametrize("metric", reference.METRICS)
def test_the_bound_is_useful(metric: str) -> None:
    """On ordinary vectors no score is raised by more than three times G of its magnitude."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((120, 96)).astype(np.float32)
    bias = rng.standard_normal(100)
    bounds, scores = _bounds(rows[:20], rows[20:], metric, bias, "in_order")
    length = np.ones(120) if metric == "cosine" else float32.norms(rows)
    magnitude = length[:20, None] * length[20:] + np.abs(bias)
    if metric == "l2":
        magnitude = (length[:20, None] + length[20:]) ** 2 + np.abs(bias)
    assert (bounds - scores <= 3 * float32.error_factor(96) * magnitude).all()


def test_what_proves_nothing_says_so() -> None:
    assert float32.error_factor(1 << 23) == np.inf
    assert float32.error_factor(8, np.inf) == np.inf
    terms = float32.document_terms(np.array([0.0, 1.0]), None, "cosine", np.inf)
    assert (terms.columns[:, 1] == float32.UNKNOWN).all()

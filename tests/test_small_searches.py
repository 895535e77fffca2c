"""Few products: the backend "cpu" scores everything at once, and no certificate is needed. What asks for nothing else
goes another way: tests/test_plain_searches.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.backends import registry
from pyengine.backends.cpu import cpu_backend
from tests.dense_cases import rows

pytestmark = pytest.mark.skipif(registry.get("cpu").missing() is not None, reason="the extension is not built")
GIVEN: dict[str, dict[str, Any]] = {
    "plain": {},
    "l2, k beyond N": {"metric": "l2", "k": 90},
    "a mask for each": {"metric": "dot", "mask": np.random.default_rng(0).random((3, 80)) < 0.3},
    "few of a mask": {"mask": np.arange(80) % 20 == 0, "bias": np.linspace(-1, 1, 80), "dims": 5},
    "ties": {"queries": np.zeros((3, 12), np.float32), "metric": "dot"},
    "no queries": {"queries": np.zeros((0, 12), np.float32)},
    "filters": {"exclude": [[1], [2], []], "threshold": 0.1},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_backend, "SMALL", 3 * 80 * cpu_backend.LEAST_DIMS)


def same(found: pe.TopK, want: pe.TopK) -> None:
    for got, expected in zip(found, want):
        assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("store", ["", "float32", "int8"])
def test_the_answer_is_the_same(given: dict[str, Any], store: str) -> None:
    given = {"queries": rows(2, 3, 12), "k": 4, **given}
    docs = rows(1, 80, 12)
    if not store:
        same(pe.topk(docs=docs, backend="cpu", **given), pe.topk(docs=docs, backend="numpy", **given))
        return
    index = pe.DenseIndex(12, metric=given.pop("metric", "cosine"), store=store)
    index.add(docs, ids=np.arange(80)[::-1] + 10)
    same(index.search(backend="cpu", **given), index.search(backend="numpy", **given))


def test_a_product_more_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    def scanned(*given: Any) -> None:
        raise KeyError("scanned")

    monkeypatch.setattr(cpu_backend.CpuBackend, "propose", scanned)
    general: dict[str, Any] = {"dims": 12}  # which is no plain search
    assert pe.topk(rows(1, 3, 12), rows(2, 80, 12), 4, **general).certified.all()
    with pytest.raises(KeyError, match="scanned"):
        pe.topk(rows(1, 3, 12), rows(2, 81, 12), 4, **general)
    with pytest.raises(KeyError, match="scanned"):
        pe.topk(rows(1, 3, 12), rows(2, 80, 12), 4, precision="fast")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(value: float) -> None:
    docs = rows(1, 80, 12)
    docs[7, 3] = value
    with pytest.raises(ValueError, match="docs must be finite in float32; row 7 holds"):
        pe.topk(rows(2, 3, 12), docs, 4)


def test_explain_says_so() -> None:
    index = pe.DenseIndex(12)
    index.add(rows(1, 80, 12))
    assert "to score so few documents costs no more than to scan them" in str(index.explain(rows(2, 3, 12)))
    assert "candidates: at most" in str(index.explain(rows(2, 3, 12), precision="fast"))

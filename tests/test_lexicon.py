"""SPLADE-max pooling: against its formula, in NumPy and torch, in blocks of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.lexical import lexicon
from pyengine.types import F32, Bool

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.standard_normal((6, 7, 50)) - 2).astype(np.float32)
MASK = RNG.random((6, 7)) < 0.6
MASK[2], MASK[3] = False, True


def expected(logits: F32, mask: Bool, top: int | None) -> list[dict[int, np.float32]]:
    """For each row the weight of each term: a plain form of the definition."""
    rows = []
    for row, own in zip(logits, mask, strict=True):
        largest = np.where(own[:, None], row, -np.inf).max(axis=0, initial=-np.inf)
        weights = [np.float32(np.log1p(np.float64(max(x, np.float32(0))))) for x in largest]
        order = sorted(range(len(weights)), key=lambda term: (-weights[term], term))[:top]
        rows.append({term: weights[term] for term in sorted(order) if weights[term] > 0})
    return rows


def as_dicts(rows: pe.SparseRows) -> list[dict[int, np.float32]]:
    return [dict(zip(terms.tolist(), weights, strict=True)) for terms, weights in rows]


@pytest.mark.parametrize("block", [1, 50, 120, 1 << 20])
@pytest.mark.parametrize("top", [None, 1, 7, 49, 50, 1000])
def test_it_is_the_formula(monkeypatch: pytest.MonkeyPatch, block: int, top: int | None) -> None:
    monkeypatch.setattr(lexicon, "BLOCK", block)
    found = pe.lexicon_head(LOGITS, MASK, top=top)
    assert as_dicts(found) == expected(LOGITS, MASK, top)
    assert found.n_terms == 50
    assert found.values.dtype == np.float32


def test_equal_weights_go_by_id() -> None:
    logits = np.full((1, 1, 9), 100.0)
    logits[0, 0, 5] = 101
    logits[0, 0, 7] = np.nextafter(np.float32(100), np.float32(101))  # whose weight rounds to that of 100
    assert list(pe.lexicon_head(logits, top=3)[0][0]) == [0, 1, 5]


@pytest.mark.parametrize(
    "mask", [MASK, MASK.astype(np.int64), MASK.astype(np.uint8).tolist()], ids=["bool", "0/1", "list"]
)
def test_what_is_masked_does_not_matter(mask: Any) -> None:
    logits = np.where(MASK[:, :, None], LOGITS, np.nan)
    assert as_dicts(pe.lexicon_head(logits, mask)) == expected(LOGITS, MASK, None)


def test_without_a_mask_all_tokens_count() -> None:
    assert as_dicts(pe.lexicon_head(LOGITS)) == expected(LOGITS, np.ones_like(MASK), None)


def whole_numbers(*shape: int) -> F32:
    """Products of these are exact, however they are summed."""
    return RNG.integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("block", [1, 120, 1 << 20])
def test_hidden_states_go_through_the_head(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(lexicon, "BLOCK", block)
    hidden, weight, bias = whole_numbers(6, 7, 8), whole_numbers(50, 8), whole_numbers(50)
    found = pe.lexicon_head(hidden, MASK, weight=weight, bias=bias, top=9)
    assert as_dicts(found) == expected(hidden @ weight.T + bias, MASK, 9)
    assert as_dicts(pe.lexicon_head(LOGITS, MASK, bias=bias)) == expected(LOGITS + bias, MASK, None)


def test_no_more_than_a_block_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    matmul = np.ndarray.__matmul__

    class Seen(np.ndarray):
        def __matmul__(self, other: Any) -> Any:
            made.append(matmul(self, other))
            return made[-1]

    monkeypatch.setattr(lexicon, "BLOCK", 200)
    monkeypatch.setattr(lexicon, "_given", lambda value, *_: value.view(Seen))
    pe.lexicon_head(whole_numbers(6, 7, 8), MASK, weight=whole_numbers(50, 8))
    assert made
    assert max(block.size for block in made) <= 200


@pytest.mark.parametrize("shape", [(0, 3, 5), (3, 0, 5), (2, 3, 1)])
def test_odd_shapes(shape: tuple[int, int, int]) -> None:
    logits = RNG.standard_normal(shape).astype(np.float32)
    found = pe.lexicon_head(logits, top=4)
    assert len(found) == shape[0]
    assert as_dicts(found) == expected(logits, np.ones(shape[:2], bool), 4)


def test_extremes() -> None:
    logits = np.array([[[1e-45, 3.4e38, -np.inf, 0.0, -0.0, -1.0]]], np.float32)
    terms, weights = pe.lexicon_head(logits)[0]
    assert terms.tolist() == [0, 1]
    assert weights.tolist() == [np.float32(1e-45), np.float32(np.log1p(np.float64(np.float32(3.4e38))))]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_tensors(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    logits, mask = torch.from_numpy(LOGITS).to(getattr(torch, dtype)), torch.from_numpy(MASK)
    assert as_dicts(pe.lexicon_head(logits, mask, top=9)) == expected(logits.float().numpy(), MASK, 9)
    hidden, weight, bias = whole_numbers(6, 7, 8), whole_numbers(50, 8), whole_numbers(50)
    given = [torch.from_numpy(each).to(getattr(torch, dtype)).requires_grad_() for each in (hidden, weight, bias)]
    found = pe.lexicon_head(given[0], mask.long(), weight=given[1], bias=given[2], top=9)
    assert as_dicts(found) == expected(hidden @ weight.T + bias, MASK, 9)


WEIGHT = np.ones((50, 8), np.float32)
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"states": LOGITS[0]}, ValueError, r"states must have shape \[n, L, V\], or .*; got shape \(7, 50\)"),
    ({"states": LOGITS > 0}, TypeError, "states must hold real numbers .*; got dtype bool"),
    ({"states": np.zeros((1, 2, 0))}, ValueError, r"states must have one term at least; got shape \(1, 2, 0\)"),
    ({"mask": MASK[:5]}, ValueError, r"mask must have shape \(6, 7\), one for each token; got \(5, 7\)"),
    ({"mask": MASK * 1.0}, TypeError, "mask must be bool, or 0 and 1; got dtype float64"),
    ({"mask": MASK * 2}, ValueError, "mask must be bool, or 0 and 1; got 2"),
    ({"weight": WEIGHT}, ValueError, r"weight must have shape \[V, 50\]; got shape \(50, 8\)"),
    ({"weight": WEIGHT[0]}, ValueError, r"weight must have shape \[V, H\]; got shape \(8,\)"),
    ({"bias": np.zeros(49)}, ValueError, r"bias must have shape \(50,\), one per term; got \(49,\)"),
    ({"bias": ["a"] * 50}, TypeError, "bias must hold real numbers"),
    ({"top": 0}, ValueError, "top must be a positive integer"),
    ({"top": 1.5}, TypeError, "top must be a positive integer; got 1.5"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=lambda each: str(each)[:30])
def test_what_is_wrong_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pe.lexicon_head(**{"states": LOGITS, "mask": MASK} | change)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(value: float) -> None:
    logits = LOGITS.copy()
    logits[4, np.argmax(MASK[4]), 3] = value
    with pytest.raises(ValueError, match="states must not give logits of NaN or inf; row 4 does"):
        pe.lexicon_head(logits, MASK)


def test_a_head_elsewhere_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match=r"weight must be as states are, .*; got an array, and a tensor of torch.float32 on cpu"
    ):
        pe.lexicon_head(torch.zeros(1, 2, 8), weight=WEIGHT)

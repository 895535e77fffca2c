"""MaxSim's arguments: what is refused, in one sentence that names the argument."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.inputs.ragged import Ragged

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]

RNG = np.random.default_rng(0)
QUERIES = Ragged(RNG.standard_normal((5, 4)), [0, 3, 3, 5])
DOCS = Ragged(RNG.standard_normal((9, 4)), [0, 4, 4, 8, 9])
NAN = Ragged.of([[[1.0, 2, 3, 4]], [[1, 2, np.nan, 4], [1, 2, 3, 4]]])
BIG = [np.full((2, 4), 1e39)]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "maxsim": pe.maxsim,
    "pairs": lambda queries, docs, **options: pe.maxsim_pairs(queries, docs, [[0, 0]], **options),
    "candidates": lambda queries, docs, **options: pe.maxsim_candidates(queries, docs, [[0]] * 3, **options),
    "topk": lambda queries, docs, **options: pe.maxsim_topk(queries, docs, 2, **options),
}
both = {"queries": QUERIES, "docs": DOCS}
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"queries": QUERIES.values}, ValueError, r"queries must be a pyengine.Ragged, a list of arrays .* shape \(5, 4\)"),
    ({"docs": DOCS.values}, ValueError, "docs must be a pyengine.Ragged, a list of arrays"),
    ({"docs": None}, TypeError, "docs must be a pyengine.Ragged, .*; got a NoneType"),
    ({"queries": [], "docs": []}, ValueError, "queries must hold at least one array"),
    ({"queries": [np.zeros((2, 3))] * 3}, ValueError, r"queries\[0\] must have 4 dimensions per row"),
    ({"queries": np.zeros((3, 2, 5))}, ValueError, "queries must have 4 dimensions per token; got 5"),
    ({"queries": NAN}, ValueError, "queries must be finite in float32; token 0 of row 1 holds NaN"),
    ({"docs": [NAN[1][::-1], NAN[0]]}, ValueError, "docs must be finite in float32; token 1 of row 0 holds NaN"),
    ({"docs": BIG}, ValueError, "docs must be finite in float32; token 0 of row 0 holds NaN, inf or a value beyond"),
    (
        {"reduce": "max"},
        ValueError,
        "reduce must be one of 'sum', 'mean', 'symmetric', 'softmax', 'pooled', 'aligned'; got 'max'",
    ),
    ({"reduce": None}, ValueError, "reduce must be one of"),
    ({"normalize": 1}, TypeError, "normalize must be True or False; got 1"),
    ({"query_weights": [1.0] * 4}, ValueError, r"query_weights must have shape \(5,\), one per token; got \(4,\)"),
    ({"query_weights": [[1.0], [], [1.0, 2.0]]}, ValueError, "query_weights must have one array for each row"),
    ({"query_weights": [True] * 5}, TypeError, "query_weights must hold real numbers"),
    ({"query_weights": [np.inf] + [1.0] * 4}, ValueError, "query_weights must be finite in float32; entry 0 is inf"),
    (
        {"query_weights": [1e300] + [1.0] * 4},
        ValueError,
        "query_weights must be finite in float32; entry 0 is",
    ),
    ({"reduce": "mean", "query_weights": [1.0] * 5}, ValueError, "query_weights must come with reduce='sum'"),
    ({"doc_weights": [1.0] * 9}, ValueError, "doc_weights must come with reduce='symmetric'; got reduce='sum'"),
    ({"reduce": "symmetric", "query_weights": [1.0] * 5}, ValueError, "query_weights must come with doc_weights"),
    ({"reduce": "symmetric", "doc_weights": [1.0] * 9}, ValueError, "query_weights must come with doc_weights"),
    ({"bias": [1.0]}, ValueError, r"bias must have shape \(4,\), one per document; got \(1,\)"),
    ({"bias": [np.nan, 0, 0, 0]}, ValueError, "bias must be finite; entry 0 is nan"),
    ({"backend": "tpu"}, ValueError, "backend must be 'auto' or one of"),
    ({"backend": "faiss"}, RuntimeError, "backend 'faiss' cannot run maxsim"),
    ({"num_threads": 0}, ValueError, "num_threads must be a positive integer"),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_every_function_refuses(function: str, wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        FUNCTIONS[function](**{**both, **wrong})
    assert re.match(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pe.maxsim_pairs(QUERIES, DOCS, [0, 0]), ValueError, r"pairs must have shape \[P, 2\]; got shape"),
        (lambda: pe.maxsim_pairs(QUERIES, DOCS, [[0.0, 1.0]]), TypeError, "pairs must hold integers"),
        (lambda: pe.maxsim_pairs(QUERIES, DOCS, [[3, 0]]), ValueError, r"pairs\[:, 0\] must hold numbers of the 3"),
        (lambda: pe.maxsim_pairs(QUERIES, DOCS, [[0, 0], [0, 4]]), ValueError, r"pairs\[:, 1\] .* 4 documents; got 4"),
        (lambda: pe.maxsim_candidates(QUERIES, DOCS, [[0]]), ValueError, "lists must have one list per query, 3"),
        (lambda: pe.maxsim_candidates(QUERIES, DOCS, [[0], [-1], []]), ValueError, "lists must hold numbers of the 4"),
        (lambda: pe.maxsim_candidates(QUERIES, DOCS, [["a"], [], []]), TypeError, r"lists\[0\] must hold integers"),
        (lambda: pe.maxsim_candidates(QUERIES, DOCS, [0, 1, 2]), ValueError, "lists must be a list of arrays"),
        (lambda: pe.maxsim_topk(QUERIES, DOCS, 0), ValueError, "k must be a positive integer"),
        (lambda: pe.maxsim_topk(QUERIES, DOCS, candidates=[[9], [], []]), ValueError, "candidates must hold ids"),
        (lambda: pe.maxsim_topk(QUERIES, DOCS, candidates=[[0]]), ValueError, "candidates must have one list"),
        (lambda: pe.maxsim_topk(QUERIES, DOCS, precision="quick"), ValueError, "precision must be one of"),
        (lambda: pe.maxsim_topk(QUERIES, DOCS, mask=[True]), ValueError, "mask must have shape"),
        (lambda: pe.maxsim_align(QUERIES[0], DOCS.values[:, :3]), ValueError, "query must have 3 dimensions per row"),
        (lambda: pe.maxsim_align(NAN[1], DOCS[0]), ValueError, "query must be finite in float32; row 0"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert re.match(message, str(caught.value)), str(caught.value)


def test_inputs_are_not_changed() -> None:
    before = QUERIES.values.copy(), DOCS.values.copy()
    pe.maxsim_topk(QUERIES, DOCS, 2, normalize=True)
    np.testing.assert_array_equal(QUERIES.values, before[0])
    np.testing.assert_array_equal(DOCS.values, before[1])


@pytest.mark.parametrize("mask", [None, [True, False], [[True, False], [False, True]]], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_tokens", [0, 3])
@pytest.mark.parametrize("reduce", ["sum", "mean", "symmetric"])
def test_a_search_finds_what_is_not_finite_wherever_it_is(mask: Any, value: float, n_tokens: int, reduce: str) -> None:
    docs = np.ones((2, 50, 4), np.float32)
    docs[1, 17, 3] = value
    for backend in ("auto", "numpy"):
        with pytest.raises(ValueError, match="docs must be finite in float32; token 17 of row 1 holds NaN, inf"):
            pe.maxsim_topk(
                np.ones((2, n_tokens, 4)), docs, 1, reduce=reduce, backend=backend,
                mask=None if mask is None else np.array(mask),
            )  # fmt: skip

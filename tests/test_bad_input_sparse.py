"""The arguments of sparse functions: what is refused, in one sentence that names the argument."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.inputs.sparse_rows import SparseRows

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]

QUERIES = SparseRows.of([{0: 1.0, 3: 2.0}, {}, {2: -1.0}], 5)
DOCS = SparseRows.of([{0: 1.0}, {3: 0.5, 4: 2.0}, {}, {2: 1.0}], 5)
DENSE = np.ones((3, 5), np.float32)
both = {"queries": QUERIES, "docs": DOCS}
FORMS = "must be SparseRows, a scipy sparse matrix, a torch sparse COO or CSR tensor, or a list of dicts"

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"queries": DENSE}, TypeError, rf"queries {FORMS} .*; got a dense ndarray of shape \(3, 5\)"),
    ({"docs": DENSE}, TypeError, f"docs {FORMS} .*; got a dense ndarray"),
    ({"docs": None}, TypeError, f"docs {FORMS} .*; got a NoneType"),
    ({"docs": "text"}, TypeError, f"docs {FORMS} .*; got a str"),
    ({"docs": {0: 1.0}}, TypeError, f"docs {FORMS} .*; got a dict"),
    ({"queries": [{0: 1.0}, 5]}, TypeError, f"queries {FORMS} .*; got a list whose entry 1 is a int"),
    ({"queries": SparseRows.of([{0: 1.0}], 6)}, ValueError, "queries must have 5 terms; got 6"),
    ({"queries": [{5: 1.0}]}, ValueError, "queries must hold term ids 0 .. 4; row 0 holds 5"),
    ({"queries": [{}, {0: np.nan}]}, ValueError, "queries must be finite in float32; row 1 holds NaN"),
    ({"docs": [{}, {}, {1: 1e39}]}, ValueError, "docs must be finite in float32; row 2 holds NaN, inf or a value"),
    ({"docs": [{}, {-1: 1.0}]}, ValueError, "docs must hold term ids 0 .. 4; row 1 holds -1"),
    ({"k": 0}, ValueError, "k must be a positive integer"),
    ({"k": 2.0}, TypeError, "k must be a positive integer; got 2.0"),
    ({"mask": [True]}, ValueError, r"mask must have shape \(4,\) or \(3, 4\) as booleans; got \(1,\)"),
    ({"bias": [1.0]}, ValueError, r"bias must have shape \(4,\), one per document; got \(1,\)"),
    ({"bias": [np.nan, 0, 0, 0]}, ValueError, "bias must be finite; entry 0 is nan"),
    ({"allow": [4]}, ValueError, "allow must hold ids"),
    ({"groups": [1]}, ValueError, "groups must have shape"),
    ({"threshold": "high"}, TypeError, "threshold must"),
    ({"precision": "quick"}, ValueError, "precision must be one of 'exact', 'fast'; got 'quick'"),
    ({"backend": "tpu"}, ValueError, "backend must be 'auto' or one of"),
    ({"backend": "faiss"}, RuntimeError, "backend 'faiss' cannot run sparse top-10, dot, queries float32"),
    ({"num_threads": 0}, ValueError, "num_threads must be a positive integer"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_topk_refuses(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        pe.sparse_topk(**{**both, **wrong})
    assert re.match(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pe.explain_terms(QUERIES, {0: 1.0}), ValueError, "query must be one row; got 3"),
        (lambda: pe.explain_terms({0: 1.0}, DOCS), ValueError, "doc must be one row; got 4"),
        (lambda: pe.explain_terms({0: 1.0}, []), ValueError, "doc must be one row; got 0"),
        (lambda: pe.explain_terms({0: np.inf}, {0: 1.0}), ValueError, "query must be finite in float32; row 0"),
        (lambda: pe.explain_terms({0: 1.0}, {"a": 1.0}), TypeError, "doc must be dicts of integer term ids"),
        (lambda: pe.explain_terms(DENSE, {0: 1.0}), TypeError, f"query {FORMS}"),
        (lambda: pe.backends("images"), ValueError, "family must be one of 'dense', .*; got 'images'"),
        (lambda: pe.topk(DENSE, DENSE, 1, backend="scipy"), RuntimeError, "backend 'scipy' cannot run dense top-1"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert re.match(message, str(caught.value)), str(caught.value)

"""`Ragged`: what it is made of, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from pyengine.inputs import ragged
from pyengine.inputs.ragged import Ragged

VALUES = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_rows() -> None:
    rows = Ragged(VALUES, [0, 2, 2, 6])
    assert len(rows) == 3
    assert rows.dim == 2
    assert rows.lengths.tolist() == [2, 0, 4]
    assert [row.tolist() for row in rows] == [VALUES[:2].tolist(), [], VALUES[2:].tolist()]
    np.testing.assert_array_equal(rows[-1], VALUES[2:])
    with pytest.raises(IndexError):
        rows[3]
    assert np.shares_memory(rows.values, VALUES)


def test_three_forms_are_one() -> None:
    rows = Ragged(VALUES, [0, 2, 2, 6])
    padded = np.full((3, 5, 2), np.nan, np.float32)
    mask = np.zeros((3, 5), bool)
    for i, places in enumerate([[1, 3], [], [0, 2, 3, 4]]):
        mask[i, places] = True
        padded[i, places] = rows[i]
    for other in (Ragged.padded(padded, mask), Ragged.of(list(rows)), Ragged.of(list(rows), dim=2)):
        np.testing.assert_array_equal(other.values, rows.values)
        np.testing.assert_array_equal(other.offsets, rows.offsets)
    assert Ragged.padded(padded).lengths.tolist() == [5, 5, 5]
    assert len(Ragged.of([], dim=3)) == 0


def test_take() -> None:
    rows = Ragged(VALUES, [0, 2, 2, 6])
    which = np.array([2, 1, 0, 2])
    taken = rows.take(which)
    assert [row.tolist() for row in taken] == [rows[i].tolist() for i in which]
    assert len(rows.take(which[:0])) == 0


def test_both_sides_may_be_empty_lists_but_one() -> None:
    assert [each.dim for each in ragged.both([], [VALUES])] == [2, 2]
    assert [each.dim for each in ragged.both([VALUES], [])] == [2, 2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Ragged(VALUES, [0, 5]), ValueError, "offsets must begin with 0 and end with the 6 rows of values"),
        (lambda: Ragged(VALUES, [1, 6]), ValueError, "offsets must begin with 0"),
        (lambda: Ragged(VALUES, [0, 4, 3, 6]), ValueError, "offsets must not fall; got 4 and then 3, at 2"),
        (lambda: Ragged(VALUES, [0.0, 6.0]), TypeError, "offsets must be integers; got dtype float64"),
        (lambda: Ragged(VALUES, []), ValueError, r"offsets must have shape \[n \+ 1\]; got shape \(0,\)"),
        (
            lambda: Ragged(VALUES, np.array([0, 2**64 - 1, 6], np.uint64)),
            ValueError,
            "offsets must be at most the 6 rows",
        ),
        (lambda: Ragged(VALUES, [0, 6])[1], IndexError, "row must be one of the 1 rows; got 1"),
        (lambda: Ragged(VALUES, [0, 6])[cast(Any, "a")], TypeError, "row must be an integer; got .a."),
        (lambda: Ragged(VALUES, [0, 6]).part(slice(None, None, 2)), ValueError, "rows must be consecutive"),
        (lambda: Ragged(VALUES, [[0, 6]]), ValueError, r"offsets must have shape \[n \+ 1\]; got shape \(1, 2\)"),
        (lambda: Ragged(VALUES[0], [0, 2]), ValueError, r"values must have shape \[n, D\]"),
        (lambda: Ragged(VALUES > 0, [0, 6]), TypeError, "values must hold real numbers"),
        (lambda: Ragged.of([]), ValueError, "rows must hold at least one array"),
        (lambda: Ragged.of([VALUES, VALUES[:, :1]]), ValueError, r"rows\[1\] must have 2 dimensions per row"),
        (lambda: Ragged.of([VALUES], dim=3), ValueError, r"rows\[0\] must have 3 dimensions per row"),
        (lambda: Ragged.padded(VALUES), ValueError, r"array must have shape \[n, L, D\]; got shape \(6, 2\)"),
        (lambda: Ragged.padded(VALUES[None], [[1] * 6]), TypeError, "mask must be bool, True for a token"),
        (lambda: Ragged.padded(VALUES[None], [[True]]), ValueError, r"mask must have shape \(1, 6\)"),
        (lambda: ragged.tokens(VALUES, "docs"), ValueError, "docs must be a pyengine.Ragged, a list of arrays"),
        (lambda: ragged.tokens("abc", "docs"), TypeError, "docs must be a pyengine.Ragged, .*; got a str"),
        (lambda: ragged.tokens(VALUES[None], "docs", 3), ValueError, "docs must have 3 dimensions per token; got 2"),
    ],
)
def test_bad_input(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_what_is_not_finite_is_named() -> None:
    values = VALUES.copy()
    values[4, 1] = np.nan
    with pytest.raises(ValueError, match="docs must be finite in float32; token 2 of row 2 holds NaN"):
        ragged.finite(values, np.array([0, 2, 2, 6]), "docs")
    ragged.finite(VALUES, np.array([0, 6]), "docs")

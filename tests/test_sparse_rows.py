"""`SparseRows`: what it is made of, what form it is put into, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.inputs import sparse_forms, sparse_rows
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import TermRows

pytestmark = [
    pytest.mark.filterwarnings("error", "ignore:Sparse"),  # torch says once what is in beta and what it does not check
    pytest.mark.usefixtures("poison"),
]
INDPTR, INDICES = np.array([0, 2, 2, 5]), np.array([1, 4, 0, 2, 3], np.int32)
VALUES = np.array([1.5, -2, 3, 0.25, 7], np.float32)
BIG = 3e38  # two of them are beyond float32


def same(rows: SparseRows, other: SparseRows) -> None:
    assert rows.n_terms == other.n_terms
    for name in ("indptr", "indices", "values"):
        got, want = getattr(rows, name), getattr(other, name)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want, err_msg=name)


def test_rows() -> None:
    rows = SparseRows(INDPTR, INDICES, VALUES, 5)
    assert (len(rows), rows.nnz, rows.n_terms, rows.lengths.tolist()) == (3, 5, 5, [2, 0, 3])
    assert [each.dtype for each in (rows.indptr, rows.indices, rows.values)] == [np.int64, np.int32, np.float32]
    assert [(terms.tolist(), weights.tolist()) for terms, weights in rows] == [
        ([1, 4], [1.5, -2]), ([], []), ([0, 2, 3], [3, 0.25, 7]),
    ]  # fmt: skip
    assert rows[-1][0].tolist() == [0, 2, 3]
    assert repr(rows) == "SparseRows(3 rows, 5 terms, 5 weights)"


def test_what_is_canonical_is_not_copied_and_nothing_given_is_changed() -> None:
    rows = SparseRows(INDPTR, INDICES, VALUES, 5)
    assert np.shares_memory(rows.indices, INDICES)
    assert np.shares_memory(rows.values, VALUES)
    assert not rows.indptr.flags.writeable
    indices, values = INDICES[::-1].copy(), VALUES.copy()
    SparseRows(INDPTR, indices, values, 5)
    np.testing.assert_array_equal(indices, INDICES[::-1])
    np.testing.assert_array_equal(values, VALUES)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.float16, np.float64, np.longdouble])
def test_values_of_every_real_type(dtype: Any) -> None:
    same(SparseRows(INDPTR, INDICES, [1, 2, 3, 4, 5], 5), SparseRows(INDPTR, INDICES, np.arange(1, 6, dtype=dtype), 5))


def test_without_values_all_weights_are_one() -> None:
    assert SparseRows(INDPTR, INDICES, None, 5).values.tolist() == [1.0] * 5
    assert SparseRows([0, 3], [2, 2, 1], None, 5).values.tolist() == [1, 2]


def test_canonical_form() -> None:
    rows = SparseRows([0, 5, 7, 8], [3, 1, 3, 0, 1, 4, 2, 0], [1, 2, 10, 0, -2, 5, 6, -0.0], 5)
    same(rows, SparseRows([0, 1, 3, 3], [3, 2, 4], [11, 6, 5], 5))


def test_duplicates_are_summed_in_float64_in_input_order() -> None:
    values = [1.0, 1e17, 1.0, -1e17, 2.0**-30]
    total = float(np.float32((((1.0 + 1e17) + 1.0) - 1e17) + 2.0**-30))
    (_, weights), = SparseRows([0, 5], [7] * 5, values, 9)  # fmt: skip
    assert weights.tolist() == [total]
    tenths = SparseRows([0, 10], np.zeros(10, int), np.full(10, 0.1), 1)
    assert tenths.values[0] == np.float32(sum([0.1] * 10))


def test_the_largest_vocabulary_costs_nothing() -> None:
    last = (1 << 31) - 2
    rows = SparseRows([0, 2], np.array([last, 0], np.uint32), [2, 1], last + 1)
    assert (rows.indices.tolist(), rows.values.tolist(), rows.n_terms) == ([0, last], [1, 2], last + 1)


def test_part_and_take() -> None:
    rows = SparseRows(INDPTR, INDICES, VALUES, 5)
    which = np.array([2, 1, 0, 2])
    assert [terms.tolist() for terms, _ in rows.take(which)] == [rows[i][0].tolist() for i in which]
    assert len(rows.take(which[:0])) == 0
    same(rows.part(slice(1, 3)), rows.take(np.array([1, 2])))
    assert len(rows.part(slice(2, 1))) == 0
    assert np.shares_memory(rows.part(slice(1, 3)).values, VALUES)


def model(rows: list[list[tuple[int, float]]]) -> list[list[tuple[int, float]]]:
    """Sums by a dict, one weight after another."""
    found = []
    for row in rows:
        sums: dict[int, float] = {}
        for term, weight in row:
            sums[term] = sums.get(term, 0.0) + weight
        weights = ((term, float(np.float32(each))) for term, each in sorted(sums.items()))
        found.append([(term, weight) for term, weight in weights if weight != 0])
    return found


WEIGHTS = st.floats(-8, 8, width=32)
ROWS = st.lists(st.lists(st.tuples(st.integers(0, 9), WEIGHTS | st.just(1e-46)), max_size=12), max_size=8)


@given(ROWS, st.integers(1, 9), st.integers(1, 20))
def test_canonical_form_of_anything(rows: list[list[tuple[int, float]]], looked_at: int, together: int) -> None:
    indptr = np.cumsum([0, *map(len, rows)])
    terms = np.array([term for row in rows for term, _ in row], np.int64)
    weights = np.array([weight for row in rows for _, weight in row], np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_rows, "LOOKED_AT", looked_at)
        patch.setattr(sparse_rows, "SORTED", together)
        made = SparseRows(indptr, terms, weights, 10)
    assert [list(zip(own.tolist(), sums.tolist())) for own, sums in made] == model(rows)
    again = SparseRows(made.indptr, made.indices, made.values, 10)
    same(again, made)
    assert not made.nnz or np.shares_memory(again.values, made.values)


DENSE = np.array([[0, 1.5, 0, 0, -2], [0, 0, 0, 0, 0], [3, 0, 0.25, 7, 0]], np.float32)


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "csc_matrix", "csc_array", "coo_matrix", "coo_array",
                                  "lil_array", "dok_array", "bsr_array", "dia_array"])  # fmt: skip
def test_scipy(kind: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = getattr(sparse, kind)(DENSE)
    same(SparseRows.of(matrix), SparseRows(INDPTR, INDICES, VALUES, 5))


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_array", "lil_array", "torch coo", "torch csr"])
def test_boolean_matrices_are_binary_codes(kind: str) -> None:
    if kind.startswith("torch"):
        whole = pytest.importorskip("torch").tensor(DENSE != 0)
        matrix = whole.to_sparse() if kind == "torch coo" else whole.to_sparse_csr()
    else:
        matrix = getattr(pytest.importorskip("scipy.sparse"), kind)(DENSE != 0)
    same(SparseRows.of(matrix), SparseRows(INDPTR, INDICES, None, 5))


def test_false_is_a_zero_and_truth_that_comes_twice_is_summed() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.coo_array(([True, False, True, True], ([1, 1, 0, 1], [2, 3, 0, 2])), shape=(2, 4))
    same(SparseRows.of(matrix), SparseRows([0, 1, 2], [0, 2], [1, 2], 4))


@pytest.mark.parametrize("kind", ["coo_array", "csr_array", "csc_array"])
def test_duplicates_of_scipy_are_summed_here(kind: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    values = np.array([1, 2**24, 1, 1], np.float32)  # in float32 the ones would be lost
    if kind == "coo_array":
        matrix = sparse.coo_array((values, ([1, 1, 1, 1], [2, 2, 2, 2])), shape=(3, 4))
    elif kind == "csr_array":
        matrix = sparse.csr_array((values, [2] * 4, [0, 0, 4, 4]), shape=(3, 4))
    else:
        matrix = sparse.csc_array((values, [1] * 4, [0, 0, 0, 4, 4]), shape=(3, 4))
    same(SparseRows.of(matrix), SparseRows([0, 0, 1, 1], [2], [2**24 + 3], 4))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_torch(layout: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    whole = torch.tensor(DENSE * 4).to(getattr(torch, dtype))
    tensor = whole.to_sparse() if layout == "coo" else whole.to_sparse_csr()
    same(SparseRows.of(tensor), SparseRows(INDPTR, INDICES, 4 * VALUES, 5))


def test_duplicates_of_torch_are_summed_here() -> None:
    torch = pytest.importorskip("torch")
    places = torch.tensor([[1, 0, 1, 1], [2, 3, 2, 2]])
    tensor = torch.sparse_coo_tensor(places, torch.tensor([2.0**24, 5, 1, 1], requires_grad=True), (3, 4))
    same(SparseRows.of(tensor), SparseRows([0, 1, 2, 2], [3, 2], [5, 2**24 + 2], 4))


def test_dicts() -> None:
    dicts = [{4: -2, 1: 1.5}, {}, {np.int64(2): np.float32(0.25), 0: 3, 3: 7, 1: 0}]
    same(SparseRows.of(dicts), SparseRows(INDPTR, INDICES, VALUES, 5))
    assert SparseRows.of(dicts, 30_522).n_terms == 30_522
    assert (len(SparseRows.of([{}, {}])), len(SparseRows.of([], 7))) == (2, 0)


def test_both_sides_have_one_vocabulary() -> None:
    rows = SparseRows(INDPTR, INDICES, VALUES, 5)
    for queries, docs in (([{1: 1.0}], rows), (rows, [{1: 1.0}]), ([{1: 1.0}], [{4: 2.0}]), ([], rows), (rows, [])):
        assert [each.n_terms for each in sparse_forms.both(queries, docs)] == [5, 5]


def test_decoded_weights_are_rounded_twice() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, 5).astype(np.uint8)
    low, step = rng.standard_normal(3).astype(np.float32), rng.random(3).astype(np.float32)
    rows = TermRows(INDPTR, INDICES.astype(np.uint16), codes, 5, low, step)
    owner = [0, 0, 2, 2, 2]
    want = [np.float32(np.float32(step[i] * np.float32(code)) + low[i]) for i, code in zip(owner, codes)]
    assert rows.decoded().values.tolist() == want
    assert rows.decoded(np.array([2, 0])).values.tolist() == want[2:] + want[:2]
    assert rows.decoded().indices.dtype == np.int32


of, rows_from = SparseRows.of, SparseRows


def scipy_with(value: float) -> Any:
    sparse = pytest.importorskip("scipy.sparse")
    return sparse.csr_array(np.where(DENSE == 7, value, DENSE))


def torch_with(**options: Any) -> Any:
    torch = pytest.importorskip("torch")
    return torch.sparse_coo_tensor([[0], [0]], [options.get("value", 1.0)], options.get("shape", (2, 2)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rows_from([0, 1], [0], [np.nan], 5), ValueError, "values must be finite in float32; row 0 holds NaN"),
        (lambda: rows_from([0, 0, 1], [0], [np.inf], 5), ValueError, "values must be finite in float32; row 1 holds"),
        (lambda: rows_from([0, 1], [0], [1e39], 5), ValueError, "values must be finite .* or a value beyond 3.4e38"),
        (lambda: rows_from([0, 2], [0, 0], [BIG, BIG], 5), ValueError, "values must be finite in float32; row 0, of"),
        (lambda: rows_from([0, 0, 2], [4, 5], None, 5), ValueError, "indices must hold term ids 0 .. 4; row 1 holds 5"),
        (lambda: rows_from([0, 1], [-1], None, 5), ValueError, "indices must hold term ids 0 .. 4; row 0 holds -1"),
        (lambda: rows_from([0, 1], [2**32], None, 5), ValueError, "indices must hold term ids .* row 0 holds 4294967"),
        (
            lambda: rows_from([0, 1], np.array([2**64 - 1], np.uint64), None, 5),
            ValueError,
            "indices must hold term ids 0 .. 4; row 0 holds 18446744073709551615",
        ),
        (lambda: rows_from([0, 1], [0.0], None, 5), TypeError, "indices must hold integers; got dtype float64"),
        (lambda: rows_from([0, 1], [[0]], None, 5), ValueError, r"indices must have shape \[P\]; got shape \(1, 1\)"),
        (lambda: rows_from([0, 1], [0], [True], 5), TypeError, "values must hold real numbers .* got dtype bool"),
        (lambda: rows_from([0, 1], [0], [1j], 5), TypeError, "values must hold real numbers .* got dtype complex"),
        (lambda: rows_from([0, 1], [0], [1, 2], 5), ValueError, "values must have one weight per index, 1; got 2"),
        (lambda: rows_from([0, 2], [0], [1], 5), ValueError, "indptr must begin with 0 and end with the 1 indices"),
        (lambda: rows_from([1, 1], [0], [1], 5), ValueError, "indptr must begin with 0 and end with the 1 indices"),
        (lambda: rows_from([0, 1, 0, 1], [0], [1], 5), ValueError, "indptr must not fall; .* from 1 to 0 at row 1"),
        (
            lambda: rows_from(np.array([0, 2**64 - 1, 1], np.uint64), [0], [1], 5),
            ValueError,
            "indptr must not fall; it goes from 18446744073709551615 to 1 at row 1",
        ),
        (lambda: rows_from([], [0], [1], 5), ValueError, r"indptr must have shape \[n \+ 1\]; got shape \(0,\)"),
        (lambda: rows_from([0.0, 1.0], [0], [1], 5), TypeError, "indptr must be integers; got dtype float64"),
        (lambda: rows_from([0, 1], [0], [1], 0), ValueError, "n_terms must be a positive integer below 2"),
        (lambda: rows_from([0, 1], [0], [1], cast(Any, 2.0)), TypeError, "n_terms must be a positive integer; got 2.0"),
        (lambda: rows_from([0, 1], [0], [1], 5)[1], IndexError, "row must be one of the 1 rows; got 1"),
        (lambda: rows_from([0, 1], [0], [1], 5)[cast(Any, "a")], TypeError, "row must be an integer; got 'a'"),
        (lambda: rows_from([0, 1], [0], [1], 5).part(slice(None, None, 2)), ValueError, "rows must be consecutive"),
        (lambda: of(DENSE), TypeError, r"rows must be SparseRows, .*; got a dense ndarray of shape \(3, 5\)"),
        (lambda: of("abc"), TypeError, "rows must be SparseRows, .*; got a str"),
        (lambda: of([{0: 1.0}, 7], name="docs"), TypeError, "docs must be SparseRows, .* whose entry 1 is a int"),
        (lambda: of([{0: 1.0}, {"a": 1.0}]), TypeError, "rows must be dicts of integer .*; row 1 holds 'a'"),
        (lambda: of([{0: 1.0}, {1.5: 1.0}]), TypeError, "rows must be dicts of integer .*; row 1 holds 1.5"),
        (lambda: of([{0: 1.0}, {1: "x"}]), TypeError, "rows must be dicts of .* real weights; row 1 holds 'x'"),
        (lambda: of([{0: 1.0}, {1: None}]), TypeError, "rows must be dicts of .* real weights; row 1 holds None"),
        (lambda: of([{0: 1.0}, {1: [1]}]), TypeError, "rows must be dicts of .* real weights; row 1 holds"),
        (lambda: of([{0: 1.0}, {1: np.nan}]), ValueError, "rows must be finite in float32; row 1 holds NaN"),
        (lambda: of([{0: 1.0}, {9: 1.0}], 9), ValueError, "rows must hold term ids 0 .. 8; row 1 holds 9"),
        (lambda: of([{2**40: 1.0}]), ValueError, "the terms of rows must be a positive integer below 2"),
        (lambda: of([]), ValueError, "n_terms must be given with an empty list of rows; got None"),
        (lambda: of(rows_from([0, 1], [0], [1], 5), 6), ValueError, "rows must have 6 terms; got 5"),
        (lambda: of(scipy_with(1), 6, "docs"), ValueError, "docs must have 6 terms; got 5"),
        (lambda: of(scipy_with(np.nan), name="docs"), ValueError, "docs must be finite in float32; row 2 holds NaN"),
        (lambda: of(torch_with(value=np.inf), name="docs"), ValueError, "docs must be finite in float32; row 0 holds"),
        (lambda: of(torch_with(shape=(2, 3)), 2), ValueError, "rows must have 2 terms; got 3"),
        (
            lambda: of(pytest.importorskip("torch").ones(2, 2)),
            TypeError,
            r"rows must be SparseRows, .*; got a dense Tensor of shape \(2, 2\)",
        ),
    ],
)
def test_bad_input(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call()

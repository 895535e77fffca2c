"""Postings hold the rows that they were made from: every weight is there once, within the bounds that they state."""

from __future__ import annotations

import numpy as np
import pytest

from pyengine import SparseRows
from pyengine.problems.problem_sparse import Postings, TermRows
from pyengine.refining import exact_sparse
from pyengine.types import F32, F64, I64

WINDOW = 1 << 14  # documents
RARE, LIST, COLUMN = range(3)

pytestmark = [
    pytest.mark.usefixtures("poison"),
    pytest.mark.skipif(exact_sparse.native() is None, reason="not built"),
]


def skewed(n: int, kind: str) -> SparseRows:
    """Rows over 450 terms, of which a few have columns, most lists, and the last 50 a handful of documents."""
    rng = np.random.default_rng(len(kind))
    lengths = rng.integers(0, 24, n)
    terms = (400 * rng.random(lengths.sum()) ** 4).astype(np.int32)
    terms[rng.integers(0, len(terms), 200)] = rng.integers(400, 450, 200)
    values: F32 = rng.standard_normal(len(terms)).astype(np.float32)
    if kind != "signed":
        values = np.abs(values) ** 7 + np.float32(0.01)  # a few are large: columns get crests
    scale = {"tiny": 1e-44, "huge": 1e30}.get(kind, 1.0)
    return SparseRows(np.concatenate([[0], np.cumsum(lengths)]), terms, values * np.float32(scale), 450)


def levels(made: Postings, t: int) -> tuple[I64, I64]:
    """The documents of number t, and their levels."""
    own, place = made.arrays, made.arrays["place"][t]
    if own["kinds"][t] == RARE:
        pairs = own["rare"][place : place + own["counts"][t]].astype(np.int64)
        return pairs >> 8, pairs & 255
    if own["kinds"][t] == LIST:
        span, windows = slice(*own["lists"][place : place + 2]), -(-made.count // WINDOW)
        counts = np.diff(own["starts"].reshape(-1, windows + 1)[place].astype(np.int64))
        docs = own["list_docs"][span].astype(np.int64) + np.repeat(np.arange(windows) * WINDOW, counts)
        return docs, own["list_levels"][span].astype(np.int64)
    stride = -(-made.count // WINDOW) * WINDOW
    column = own["columns"][place * stride : (place + 1) * stride].astype(np.int64)
    docs = np.flatnonzero(column != own["zero"][t])
    assert not len(docs) or docs[-1] < made.count
    return docs, column[docs]


def check(rows: SparseRows, first: int, last: int, terms: I64 | None = None) -> set[int]:
    """That the postings of these rows add up to their weights; which kinds there are."""
    made = exact_sparse.build(TermRows.of(rows), first, last, terms)
    own = made.arrays
    sums: F64 = np.zeros((last - first, rows.n_terms))
    room: F64 = np.zeros(rows.n_terms)
    for t, term in enumerate(own["terms"]):
        docs, level = levels(made, t)
        assert len(np.unique(docs)) == len(docs)
        sums[docs, term] += own["scale"][t].astype(np.float64) * (level - own["zero"][t].astype(np.int64))
        room[term] += own["residual"][t]
    want = np.zeros_like(sums)
    for i, (ids, values) in enumerate(rows.part(slice(first, last))):
        want[i, ids] = values
    wanted = np.ones(rows.n_terms, bool) if terms is None else np.isin(np.arange(rows.n_terms), terms)
    assert (np.abs(sums - want)[:, wanted] <= room[wanted]).all()
    assert not sums[:, ~wanted].any()
    return set(own["kinds"].tolist())


@pytest.mark.parametrize("kind", ["signed", "positive", "tiny", "huge"])
def test_every_weight_is_within_its_bound(kind: str) -> None:
    rows = skewed(WINDOW + 5000, kind)
    assert check(rows, 0, len(rows)) == {RARE, LIST, COLUMN}
    check(rows, 3, WINDOW + 4)
    check(rows, 0, len(rows), np.arange(0, 450, 3))


def test_terms_that_no_row_has() -> None:
    rows = SparseRows([0, 2, 2, 3], [1, 3, 3], [1, 2, -1], 5)
    assert check(rows, 0, 3, np.array([0, 4])) == set()
    assert check(rows, 1, 2) == set()
    assert len(check(rows, 0, 3, np.array([0, 3]))) == 1


@pytest.mark.parametrize(("name", "values"), [
    ("scale", [-1.0, 0.0, np.nan, np.inf]), ("residual", [-1e-45, np.nan, np.inf]), ("zero", [1, 127, 255]),
])  # fmt: skip
def test_scales_by_which_sums_would_overflow_are_refused(name: str, values: list[float]) -> None:
    kernels = exact_sparse.native()
    assert kernels is not None
    arrays = exact_sparse.build(TermRows.of(skewed(300, "signed")), 0, 300).arrays
    kernels.Postings(0, 300, **arrays)
    for value in values:
        damaged = arrays[name].copy()
        damaged[len(damaged) // 2] = value
        with pytest.raises(ValueError, match="must have scales above 0 and residuals from 0 on, both finite, and zero"):
            kernels.Postings(0, 300, **{**arrays, name: damaged})

"""Postings by windows, and queries for them: every weight is where a scan looks for it, and the bounds of sums hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.backends.shared import posting_windows
from pyengine.backends.shared.posting_windows import RUN, Windows, windows
from pyengine.backends.shared.window_queries import WindowQueries, window_queries
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseDocuments, SparseProblem, TermRows
from pyengine.specification import reference_sparse
from pyengine.types import F64, I64
from tests.sparse_cases import WEIGHTS, prepared, problem, rows_of_any_weights


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting_windows, "WINDOW", 16)


def made_of(docs: SparseDocuments) -> Windows:
    return windows(len(docs), docs.rows.decoded)


def levels(made: Windows) -> F64:
    """float64 [N, T]: the levels that a scan would find, each added where it stands."""
    found = np.zeros((made.n_windows * 16, len(made.names)))
    for number, (first, held) in enumerate(zip(made.first, made.held)):
        for window, start, fours in made.segments[:, first : first + held].T:
            words = made.postings[4 * start : 4 * (start + fours)]
            level = words.view(np.int32) >> 16
            assert (np.count_nonzero(level) > 4 * fours - 4).all()
            docs = (words & 0xFFFC) >> 2
            assert len(np.unique(docs[level != 0])) == np.count_nonzero(level)
            np.add.at(found, (16 * window + docs, number), level)
    return found[: made.n_docs]


def sums(asked: WindowQueries, made: Windows) -> I64:
    """int64 [Q, N]."""
    found, each = np.zeros((len(asked.units), made.n_docs)), levels(made)
    for q in range(len(found)):
        for place in range(*asked.offsets[q : q + 2]):
            (number,) = np.flatnonzero((made.first == asked.first[place]) & (made.held == asked.held[place]))
            found[q] += asked.factors[place] * each[:, number]
    return found.astype(np.int64)


@pytest.mark.parametrize("weights", ["plain", *WEIGHTS])
def test_levels_are_the_weights(weights: str) -> None:
    docs = problem(values=WEIGHTS.get(weights), n_docs=90, longest=20).docs
    made, rows = made_of(docs), docs.sparse_rows()
    dense = np.zeros((90, rows.n_terms))
    dense[np.repeat(np.arange(90), rows.lengths), rows.indices] = rows.values
    assert made.names.tolist() == np.unique(rows.indices).tolist()
    found = levels(made)
    assert ((found != 0) == (dense[:, made.names] != 0)).all()
    assert (np.abs(found) <= made.largest).all()
    assert (made.largest <= 1 << posting_windows.LEVEL_BITS).all()
    assert (np.abs(dense[:, made.names] - found * made.scales) <= made.residuals).all()
    far = weights in ("far_apart", "all_magnitudes", "tiny")  # levels of 1 that stand for less
    assert (made.residuals <= made.scales * (1 if far else 0.5)).all()
    assert made.signed == bool((rows.values < 0).any())


@pytest.mark.parametrize("count", [0, 1, 4, 5, RUN - 1, RUN, RUN + 1, 3 * RUN + 77])
def test_neighbouring_threads_have_neighbouring_postings(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting_windows, "WINDOW", 1 << 14)
    made = made_of(SparseDocuments(TermRows.of(SparseRows(np.arange(count + 1), np.zeros(count, np.int32), None, 1))))
    docs = ((made.postings & 0xFFFC) >> 2).reshape(-1, 4)
    assert len(docs) == -(-count // 4)
    for run in range(0, len(docs), RUN // 4):
        lanes = docs[run : run + RUN // 4]
        held = (made.postings != 0).reshape(-1, 4)[run : run + RUN // 4]
        assert (np.diff(lanes, axis=0)[held[1:]] == 1).all()
    assert sorted(docs.ravel()[made.postings != 0]) == list(range(count))


@pytest.mark.parametrize("weights", ["plain", *WEIGHTS])
@pytest.mark.parametrize("bias", [None, 0.0, 1e-30, 1.0, 1e38])
def test_bounds_hold(weights: str, bias: float | None) -> None:
    """Of every pair: as the kernel computes them, in float32."""
    asked = problem(values=WEIGHTS.get(weights), n_docs=90, longest=30, n_terms=70)
    biases = None if bias is None else bias * np.random.default_rng(0).standard_normal(90)
    check_bounds(asked, biases)


@given(rows_of_any_weights(3), rows_of_any_weights(20), st.booleans())
def test_bounds_of_any_rows_hold(queries: SparseRows, docs: SparseRows, biased: bool) -> None:
    bias = np.linspace(-1e20, 1e20, 20) if biased else None
    check_bounds(prepared(queries, docs, 1, "rows"), bias)


def check_bounds(asked: SparseProblem, bias: F64 | None) -> None:
    made = made_of(asked.docs)
    coded = window_queries(asked.queries, made, bias)
    found = sums(coded, made)
    assert (np.abs(found) < 1 << 31).all()
    middle, gap = found.astype(np.float32), coded.slack[:, None]
    if bias is not None:
        added = bias.astype(np.float32) * coded.inverse[:, None]
        assert np.isfinite(added).all()
        middle, gap = middle + added, gap + np.float32(2.0**-20) * np.abs(added)
    scores = reference_sparse.unrounded_scores(asked.queries, asked.docs.sparse_rows(), bias) / coded.units[:, None]
    assert (scores <= (middle + gap).astype(np.float64)).all()
    assert (scores >= (middle - gap).astype(np.float64)).all()
    if bias is None and not coded.signed:
        shared = reference_sparse.unrounded_scores(asked.queries, asked.docs.sparse_rows(), None) > 0
        assert ((found > 0) == shared).all()


def test_bounds_are_narrow() -> None:
    """Within a thousandth of what a score may be at most; and of whole numbers the sums are the scores."""
    asked = problem(n_docs=90, longest=40, n_terms=60)
    made = made_of(asked.docs)
    assert (window_queries(asked.queries, made, None).slack < 2e-3 * 2**30).all()
    for weights in ("ties", "binary"):
        asked = problem(values=WEIGHTS[weights], n_docs=90)
        assert not window_queries(asked.queries, made_of(asked.docs), None).slack.any()


def test_the_most_terms_do_not_wrap() -> None:
    """Of a query whose terms all are far below the first, and count 1 each."""
    count = 1 << 16
    weights = np.full(count, 1e-30, np.float32)
    weights[0] = 1.0
    asked = SparseRows([0, count], np.arange(count), weights, count)
    docs = SparseRows([0, count], np.arange(count), np.full(count, 3.9999, np.float32), count)
    made = made_of(SparseDocuments(TermRows.of(docs)))
    coded = window_queries(asked, made, None)
    assert (coded.factors >= 1).all()
    assert (coded.factors * made.largest).sum() < 1 << 31

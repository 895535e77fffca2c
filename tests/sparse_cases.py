"""What the tests of sparse rows on GPUs share: problems, of weights and options of all kinds, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyengine import SparseIndex, conformance
from pyengine.backends import registry
from pyengine.conformance.conformance_sparse import documents, rows
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.refining import exact
from pyengine.searches import sparse
from pyengine.searches.search import exact_search
from pyengine.specification import reference_sparse
from pyengine.types import Candidates

Values = Callable[[np.random.Generator, int], Any]


def gamma(rng: np.random.Generator, count: int) -> Any:
    return rng.gamma(2.0, 0.5, count) + 0.01


def problem(
    n_docs: int = 150, n_queries: int = 2, n_terms: int = 60, longest: int = 9, k: int = 5, store: str = "float32",
    values: Values | None = None, seed: int = 0, **options: Any,
) -> SparseProblem:  # fmt: skip
    rng = np.random.default_rng(seed)
    queries, docs = (rows(rng, n, longest, n_terms, values or gamma) for n in (n_queries, n_docs))
    return prepared(queries, docs, k, store, **options)


def prepared(queries: SparseRows, docs: SparseRows, k: int, store: str = "float32", **options: Any) -> SparseProblem:
    filters = FilterArguments(**{name: options.pop(name) for name in FilterArguments._fields if name in options})
    return sparse.prepare(queries, documents(docs, store), k, filters=filters, **options)


def check(asked: SparseProblem, name: str) -> None:
    """What that backend proposes keeps the contract, and its answer is the specification's."""
    backend = registry.of_family(name, "sparse")
    places = asked.asking(asked.places())
    with exact.arithmetic():
        conformance.check_candidates(places, backend.propose(places, places.k), conformance.rank_scores(places))
        conformance.same(exact_search(asked, backend), conformance.specified(asked), "topk")


def scaled(low: float, high: float) -> Values:
    return lambda rng, count: rng.choice([-1, 1], count) * rng.uniform(low, high, count)


WEIGHTS: dict[str, Values] = {
    "signed": lambda rng, count: rng.standard_normal(count),
    "ties": lambda rng, count: rng.integers(1, 3, count),
    "binary": lambda rng, count: np.ones(count),
    "constant": lambda rng, count: np.full(count, 0.3),
    "cancelling": lambda rng, count: rng.choice([-1.0, 1.0], count),
    "huge": scaled(1e38, 3.4e38),
    "tiny": scaled(1e-45, 1e-38),
    "far_apart": lambda rng, count: rng.choice([1e-25, 1e-19, 1e-3, 4.0], count),
    "all_magnitudes": lambda rng, count: rng.standard_normal(count) * 10.0 ** rng.uniform(-37, 37, count),
}


OPTIONS: dict[str, dict[str, Any]] = {
    "k>N": {"k": 160},
    "k=1": {"k": 1},
    "mask": {"mask": np.arange(150) % 3 == 0},
    "tiles_masked": {"mask": np.arange(150) > 140},
    "none_allowed": {"mask": np.zeros(150, bool)},
    "mask_per_query": {"mask": np.arange(300).reshape(2, 150) % 7 < 3},
    "bias": {"bias": np.random.default_rng(1).standard_normal(150)},
    "bias_small": {"bias": 1e-9 * np.random.default_rng(1).standard_normal(150)},
    "bias_huge": {"bias": np.random.default_rng(1).choice([-1e30, -3.4e38, 1e300], 150)},
    "threshold": {"threshold": 0.4},
    "after": {"after": (np.array([1.0, 0.5], np.float32), np.array([3, 9]))},
    "exclude": {"exclude": [np.arange(40), np.arange(0)]},
    "ids": {"ids": np.random.default_rng(1).permutation(150) * 3 + (1 << 40)},
}


def of_a_million_terms() -> SparseProblem:
    rng = np.random.default_rng(3)
    names = np.sort(rng.choice(1_000_000, 90, replace=False))
    queries, docs = (
        SparseRows(each.indptr, names[each.indices], each.values, 1_000_000)
        for each in (rows(rng, 3, 9, 90), rows(rng, 130, 9, 90))
    )
    return prepared(queries, docs, 10)


def with_few_matches(sign: int) -> SparseProblem:
    """Fewer than k: documents of score 0 fill up, and come before those of negative scores."""
    rng = np.random.default_rng(4)
    queries, docs = rows(rng, 3, 4, 400), rows(rng, 140, 5, 400)
    signed = SparseRows(queries.indptr, queries.indices, sign * queries.values, 400)
    return prepared(signed, docs, 20, ids=None if sign > 0 else rng.permutation(140))


def with_empty(queries: bool) -> SparseProblem:
    """Only empty rows, of queries or else of documents."""
    rng = np.random.default_rng(5)
    longest = (0, 5) if queries else (5, 0)
    return prepared(rows(rng, 2, longest[0], 9), rows(rng, 70, longest[1], 9), 5)


def check_overlaps(asked: SparseProblem, got: Candidates) -> None:
    """Of binary rows: the sums are the scores, and nothing that shares no term is listed."""
    scores = reference_sparse.scores(asked.queries, asked.docs.sparse_rows())
    for q, own in enumerate(scores):
        span = slice(*got.offsets[q : q + 2])
        assert sorted(got.rows[span]) == np.flatnonzero(own).tolist()
        assert (got.estimates[span] == own[got.rows[span]]).all()


def check_refined(name: str, store: str, options: dict[str, Any]) -> None:
    """Scores of listed pairs have the specification's bits."""
    asked = problem(store=store, values=WEIGHTS["signed"], **options)
    offsets = np.array([0, 150, 150 + 37])
    chosen = np.concatenate([np.arange(150)[::-1], np.arange(37) * 4])
    got = registry.of_family(name, "sparse").refine(
        asked, Candidates(chosen, offsets, np.full(187, np.nan, np.float32), np.zeros(2))
    )
    want = reference_sparse.scores(asked.queries, asked.docs.sparse_rows(), asked.bias)
    owner = np.repeat([0, 1], np.diff(offsets))
    assert got.tobytes() == want[owner, chosen].tobytes()


def check_bounds(scores: NDArray[np.float64], units: Any, pools: Sequence[np.ndarray], narrow: bool) -> None:
    """Of every document, in pools of row numbers, upper and lower bounds [Q, N] and counts [Q], in ``units``."""
    numbers, upper, lower, counts = pools
    assert (counts == scores.shape[1]).all()
    for q, own in enumerate(scores):
        score = own[numbers[q]] / units[q]
        assert (lower[q] <= score).all()
        assert (score <= upper[q]).all()
        if narrow:
            assert (upper[q] - lower[q] <= 4e-3 * score.max()).all()


def check_an_index_that_changes(name: str) -> None:
    rng = np.random.default_rng(6)
    index = SparseIndex(n_terms=50)
    index.add(rows(rng, 100, 8, 50))
    queries = rows(rng, 2, 8, 50)
    index.remove(np.arange(0, 100, 3))
    for _ in range(2):
        got, want = (index.search(queries, 6, backend=each) for each in (name, "numpy"))
        conformance.same(got, want, "search")
        index.add(rows(rng, 30, 8, 50))


@st.composite
def rows_of_any_weights(draw: st.DrawFn, n_rows: int) -> SparseRows:
    weights = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, -1.0, 0.5, 2.0])
    each = draw(st.lists(st.dictionaries(st.integers(0, 11), weights, max_size=8), min_size=n_rows, max_size=n_rows))
    return SparseRows.of(each, 12)

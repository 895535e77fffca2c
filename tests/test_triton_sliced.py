"""Sliced vectors in Triton against the specification: on a GPU if there is one, else in the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyengine import conformance
from pyengine.backends import registry
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.sliced_plan import BLOCKS, TILE, plan_sliced
from pyengine.problems.problem_sliced import SlicedDocuments, SlicedProblem
from pyengine.refining import exact
from pyengine.searches import sliced
from pyengine.searches.search import exact_search
from pyengine.specification import reference_sliced
from pyengine.types import Candidates

Values = Callable[[np.random.Generator, tuple[int, int]], Any]
kernels = pytest.mark.usefixtures("interpreter", "poison")


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> Any:
    return rng.standard_normal(shape)


def problem(
    n_docs: int = 150, n_queries: int = 2, dim: int = 7, indices: int = 3, k: int = 5, values: Values = normal,
    **options: Any,
) -> SlicedProblem:  # fmt: skip
    rng = np.random.default_rng(0)
    queries, docs = (SlicedRows(values(rng, (n, dim)), rng.integers(0, indices, (n, dim))) for n in (n_queries, n_docs))
    return prepared(queries, docs, k, **options)


def prepared(queries: SlicedRows, docs: SlicedRows, k: int, **options: Any) -> SlicedProblem:
    filters = FilterArguments(**{name: options.pop(name) for name in ("after", "threshold") if name in options})
    return sliced.prepare(queries, SlicedDocuments(docs, cache=docs.cache), k, filters=filters, **options)


def check(asked: SlicedProblem) -> None:
    """What is proposed keeps the contract, and the answer is the specification's."""
    backend = registry.of_family("triton", "sliced")
    places = asked.asking(asked.places())
    with exact.arithmetic():
        conformance.check_candidates(places, backend.propose(places, places.k), conformance.rank_scores(places))
        conformance.same(exact_search(asked, backend), conformance.specified(asked), "topk")


VALUES: dict[str, Values] = {
    "lexical": lambda rng, shape: np.log1p(np.maximum(0, rng.standard_normal(shape))),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape),
    "zeros": lambda rng, shape: np.zeros(shape),
    "some_rows": lambda rng, shape: rng.standard_normal(shape) * (rng.random((shape[0], 1)) < 0.3),
    "all_magnitudes": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.uniform(-37, 37, (shape[0], 1)),
    "huge": lambda rng, shape: 3.4e38 * rng.uniform(-1, 1, shape),
    "tiny": lambda rng, shape: 1e-38 * rng.uniform(-1, 1, shape),
    "subnormal": lambda rng, shape: 3e-44 * rng.uniform(-1, 1, shape),
}


@kernels
@pytest.mark.parametrize("values", VALUES)
def test_weights_of_all_kinds(values: str) -> None:
    check(problem(values=VALUES[values], n_docs=100))


@kernels
@pytest.mark.parametrize("n_docs", [0, 1, TILE - 1, TILE, TILE + 1])
def test_numbers_of_documents(n_docs: int) -> None:
    check(problem(n_docs=n_docs))


@kernels
@pytest.mark.parametrize("n_queries", [0, BLOCKS[0] + 1])
def test_numbers_of_queries(n_queries: int) -> None:
    check(problem(n_docs=70, n_queries=n_queries))


@kernels
@pytest.mark.parametrize(("dim", "indices"), [(1, 3), (4, 1), (33, 2), (37, 256)])
def test_numbers_of_slices(dim: int, indices: int) -> None:
    check(problem(n_docs=70, dim=dim, indices=indices))


OPTIONS: dict[str, dict[str, Any]] = {
    "k>N": {"k": 160},
    "mask": {"mask": np.arange(150) % 3 == 0},
    "tiles_masked": {"mask": np.arange(150) > 140},
    "mask_per_query": {"mask": np.arange(300).reshape(2, 150) % 7 < 3},
    "bias": {"bias": np.random.default_rng(1).standard_normal(150)},
    "bias_huge": {"bias": np.random.default_rng(1).choice([-1e30, -3.4e38, 1e300], 150)},
    "threshold": {"threshold": 0.4},
    "after": {"after": (np.array([1.0, 0.5], np.float32), np.array([3, 9]))},
    "ids": {"ids": np.random.default_rng(1).permutation(150) * 3 + (1 << 40)},
}


@kernels
@pytest.mark.parametrize("options", OPTIONS)
def test_options(options: str) -> None:
    check(problem(**OPTIONS[options]))


@kernels
def test_levels_and_full_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyengine.backends import triton_pools

    monkeypatch.setattr(triton_pools, "ROOM", 2)
    check(problem(n_docs=700, n_queries=1, k=30))


@kernels
@pytest.mark.parametrize("values", ["lexical", "all_magnitudes"])
def test_bounds_hold(values: str) -> None:
    """Of every document, one by one, and they are not much too wide where weights are ordinary."""
    from pyengine.backends import triton_sliced

    asked = problem(values=VALUES[values], dim=40, k=150)
    found = triton_sliced.scanned(asked, 150)
    scores = reference_sliced.unrounded_scores(asked.queries, asked.docs.rows)
    rows, upper, lower = (each.cpu().numpy() for each in found.pools[:3])
    assert (found.counts().cpu().numpy() == 150).all()
    for q, own in enumerate(scores):
        score = own[rows[q]] / found.units[q]
        assert (lower[q] <= score).all()
        assert (score <= upper[q]).all()
        if values == "lexical":
            sizes = np.linalg.norm(asked.queries.values[q]) * np.linalg.norm(asked.docs.rows.values, axis=1)
            assert (upper[q] - lower[q] <= 0.003 * sizes[rows[q]] / found.units[q]).all()


@kernels
@pytest.mark.parametrize("bias", [None, "bias_huge"])
def test_refined_scores_are_the_specifications(bias: str | None) -> None:
    asked = problem(dim=9, **({} if bias is None else OPTIONS[bias]))
    offsets = np.array([0, 150, 150 + 37])
    chosen = np.concatenate([np.arange(150)[::-1], np.arange(37) * 4])
    listed = Candidates(chosen, offsets, np.full(187, np.nan, np.float32), np.zeros(2))
    got = registry.of_family("triton", "sliced").refine(asked, listed)
    want = reference_sliced.scores(asked.queries, asked.docs.rows, asked.bias)
    assert got.tobytes() == want[np.repeat([0, 1], np.diff(offsets)), chosen].tobytes()


@st.composite
def vectors(draw: st.DrawFn, n_rows: int) -> SlicedRows:
    weights = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, -1.0, 0.0])
    each = draw(st.lists(weights, min_size=5 * n_rows, max_size=5 * n_rows))
    slices = draw(st.lists(st.integers(0, 2), min_size=5 * n_rows, max_size=5 * n_rows))
    return SlicedRows(np.array(each, np.float32).reshape(n_rows, 5), np.array(slices).reshape(n_rows, 5))


@kernels
@settings(max_examples=4)
@given(queries=vectors(2), docs=vectors(20), k=st.integers(1, 25))
def test_any_vectors(queries: SlicedRows, docs: SlicedRows, k: int) -> None:
    check(prepared(queries, docs, k))


def test_a_plan_says_why() -> None:
    few, many = (plan_sliced(n_queries, 10_000, 768, CHIPS["sm_90"]) for n_queries in (1, 200))
    assert (few.block, many.block) == BLOCKS
    assert few.rejected == {"block 64": "there are only 1 queries, which 16 hold"}
    assert many.rejected == {"block 16": "200 queries would read the documents 13 times"}
    assert many.operations == 3 * 10_000 * 768 * 256


def test_too_many_slices_are_refused() -> None:
    pytest.importorskip("torch")
    asked = problem(n_docs=1, n_queries=1, dim=70_000)
    reasons = registry.of_family("triton", "sliced").refusals(asked)
    assert reasons == ["its kernels take at most 65,536 dimensions, and 70,000 are scored"]

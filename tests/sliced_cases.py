"""What the tests of sliced vectors on GPUs share: problems, of weights and options of all kinds, and their checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pyengine import conformance
from pyengine.backends import registry
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.problems.problem_sliced import SlicedDocuments, SlicedProblem
from pyengine.refining import exact
from pyengine.searches import sliced
from pyengine.searches.search import exact_search
from pyengine.specification import reference_sliced
from pyengine.types import Candidates

Values = Callable[[np.random.Generator, tuple[int, int]], Any]


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
    filters = FilterArguments(**{name: options.pop(name) for name in FilterArguments._fields if name in options})
    return sliced.prepare(queries, SlicedDocuments(docs, cache=docs.cache), k, filters=filters, **options)


def check(asked: SlicedProblem, name: str) -> None:
    """What that backend proposes keeps the contract, and its answer is the specification's."""
    backend = registry.of_family(name, "sliced")
    places = asked.asking(asked.places())
    with exact.arithmetic():
        conformance.check_candidates(places, backend.propose(places, places.k), conformance.rank_scores(places))
        conformance.same(exact_search(asked, backend), conformance.specified(asked), "topk")


def check_refined(name: str, options: dict[str, Any]) -> None:
    """Scores of listed pairs have the specification's bits."""
    asked = problem(dim=9, **options)
    offsets = np.array([0, 150, 150 + 37])
    chosen = np.concatenate([np.arange(150)[::-1], np.arange(37) * 4])
    listed = Candidates(chosen, offsets, np.full(187, np.nan, np.float32), np.zeros(2))
    got = registry.of_family(name, "sliced").refine(asked, listed)
    want = reference_sliced.scores(asked.queries, asked.docs.rows, asked.bias)
    assert got.tobytes() == want[np.repeat([0, 1], np.diff(offsets)), chosen].tobytes()


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


@st.composite
def vectors(draw: st.DrawFn, n_rows: int) -> SlicedRows:
    weights = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, -1.0, 0.0])
    each = draw(st.lists(weights, min_size=5 * n_rows, max_size=5 * n_rows))
    slices = draw(st.lists(st.integers(0, 2), min_size=5 * n_rows, max_size=5 * n_rows))
    return SlicedRows(np.array(each, np.float32).reshape(n_rows, 5), np.array(slices).reshape(n_rows, 5))

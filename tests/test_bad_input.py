"""What goes in that should not: one row each, and each is refused in one sentence that names the argument, says what it
was and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import pyengine
from pyengine import DenseIndex, TopK, topk
from pyengine.specification import reference
from tests.input_cases import (
    DOCS,
    QUERIES,
    RNG,
    D,
    K,
    N,
    Q,
    filled,
    needs_torch,
    refused,
    tensor,
    unchanged,
    with_value,
)

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]


NOT_ROWS: dict[str, tuple[Callable[[], Any], type[Exception], tuple[str, ...]]] = {
    "object": (lambda: DOCS.astype(object), TypeError, ("real numbers", "object")),
    "string": (lambda: DOCS.astype(str), TypeError, ("real numbers", "<U32")),
    "bytes": (lambda: b"abc", TypeError, ("real numbers", "S3")),
    "complex": (lambda: DOCS + 1j, TypeError, ("real numbers", "complex64")),
    "bool": (lambda: DOCS > 0, TypeError, ("real numbers", "bool")),
    "dates": (lambda: np.zeros((N, D), "M8[D]"), TypeError, ("real numbers", "datetime64")),
    "records": (lambda: np.zeros(N, [("a", "f4")]), TypeError, ("real numbers", "<f4")),
    "nothing": (lambda: None, TypeError, ("real numbers", "object")),
    "a generator": (lambda: (row for row in DOCS), TypeError, ("real numbers", "object")),
    "a ragged list": (lambda: [[1, 2, 3, 4], [5]], TypeError, ("array of numbers", "list")),
    "integers beyond 64 bits": (lambda: [[10**400] * D], TypeError, ("real numbers", "object")),
    "a masked array": (lambda: np.ma.masked_greater(DOCS, 0), TypeError, ("array of numbers", "masked")),
    "a number": (lambda: 3.0, ValueError, ("[n, D]", "()")),
    "one vector": (lambda: DOCS[0], ValueError, ("[n, D]", f"({D},)")),
    "three axes": (lambda: DOCS[None], ValueError, ("[n, D]", f"(1, {N}, {D})")),
    "no dimensions": (lambda: DOCS[:, :0], ValueError, ("D >= 1", f"({N}, 0)")),
    "an empty list": (lambda: [], ValueError, ("[n, D]", "(0,)")),
    "NaN": (lambda: with_value(DOCS, 3, np.nan), ValueError, ("finite", "row 3")),
    "infinity": (lambda: with_value(DOCS, 5, np.inf), ValueError, ("finite", "row 5")),
    "minus infinity": (lambda: with_value(DOCS, 0, -np.inf), ValueError, ("finite", "row 0")),
    "NaN in float16": (lambda: with_value(DOCS, 2, np.nan).astype(np.float16), ValueError, ("finite", "row 2")),
    "beyond float32": (lambda: DOCS.astype(np.float64) + 1e39 * np.eye(N, D, -4), ValueError, ("float32", "row 4")),
}
NOT_TENSORS: dict[str, tuple[Callable[[], Any], type[Exception], tuple[str, ...]]] = {
    "complex": (lambda: tensor(DOCS) + 1j, TypeError, ("real numbers", "complex64")),
    "bool": (lambda: tensor(DOCS) > 0, TypeError, ("real numbers", "bool")),
    "sparse": (lambda: tensor(DOCS).to_sparse(), TypeError, ("dense tensor", "torch.sparse_coo")),
    "without memory": (lambda: tensor(DOCS).to("meta"), TypeError, ("dense tensor", "meta")),
    "one vector": (lambda: tensor(DOCS[0]), ValueError, ("[n, D]", f"({D},)")),
    "NaN in bfloat16": (lambda: tensor(with_value(DOCS, 4, np.nan)).bfloat16(), ValueError, ("finite", "row 4")),
}
BAD_ROWS = [pytest.param(*row, id=name) for name, row in NOT_ROWS.items()] + [
    pytest.param(*row, id=f"tensor: {name}", marks=needs_torch) for name, row in NOT_TENSORS.items()
]


@pytest.mark.parametrize(("make", "error", "says"), BAD_ROWS)
def test_documents_that_are_not(
    engine: str, make: Callable[[], Any], error: type[Exception], says: tuple[str, ...]
) -> None:
    refused(lambda: topk(QUERIES, make(), K, backend=engine), error, "docs", *says)


@pytest.mark.parametrize(("make", "error", "says"), BAD_ROWS)
def test_queries_that_are_not(make: Callable[[], Any], error: type[Exception], says: tuple[str, ...]) -> None:
    refused(lambda: topk(make(), DOCS, K), error, "queries", *says)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", reference.METRICS)
def test_a_row_that_is_not_finite_is_found_wherever_it_is(engine: str, metric: str, bad: float) -> None:
    """Among many, beyond ``dims``, where the mask forbids it, and when nobody asks."""
    docs = RNG.standard_normal((1003, 70)).astype(np.float32)
    queries = docs[:3].copy()
    mask = np.arange(1003) != 1001
    ways: list[dict[str, Any]] = [
        {"dims": 70}, {"dims": 2}, {"mask": mask}, {"k": 2000}, {"num_threads": 3}, {"precision": "fast"},
        {"queries": queries[:0]},
    ]  # fmt: skip
    for row, column in ((0, 0), (517, 69), (1001, 64), (1002, 3)):
        spoilt = docs.copy()
        spoilt[row, column] = bad
        for way in ways:
            search = partial(topk, docs=spoilt, metric=metric, backend=engine, **{"queries": queries, **way})
            refused(search, ValueError, "docs", f"row {row} ")


BAD_ARGUMENTS: list[tuple[str, Any, type[Exception], tuple[str, ...]]] = [
    ("k", 0, ValueError, ("positive integer", "got 0")),
    ("k", -1, ValueError, ("positive integer", "got -1")),
    ("k", True, ValueError, ("positive integer", "True")),
    ("k", np.True_, TypeError, ("positive integer", "True")),
    ("k", 1.0, TypeError, ("positive integer", "1.0")),
    ("k", "3", TypeError, ("positive integer", "'3'")),
    ("k", None, TypeError, ("positive integer", "None")),
    ("k", 2**70, ValueError, ("positive integer below 2^31", str(2**70))),
    ("num_threads", 0, ValueError, ("positive integer", "got 0")),
    ("num_threads", -3, ValueError, ("positive integer", "got -3")),
    ("num_threads", 1.5, TypeError, ("positive integer", "1.5")),
    ("num_threads", True, ValueError, ("positive integer", "True")),
    ("dims", 0, ValueError, ("positive integer", "got 0")),
    ("dims", -1, ValueError, ("positive integer", "got -1")),
    ("dims", D + 1, ValueError, (f"at most the {D} dimensions", f"got {D + 1}")),
    ("dims", 2.0, TypeError, ("positive integer", "2.0")),
    ("dims", True, ValueError, ("positive integer", "True")),
    ("queries", QUERIES[:, :3], ValueError, (f"{D} dimensions", f"({Q}, 3)")),
    ("mask", np.ones(N - 1, bool), ValueError, (f"({N},)", f"({N - 1},)")),
    ("mask", np.ones((Q + 1, N), bool), ValueError, (f"({Q}, {N})", f"({Q + 1}, {N})")),
    ("mask", True, ValueError, (f"({N},)", "()")),
    ("mask", np.ones(N, np.uint8), ValueError, ("(1,)", "bitmap bytes", f"({N},)")),
    ("mask", np.ones(N, np.int64), TypeError, ("bool", "int64")),
    ("mask", np.ones(N), TypeError, ("bool", "float64")),
    ("mask", [1, 0, 1, 0, 1, 0], TypeError, ("bool", "int64")),
    ("mask", "yes", TypeError, ("bool", "<U3")),
    ("bias", np.ones(N - 1), ValueError, (f"({N},)", f"({N - 1},)")),
    ("bias", np.ones((Q, N)), ValueError, (f"({N},)", f"({Q}, {N})")),
    ("bias", 1.0, ValueError, (f"({N},)", "()")),
    ("bias", [0, 0, np.nan, 0, 0, 0], ValueError, ("finite", "entry 2 is nan")),
    ("bias", [0, 0, 0, 0, 0, np.inf], ValueError, ("finite", "entry 5 is inf")),
    ("bias", [True] * N, TypeError, ("real numbers", "bool")),
    ("bias", ["a"] * N, TypeError, ("real numbers", "<U1")),
    ("bias", np.ones(N) * 1j, TypeError, ("real numbers", "complex128")),
    ("allow", [1, 60], ValueError, ("ids of documents", "unknown")),
    ("allow", [-1], ValueError, ("ids of documents", "got -1")),
    ("allow", np.array([2**63], np.uint64), ValueError, ("ids of documents", str(2**63))),
    ("allow", [[1]], ValueError, ("[n]", "(1, 1)")),
    ("allow", 1, ValueError, ("[n]", "()")),
    ("allow", [1.0], TypeError, ("integers", "float64")),
    ("allow", np.ones(N, bool), TypeError, ("integers", "bool")),
    ("deny", ["a"], TypeError, ("integers", "<U1")),
    ("deny", [[1]], ValueError, ("[n]", "(1, 1)")),
    ("exclude", [[1]], ValueError, (f"one list of ids per query, {Q}", "got 1")),
    ("exclude", np.ones((Q + 1, 2), int), ValueError, (f"one list of ids per query, {Q}", f"got {Q + 1}")),
    ("exclude", np.ones(Q, int), ValueError, ("[Q, E]", f"({Q},)")),
    ("exclude", 3, ValueError, ("a list of id arrays", "()")),
    ("exclude", np.ones((Q, 2)), TypeError, ("integers", "float64")),
    ("groups", np.ones(N - 1, int), ValueError, (f"({N},)", f"({N - 1},)")),
    ("groups", np.ones((Q, N), int), ValueError, (f"({N},)", f"({Q}, {N})")),
    ("groups", np.ones(N), TypeError, ("integers", "float64")),
    ("groups", ["a"] * N, TypeError, ("integers", "<U1")),
    ("per_group", 2, ValueError, ("come with groups", "per_group=2")),
    ("per_group", 0, ValueError, ("positive integer", "got 0")),
    ("after", 3, TypeError, ("a TopK, or a pair", "int")),
    ("after", np.ones((2, Q)), TypeError, ("a TopK, or a pair", "ndarray")),
    ("after", (np.ones(Q), np.ones(Q)), TypeError, ("integers", "float64")),
    ("after", (np.ones(Q + 1), np.ones(Q, int)), ValueError, (f"({Q},)", f"({Q + 1},)")),
    ("after", (np.ones(Q), np.ones((Q, 1), int)), ValueError, (f"({Q},)", f"({Q}, 1)")),
    ("after", (np.array([1, np.nan]), np.ones(Q, int)), ValueError, ("NaN", "1 such")),
    ("after", TopK(np.ones(Q), np.ones(Q, int), None), ValueError, ("[Q, K]", f"({Q},)")),
    ("after", TopK(None, None, None), ValueError, ("[Q, K]", "()")),
    ("after", TopK(np.ones((Q, 0)), np.ones((Q, 0), int), None), ValueError, ("[Q, K]", f"({Q}, 0)")),
    ("threshold", np.nan, ValueError, ("NaN", "1 such")),
    ("threshold", np.ones(Q + 1), ValueError, (f"({Q},)", f"({Q + 1},)")),
    ("threshold", "high", TypeError, ("real numbers", "<U4")),
    ("threshold", True, TypeError, ("real numbers", "bool")),
    ("rescore", 2, ValueError, ("precision='fast'", "rescore=2", "'exact'")),
    ("precision", "approximate", ValueError, ("'exact', 'fast'", "'approximate'")),
    ("precision", None, ValueError, ("'exact', 'fast'", "None")),
    ("backend", "cuda-please", ValueError, ("'auto' or one of", "'numpy'", "'cuda-please'")),
    ("backend", 3, TypeError, ("a name", "got 3")),
]
ids_of_arguments = [f"{name}={value!r:.30}" for name, value, *_ in BAD_ARGUMENTS]


@pytest.mark.parametrize(("name", "value", "error", "says"), BAD_ARGUMENTS, ids=ids_of_arguments)
def test_bad_arguments(name: str, value: Any, error: type[Exception], says: tuple[str, ...]) -> None:
    arguments = {"queries": QUERIES, "k": K, name: value}
    refused(lambda: topk(docs=DOCS, **arguments), error, name, *says)
    index = filled()
    refused(lambda: index.search(**arguments), error, name, *says)
    unchanged(index)


@pytest.mark.parametrize("value", [[1.0, 2.0], [[1], []], "ab"])
def test_exclude_names_the_list(value: Any) -> None:
    wrong = [[0], value]
    refused(lambda: topk(QUERIES, DOCS, exclude=wrong), (TypeError, ValueError), r"exclude\[1\]", "got")


@pytest.mark.parametrize(
    ("rescore", "error"), [(0, ValueError), (-1, ValueError), (True, ValueError), (1.5, TypeError)]
)
def test_rescore_so_many_times_k(rescore: Any, error: type[Exception]) -> None:
    search = partial(topk, QUERIES, DOCS, precision="fast", rescore=rescore)
    refused(search, error, "rescore", "positive integer", repr(rescore))


BAD_TARGETS: list[tuple[Any, type[Exception], tuple[str, ...]]] = [
    ([0, 60], ValueError, ("ids of documents", "got 60")),
    ([0, -1], ValueError, ("ids of documents", "got -1")),
    ([0], ValueError, (f"({Q},)", "(1,)")),
    (0, ValueError, (f"({Q},)", "()")),
    (np.zeros((Q, 1, 1), int), ValueError, (f"({Q}, T)", f"({Q}, 1, 1)")),
    ([0.0, 1.0], TypeError, ("integers", "float64")),
    (None, TypeError, ("integers", "object")),
]


@pytest.mark.parametrize(("targets", "error", "says"), BAD_TARGETS)
def test_targets_that_are_not(targets: Any, error: type[Exception], says: tuple[str, ...]) -> None:
    refused(lambda: pyengine.rank_of(QUERIES, DOCS, targets), error, "targets", *says)
    refused(lambda: filled().rank_of(QUERIES, targets), error, "targets", *says)


@pytest.mark.parametrize(("threshold", "error"), [(None, TypeError), (np.nan, ValueError), ("a", TypeError)])
def test_a_range_without_a_threshold(threshold: Any, error: type[Exception]) -> None:
    refused(lambda: pyengine.range_search(QUERIES, DOCS, threshold), error, "threshold")
    refused(lambda: filled().range_search(QUERIES, threshold), error, "threshold")


def test_documents_with_nan_have_no_range_and_no_rank(engine: str) -> None:
    spoilt = with_value(DOCS, 3, np.nan)
    refused(lambda: pyengine.range_search(QUERIES, spoilt, 0, backend=engine), ValueError, "docs", "row 3")
    refused(lambda: pyengine.rank_of(QUERIES, spoilt, [0, 1], backend=engine), ValueError, "docs", "row 3")
    refused(lambda: pyengine.topk_both(QUERIES, spoilt, backend=engine), ValueError, "b", "row 3")
    refused(lambda: pyengine.topk_both(spoilt, QUERIES, backend=engine), ValueError, "a", "row 3")


def test_both_sides_have_one_dimension() -> None:
    refused(lambda: pyengine.topk_both(QUERIES, DOCS[:, :3]), ValueError, "b", f"{D} dimensions", f"({N}, 3)")


@pytest.mark.parametrize("metric", ["cos", "COSINE", None, ["dot"]])
def test_unknown_metric(metric: Any) -> None:
    refused(lambda: topk(QUERIES, DOCS, metric=metric), ValueError, "metric", "'cosine', 'dot', 'l2'", repr(metric))
    refused(lambda: DenseIndex(D, metric), ValueError, "metric", "'cosine', 'dot', 'l2'", repr(metric))


@pytest.mark.parametrize("name", ["store", "originals", "backend"])
@pytest.mark.parametrize("value", ["int3", "", None, 7])
def test_an_index_of_an_unknown_kind(name: str, value: Any) -> None:
    if name != "originals" or value is not None:  # no originals is a kind; not of float32, though
        options = {"store": "float32", name: value}
        refused(lambda: DenseIndex(D, **options), ValueError, name, "one of '", repr(value))


@pytest.mark.parametrize(
    ("path", "error"), [(5, TypeError), (None, TypeError), (b"x", TypeError), ("", ValueError), ("a\0b", ValueError)]
)
def test_a_path_that_is_none(path: Any, error: type[Exception]) -> None:
    refused(lambda: DenseIndex(D, store="float32").save(path), error, "path", repr(path))
    refused(lambda: pyengine.load(path), error, "path", repr(path))


@pytest.mark.parametrize(("dim", "error"), [(0, ValueError), (-2, ValueError), (True, ValueError), (2.5, TypeError)])
def test_an_index_without_dimensions(dim: Any, error: type[Exception]) -> None:
    refused(lambda: DenseIndex(dim, store="float32"), error, "dim", "positive integer", repr(dim))

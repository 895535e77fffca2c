"""What goes in that should not, or that looks as if it should not: one row each.

Each either gives the specified answer, or is refused in one sentence that names the argument, says what it was and
what was expected; and a call that failed has changed nothing.
"""

from __future__ import annotations

import array
import importlib.util
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import pyengine
from pyengine import DenseIndex, TopK, conformance, topk
from pyengine.specification import reference
from pyengine.types import F32

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]

Q, N, D, K = 2, 6, 4, 3
RNG = np.random.default_rng(0)
QUERIES: F32 = RNG.standard_normal((Q, D)).astype(np.float32)
DOCS: F32 = RNG.standard_normal((N, D)).astype(np.float32)
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")


def tensor(values: Any, **options: Any) -> Any:
    import torch

    return torch.tensor(values, **options)


def with_value(rows: F32, row: int, value: float) -> F32:
    changed: F32 = rows.copy()
    changed[row, 1] = value
    return changed


class Dlpack:
    """Nothing but the DLPack protocol."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class ArrayLike:
    """Nothing but ``__array__``."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return DOCS.astype(dtype or np.float32)


def refused(
    call: Callable[[], object], error: type[Exception] | tuple[type[Exception], ...], name: str, *says: str
) -> None:
    """The call raises one sentence: the argument, what it must be, what it was."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    kinds = error if isinstance(error, tuple) else (error,)
    assert type(caught.value) in kinds, f"{type(caught.value)} is not just {error}"
    assert re.fullmatch(rf"{name} must .+?; .+", message), message  # "." does not match a line break
    assert not re.search(r"\. [A-Z]", message), f"more than one sentence: {message}"
    assert all(part in message for part in says), f"{says} not all in: {message}"


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


def filled(store: str = "float32") -> DenseIndex:
    index = DenseIndex(D, "dot", store)
    index.add(DOCS, ids=np.arange(N) * 10)
    return index


def unchanged(index: DenseIndex) -> None:
    assert len(index) == N
    assert index.ids.tolist() == [0, 10, 20, 30, 40, 50]
    want = reference.topk(QUERIES, DOCS, N + 1, "dot", ids=np.arange(N) * 10)
    conformance.same(index.search(QUERIES, N + 1), want, "the index after a failed call")
    before = len(index)
    index.add(DOCS[:1])
    assert index.ids[before:].tolist() == [51], "the failed call used up ids"


BAD_CHANGES: dict[str, tuple[Callable[[DenseIndex], None], type[Exception], str, tuple[str, ...]]] = {
    "wrong dim": (lambda index: index.add(DOCS[:, :3]), ValueError, "vectors", (f"{D} dimensions", f"({N}, 3)")),
    "NaN": (lambda index: index.add(with_value(DOCS, 3, np.nan)), ValueError, "vectors", ("finite", "row 3")),
    "infinity": (lambda index: index.add(with_value(DOCS, 5, np.inf)), ValueError, "vectors", ("finite", "row 5")),
    "strings": (lambda index: index.add(DOCS.astype(str)), TypeError, "vectors", ("real numbers", "<U32")),
    "id there already": (lambda index: index.add(DOCS[:2], ids=[7, 30]), ValueError, "ids", ("new", "id 30 is in")),
    "id given twice": (lambda index: index.add(DOCS[:2], ids=[9, 9]), ValueError, "ids", ("distinct", "id 9")),
    "negative id": (lambda index: index.add(DOCS[:2], ids=[9, -3]), ValueError, "ids", ("0 .. 2^63-1", "-3")),
    "id beyond int64": (
        lambda index: index.add(DOCS[:1], ids=np.array([2**63], np.uint64)),
        ValueError,
        "ids",
        ("0 .. 2^63-1", str(2**63)),
    ),
    "too few ids": (lambda index: index.add(DOCS[:2], ids=[9]), ValueError, "ids", ("one entry per vector, 2", "1")),
    "ids of float": (lambda index: index.add(DOCS[:1], ids=[9.0]), TypeError, "ids", ("integers", "float64")),
    "ids of bool": (lambda index: index.add(DOCS[:1], ids=[True]), TypeError, "ids", ("integers", "bool")),
    "ids of str": (lambda index: index.add(DOCS[:1], ids=["a"]), TypeError, "ids", ("integers", "<U1")),
    "ids in a column": (lambda index: index.add(DOCS[:1], ids=[[9]]), ValueError, "ids", ("[n]", "(1, 1)")),
    "one id for all": (lambda index: index.add(DOCS[:1], ids=9), ValueError, "ids", ("[n]", "()")),
    "remove an unknown id": (lambda index: index.remove([10, 99]), ValueError, "ids", ("in the index", "id 99 is not")),
    "remove twice": (lambda index: index.remove([10, 10]), ValueError, "ids", ("distinct", "id 10 occurs 2 times")),
    "remove a negative id": (lambda index: index.remove([-1]), ValueError, "ids", ("0 .. 2^63-1", "-1")),
    "remove nothing": (lambda index: index.remove(None), TypeError, "ids", ("integers", "object")),
    "remove a number": (lambda index: index.remove(10), ValueError, "ids", ("[n]", "()")),
}


@pytest.mark.parametrize("change", BAD_CHANGES)
def test_an_index_is_unchanged_after_a_bad_change(store: str, change: str) -> None:
    act, error, name, says = BAD_CHANGES[change]
    index = filled(store)
    refused(lambda: act(index), error, name, *says)
    unchanged(index)


def test_counting_on_stops_at_the_largest_id() -> None:
    index = DenseIndex(D, "dot", "float32")
    index.add(DOCS[:1], ids=[2**63 - 1])
    refused(lambda: index.add(DOCS[1:]), ValueError, "ids", "given", "2^63-1")
    assert index.ids.tolist() == [2**63 - 1]


@pytest.mark.parametrize("allocation", range(8))
def test_an_index_is_unchanged_when_memory_runs_out(
    store: str, allocation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = filled(store)
    real, left = np.empty, allocation

    def failing(*args: Any, **options: Any) -> np.ndarray:
        nonlocal left
        left -= 1
        if left < 0:
            raise MemoryError
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", failing)
        try:
            index.add(DOCS)
        except MemoryError:
            failed = True
        else:
            failed = False
    if failed:
        unchanged(index)
    else:
        assert index.ids[N:].tolist() == list(range(51, 51 + N))
        ids = np.concatenate([np.arange(N) * 10, 51 + np.arange(N)])
        want = reference.topk(QUERIES, np.concatenate([DOCS, DOCS]), 9, "dot", ids=ids)
        conformance.same(index.search(QUERIES, 9), want, "after an add that succeeded")


def strided() -> F32:
    wide = np.full((2 * N, 3 * D), np.nan, np.float32)
    wide[::2, ::3] = DOCS
    view: F32 = wide[::2, ::3]
    return view


def backwards() -> F32:
    reversed_twice: F32 = DOCS[::-1, ::-1].copy()[::-1, ::-1]
    return reversed_twice


def read_only() -> F32:
    rows: F32 = DOCS.copy()
    rows.flags.writeable = False
    return rows


def unaligned() -> np.ndarray:
    rows = np.frombuffer(b"\0" + DOCS.tobytes(), np.float32, offset=1).reshape(N, D)
    assert not rows.flags.aligned
    return rows


STRANGE_FORMS: dict[str, Callable[[], Any]] = {
    "strided": strided,
    "backwards": backwards,
    "Fortran order": lambda: np.asfortranarray(DOCS),
    "transposed": lambda: DOCS.T.copy().T,
    "one row many times": lambda: np.broadcast_to(DOCS[0], (N, D)),
    "big-endian": lambda: DOCS.astype(">f4"),
    "little-endian": lambda: DOCS.astype("<f4"),
    "read-only": read_only,
    "unaligned": unaligned,
    "float64": lambda: DOCS.astype(np.float64) + 1e-12,
    "float16": lambda: DOCS.astype(np.float16),
    "longdouble": lambda: DOCS.astype(np.longdouble) / 3,
    "int8": lambda: (DOCS * 40).astype(np.int8),
    "uint8": lambda: np.abs(DOCS * 40).astype(np.uint8),
    "int64": lambda: (DOCS * 1e17).astype(np.int64),
    "uint64": lambda: np.abs(DOCS * 1e17).astype(np.uint64),
    "lists": lambda: DOCS.tolist(),
    "lists of int": lambda: np.rint(DOCS * 9).astype(int).tolist(),
    "tuples of arrays": lambda: tuple(DOCS),
    "a memoryview": lambda: DOCS.data,
    "arrays of the standard library": lambda: [array.array("f", row) for row in DOCS],
    "DLPack": lambda: Dlpack(DOCS),
    "DLPack, strided": lambda: Dlpack(strided()),
    "__array__": ArrayLike,
    "a matrix with nothing masked": lambda: np.ma.masked_array(DOCS),
    "memory-mapped": lambda: DOCS.view(np.memmap),
}
STRANGE_TENSORS: dict[str, Callable[[], Any]] = {
    "float32": lambda: tensor(DOCS),
    "requires_grad": lambda: tensor(DOCS, requires_grad=True),
    "a result of autograd": lambda: tensor(DOCS, requires_grad=True) * 2,
    "bfloat16": lambda: tensor(DOCS).bfloat16(),
    "bfloat16 that requires_grad": lambda: tensor(DOCS).bfloat16().requires_grad_(),
    "float16": lambda: tensor(DOCS).half(),
    "float64": lambda: tensor(DOCS).double() / 3,
    "int64": lambda: tensor((DOCS * 1e17).astype(np.int64)),
    "strided": lambda: tensor(np.repeat(DOCS, 3, axis=1))[:, ::3],
    "transposed": lambda: tensor(DOCS.T.copy()).T,
    "expanded": lambda: tensor(DOCS[:1]).expand(N, D),
    "conjugate, real part": lambda: (tensor(DOCS) + 1j).conj().real,
    "negated view": lambda: (tensor(DOCS) * 1j).conj().imag,
}
FORMS = [pytest.param(make, id=name) for name, make in STRANGE_FORMS.items()] + [
    pytest.param(make, id=f"tensor: {name}", marks=needs_torch) for name, make in STRANGE_TENSORS.items()
]


def as_float32(value: Any) -> F32:
    """The vectors that a form stands for."""
    if hasattr(value, "detach"):
        value = value.detach().double().resolve_conj().resolve_neg().numpy()
    return np.array(value.values if isinstance(value, Dlpack) else value).astype(np.float32)


def as_numpy(result: TopK) -> TopK:
    return TopK(*(np.asarray(part) for part in result))


@pytest.mark.parametrize("make", FORMS)
@pytest.mark.parametrize("metric", reference.METRICS)
def test_strange_forms_give_the_specified_answer(engine: str, metric: str, make: Callable[[], Any]) -> None:
    rows = as_float32(make())
    docs = topk(QUERIES, make(), K, metric=metric, backend=engine)
    conformance.same(docs, reference.topk(QUERIES, rows, K, metric), "as docs")
    queries = topk(make(), DOCS, K, metric=metric, backend=engine)
    conformance.same(as_numpy(queries), reference.topk(rows, DOCS, K, metric), "as queries")


@pytest.mark.parametrize("make", FORMS)
def test_strange_forms_can_be_added(store: str, make: Callable[[], Any]) -> None:
    index = DenseIndex(D, "dot", store)
    index.add(make())
    conformance.same(index.search(QUERIES, K), reference.topk(QUERIES, as_float32(make()), K, "dot"), "added")


@needs_torch
def test_a_tensor_in_gives_tensors_out() -> None:
    import torch

    result = topk(tensor(QUERIES), DOCS, K)
    assert [part.dtype for part in result] == [torch.float32, torch.int64, torch.bool]
    assert isinstance(topk(QUERIES, tensor(DOCS), K).ids, np.ndarray)


MASK = np.array([True, False, True, True, False, True])
STRANGE_MASKS: dict[str, Callable[[], Any]] = {
    "list": lambda: MASK.tolist(),
    "strided": lambda: np.repeat(MASK, 2)[::2],
    "per query, strided": lambda: np.repeat(np.stack([MASK] * Q), 2, axis=1)[:, ::2],
    "bitmap": lambda: np.packbits(MASK, bitorder="little"),
    "bitmap with bits beyond the documents": lambda: np.packbits(MASK, bitorder="little") | 0b11000000,
    "bitmap per query": lambda: np.tile(np.packbits(MASK, bitorder="little"), (Q, 1)),
    "read-only": lambda: np.broadcast_to(MASK, (Q, N)),
    "DLPack": lambda: Dlpack(MASK),
}


@pytest.mark.parametrize("make", STRANGE_MASKS.values(), ids=STRANGE_MASKS)
def test_strange_masks_give_the_specified_answer(engine: str, make: Callable[[], Any]) -> None:
    result = topk(QUERIES, DOCS, N, mask=make(), backend=engine)
    conformance.same(result, reference.topk(QUERIES, DOCS, N, mask=MASK), "masked")


def test_a_mask_per_query_in_fortran_order(engine: str) -> None:
    mask = np.asfortranarray(RNG.random((Q, 40)) < 0.5)  # several bytes wide, so that its bitmap has an order too
    docs: F32 = RNG.standard_normal((40, D)).astype(np.float32)
    result = topk(QUERIES, docs, 40, mask=mask, backend=engine)
    conformance.same(result, reference.topk(QUERIES, docs, 40, mask=mask), "masked")


BIAS = np.array([3, -1, 0, 2, 0, -4])


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "g", "i1", "i8", list])
def test_biases_of_any_real_type(engine: str, dtype: Any) -> None:
    bias = BIAS.tolist() if dtype is list else BIAS.astype(dtype)
    result = topk(QUERIES, DOCS, N, bias=bias, backend=engine)
    conformance.same(result, reference.topk(QUERIES, DOCS, N, bias=BIAS.astype(np.float64)), "biased")


@needs_torch
def test_masks_and_biases_may_be_tensors(engine: str) -> None:
    result = topk(QUERIES, DOCS, N, mask=tensor(MASK), bias=tensor(BIAS).bfloat16(), backend=engine)
    conformance.same(result, reference.topk(QUERIES, DOCS, N, mask=MASK, bias=BIAS.astype(np.float64)), "tensors")


@pytest.mark.parametrize("k", [np.int8(3), np.uint64(3), np.array(3)])
def test_k_may_be_any_integer(k: Any) -> None:
    conformance.same(topk(QUERIES, DOCS, k), reference.topk(QUERIES, DOCS, 3), "k")


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize(("n_queries", "n_docs"), [(0, 6), (2, 0), (0, 0), (1, 1), (2, 1)])
def test_nothing_and_next_to_nothing(engine: str, store: str, metric: str, n_queries: int, n_docs: int) -> None:
    queries, docs = QUERIES[:n_queries], DOCS[:n_docs]
    want = reference.topk(queries, docs, K, metric)
    conformance.same(topk(queries, docs, K, metric=metric, backend=engine), want, "topk")
    index = DenseIndex(D, metric, store)
    index.add(docs)
    conformance.same(index.search(queries, K, backend=engine), want, "an index")


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("value", [1e-45, 1e-38, 1.0, 1e38, 3.4028235e38, -3.4028235e38, 0.0, -0.0])
def test_vectors_that_are_all_equal(engine: str, store: str, metric: str, value: float) -> None:
    docs = np.full((N, D), value, np.float32)
    queries = np.concatenate([docs[:1], -docs[:1], QUERIES])
    want = reference.topk(queries, docs, N + 2, metric)
    assert (want.ids[:, :N] == np.arange(N)).all()
    conformance.same(topk(queries, docs, N + 2, metric=metric, backend=engine), want, "topk")
    index = DenseIndex(D, metric, store)
    index.add(docs)
    conformance.same(index.search(queries, N + 2, backend=engine), want, "an index")

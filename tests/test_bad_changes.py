"""A change of an index that is refused, or that fails, has changed nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyengine import DenseIndex, conformance
from pyengine.specification import reference
from tests.input_cases import DOCS, QUERIES, D, N, filled, refused, unchanged, with_value

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]


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

"""Documents that a GPU cannot hold pass through it in parts: the specification's answers, and thresholds that rise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends.shared import parts
from pyengine.backends.triton.triton_backend import TritonBackend
from pyengine.indexes import stores
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.refining import exact
from pyengine.searches import dense, search
from pyengine.searches.search import exact_search
from tests import dense_cases
from tests.dense_cases import rows
from tests.stream_cases import seventy

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends.triton import triton_dense, triton_device, triton_stream  # noqa: E402

check = partial(dense_cases.check, name="triton")
pytestmark = pytest.mark.usefixtures("interpreter", "poison")
BACKEND = TritonBackend()


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of documents that are scanned at a time."""
    counts: list[int] = []
    propose = triton_dense.propose

    def watched(problem: DenseProblem, width: int) -> pe.types.Candidates:
        counts.append(len(problem.docs))
        return propose(problem, width)

    monkeypatch.setattr(parts, "cuts", seventy)
    monkeypatch.setattr(triton_dense, "propose", watched)
    return counts


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("store", ["float32", "float16", "bfloat16", "int8", "residual4"])
def test_stores(store: str, metric: str, seen: list[int]) -> None:
    kept = stores.make(store, None if store == "residual4" else "ram", 24)
    kept.append(rows(1, 203, 24))
    check(dense.prepare(rows(2, 3, 24), kept.documents(), 5, metric=metric))
    assert seen[:3] == [70, 70, 63]


@pytest.mark.parametrize("k", [1, 70, 203, 300])
def test_ties_across_parts(k: int) -> None:
    """The same vectors in every part, under ids that fall: the smaller id wins, wherever it lies."""
    docs = Documents(np.tile(rows(3, 29, 6), (7, 1)))
    ids = np.arange(203)[::-1] * 5 + (1 << 40)
    check(dense.prepare(rows(4, 2, 6), docs, k, metric="l2", ids=ids))


def test_what_else_a_search_is_given() -> None:
    generator = np.random.default_rng(5)
    mask, bias = generator.random((2, 203)) < 0.3, generator.standard_normal(203)
    mask[1, :130] = False  # nothing of the first two parts
    filters = FilterArguments(exclude=[[1, 190], [3]], threshold=-0.5)
    docs = Documents(rows(7, 203, 16))
    check(dense.prepare(rows(6, 2, 16), docs, 9, metric="dot", mask=mask, bias=bias, dims=9, filters=filters))
    shared = dense.prepare(rows(6, 2, 16), docs, 9, metric="cosine", mask=mask[0])
    check(shared)
    check(replace(shared, queries=shared.queries[:0]))
    check(dense.prepare(rows(6, 2, 16), Documents(rows(7, 0, 16)), 9, metric="cosine"))


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_a_page_takes_one_pass(metric: str, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before it, in whatever part, neither takes places nor raises the floor."""
    monkeypatch.setattr(search, "_scan", lambda *_: pytest.fail("it takes more than one pass"))
    queries, docs = rows(2, 2, 8), Documents(rows(3, 203, 8))
    whole = dense.prepare(queries, docs, 203, metric=metric)
    scores, ids, _ = conformance.specified(whole)
    for at in (0, 7, 100, 197):
        seen.clear()
        filters = FilterArguments(after=(scores[:, at], ids[:, at]))
        found = exact_search(dense.prepare(queries, docs, 5, metric=metric, filters=filters), BACKEND)
        assert (found.ids == ids[:, at + 1 : at + 6]).all()
        assert (found.scores == scores[:, at + 1 : at + 6]).all()
        assert found.certified.all()
        assert seen == [70, 70, 63]


def test_the_first_parts_rule_out_most_of_the_others() -> None:
    """Documents in falling order of score: of the later parts nothing is listed."""
    docs = np.linspace(2, 1, 640, dtype=np.float32)[:, None] * np.ones((1, 8), np.float32)
    problem = dense.prepare(np.ones((1, 8), np.float32), Documents(docs), 3, metric="dot")
    found = BACKEND.propose(problem, 3)
    assert found.rows.max() < 70
    assert (found.estimates[:3] == 8 * docs[:3, 0]).all()


def test_a_row_with_nan_is_named() -> None:
    docs = rows(8, 203, 8)
    docs[141, 3] = np.inf
    with pytest.raises(ValueError, match="row 141"):
        pe.topk(rows(9, 2, 8), docs, 3, backend="triton")


def test_fast_and_range_searches() -> None:
    docs, queries = rows(10, 203, 16), rows(11, 2, 16)
    want = pe.topk(queries, docs, 4, backend="numpy")
    found = pe.topk(queries, docs, 4, backend="triton", precision="fast")
    assert (found.ids == want.ids).all()
    assert not found.certified.any()
    ranges = [pe.range_search(queries, docs, 0.3, backend=name) for name in ("triton", "numpy")]
    for ours, theirs in zip(*ranges):
        assert (ours == theirs).all()


def test_a_copy_that_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors are there, and their codes are not: the next search asks again whether there is room."""
    monkeypatch.undo()

    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError

    problem = dense.prepare(rows(2, 2, 8), Documents(rows(3, 200, 8), cache={}), 3, metric="dot")
    with monkeypatch.context() as patch:
        patch.setattr(triton_dense, "code_docs", full)
        with pytest.raises(torch.OutOfMemoryError):
            exact_search(problem, BACKEND)
    assert triton_device.kept(problem.docs, "originals")
    assert not triton_device.kept(problem.docs, ("scanned", 8, False))
    monkeypatch.setattr(parts, "LEAST", 0)
    for free, whole in ((200 * (8 + 32) - 1, False), (200 * (8 + 32), True), (0, True)):
        monkeypatch.setattr(triton_device, "free", lambda docs, free=free: free)
        assert BACKEND.refusals(problem) == []
        assert (BACKEND._parts(problem) is None) == whole
        conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), "topk")


def test_parts_are_copied_on_one_stream_of_the_device_that_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that copies has a current device of its own, and memory of one stream is not that of another."""
    within: list[str] = []
    log: list[tuple[str, ...]] = []

    @contextmanager
    def entered(what: Any) -> Iterator[None]:
        within.append(str(what))
        yield
        within.pop()

    def stream(device: Any) -> str:
        log.append(("a stream",))
        return f"stream of {device}"

    monkeypatch.setattr(triton_device, "device_of", lambda corpus: torch.device("cuda", 1))
    monkeypatch.setattr(triton_stream, "_copying", cache(triton_stream._copying.__wrapped__))
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(triton_dense, "scanned", lambda part: log.append(tuple(within)))
    problem = dense.prepare(rows(1, 2, 8), Documents(rows(2, 150, 8), cache={}), 3, metric="dot")
    found = seventy(triton_dense.footprint(problem), 0, 0)
    triton_stream.propose(problem, found, triton_dense.scanned, exact.everything, exact.refine)
    assert log == [("a stream",), *3 * [("cuda:1", "stream of cuda:1")]]

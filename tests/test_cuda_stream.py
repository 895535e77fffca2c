"""Documents that a GPU cannot hold pass through it in parts, by the CUDA kernels: the specification's answers, from
blocks of pinned memory that are filled again and again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_dense, cuda_device, cuda_documents, cuda_kernels
from pyengine.backends.cuda.cuda_backend import CudaBackend
from pyengine.backends.shared import parts
from pyengine.indexes import stores
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.searches import dense, search
from pyengine.searches.search import exact_search
from tests import dense_cases
from tests.cuda_driver import FakeDriver
from tests.dense_cases import rows
from tests.stream_cases import seventy

check = partial(dense_cases.check, name="cuda")
pytestmark = pytest.mark.usefixtures("emulated", "poison")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of documents that are scanned at a time; they are copied 1,000 bytes at a time."""
    counts: list[int] = []
    propose = cuda_dense.propose

    def watched(problem: DenseProblem, width: int) -> pe.types.Candidates:
        counts.append(len(problem.docs))
        return propose(problem, width)

    monkeypatch.setattr(parts, "cuts", seventy)
    monkeypatch.setattr(cuda_dense, "propose", watched)
    monkeypatch.setattr(cuda_device, "BLOCK", 1000)
    cuda_device._feed.cache_clear()
    yield counts
    cuda_device._feed.cache_clear()


@pytest.mark.parametrize(
    ("store", "metric"),
    [("float32", "cosine"), ("float16", "l2"), ("bfloat16", "dot"), ("int8", "cosine"), ("residual4", "dot")],
)
def test_stores(store: str, metric: str, seen: list[int]) -> None:
    kept = stores.make(store, None if store == "residual4" else "ram", 24)
    kept.append(rows(1, 203, 24))
    check(dense.prepare(rows(2, 3, 24), kept.documents(), 5, metric=metric))
    assert seen[:3] == [70, 70, 63]


@pytest.mark.usefixtures("seen")
def test_what_a_search_is_given() -> None:
    generator = np.random.default_rng(5)
    mask, bias = generator.random((2, 203)) < 0.3, generator.standard_normal(203)
    mask[1, :130] = False  # nothing of the first two parts
    filters = FilterArguments(exclude=[[1, 190], [3]], threshold=-0.5)
    docs = Documents(rows(7, 203, 16))
    check(dense.prepare(rows(6, 2, 16), docs, 9, metric="dot", mask=mask, bias=bias, dims=9, filters=filters))
    tied = Documents(np.tile(rows(3, 29, 6), (7, 1)))
    check(dense.prepare(rows(4, 2, 6), tied, 70, metric="l2", ids=np.arange(203)[::-1] * 5 + (1 << 40)))


def test_a_page_takes_one_pass(seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before it, in whatever part, neither takes places nor raises the floor."""
    monkeypatch.setattr(search, "_scan", lambda *_: pytest.fail("it takes more than one pass"))
    queries, docs, backend = rows(2, 2, 8), Documents(rows(3, 203, 8)), registry.get("cuda")
    scores, ids, _ = conformance.specified(dense.prepare(queries, docs, 203, metric="dot"))
    for at in (7, 100):
        seen.clear()
        filters = FilterArguments(after=(scores[:, at], ids[:, at]))
        found = exact_search(dense.prepare(queries, docs, 5, metric="dot", filters=filters), backend)
        assert (found.ids == ids[:, at + 1 : at + 6]).all()
        assert (found.scores == scores[:, at + 1 : at + 6]).all()
        assert seen == [70, 70, 63]


@pytest.mark.usefixtures("seen")
def test_the_first_parts_rule_out_most_of_the_others() -> None:
    """Documents in falling order of score: of the later parts nothing is listed."""
    docs = np.linspace(2, 1, 640, dtype=np.float32)[:, None] * np.ones((1, 8), np.float32)
    found = registry.get("cuda").propose(
        dense.prepare(np.ones((1, 8), np.float32), Documents(docs), 3, metric="dot"), 3
    )
    assert found.rows.max() < 70


@pytest.mark.usefixtures("seen")
def test_a_row_with_nan_is_named() -> None:
    docs = rows(8, 203, 8)
    docs[141, 3] = np.inf
    with pytest.raises(ValueError, match="row 141"):
        pe.topk(rows(9, 2, 8), docs, 3, backend="cuda")


def test_copies_are_on_streams_of_their_own(seen: list[int], emulated: FakeDriver) -> None:
    pe.topk(rows(9, 2, 8), rows(8, 203, 8), 3, backend="cuda")
    streams = {line.split()[0]: line.split()[-1] for line in emulated.log}
    assert streams["code_float32"] != "0"
    assert {streams[name] for name in ("code_queries", "dense_few", "tighten")} == {"0"}


def test_what_the_gpu_holds_is_not_streamed(emulated: FakeDriver) -> None:
    """Two parts, and half as much again, where two megabytes are free, one of them in the pool that stays; a
    sixteenth is left to searches."""
    room = (2 << 20) * 15 // 16
    emulated.tell(megabytes=1, kept=1)

    def of(count: int, *kept: Any) -> list[slice] | None:
        docs = Documents(rows(3, count, 8), cache={("cuda", 0, key): None for key in kept})
        return CudaBackend()._parts(dense.prepare(rows(2, 1, 8), docs, 3, metric="dot"))

    assert cuda_device.free(Documents(rows(3, 1, 8))) == room
    first, *_ = of(40_000) or []
    assert first == slice(0, room // 3 // (5 * 8 + 64))
    assert of(18_000) is None
    assert of(19_000) is not None
    scanned = ("scanned", 8)
    assert of(40_000, "originals", scanned) is None
    assert of(27_000, "originals") is None  # the codes have room
    assert of(40_000, "originals", ("scanned", 7)) == of(40_000, "originals") != None  # noqa: E711


def test_a_copy_that_fails_half_way(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors are there, and their codes are not: the next search asks again whether there is room."""
    code = cuda_kernels.code_docs

    def full(*given: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(cuda_documents, "code_docs", code)
            emulated.tell(cuMemAllocAsync=2)
            return code(*given)

    problem = dense.prepare(rows(2, 2, 8), Documents(rows(3, 200, 8), cache={}), 3, metric="dot")
    backend, codes = CudaBackend(), 200 * (8 + 64)
    with monkeypatch.context() as patch:
        patch.setattr(cuda_documents, "code_docs", full)
        with pytest.raises(RuntimeError, match="out of memory"):
            exact_search(problem, backend)
    emulated.tell(cuMemAllocAsync=0)
    assert [key for key in problem.docs.cache or {} if key[0] == "cuda"] == [("cuda", 0, "originals")]
    monkeypatch.setattr(cuda_device, "free", lambda docs: codes - 1)
    monkeypatch.setattr(parts, "LEAST", 0)
    assert backend.refusals(problem) == []
    assert backend._parts(problem) is not None
    conformance.same(exact_search(problem, backend), conformance.specified(problem), "streamed")
    monkeypatch.setattr(cuda_device, "free", lambda docs: codes)
    assert backend._parts(problem) is None
    conformance.same(exact_search(problem, backend), conformance.specified(problem), "whole")
    monkeypatch.setattr(cuda_device, "free", lambda docs: 0)
    assert backend._parts(problem) is None

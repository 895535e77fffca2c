"""Documents that a GPU cannot hold pass through it in parts, by the CUDA kernels: the specification's answers, from
blocks of pinned memory that are filled again and again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

import pyengine as pe
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_backend, cuda_dense, cuda_device
from pyengine.indexes import stores
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.searches import dense
from tests import dense_cases
from tests.cuda_driver import FakeDriver
from tests.dense_cases import rows

check = partial(dense_cases.check, name="cuda")
pytestmark = pytest.mark.usefixtures("emulated", "poison")
AT_ONCE = 70  # rounded down to 64


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of documents that are scanned at a time; they are copied 1,000 bytes at a time."""
    counts: list[int] = []
    propose = cuda_dense.propose

    def watched(problem: DenseProblem, width: int) -> pe.types.Candidates:
        counts.append(len(problem.docs))
        return propose(problem, width)

    monkeypatch.setattr(cuda_backend, "_at_once", lambda docs: AT_ONCE)
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
    assert seen[:4] == [64, 64, 64, 11]


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


@pytest.mark.usefixtures("seen")
def test_the_first_parts_rule_out_most_of_the_others() -> None:
    """Documents in falling order of score: of the later parts nothing is listed."""
    docs = np.linspace(2, 1, 640, dtype=np.float32)[:, None] * np.ones((1, 8), np.float32)
    found = registry.get("cuda").propose(
        dense.prepare(np.ones((1, 8), np.float32), Documents(docs), 3, metric="dot"), 3
    )
    assert found.rows.max() < 64


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
    """Two parts, and half as much again, where two megabytes are free: one of them in the pool that stays."""
    emulated.tell(megabytes=1, kept=1)
    docs = Documents(rows(3, 40_000, 8))
    assert cuda_device.free_for(docs) == 2 << 20
    assert cuda_backend._at_once(docs) == (2 << 20) // (3 * (5 * 8 + 64))
    assert cuda_backend._at_once(Documents(rows(3, 20_000, 8))) is None
    assert cuda_backend._at_once(Documents(rows(3, 40_000, 8), cache={("cuda", 0, "originals"): None})) is None

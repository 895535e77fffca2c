"""Plain searches of the host: one call of the extension, with the general search's answers and refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine.backends import registry
from pyengine.backends.cpu import cpu_backend
from pyengine.conformance.conformance_cases import CORPORA
from pyengine.kernels.plan import plan_dense
from pyengine.refining import exact
from pyengine.searches import dense, plain
from pyengine.specification import reference
from pyengine.types import F32
from tests.dense_cases import rows

NATIVE = exact.native()
pytestmark = pytest.mark.skipif(NATIVE is None, reason="the extension is not built")
FORMS = {"scored": 1 << 20, "scanned": 0}  # what `SMALL` is


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every document is scored, or they are scanned."""
    monkeypatch.setattr(cpu_backend, "SMALL", FORMS[request.param])
    plan_dense.cache_clear()  # of plans for other constants
    yield request.param
    plan_dense.cache_clear()


class Watched:
    """The extension, and what its calls of `search` gave: whether that was an answer."""

    def __init__(self, kernels: ModuleType) -> None:
        self.kernels = kernels
        self.answers: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernels, name)

    def search(self, *given: Any, **more: Any) -> Any:
        found = self.kernels.search(*given, **more)
        self.answers.append(found is not None)
        return found


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    assert NATIVE is not None
    kernels = Watched(NATIVE)
    monkeypatch.setattr(exact, "native", lambda: kernels)
    return kernels


@pytest.fixture
def taken(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The same, and no general search may run."""
    monkeypatch.setattr(dense, "prepare", lambda *_, **__: pytest.fail("the general search ran"))
    return watched


def same(found: pe.TopK, want: pe.TopK) -> None:
    assert np.array_equal(found.ids, want.ids)
    assert np.array_equal(np.asarray(found.scores).view(np.int32), want.scores.view(np.int32))
    assert np.asarray(found.certified).all()
    for got, expected in zip(found, want):
        assert got.shape == expected.shape
        assert np.asarray(got).dtype == expected.dtype


def specified(queries: Any, docs: Any, k: int, metric: str) -> pe.TopK:
    return pe.topk(queries, docs, k, metric=metric, backend="numpy")


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize(
    ("n", "count", "dim", "k"), [(1, 700, 64, 10), (3, 60, 17, 80), (16, 400, 8, 16), (2, 5, 1, 9)]
)
def test_the_specification_s_bits_in_one_call(
    form: str, taken: Watched, isa: str, metric: str, n: int, count: int, dim: int, k: int
) -> None:
    queries, docs = rows(1, n, dim), rows(2, count, dim)
    same(pe.topk(queries, docs, k, metric=metric), reference.topk(queries, docs, k, metric))
    assert taken.answers == [True]


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("corpus", CORPORA)
def test_every_corpus_of_the_conformance_suite(form: str, watched: Watched, corpus: str, metric: str) -> None:
    queries, docs = CORPORA[corpus](np.random.default_rng(3))
    queries = queries[:16]
    same(pe.topk(queries, docs, 7, metric=metric), reference.topk(queries, docs, 7, metric))
    assert len(watched.answers) == 1


def test_what_is_not_certified_is_searched_again(watched: Watched) -> None:
    """More documents tie for the last place than a scan keeps."""
    plan_dense.cache_clear()
    queries, docs = rows(1, 2, 12), np.repeat(rows(2, 1, 12), 9000, axis=0)
    same(pe.topk(queries, docs, 30), reference.topk(queries, docs, 30, "cosine"))
    assert watched.answers == [False]


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("store", ["float32", "int8", "binary", "residual3"])
def test_an_index_in_one_call(form: str, watched: Watched, metric: str, store: str) -> None:
    index = pe.DenseIndex(32, metric=metric, store=store)
    index.add(rows(1, 300, 32), ids=np.arange(300)[::-1] * 7)
    queries = rows(2, 4, 32)
    want = index.search(queries, 9, backend="numpy")
    for _ in range(2):  # of the first search something may be kept
        same(index.search(queries, 9), want)
    assert watched.answers[-1]
    before = len(watched.answers)
    index.remove([7])
    same(index.search(queries, 9), index.search(queries, 9, backend="numpy"))
    assert len(watched.answers) == before


def test_l2_far_from_the_origin_is_left_to_the_centred_codes(watched: Watched) -> None:
    plan_dense.cache_clear()
    index = pe.DenseIndex(8, metric="l2")
    index.add(rows(1, 5000, 8) + np.float32(50))
    queries = rows(2, 2, 8) + np.float32(50)
    want = index.search(queries, backend="numpy")
    for _ in range(2):
        same(index.search(queries), want)
    assert not watched.answers


@pytest.mark.parametrize("store", ["float16", "bfloat16"])
def test_other_stores_are_searched_in_general(form: str, watched: Watched, store: str) -> None:
    index = pe.DenseIndex(12, store=store)
    index.add(rows(1, 50, 12))
    same(index.search(rows(2, 2, 12)), index.search(rows(2, 2, 12), backend="numpy"))
    assert not watched.answers


def misaligned(values: F32) -> F32:
    memory = np.empty(values.nbytes + 1, np.uint8)[1:]
    memory[:] = values.view(np.uint8).ravel()
    return memory.view(np.float32).reshape(values.shape)


OTHERWISE: dict[str, Callable[[Any], Any]] = {
    "float16": lambda values: values.astype(np.float16),
    "float64": lambda values: values.astype(np.float64),
    "int8": lambda values: (values * 50).astype(np.int8),
    "big-endian": lambda values: values.astype(">f4"),
    "strided": lambda values: np.repeat(np.repeat(values, 2, axis=0), 3, axis=1)[::2, ::3],
    "columns": np.asfortranarray,
    "misaligned": misaligned,
    "lists": lambda values: values.tolist(),
    "a subclass": lambda values: values.view(np.matrix),
    "a buffer": memoryview,
}


@pytest.mark.parametrize("make", OTHERWISE.values(), ids=OTHERWISE)
@pytest.mark.parametrize("side", ["queries", "docs", "both"])
def test_other_arrays(form: str, make: Callable[[F32], Any], side: str) -> None:
    queries, docs = rows(1, 3, 20), rows(2, 150, 20)
    asked = queries if side == "docs" else make(queries)
    among = docs if side == "queries" else make(docs)
    want = specified(np.asarray(asked, np.float32), np.asarray(among, np.float32), 5, "dot")
    same(pe.topk(asked, among, 5, metric="dot"), want)


@pytest.mark.parametrize("shapes", [((0, 6), (9, 6)), ((2, 6), (0, 6)), ((0, 6), (0, 6))])
def test_nothing(form: str, shapes: Any) -> None:
    queries, docs = (np.ones(shape, np.float32) for shape in shapes)
    found = pe.topk(queries, docs, 3)
    assert found.ids.tolist() == [[0, 1, 2] if len(docs) else [-1] * 3] * len(queries)


REFUSED: dict[str, dict[str, Any]] = {
    "k of 0": {"k": 0},
    "k that is True": {"k": True},
    "k beyond 2^31": {"k": 1 << 31},
    "k of 1.0": {"k": 1.0},
    "no metric": {"metric": "euclid"},
    "a list as metric": {"metric": ["l2"]},
    "dimensions": {"queries": rows(1, 2, 11)},
    "one row": {"queries": rows(1, 1, 12)[0]},
    "rows without values": {"queries": np.empty((2, 0), np.float32), "docs": np.empty((3, 0), np.float32)},
    "complex": {"docs": rows(1, 5, 12).astype(complex)},
    "precision": {"precision": "exactly"},
    "an array as precision": {"precision": np.ones(2)},
    "per_group": {"per_group": 1.0},
    "no threads": {"num_threads": 0},
    "threads of 1.0": {"num_threads": 1.0},
    "backend": {"backend": "gpu"},
    "a number as backend": {"backend": 3},
    "rescore": {"rescore": 2},
    **{
        f"{value} in {side}": {side: np.where(np.arange(36).reshape(3, 12) == 30, np.float32(value), rows(1, 3, 12))}
        for value in (np.nan, np.inf, -np.inf)
        for side in ("queries", "docs")
    },
}


@pytest.mark.parametrize("wrong", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_by_the_general_search(
    form: str, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"queries": rows(1, 2, 12), "docs": rows(2, 30, 12), "k": 3} | wrong
    with pytest.raises((TypeError, ValueError)) as direct:
        pe.topk(**asked)
    monkeypatch.setattr(plain, "search", lambda *_, **__: None)
    with pytest.raises((TypeError, ValueError)) as general:
        pe.topk(**asked)
    assert (type(direct.value), str(direct.value)) == (type(general.value), str(general.value))


def test_a_zero_hides_nothing(form: str) -> None:
    """0 * NaN and 0 * inf show in the products, however the query is."""
    for value in (np.nan, np.inf):
        docs = rows(1, 40, 12)
        docs[33, 5] = value
        with pytest.raises(ValueError, match="docs must be finite in float32; row 33 holds"):
            pe.topk(np.zeros((1, 12), np.float32), docs, 3)


@pytest.mark.parametrize("threads", [None, 1, 2, 5000])
def test_threads_change_nothing(form: str, taken: Watched, threads: int | None) -> None:
    queries, docs = rows(1, 2, 20), rows(2, 500, 20)
    same(pe.topk(queries, docs, 5, num_threads=threads), reference.topk(queries, docs, 5, "cosine"))


@pytest.mark.parametrize(
    "given",
    [
        {"queries": rows(1, 17, 64)},
        {"k": 300},
        {"docs": rows(1, 30_000, 1200)},
        {"backend": "numpy"},
        {"precision": "fast"},
        {"threshold": 0.1},
    ],
    ids=["queries", "k", "much to read", "another backend", "fast", "a filter"],
)
def test_what_is_not_plain(watched: Watched, given: dict[str, Any]) -> None:
    plan_dense.cache_clear()
    dim = given["docs"].shape[1] if "docs" in given else 64
    asked: dict[str, Any] = {"queries": rows(1, 1, dim), "docs": rows(2, 400, dim), "k": 4} | given
    pe.topk(**asked)
    assert not watched.answers


def test_the_backend_of_the_context(form: str, watched: Watched) -> None:
    with pe.use_backend("numpy"):
        pe.topk(rows(1, 1, 8), rows(2, 30, 8))
    assert not watched.answers
    with pe.use_backend("numpy"):
        pe.topk(rows(1, 1, 8), rows(2, 30, 8), backend="cpu")
    assert watched.answers == [True]


def test_a_missing_backend(form: str, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_backend.CpuBackend, "missing", lambda self: "it is away")
    same(pe.topk(rows(1, 1, 8), rows(2, 30, 8)), reference.topk(rows(1, 1, 8), rows(2, 30, 8), 10, "cosine"))
    assert not watched.answers
    with pytest.raises(RuntimeError, match="it is away"):
        pe.topk(rows(1, 1, 8), rows(2, 30, 8), backend="cpu")


def test_the_caller_s_floating_point_changes_nothing(form: str, taken: Watched) -> None:
    torch = pytest.importorskip("torch")
    queries, docs = rows(1, 2, 20) * np.float32(1e-20), rows(2, 100, 20) * np.float32(1e-20)
    want = reference.topk(queries, docs, 5, "dot")
    assert torch.set_flush_denormal(True)
    try:
        found = pe.topk(queries, docs, 5, metric="dot")
        assert float(torch.tensor(1e-40)) == 0  # still as the caller had it
    finally:
        torch.set_flush_denormal(False)
    same(found, want)


@given(
    st.integers(1, 20), st.integers(1, 60), st.integers(1, 20), st.integers(1, 70), st.sampled_from(reference.METRICS),
    st.integers(0, 2**32), st.sampled_from([0, 1 << 20]),
)  # fmt: skip
def test_few_values_and_many_ties(n: int, count: int, dim: int, k: int, metric: str, seed: int, small: int) -> None:
    rng = np.random.default_rng(seed)
    queries, docs = (rng.integers(-1, 2, (each, dim)).astype(np.float32) for each in (n, count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_backend, "SMALL", small)
        same(pe.topk(queries, docs, k, metric=metric), reference.topk(queries, docs, k, metric))


def test_tensors(form: str, taken: Watched) -> None:
    torch = pytest.importorskip("torch")
    queries, docs = torch.from_numpy(rows(1, 2, 20)), torch.from_numpy(rows(2, 90, 20))
    found = pe.topk(queries, docs, 5)
    assert all(isinstance(part, torch.Tensor) for part in found)
    same(pe.TopK(*(part.numpy() for part in found)), reference.topk(queries.numpy(), docs.numpy(), 5, "cosine"))
    assert isinstance(pe.topk(queries.numpy(), docs, 5).ids, np.ndarray)
    assert taken.answers == [True, True]
    pytest.importorskip("pyengine.torch")
    scores, ids = torch.ops.pyengine.dense_topk(queries, docs, 5)
    assert torch.equal(scores, found.scores)
    assert torch.equal(ids, found.ids)
    assert taken.answers == [True] * 3


def test_other_tensors(form: str) -> None:
    torch = pytest.importorskip("torch")
    queries, docs = torch.from_numpy(rows(1, 2, 20)), torch.from_numpy(rows(2, 90, 20))
    with_gradient, columns = queries.clone().requires_grad_(), queries.T.clone().T
    for each in (queries.bfloat16(), queries.half(), queries.double(), with_gradient, columns):
        want = specified(each.detach().float().numpy(), docs.numpy(), 5, "l2")
        same(pe.TopK(*(part.numpy() for part in pe.topk(each, docs, 5, metric="l2"))), want)


def test_cpu_is_what_auto_tries_first() -> None:
    assert registry.BUILTIN[0] == "cpu"

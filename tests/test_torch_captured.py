"""Searches as CUDA graphs: the launches that a graph is made of, what they say of themselves, and how they end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.backends.triton import triton_backend, triton_maxsim_backend, triton_refusals
from tests.dense_cases import rows

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends.triton import triton_answers  # noqa: E402
from pyengine.training import torch_captured  # noqa: E402
from tests.test_triton_workspace import ON_HOST, Allocations, launches  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # in the interpreter
]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def there(array: Any) -> Any:
    return torch.from_numpy(array).to(DEVICE)


def same(found: pe.TopK, want: pe.TopK) -> None:
    for got, expected in zip(found, want):
        assert got.device.type == DEVICE.type
        assert got.cpu().numpy().tolist() == expected.tolist()


GIVEN: dict[str, dict[str, Any]] = {
    "plain": {},
    "mask, l2": {"mask": np.arange(140) % 3 > 0, "metric": "l2"},
    "a mask for each": {"mask": np.random.default_rng(0).random((2, 140)) < 0.4, "metric": "dot"},
    "bias, dims": {"bias": np.linspace(-1, 1, 140), "dims": 9},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_answers_of_an_array(given: dict[str, Any]) -> None:
    docs = rows(1, 140, 16)
    search = pe.torch.captured(docs, 2, 5, **given)
    for seed in (2, 3):
        queries = rows(seed, 2, 16)
        same(search(there(queries)), pe.topk(queries, docs, 5, backend="numpy", **given))


@pytest.mark.parametrize("tokens", [None, 2])
def test_gradients_and_inference_mode_change_nothing(tokens: int | None) -> None:
    """Queries of a model that is being trained, and an object made within one mode and called in the other."""
    index: Any = pe.DenseIndex(8) if tokens is None else pe.MultiVectorIndex(8)
    index.add(rows(1, 60, 8) if tokens is None else list(rows(1, 60, 8).reshape(20, 3, 8)))
    queries = rows(2, 2, 8) if tokens is None else rows(2, 4, 8).reshape(2, 2, 8)
    want = index.search(queries, 5, backend="numpy")
    with torch.inference_mode():
        search = pe.torch.captured(index, 2, 5, n_tokens=tokens)
        same(search(there(queries)), want)
    for _ in range(2):
        same(search(there(queries).requires_grad_()), want)
        assert not search.queries.requires_grad
        search.certified[:] = False
        same(search.finish(), want)


@pytest.mark.parametrize("store", ["float32", "float16", "residual4"])
def test_answers_of_an_index(store: str) -> None:
    """With ids that do not rise, of which some are gone; and more places than documents."""
    index = pe.DenseIndex(16, metric="l2", store=store, originals=None if store == "residual4" else "ram")
    index.add(rows(4, 60, 16), ids=np.random.default_rng(1).permutation(60) + (1 << 40))
    index.remove(index.ids[7:11])
    search, queries = pe.torch.captured(index, 3, 70), rows(5, 3, 16)
    want = index.search(queries, 70, backend="numpy")
    same(search(there(queries)), want)
    index.add(queries)  # later: the graph is of the index as it was
    same(search(there(queries)), want)


def test_ids_that_count_on_are_row_numbers() -> None:
    index = pe.DenseIndex(16)
    index.add(rows(4, 60, 16))
    queries = rows(5, 1, 16)
    assert triton_answers.names(index._problem(queries, 3)) is None
    search = pe.torch.captured(index, 1, 3)
    same(search(there(queries)), index.search(queries, 3, backend="numpy"))


@ON_HOST
def test_a_launch_reads_and_writes_the_same_tensors_and_nothing_waits() -> None:
    search = pe.torch.captured(rows(1, 140, 16), 2, 5)
    with Allocations() as allocations, launches() as first:
        search(there(rows(2, 2, 16)))
    assert allocations.made == []
    with launches() as second:
        search.replay()
        search.launch()
    assert second == first + first
    assert [name for name, _ in first][-1] == "finish_kernel"
    assert {name[-7:] for name, _ in first} == {"_kernel"}
    assert search.queries.data_ptr() == first[0][1][0]
    assert search.scores.data_ptr() in first[-1][1]


def test_what_finds_no_room_is_not_certified_and_can_be_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend.TritonBackend, "first_width", lambda self, problem: 1)
    docs = rows(6, 310, 8)
    docs[:290] = docs[0]
    search = pe.torch.captured(docs, 2, 5)
    queries = np.stack([docs[0], docs[305]])
    found = search(there(queries))
    assert found.certified.tolist() == [False, True]
    want = pe.topk(queries, docs, 5, backend="numpy")
    assert found.ids[1].tolist() == want.ids[1].tolist()
    same(search.finish(), want)
    same(search.finish(), want)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_query_that_is_not_finite_is_said_to_be(value: float, metric: str) -> None:
    docs, queries = rows(7, 40, 8), rows(8, 3, 8)
    queries[1, 3] = value
    search = pe.torch.captured(docs, 3, 2, metric=metric)
    found = search(there(queries))
    assert found.certified.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="queries must be finite in float32; row 1 holds NaN"):
        search.finish()
    same(
        search(there(np.nan_to_num(queries, posinf=1))),
        pe.topk(np.nan_to_num(queries, posinf=1), docs, 2, metric=metric),
    )


@pytest.mark.parametrize("given", [{}, {"reduce": "symmetric", "mask": np.arange(20) % 3 > 0}], ids=["sum", "other"])
@pytest.mark.parametrize("codec", ["int8", "residual2"])
def test_answers_by_late_interaction(codec: str, given: dict[str, Any]) -> None:
    """With ids that do not rise; of queries of four tokens, of which one after another is asked for."""
    rng = np.random.default_rng(10)
    index = pe.MultiVectorIndex(16, codec, originals=None, normalize="mask" in given)
    index.add([rng.standard_normal((n % 5, 16)) for n in range(20)], ids=rng.permutation(20) + (1 << 40))
    search = pe.torch.captured(index, 2, 5, n_tokens=4, **given)
    for seed in (2, 3):
        queries = np.random.default_rng(seed).standard_normal((2, 4, 16)).astype(np.float32)
        same(search(there(queries)), index.search(queries, 5, backend="numpy", **given))
        same(search.finish(), index.search(queries, 5, backend="numpy", **given))


@ON_HOST
def test_a_launch_by_late_interaction_allocates_nothing() -> None:
    rng = np.random.default_rng(11)
    index = pe.MultiVectorIndex(8, normalize=True)
    index.add([rng.standard_normal((n % 5, 8)) for n in range(12)])
    search, queries = pe.torch.captured(index, 1, 3, n_tokens=2), there(np.ones((1, 2, 8), np.float32))
    with Allocations() as allocations, launches() as first:
        search(queries)
    assert allocations.made == []
    with launches() as second:
        search.replay()
    assert second == first
    assert {name[-7:] for name, _ in first} == {"_kernel"}
    queries[0, 1, 3] = torch.nan
    assert search(queries).certified.tolist() == [False]
    with pytest.raises(ValueError, match="queries must be finite in float32"):
        search.finish()


def test_what_tokens_cannot_do_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    index, words = pe.MultiVectorIndex(8), pe.SparseIndex(10)
    index.add(np.ones((2, 3, 8)))
    with pytest.raises(ValueError, match="n_tokens must be given with a MultiVectorIndex"):
        pe.torch.captured(index, 1)
    with pytest.raises(ValueError, match="dims must not be given with a MultiVectorIndex; got 4"):
        pe.torch.captured(index, 1, n_tokens=2, dims=4)
    with pytest.raises(ValueError, match="n_tokens must not be given without a MultiVectorIndex; got 2"):
        pe.torch.captured(rows(1, 5, 4), 1, n_tokens=2)
    with pytest.raises(RuntimeError, match="a sparse search cannot be captured: the host makes its tables"):
        pe.torch.captured(words, 1)
    with pytest.raises(RuntimeError, match="reduce='aligned' is scored on the host"):
        pe.torch.captured(index, 1, n_tokens=3, reduce="aligned")
    monkeypatch.setattr(triton_maxsim_backend.TritonMaxSim, "_parts", lambda self, problem: [slice(0, 1)])
    with pytest.raises(RuntimeError, match="pass through it in parts, which is not one graph"):
        pe.torch.captured(index, 1, n_tokens=3)


class Graph:
    """As much of torch.cuda.CUDAGraph: what is launched in `recording` is launched by `replay`."""

    recording: Graph | None = None

    def __init__(self) -> None:
        self.held: list[str] = []
        self.replayed = 0

    def replay(self) -> None:
        self.replayed += 1


@contextmanager
def recorded(graph: Graph, stream: Any, capture_error_mode: str) -> Any:
    assert stream == "stream of cuda:1"
    assert capture_error_mode == "thread_local"  # other threads may search meanwhile
    Graph.recording = graph
    yield
    Graph.recording = None


def test_the_launches_are_captured_after_all_else_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device of the documents, which need not be the current one: else the graph would be empty."""
    log: list[str] = []
    made: list[Graph] = []

    def graph() -> Graph:
        made.append(Graph())
        return made[0]

    @contextmanager
    def current(device: Any) -> Any:
        log.append(str(device))
        yield
        log.append("back")

    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("waited"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", recorded)
    other = torch.device("cuda", 1)
    replay = torch_captured._graph(lambda: log.append("captured" if Graph.recording else "launched"), other)
    assert log == ["cuda:1", "waited", "captured", "back"]
    replay()
    replay()
    assert made[0].replayed == 2
    assert log[3:] == ["back"]


def test_what_cannot_be_captured_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    docs, index = rows(9, 30, 8), pe.DenseIndex(8, metric="dot")
    with pytest.raises(ValueError, match="docs must hold one document at least, to be captured; got none"):
        pe.torch.captured(index, 1)
    index.add(docs)
    with pytest.raises(ValueError, match="metric must be that of the index, 'dot', or not be given; got 'l2'"):
        pe.torch.captured(index, 1, metric="l2")
    with pytest.raises(ValueError, match="n_queries must be a positive integer below 2\\^31; got 0"):
        pe.torch.captured(docs, 0)
    with pytest.raises(ValueError, match=r"queries must have shape \(2, 8\); got \(3, 8\)"):
        pe.torch.captured(docs, 2)(there(rows(1, 3, 8)))
    bad = docs.copy()
    bad[11, 2] = np.nan
    with pytest.raises(ValueError, match="docs must be finite in float32; row 11 holds"):
        pe.torch.captured(bad, 2)
    long = np.zeros((2, 8193), np.float32)
    with pytest.raises(RuntimeError, match="its kernels take at most 8,192 dimensions, and 8,193 are scored"):
        pe.torch.captured(long, 1)
    monkeypatch.setattr(triton_backend.TritonBackend, "_parts", lambda self, problem: [slice(0, 8)])
    with pytest.raises(RuntimeError, match="pass through it in parts, which is not one graph"):
        pe.torch.captured(docs, 1)


def test_without_the_kernels_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_refusals, "missing", lambda: "there is no GPU")
    with pytest.raises(RuntimeError, match=r"backend 'triton' cannot run .*\n  triton: there is no GPU"):
        pe.torch.captured(rows(1, 5, 4), 1)


def test_operators_that_wait_refuse_to_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnDevice:
        is_cuda = True

    tensor: Any = OnDevice()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"dense_topk waits .* use pyengine.torch.captured"):
        pe.torch.torch_ops._dense_topk(tensor, tensor, 3)
    with pytest.raises(RuntimeError, match=r"sparse_topk waits .* cannot be captured"):
        pe.torch.torch_ops._sparse_topk(tensor, tensor, tensor, tensor, tensor, tensor, 10, 3)

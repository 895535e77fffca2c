"""Steady state on a GPU: what is launched, into which tensors, and that nothing is allocated and nothing waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.searches import dense
from pyengine.searches.search import exact_search
from tests.dense_cases import rows

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from triton.runtime.interpreter import GridExecutor  # noqa: E402

from pyengine.backends.triton import triton_dense, triton_device, triton_workspace  # noqa: E402
from pyengine.backends.triton.triton_workspace import Workspace, Workspaces  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreter")
BACKEND = registry.get("triton")
CPU = torch.device("cpu")
ON_HOST = pytest.mark.skipif(torch.cuda.is_available(), reason="it looks into the interpreter")


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operators that made a tensor in memory of its own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [args, list((kwargs or {}).values())]
        there = {each.untyped_storage().data_ptr() for each in _of(torch.Tensor, given)}
        there |= {each.data_ptr() for each in _of(torch.UntypedStorage, given)}
        found = func(*args, **(kwargs or {}))
        made = [each for each in _of(torch.Tensor, [found]) if each.numel()]
        new = [each for each in made if each.untyped_storage().data_ptr() not in there]
        self.made += [str(func)] * len(new)
        return found


def _of(kind: type, nested: Any) -> Iterator[Any]:
    for each in nested:
        if isinstance(each, kind):
            yield each
        elif isinstance(each, (tuple, list)):
            yield from _of(kind, each)


Launch = tuple[str, tuple[int, ...]]


@contextmanager
def launches() -> Iterator[list[Launch]]:
    """The kernels that are launched, with the addresses of their tensors; and the copies to the host and other waits
    among them."""
    log: list[Launch] = []
    call, tensor = GridExecutor.__call__, torch.Tensor

    def launched(self: Any, *args: Any, **kwargs: Any) -> None:
        log.append((self.fn.__name__, tuple(each.data_ptr() for each in args if hasattr(each, "data_ptr"))))
        with pytest.MonkeyPatch.context() as within:  # what the interpreter does is no wait
            for name, method in waiting.items():
                within.setattr(tensor, name, method)
            call(self, *args, **kwargs)

    def waits(name: str, method: Any) -> Any:
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            if name != "to" or "cpu" in args:
                log.append((name, ()))
            return method(self, *args, **kwargs)

        return watched

    waiting = {name: getattr(tensor, name) for name in ("to", "cpu", "item", "tolist", "__bool__", "__int__")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GridExecutor, "__call__", launched)
        for name, method in waiting.items():
            patch.setattr(tensor, name, waits(name, method))
        yield log


def problem_of(docs: Documents, seed: int, n_queries: int = 3, **more: Any) -> DenseProblem:
    return dense.prepare(rows(seed, n_queries, docs.dim), docs, 5, **{"metric": "cosine", **more})


@ON_HOST
@pytest.mark.parametrize("more", [{}, {"metric": "l2", "mask": np.arange(200) % 3 > 0}], ids=["plain", "l2, mask"])
def test_a_search_like_the_one_before_allocates_nothing_and_waits_once(more: dict[str, Any]) -> None:
    docs = Documents(rows(1, 200, 8), cache={})
    first, second = (problem_of(docs, seed, **more) for seed in (2, 3))
    conformance.same(exact_search(first, BACKEND), conformance.specified(first), "first")
    width = BACKEND.first_width(second)
    with launches() as log, Allocations() as allocations:
        found = triton_dense.attempt(second, second, width)
    assert allocations.made == ["aten._to_copy.default"]  # the answer, on the host
    scans = ["dense_scan_kernel", "tighten_kernel"]
    names = ["code_queries_kernel", *scans, *scans, "refine_kernel", "select_kernel", "finish_kernel", "to"]
    assert [name for name, _ in log] == names
    assert found is not None
    want = conformance.specified(second)
    assert found.scores.tolist() == want.scores.tolist()
    assert found.ids.tolist() == want.ids.tolist()
    with launches() as again:
        triton_dense.attempt(first, first, width)
    assert again == log


def test_a_room_of_inference_mode_serves_what_comes_after_it() -> None:
    docs = Documents(rows(1, 60, 8), cache={})
    with torch.inference_mode():
        conformance.same(
            exact_search(problem_of(docs, 2), BACKEND), conformance.specified(problem_of(docs, 2)), "within"
        )
    conformance.same(exact_search(problem_of(docs, 3), BACKEND), conformance.specified(problem_of(docs, 3)), "after")


@ON_HOST
def test_blocks_of_queries_share_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = triton_dense.plan
    monkeypatch.setattr(triton_dense, "plan", lambda *given: replace(plan(*given), query_block=2))
    problem = problem_of(Documents(rows(4, 60, 8), cache={}), 5, n_queries=5, metric="dot")
    with launches() as log:
        conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), "blocks")
    coded = [addresses for name, addresses in log if name == "code_queries_kernel"]
    assert len(coded) == 3
    assert coded[0][1:6] == coded[1][1:6] == coded[2][1:6]


def test_an_answer_outlives_the_next_search() -> None:
    index = pe.DenseIndex(8, backend="triton")
    index.add(rows(6, 50, 8), ids=np.arange(50)[::-1].copy())
    first = index.search(rows(7, 2, 8), 4)
    proposed = BACKEND.propose(index._problem(rows(7, 2, 8), 4), 9)
    kept = [each.copy() for each in (*first, *proposed)]
    index.search(rows(8, 2, 8), 4)
    BACKEND.propose(index._problem(rows(8, 2, 8), 4), 9)
    for now, then in zip((*first, *proposed), kept):
        assert now.tolist() == then.tolist()


def test_two_searches_at_once_have_rooms_of_their_own() -> None:
    kept = Workspaces(CPU)
    with kept.borrowed("shapes") as first, kept.borrowed("shapes") as second:
        assert first is not second
    with kept.borrowed("others") as third:
        assert third not in (first, second)
    with kept.borrowed("shapes") as again:
        assert again is first  # what was used last


def test_a_stream_has_rooms_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, stream = Workspaces(CPU), [1]
    monkeypatch.setattr(triton_workspace, "stream_of", lambda device: stream[0])
    with kept.borrowed("shapes") as first:
        pass
    stream[0] = 2
    with kept.borrowed("shapes") as second:
        assert second is not first
    stream[0] = 1
    with kept.borrowed("shapes") as again:
        assert again is first


def test_nobody_gets_the_room_of_a_search_that_failed() -> None:
    """Its copies from pinned memory may be yet to come."""
    kept = Workspaces(CPU)
    with kept.borrowed("shapes") as first:
        pass
    with pytest.raises(KeyboardInterrupt), kept.borrowed("shapes") as failed:
        raise KeyboardInterrupt
    assert failed is first
    with kept.borrowed("shapes") as again:
        assert again is not first


def test_what_no_search_is_using_is_bounded() -> None:
    kept = Workspaces(CPU, most_bytes=100)

    def used(shapes: str, size: int) -> Workspace:
        with kept.borrowed(shapes) as own:
            own.kept("pools", lambda: (torch.empty(size, dtype=torch.uint8), (torch.empty(1, dtype=torch.uint8), 3)))
        return own

    first, _ = used("a", 59), used("b", 29)
    assert kept.nbytes == 90
    assert used("a", 0) is first
    used("c", 19)  # what was used longest ago goes: b
    assert kept.nbytes == 80
    used("d", 200)
    assert kept.nbytes == 0
    for number in range(2 * triton_workspace.MOST_KEPT):
        used(str(number), 0)
    assert kept.nbytes == triton_workspace.MOST_KEPT


def test_the_rooms_of_a_corpus_last_as_long_as_it() -> None:
    docs = Documents(rows(9, 20, 8), cache={})
    assert triton_workspace.workspaces(docs) is triton_workspace.workspaces(docs)
    assert triton_workspace.workspaces(docs).device == triton_device.device_of(docs)
    once = Documents(rows(9, 20, 8))
    assert triton_workspace.workspaces(once) is not triton_workspace.workspaces(once)


def test_a_room_of_another_shape_is_an_error() -> None:
    own = Workspace(CPU)
    assert own.room("keys", (2, 3), torch.int64) is own.room("keys", (2, 3), torch.int64)
    with pytest.raises(AssertionError, match=r"keys \(2, 3\) is not of this search, which wants \(3, 3\)"):
        own.room("keys", (3, 3), torch.int64)


def test_what_is_kept_of_a_corpus_is_whole_before_another_stream_may_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def build(device: Any) -> str:
        log.append(f"built on {device}")
        return "made"

    class Stream:
        def synchronize(self) -> None:
            log.append("waited")

    monkeypatch.setattr(triton_device, "device_of", lambda corpus: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    docs, once = Documents(rows(9, 20, 8), cache={}), Documents(rows(9, 20, 8))
    for _ in range(2):
        assert triton_device.mirrored(docs, "this", build) == "made"
    assert log == ["built on cuda:0", "waited"]
    triton_device.mirrored(once, "this", build)
    assert log[2:] == ["built on cuda:0"]  # nobody else reads what lasts for one search


def test_the_default_type_of_tensors_changes_nothing() -> None:
    docs = Documents(rows(10, 200, 8), cache={})
    torch.set_default_dtype(torch.float64)
    try:
        for metric in ("dot", "l2"):
            problem = problem_of(docs, 11, metric=metric)
            conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), metric)
        pairs = pe.DenseIndex(8, backend="triton")
        pairs.add(docs.rows)
        found = pairs.search(rows(12, 70, 8), 4)
    finally:
        torch.set_default_dtype(torch.float32)
    want = pairs.search(rows(12, 70, 8), 4, backend="numpy")
    assert found.ids.tolist() == want.ids.tolist()
    assert found.scores.tolist() == want.scores.tolist()

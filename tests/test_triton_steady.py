"""Steady state of late interaction, sparse and sliced rows on a GPU: a search like one before allocates nothing there,
waits once, and reads nothing that another has left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pyengine import conformance
from pyengine.backends import registry
from pyengine.conformance.conformance_sparse import documents, rows
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.ragged import Ragged
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.problems.problem import Documents, Problem
from pyengine.problems.problem_maxsim import TokenDocuments
from pyengine.problems.problem_sliced import SlicedDocuments
from pyengine.searches import maxsim_request, sliced, sparse
from pyengine.searches.search import exact_search

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends.triton import triton_workspace  # noqa: E402
from pyengine.backends.triton.triton_workspace import Workspace  # noqa: E402
from pyengine.kernels import selection  # noqa: E402
from tests.test_triton_workspace import CPU, ON_HOST, Allocations, launches  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # in the interpreter
]
Make = Callable[..., Problem]
CONSTANT = {"starts", "numbers of pairs"}  # of what a workspace keeps
N_DOCS, N_SETS = 70, 20  # documents, and of tokens


def _sparse() -> Make:
    rng = np.random.default_rng(0)
    docs = replace(documents(rows(rng, N_DOCS, 12, 40, weights), "float32"), cache={})

    def made(seed: int, n_queries: int = 2, size: int = 8, k: int = 5, **more: Any) -> Problem:
        return sparse.prepare(rows(np.random.default_rng(seed), n_queries, size, 40, weights), docs, k, **more)

    return made


def weights(rng: np.random.Generator, count: int) -> Any:
    return rng.gamma(2.0, 0.5, count) + 0.01


def _sliced() -> Make:
    def vectors(seed: int, count: int) -> SlicedRows:
        rng = np.random.default_rng(seed)
        return SlicedRows(rng.standard_normal((count, 7)), rng.integers(0, 3, (count, 7)))

    docs = SlicedDocuments(vectors(0, N_DOCS), cache={})

    def made(seed: int, n_queries: int = 2, size: int = 8, k: int = 5, **more: Any) -> Problem:
        return sliced.prepare(vectors(seed, n_queries), docs, k, **more)

    return made


def _maxsim(store: str = "float32", **scoring: Any) -> Make:
    def tokens(seed: int, lengths: list[int]) -> Ragged:
        rng = np.random.default_rng(seed)
        return Ragged(rng.standard_normal((sum(lengths), 12)).astype(np.float32), np.cumsum([0, *lengths]))

    own = tokens(0, [n % 4 for n in range(N_SETS)])
    docs = TokenDocuments(Documents(own.values), own.offsets, cache={})

    def made(seed: int, n_queries: int = 2, size: int = 8, k: int = 5, **more: Any) -> Problem:
        asked = tokens(seed, [size - n for n in range(n_queries)])
        return maxsim_request.prepare(asked, docs, k, num_threads=1, **scoring, **more)

    return made


FAMILIES: dict[str, Callable[[], Make]] = {
    "sparse": _sparse,
    "sliced": _sliced,
    "maxsim": _maxsim,
    "maxsim, symmetric": lambda: _maxsim(reduce="symmetric", normalize=True),
}
each_family = pytest.mark.parametrize("family", FAMILIES)
one_of_each = pytest.mark.parametrize("family", ["sparse", "sliced", "maxsim"])


@pytest.fixture(autouse=True)
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer places than documents of tokens, so that there is more than one part."""
    from pyengine.backends.triton.triton_maxsim_backend import TritonMaxSim

    monkeypatch.setattr(TritonMaxSim, "first_width", lambda self, problem: problem.k + 3)


def backend_of(problem: Problem) -> Any:
    return registry.of_family("triton", problem.family)


def check(problem: Problem, what: str = "") -> None:
    conformance.same(exact_search(problem, backend_of(problem)), conformance.specified(problem), what)


def idle(problem: Problem) -> Iterator[Workspace]:
    for _, room in triton_workspace.workspaces(problem.docs)._idle:
        yield room


def poison(problem: Problem) -> int:
    """Overwrite all that workspaces keep but constants, with NaN and -1; how many tensors that are."""
    count = 0
    for room in idle(problem):
        for name, kept in room._kept.items():
            for tensor in triton_workspace._tensors([kept] if name not in CONSTANT else []):
                torch.as_tensor([], dtype=torch.uint8).set_(tensor.untyped_storage()).fill_(255)
                count += 1
    return count


@ON_HOST
@each_family
@pytest.mark.parametrize("masked", [False, True])
def test_a_search_like_the_one_before_allocates_nothing_and_waits_once(family: str, masked: bool) -> None:
    make = FAMILIES[family]()
    n = len(make(0).docs)
    more = {"mask": np.arange(n) % 4 > 0, "bias": np.linspace(0.0, 0.5, n)} if masked else {}
    first, second = make(1, **more), make(2, **more)
    check(first)
    backend, width = backend_of(second), backend_of(second).first_width(second)
    with launches() as log, Allocations() as allocations:
        found = backend.attempt(second, second, width)
    assert allocations.made == ["aten._to_copy.default"]  # the answer, on the host
    assert [name for name, _ in log if not name.endswith("_kernel")] == ["to"]
    want = conformance.specified(second)
    assert found.scores.tolist() == want.scores.tolist()
    assert found.ids.tolist() == want.ids.tolist()


@each_family
def test_a_workspace_serves_other_searches(family: str) -> None:
    """Of other queries, shorter and longer ones, fewer and more, of other k, masked and not, one after another; with
    all that the ones before left overwritten."""
    make = FAMILIES[family]()
    n = len(make(0).docs)
    given: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 2, "size": 3},
        {"seed": 3, "size": 12},
        {"seed": 4, "n_queries": 1},
        {"seed": 5, "k": 1},
        {"seed": 6, "mask": np.arange(n) % 3 > 0},
        {"seed": 7, "mask": np.random.default_rng(0).random((2, n)) < 0.7},
        {"seed": 8, "bias": np.linspace(-1, 1, n)},
        {"seed": 9, "filters": FilterArguments(threshold=0.5, exclude=[[0, 3], []])},
    ]
    for number, each in enumerate(given):
        problem = make(**each)
        check(problem, str(each))
        assert poison(problem) >= 8
        rooms = list(idle(problem))
        assert len(rooms) <= number + 1
    assert len(rooms) <= len(given) - 3  # most searches have had the room of another


@one_of_each
def test_a_room_of_inference_mode_serves_what_comes_after_it(family: str) -> None:
    make = FAMILIES[family]()
    with torch.inference_mode():
        check(make(1), "within")
    check(make(2), "after")
    (room,) = idle(make(1))
    assert not any(each.is_inference() for each in triton_workspace._tensors(room._kept.values()))


@one_of_each
def test_queries_of_about_the_same_size_have_the_same_room(family: str) -> None:
    make = FAMILIES[family]()
    check(make(1, size=9))
    (room,) = idle(make(1))
    before = {name: kept.data_ptr() for name, kept in room._kept.items() if isinstance(kept, torch.Tensor)}
    check(make(2, size=8))
    after = {name: kept.data_ptr() for name, kept in room._kept.items() if isinstance(kept, torch.Tensor)}
    assert after == before


def test_queries_of_the_same_lengths_are_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyengine.backends.triton import triton_maxsim

    make, planned, plan = _maxsim(), list[Problem](), triton_maxsim.plan

    def watched(problem: Any) -> Any:
        planned.append(problem)
        return plan(problem)

    monkeypatch.setattr(triton_maxsim, "plan", watched)
    for seed, size in ((1, 8), (2, 8), (3, 7), (4, 7), (5, 8)):
        check(make(seed, size=size))
    assert len(planned) == 3


@one_of_each
def test_a_search_within_another(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another thread may search, between any two launches: here before the k best are chosen."""
    make = FAMILIES[family]()
    outer, inner = make(1), make(2)
    check(inner)
    choose, waiting = selection.choose, [True]

    def interrupted(*given: Any) -> None:
        if waiting:
            waiting.clear()
            check(inner, "inner")
        choose(*given)

    monkeypatch.setattr(selection, "choose", interrupted)
    check(outer, "outer")
    assert not waiting
    assert len(list(idle(outer))) == 2


@one_of_each
def test_an_answer_outlives_the_next_search(family: str) -> None:
    make = FAMILIES[family]()
    backend, first = backend_of(make(1)), make(1)
    width = backend.first_width(first)
    found = backend.attempt(first, first, width), backend.propose(first, width)
    kept = [each.copy() for part in found for each in part]
    second = make(2)
    backend.attempt(second, second, width)
    backend.propose(second, width)
    for now, then in zip((each for part in found for each in part), kept):
        assert now.tolist() == then.tolist()


def test_what_is_sent_together_arrives_as_it_was() -> None:
    room = Workspace(CPU)
    source = np.arange(12, dtype=np.int64).reshape(3, 4)
    source.flags.writeable = False
    given = source.T, None, np.array([0.5], np.float32), np.empty((0, 3), np.float16), np.array(True), source[:, 1:3]
    first = room.sent("these", *given)
    for there, here in zip(first, given):
        assert (there is None) == (here is None)
        assert here is None or (there.numpy().tolist(), tuple(there.shape)) == (here.tolist(), here.shape)
    assert all(each is None or each.data_ptr() % 16 == 0 for each in first)
    with Allocations() as allocations:
        again = room.sent("these", source.T + 1, None, np.array([2], np.float32), *given[3:])
    assert allocations.made == []
    assert again[0].data_ptr() == first[0].data_ptr()
    assert again[0].tolist() == (source.T + 1).tolist()
    longer = room.sent("these", np.zeros(100_000, np.int8))[0]
    assert len(longer) == 100_000
    with Allocations() as allocations:
        longest, found = room.sent("these", np.ones(110_000, np.int8))[0], room.sent("these", *given)
    assert allocations.made == []
    assert longest.data_ptr() == longer.data_ptr()
    assert found[0].tolist() == source.T.tolist()


def test_what_is_sent_may_change_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (triton_workspace.MOST_STAGED, 0):
        monkeypatch.setattr(triton_workspace, "MOST_STAGED", most)
        room, source = Workspace(CPU), np.ones(5, np.float32)
        found = room.copied("these", source)
        source[:] = 0
        assert found.tolist() == [1] * 5
        assert len(room._kept) == (3 if most else 2)  # without pinned memory for what is large


def test_every_byte_is_counted_once() -> None:
    room = Workspace(CPU)
    packed = room.room("packed", (64,), torch.uint8)
    room.kept("answer", lambda: (packed, packed[:8].view(torch.int64), torch.empty(3, dtype=torch.int32)))
    assert room.nbytes == 64 + 12
    room.roomy("these", (5,), torch.float64)
    assert room.nbytes == 64 + 12 + triton_workspace.LEAST_BYTES
    room.sent("those", np.zeros(7, np.int32), np.zeros(9))
    assert room.nbytes == 64 + 12 + 3 * triton_workspace.LEAST_BYTES


@pytest.mark.parametrize("n_bytes", [0, 1, 4096, 4097, 100_000, (1 << 30) + 1])
def test_somewhat_more_is_at_most_a_quarter_more(n_bytes: int) -> None:
    found = triton_workspace.rounded_up(n_bytes)
    assert n_bytes <= found <= max(n_bytes + n_bytes // 4, triton_workspace.LEAST_BYTES * -(-n_bytes // 4096))

"""Many threads, forked processes, and the number of threads asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import pyengine as pe
from pyengine import DenseIndex, TopK, conformance
from pyengine.kernels import plan
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32, I64

pytestmark = [pytest.mark.filterwarnings("error")]
forking = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
needs_extension = pytest.mark.skipif(exact.native() is None, reason="the extension is not built")
D = 16
RNG = np.random.default_rng(8)
DOCS: F32 = RNG.standard_normal((400, D)).astype(np.float32)
QUERIES: F32 = RNG.standard_normal((2, D)).astype(np.float32)


class Change(NamedTuple):
    """Add these documents, in three chunks, or remove them."""

    adds: bool
    ids: I64

    def make(self, index: DenseIndex) -> None:
        if not self.adds:
            index.remove(self.ids)
            return
        parts = np.array_split(self.ids, 3)
        index.add((DOCS[part] for part in parts), iter(parts))


def history(n_steps: int) -> tuple[list[Change], list[TopK]]:
    """Changes to an empty index, and the specified answer before the first and after each."""
    ids: I64 = np.empty(0, np.int64)
    changes: list[Change] = []
    answers = [reference.topk(QUERIES, DOCS[ids], 20, ids=ids)]
    for step in range(n_steps):
        outside = np.setdiff1d(np.arange(400), ids)
        if step % 3 < 2 and len(outside):
            changes.append(Change(True, RNG.permutation(outside)[: RNG.integers(1, 120)]))
            ids = np.concatenate([ids, changes[-1].ids])
        else:
            changes.append(Change(False, RNG.permutation(ids)[: RNG.integers(1, 100)]))
            ids = ids[~np.isin(ids, changes[-1].ids)]
        answers.append(reference.topk(QUERIES, DOCS[ids], 20, ids=ids))
    return changes, answers


def which(answers: list[TopK], found: TopK, first: int) -> int:
    """The first state from ``first`` on that has this answer."""
    for state in range(first, len(answers)):
        if all(np.array_equal(ours, theirs) for ours, theirs in zip(found[:2], answers[state][:2])):
            return state
    raise AssertionError(f"an answer of no state from {first} on: {found}")


@pytest.mark.parametrize("originals", ["ram", *(["disk"] if exact.native() else [])])
def test_every_answer_is_that_of_a_state_that_existed(store: str, originals: str, tmp_path: Path) -> None:
    if originals == "disk" and store == "float32":
        pytest.skip("float32 is scanned in memory")
    changes, answers = history(60)
    index, done = DenseIndex(D, store=store, originals=originals), threading.Event()

    def search() -> int:
        state, searches = 0, 0
        while not done.is_set() or not searches:
            state = which(answers, index.search(QUERIES, 20, num_threads=2), state)
            searches += 1
        return which(answers, index.search(QUERIES, 20), len(changes))

    def save() -> int:
        state = 0
        while not done.is_set():
            index.save(tmp_path)
            state = which(answers, pe.load(tmp_path).search(QUERIES, 20), state)
        return len(changes)

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(each) for each in (search, search, search, save)]
        try:
            for change in changes:
                change.make(index)
        finally:
            done.set()
        assert [each.result() for each in waiting] == [len(changes)] * 4


def in_a_fork(act: Callable[[], object]) -> None:
    """Run it in a forked process, which must end well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@forking
def test_a_fork_after_use_gives_the_same_bits(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "THREAD_OPERATIONS", 1)  # threads, however little there is to do
    index = DenseIndex(D, "l2", store)
    index.add(DOCS)
    want = reference.topk(QUERIES, DOCS, 20, "l2")

    def use() -> None:
        conformance.same(index.search(QUERIES, 20, num_threads=3, backend="auto"), want, "here")

    use()
    in_a_fork(use)
    use()


@forking
@needs_extension
def test_a_fork_may_change_its_copy_of_an_index_on_disk() -> None:
    index = DenseIndex(D, originals="disk")
    index.add(DOCS[:200])

    def use(rows: F32) -> None:
        index.add(rows)
        held = np.concatenate([DOCS[:200], rows])
        conformance.same(index.search(QUERIES, 20), reference.topk(QUERIES, held, 20), "after adding")

    in_a_fork(lambda: use(DOCS[200:300]))
    use(DOCS[300:])
    in_a_fork(lambda: index.remove(range(100)))
    assert len(index) == 300


def most_threads(work: Callable[[], object], enough: int) -> int:
    """The most threads that were there while this process worked, without the one that counts; until ``enough``."""
    most, here = 0, len(os.listdir("/proc/self/task"))
    for _ in range(100):
        worker = threading.Thread(target=work)
        worker.start()
        while worker.is_alive():
            most = max(most, len(os.listdir("/proc/self/task")) - here)
        worker.join()
        if most >= enough:
            break
    return most


@needs_extension
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="there is no /proc to count threads in")
@pytest.mark.parametrize(
    ("asked", "environment", "expected"), [(3, None, 3), (1, "4", 1), (None, "3", 3), (None, "1", 1)]
)
def test_as_many_threads_as_asked_for(
    asked: int | None, environment: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    rows = RNG.standard_normal((30_000, 64)).astype(np.float32)
    index = DenseIndex(64)
    index.add(rows)
    arguments: dict[str, Any] = {} if asked is None else {"num_threads": asked}
    assert most_threads(lambda: index.search(rows[:256], 10, backend="cpu", **arguments), expected) == expected

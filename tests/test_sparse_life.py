"""The life of a `SparseIndex`: adding, removing, replacing, saving, in any order, and beside searches."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pyengine as pe
from pyengine import SparseIndex, SparseRows
from pyengine.indexes import segments
from pyengine.types import I64
from tests.sparse_model import DOCS, KINDS, QUERIES, V, drawn, holds, kept, listed, made

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison", "small_segments"),
]


class Life(RuleBasedStateMachine):
    """Anything that can be done to an index, beside a dict from id to row, in the order of adding."""

    @initialize(kind=st.sampled_from(KINDS))
    def begin(self, kind: tuple[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.index, self.weights = SparseIndex(V, *kind), kind[0]
        self.model: dict[int, Any] = {}
        self.next = 0

    def teardown(self) -> None:
        shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)

    @rule(count=st.integers(0, 30), chunks=st.integers(0, 3), seed=st.integers(0, 99))
    def add(self, count: int, chunks: int, seed: int) -> None:
        rows, new = drawn(count, seed), range(self.next, self.next + count)
        cuts = [0, *sorted(np.random.default_rng(seed).integers(0, count + 1, chunks).tolist()), count]
        parts = (rows.part(slice(low, high)) for low, high in pairwise(cuts))
        self.index.add(parts if chunks else rows)
        self.model |= dict(zip(new, kept(rows, self.weights)))
        self.next += count

    @rule(share=st.floats(0, 1), seed=st.integers(0, 9))
    def remove(self, share: float, seed: int) -> None:
        gone = [each for each in self.model if np.random.default_rng((seed, each)).random() < share]
        self.index.remove(gone)
        self.model = {each: row for each, row in self.model.items() if each not in set(gone)}

    @precondition(lambda self: self.model)
    @rule(seed=st.integers(0, 9))
    def replace(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        some = rng.choice(list(self.model), rng.integers(1, len(self.model) + 1), replace=False).tolist()
        rows = drawn(len(some), seed)
        self.index.replace(rows, some)
        self.model = {each: row for each, row in self.model.items() if each not in set(some)}
        self.model |= dict(zip(some, kept(rows, self.weights)))

    @precondition(lambda self: self.model)
    @rule()
    def a_failed_add_changes_nothing(self) -> None:
        again = min(self.model)
        with pytest.raises(ValueError, match=f"id {again} is in the index already"):
            self.index.add(iter([drawn(20), drawn(1)]), iter([np.arange(5000, 5020), [again]]))

    @rule()
    def compact(self) -> None:
        self.index.compact()
        assert self.index.stats().removed == 0

    @rule(mmap=st.booleans())
    def save_and_load(self, mmap: bool) -> None:
        self.index.save(self.folder / "index")
        self.index = pe.load(self.folder / "index", mmap=mmap)
        assert len(self.index.stats().segments) == (len(self.index) >= segments.LEAST)

    @rule()
    def copy(self) -> None:
        self.index = pickle.loads(pickle.dumps(self.index))

    @precondition(lambda self: self.model)
    @rule(seed=st.integers(0, 9))
    def filter(self, seed: int) -> None:
        rng, ids = np.random.default_rng(seed), list(self.model)
        some: I64 = rng.choice(ids, 1 + len(ids) // 2, replace=False)
        holds(self.index, ids, allow=some, deny=some[:1], exclude=[some[:2], [], some, [-1]])
        holds(self.index, ids, mask=rng.random((4, len(ids))) < 0.5, groups=rng.integers(0, 4, len(ids)), per_group=2)
        page = self.index.search(QUERIES, 2)
        holds(self.index, ids, after=(page.scores[:, -1], page.ids[:, -1]), threshold=0.0)
        holds(self.index, ids, bias=rng.integers(-3, 4, len(ids)).astype(np.float64))

    @invariant()
    def answers(self) -> None:
        if hasattr(self, "index"):
            holds(self.index, self.model)
            assert listed(self.index.rows(self.index.ids)) == list(self.model.values())


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=30, stateful_step_count=20)


def test_what_is_in_range_is_all_that_reaches_the_threshold() -> None:
    index = made()
    index.remove(range(0, 60, 7))
    for threshold in (1.0, 0.0, -1e9):
        found = index.range_search(QUERIES, threshold, deny=[1, 2])
        want = index.search(QUERIES, 200, threshold=threshold, deny=[1, 2])
        real = want.ids >= 0
        assert found.ids.tolist() == want.ids[real].tolist()
        assert found.scores.tolist() == want.scores[real].tolist()
        assert np.diff(found.offsets).tolist() == real.sum(axis=1).tolist()


def test_a_query_without_terms_has_all_documents_in_range_or_none() -> None:
    index, empty = made(), SparseRows([0, 0], [], [], V)
    for threshold in (0.0, -1.0):
        found = index.range_search(empty, threshold)
        assert (found.ids.tolist(), found.scores.any()) == (list(range(200)), False)
    assert len(index.range_search(empty, 1e-45).ids) == 0
    assert index.range_search(empty, 1.0, bias=np.where(np.arange(200) == 7, 1, 0)).ids.tolist() == [7]


def test_paging_goes_on_and_on() -> None:
    index = made()
    whole, page, pages = index.search(QUERIES, 200), None, []
    for _ in range(8):
        page = index.search(QUERIES, 25, after=page)
        pages.append(page)
    assert np.array_equal(np.concatenate([each.ids for each in pages], axis=1), whole.ids)


def test_a_plan_names_what_it_would_do() -> None:
    plan = made("uint8").explain(QUERIES, 3, exclude=[[1], [], [], []])
    assert "sparse top-3" in plan.problem
    assert "documents uint8 [200]" in plan.problem
    assert "exclude" in plan.facts["filters"]


def test_searches_beside_changes_see_whole_states() -> None:
    """Calls add and remove 60 rows at a time; whoever searches or saves meanwhile sees a multiple of 60."""
    index, seen, stop = SparseIndex(V), [], threading.Event()
    one = SparseRows(np.arange(61), np.zeros(60, int), np.ones(60), V)
    query: Any = [{0: 1.0}]

    def look() -> None:
        while not stop.is_set():
            found = index.search(query, 1000)
            seen.append(int((found.scores[0] == 1).sum()))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(12):
        index.add(iter([one.part(slice(0, 20)), one.part(slice(20, 60))]))
        if turn % 3 == 2:
            index.remove(index.ids[:60])
    stop.set()
    for thread in threads:
        thread.join()
    assert seen
    assert {each % 60 for each in seen} == {0}


def test_an_old_state_stays_whole() -> None:
    """What a search holds is not touched by what comes later, be it a call that failed."""
    index = made(docs=drawn(30))
    before = index._contents
    rows, postings = before.store.term_rows(30), before.store.postings
    copy = listed(rows.decoded()), {name: array.copy() for name, array in postings[0].arrays.items()}
    with pytest.raises(ValueError, match="is in the index already"):
        index.add(iter([DOCS, drawn(1)]), iter([np.arange(100, 300), [5]]))
    index.add(DOCS)
    index.remove(range(25))
    index.compact()
    assert listed(rows.decoded()) == copy[0]
    assert before.store.postings is postings
    for name, array in postings[0].arrays.items():
        np.testing.assert_array_equal(array, copy[1][name])


def test_an_interrupted_iterator_adds_nothing() -> None:
    def failing() -> Iterator[SparseRows]:
        yield DOCS
        raise KeyboardInterrupt

    index = made()
    with pytest.raises(KeyboardInterrupt):
        index.add(failing())
    holds(index, range(200))
    index.add(drawn(2))
    holds(index, range(202))

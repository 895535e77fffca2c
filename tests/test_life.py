"""The life of a `DenseIndex`: adding in pieces, removing, compacting, saving and loading, in any order."""

from __future__ import annotations

import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pyengine as pe
from pyengine import DenseIndex, conformance
from pyengine.indexes import arrays, stores
from pyengine.indexes.arrays import DiskArray, GrowingArray
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32, I64

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]
needs_extension = pytest.mark.skipif(exact.native() is None, reason="the extension is not built")
D = 6
RNG = np.random.default_rng(3)
QUERIES: F32 = RNG.integers(-2, 3, (3, D)).astype(np.float32)
DOCS: F32 = RNG.integers(-2, 3, (200, D)).astype(np.float32)
KINDS = [("float32", "ram"), *([("int8", "ram"), ("int8", "disk"), ("bfloat16", "ram")] if exact.native() else [])]
ALL_KINDS: list[tuple[str, str | None]] = [(name, "ram") for name in stores.PLAIN]
ALL_KINDS += [(name, where) for name in ("int8", *stores.PLANES) for where in stores.ORIGINALS]
kinds = pytest.mark.parametrize(("store", "originals"), KINDS)


def holds(index: DenseIndex, model: dict[int, F32], **arguments: Any) -> None:
    """The index holds what the model does, in the order of adding, and answers as the specification does."""
    ids: I64 = np.array(list(model), np.int64)
    assert index.ids.tolist() == ids.tolist()
    assert len(index) == len(model)
    docs = np.array(list(model.values()), np.float32).reshape(-1, D)
    want = reference.topk(QUERIES, docs, 8, index.metric, ids=ids, **arguments)
    conformance.same(index.search(QUERIES, 8, **arguments), want, "against the model")


def model_of(ids: Any) -> dict[int, F32]:
    return {int(each): DOCS[int(each) % 200] for each in ids}


class Life(RuleBasedStateMachine):
    """Anything that can be done to an index, beside a dict from id to vector, in the order of adding."""

    @initialize(kind=st.sampled_from(KINDS), metric=st.sampled_from(reference.METRICS))
    def begin(self, kind: tuple[str, str], metric: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.index = DenseIndex(D, metric, *kind)
        self.model: dict[int, F32] = {}
        self.saved: tuple[dict[int, F32], int] | None = None
        self.largest = -1

    def teardown(self) -> None:
        shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)

    @rule(data=st.data(), n_rows=st.integers(0, 12), given=st.booleans(), chunked=st.booleans())
    def add(self, data: st.DataObject, n_rows: int, given: bool, chunked: bool) -> None:
        free = st.integers(0, 60).filter(lambda each: each not in self.model)
        ids = data.draw(st.lists(free, min_size=n_rows, max_size=n_rows, unique=True)) if given else None
        new = list(range(self.largest + 1, self.largest + 1 + n_rows)) if ids is None else ids
        rows = DOCS[np.array(new, np.int64) % 200]
        if chunked:
            cuts = data.draw(st.lists(st.integers(0, n_rows), max_size=3).map(sorted))
            parts = None if ids is None else iter(np.split(np.array(ids, np.int64), cuts))
            self.index.add(iter(np.split(rows, cuts)), parts)
        else:
            self.index.add(rows, ids)
        self.model |= dict(zip(new, rows))
        self.largest = max(self.largest, *new, -1)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), n_rows=st.integers(1, 5))
    def add_one_too_many(self, data: st.DataObject, n_rows: int) -> None:
        """A call that fails late: its last chunk brings an id that is there."""
        again = data.draw(st.sampled_from(sorted(self.model)))
        ids = [np.arange(1000, 1000 + n_rows), np.array([2000, again])]
        with pytest.raises(ValueError, match=f"id {again} is in the index already"):
            self.index.add(iter([DOCS[:n_rows], DOCS[:2]]), iter(ids))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True))
        self.index.remove(gone)
        for each in gone:
            del self.model[each]

    @rule(unknown=st.integers(0, 3000))
    def remove_what_is_not_there(self, unknown: int) -> None:
        if unknown not in self.model:
            with pytest.raises(ValueError, match=f"id {unknown} is not"):
                self.index.remove([*list(self.model)[:2], unknown])

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def save(self) -> None:
        self.index.save(self.folder / "index")
        self.saved = dict(self.model), self.largest

    @precondition(lambda self: self.saved)
    @rule(mapped=st.booleans())
    def load(self, mapped: bool) -> None:
        assert self.saved is not None
        self.index = pe.load(self.folder / "index", mmap=mapped)
        self.model, self.largest = dict(self.saved[0]), self.saved[1]

    @rule(seed=st.integers(0, 99), per_query=st.booleans())
    def search_with_a_mask_and_a_bias(self, seed: int, per_query: bool) -> None:
        rng = np.random.default_rng(seed)
        shape = (len(QUERIES), len(self.model)) if per_query else len(self.model)
        holds(self.index, self.model, mask=rng.random(shape) < 0.6, bias=rng.integers(-2, 3, len(self.model)))

    @invariant()
    def answers_as_specified(self) -> None:
        if hasattr(self, "index"):
            holds(self.index, self.model)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=25)


def chunks() -> Iterator[F32]:
    yield from np.array_split(DOCS[:50], 7)


@kinds
def test_an_iterator_of_chunks_is_one_add(store: str, originals: str) -> None:
    index = DenseIndex(D, store=store, originals=originals)
    index.add(chunks())
    index.add(iter([DOCS[50:60], DOCS[60:60], DOCS[60:70]]), iter([np.arange(150, 160), [], range(80, 90)]))
    holds(index, dict(zip([*range(50), *range(150, 160), *range(80, 90)], DOCS)))


BAD_CHUNKS: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "a wrong chunk": (lambda: iter([DOCS[:9], DOCS[:9, :3]]), None, ValueError, r"vectors must have 6 .*\(9, 3\)"),
    "a row": (lambda: iter([DOCS[:9], np.full((2, D), np.nan)]), None, ValueError, "vectors must be finite.*row 9 "),
    "no ids left": (chunks, lambda: iter([range(8)]), ValueError, "ids must have one array for each chunk.*got 1"),
    "ids left": (lambda: iter([DOCS[:2]]), lambda: iter([[1, 2], [3]]), ValueError, "ids must have one array.*more"),
    "ids twice": (lambda: iter([DOCS[:2]] * 2), lambda: iter([[1, 2], [3, 2]]), ValueError, "ids must be new; id 2"),
    "a wrong number": (lambda: iter([DOCS[:2]]), lambda: iter([[1, 2, 3]]), ValueError, "one entry per vector, 2"),
    "ids at once": (chunks, lambda: range(50), TypeError, "ids must be an iterator .* got a range"),
    "its own error": (lambda: (1 // 0 for _ in [0]), None, ZeroDivisionError, "division"),
}


@kinds
@pytest.mark.parametrize("case", BAD_CHUNKS)
def test_an_iterator_that_fails_adds_nothing(store: str, originals: str, case: str) -> None:
    index = DenseIndex(D, store=store, originals=originals)
    index.add(DOCS[:20], ids=range(100, 120))
    vectors, ids, error, says = BAD_CHUNKS[case]
    with pytest.raises(error, match=says):
        index.add(vectors(), None if ids is None else ids())
    holds(index, dict(zip(range(100, 120), DOCS)))
    index.add(DOCS[20:30])
    holds(index, dict(zip(range(100, 130), DOCS)))


def test_control_c_while_adding_leaves_the_index_as_it_was(store: str) -> None:
    def stopped() -> Iterator[F32]:
        yield DOCS[:10]
        raise KeyboardInterrupt

    index = DenseIndex(D, store=store)
    index.add(DOCS[:5])
    with pytest.raises(KeyboardInterrupt):
        index.add(stopped())
    holds(index, dict(enumerate(DOCS[:5])))


def test_searches_see_nothing_of_an_add_before_it_is_done(store: str) -> None:
    index = DenseIndex(D, store=store)
    index.add(DOCS[:5])

    def watching() -> Iterator[F32]:
        for chunk in chunks():
            yield chunk
            holds(index, dict(enumerate(DOCS[:5])))

    index.add(watching())
    assert len(index) == 55


def test_an_iterator_cannot_change_the_index_it_feeds(store: str) -> None:
    index = DenseIndex(D, store=store)
    index.add(DOCS[:5])

    def meddling() -> Iterator[F32]:
        index.remove([0])
        yield DOCS

    with pytest.raises(RuntimeError, match="documents must not come from an iterator that changes the index"):
        index.add(meddling())
    holds(index, dict(enumerate(DOCS[:5])))


def test_an_array_that_needs_converting_is_converted_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1 << 16)
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float64, (30_000, 16))
    rows[:] = np.arange(16) + np.arange(30_000)[:, None] % 97
    index = DenseIndex(16, "dot", "float32")
    tracemalloc.start()
    index.add(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * 30_000 * (16 * 4 + 8 + 8)
    conformance.same(index.search(rows[:3], 5), reference.topk(rows[:3].astype("f4"), rows.astype("f4"), 5, "dot"), "")


def test_the_row_that_is_refused_is_counted_through(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1 << 8)
    rows = DOCS.astype(np.float64)
    rows[123, 2] = 1e39
    index = DenseIndex(D, store=store)
    with pytest.raises(ValueError, match="vectors must be finite in float32; row 123 "):
        index.add(rows)
    assert len(index) == 0


def test_removing_one_by_one_touches_no_vectors(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = DenseIndex(D, store=store)
    index.add(DOCS)
    with monkeypatch.context() as patch:
        patch.setattr(GrowingArray, "picked", None)  # what compaction would need
        for each in range(100):
            index.remove([each])
    holds(index, dict(zip(range(100, 200), DOCS[100:])))


def test_an_index_of_which_most_is_dead_compacts_itself(store: str) -> None:
    index = DenseIndex(D, store=store)
    index.add(DOCS)
    before = index._contents.store
    index.remove(range(100))
    assert index._contents.n_rows == 200
    index.remove([150])
    assert index._contents.n_rows == 99
    assert index._contents.store is not before
    left = [*range(100, 150), *range(151, 200)]
    holds(index, dict(zip(left, DOCS[left])))


def test_compaction_that_finds_no_memory_can_wait(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise MemoryError

    index = DenseIndex(D, store=store)
    index.add(DOCS)
    with monkeypatch.context() as patch:
        patch.setattr(GrowingArray, "picked", failing)
        index.remove(range(150))
        holds(index, dict(zip(range(150, 200), DOCS[150:])))
        with pytest.raises(MemoryError):
            index.compact()
    index.compact()
    assert index._contents.n_rows == 50
    holds(index, dict(zip(range(150, 200), DOCS[150:])))


def test_filters_see_living_documents_only(store: str) -> None:
    """Ids that were removed are unknown, and one that came again is its new document."""
    index, fresh = DenseIndex(D, "dot", store), DenseIndex(D, "dot", store)
    index.add(DOCS[:100])
    index.remove(range(0, 60, 2))
    index.add(DOCS[150:160], ids=range(0, 20, 2))
    left = [each for each in range(100) if each % 2 or each >= 60]
    fresh.add(np.concatenate([DOCS[left], DOCS[150:160]]), ids=[*left, *range(0, 20, 2)])
    labels = RNG.integers(0, 9, len(fresh))
    page = fresh.search(QUERIES, 4)
    arguments: list[dict[str, Any]] = [
        {"allow": range(0, 20)}, {"deny": range(0, 50)}, {"exclude": [[0, 2], [1, 30], range(70)]}, {"groups": labels},
        {"groups": labels, "per_group": 2, "mask": labels > 1}, {"after": page}, {"threshold": 3, "bias": labels},
    ]  # fmt: skip
    for each in arguments:
        conformance.same(index.search(QUERIES, 8, **each), fresh.search(QUERIES, 8, **each), str(each))
    targets = np.array([[0, 1], [2, 99], [18, 60]])
    np.testing.assert_array_equal(index.rank_of(QUERIES, targets), fresh.rank_of(QUERIES, targets))
    for got, want in zip(index.range_search(QUERIES, 2), fresh.range_search(QUERIES, 2)):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="allow must hold ids of documents; got 30"):
        index.search(QUERIES, allow=[1, 30])
    with pytest.raises(ValueError, match="targets must hold ids of documents; got 30"):
        index.rank_of(QUERIES, [1, 30, 2])


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_ids_are_found_in_any_order_and_after_coming_again(order: str) -> None:
    ids = {"rising": np.arange(200) * 3, "falling": np.arange(200)[::-1], "mixed": RNG.permutation(400)[:200]}[order]
    index, model = DenseIndex(D, "dot", "float32"), {}
    index.add(DOCS, ids)
    model = dict(zip(ids.tolist(), DOCS))
    for round in range(6):
        gone = RNG.permutation(list(model))[:30].tolist()
        index.remove(gone)
        for each in gone:
            del model[each]
        index.add(DOCS[round : round + 20], gone[:20])
        model |= dict(zip(gone[:20], DOCS[round : round + 20]))
        holds(index, model)


@needs_extension
@pytest.mark.parametrize(("store", "originals"), ALL_KINDS)
@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_every_store_lives_the_same_life(store: str, originals: str | None, mmap: bool, tmp_path: Path) -> None:
    """Adding in pieces, removing, saving and loading leave what one add of the rest gives, to the bit."""
    docs = RNG.standard_normal((300, 70)).astype(np.float32)
    index, fresh = (DenseIndex(70, "dot", store, originals) for _ in range(2))
    index.add(iter(np.array_split(docs[:200], 6)))
    index.remove(range(0, 200, 3))
    index.save(tmp_path)
    index = pe.load(tmp_path, mmap)
    assert index.originals == originals
    index.add(docs[200:], ids=[*range(0, 200, 3), *range(500, 533)])
    index.remove(range(1, 100, 3))
    left = [each for each in range(200) if each % 3 == 2 or (each % 3 == 1 and each >= 100)]
    fresh.add(np.concatenate([docs[left], docs[200:]]), ids=[*left, *range(0, 200, 3), *range(500, 533)])
    for _ in range(2):
        assert index.ids.tolist() == fresh.ids.tolist()
        conformance.same(index.search(docs[:5], 300), fresh.search(docs[:5], 300), "after a life")
        index.compact()


@needs_extension
def test_originals_on_disk_take_memory_for_codes_only(tmp_path: Path) -> None:
    index = DenseIndex(D, originals="disk", directory=tmp_path)
    index.add(chunks())
    index.remove(range(40))  # compacts, which moves them to another file
    holds(index, dict(zip(range(40, 50), DOCS[40:])))
    rows = index._contents.store.arrays["rows"]
    assert isinstance(rows, DiskArray)
    assert not rows.view.flags.writeable
    assert not rows.view.flags.owndata
    assert list(tmp_path.iterdir()) == []  # nothing to clean up


@needs_extension
def test_originals_on_disk_need_a_folder_and_a_store_of_codes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"directory must be a folder that exists; got '.*absent'"):
        DenseIndex(D, originals="disk", directory=tmp_path / "absent")
    with pytest.raises(ValueError, match=r"originals must be 'ram' for store 'float32', .*; got 'disk'"):
        DenseIndex(D, store="float32", originals="disk")


def test_views_of_a_growing_file_stay_as_they_were(tmp_path: Path) -> None:
    growing, held = DiskArray(np.float32, (3,), str(tmp_path)), []
    for i in range(60):
        growing.append(np.full((i % 5, 3), i, np.float32))
        held.append((growing.view, growing.view.copy()))
    growing.truncate(100)
    growing.append(np.full((7, 3), -1, np.float32))
    assert growing.view[100:].tolist() == [[-1.0] * 3] * 7
    for view, copy in held:
        if len(view) <= 100:
            np.testing.assert_array_equal(view, copy)


@kinds
def test_what_is_replaced_keeps_its_id(store: str, originals: str) -> None:
    index = DenseIndex(D, "dot", store, originals)
    index.add(DOCS[:40])
    index.replace(DOCS[100:103], [7, 3, 39])
    model = {each: DOCS[each] for each in range(40) if each not in (7, 3, 39)}
    holds(index, model | {7: DOCS[100], 3: DOCS[101], 39: DOCS[102]})
    with pytest.raises(ValueError, match="ids must be in the index; id 40 is not"):
        index.replace(DOCS[:2], [0, 40])
    with pytest.raises(ValueError, match="vectors must be finite"):
        index.replace(np.full((1, D), np.nan), [0])
    holds(index, model | {7: DOCS[100], 3: DOCS[101], 39: DOCS[102]})

"""`DenseIndex`: adding, removing, ids, and what a search sees of them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest

import pyengine
from pyengine import DenseIndex, TopK, conformance, topk
from pyengine.indexes.arrays import GrowingArray
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32, I64

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]
metrics = pytest.mark.parametrize("metric", reference.METRICS)
D = 20
RNG = np.random.default_rng(7)
QUERIES: F32 = RNG.standard_normal((4, D)).astype(np.float32)
DOCS: F32 = RNG.standard_normal((120, D)).astype(np.float32)
TIED: F32 = RNG.integers(-1, 2, (120, D)).astype(np.float32)[RNG.integers(0, 120, 120)]


def index_of(docs: F32, store: str, ids: Any = None, metric: str = "cosine") -> DenseIndex:
    index = DenseIndex(D, metric, store)
    index.add(docs, ids)
    return index


def holds(index: DenseIndex, docs: F32, ids: I64, what: str, **arguments: Any) -> None:
    """The index holds these documents in this order, and searches them as specified."""
    np.testing.assert_array_equal(index.ids, ids, err_msg=what)
    assert len(index) == len(docs)
    want = reference.topk(QUERIES, docs, 15, index.metric, ids=ids, **arguments)
    conformance.same(index.search(QUERIES, 15, **arguments), want, what)


@metrics
def test_search_gives_the_specified_answer(store: str, metric: str) -> None:
    holds(index_of(DOCS, store, metric=metric), DOCS, np.arange(120), "an index")


def test_ids_count_on_from_the_largest_ever_used(store: str) -> None:
    index = index_of(DOCS[:2], store)
    index.add(DOCS[2:4], ids=[100, 7])
    index.add(DOCS[4:6])
    assert index.ids.tolist() == [0, 1, 100, 7, 101, 102]


@pytest.mark.parametrize("ids", [[3, 1, 2], (3, 1, 2), np.array([3, 1, 2], np.uint8), np.array([3, 9, 1, 9, 2])[::2]])
def test_ids_may_be_any_integers(store: str, ids: Any) -> None:
    assert index_of(DOCS[:3], store, ids).ids.tolist() == [3, 1, 2]


def test_the_largest_id_there_is(store: str) -> None:
    index = index_of(DOCS[:1], store, [2**63 - 1])
    assert index.search(QUERIES, 1).ids.tolist() == [[2**63 - 1]] * 4


def test_many_small_adds_are_one_large_add(store: str) -> None:
    index = DenseIndex(D, "dot", store)
    sizes = [1, 1, 2, 0, 3, 1, 5, 8, 1, 13, 1, 1, 21, 34, 28]
    start = 0
    for size in sizes:
        index.add(DOCS[start : start + size])
        start += size
        holds(index, DOCS[:start], np.arange(start), f"after {start} documents")
    assert start == 120


def test_growth_copies_each_row_a_bounded_number_of_times() -> None:
    rows, buffers = GrowingArray(np.float32, (2,)), set()
    for i in range(5000):
        rows.append(np.full((1, 2), i, np.float32))
        buffers.add(rows.view.base.__array_interface__["data"][0] if rows.view.base is not None else None)
    assert rows.view[:, 0].tolist() == list(range(5000))
    assert len(buffers) < 30


def test_adding_does_not_keep_or_change_what_was_given(store: str) -> None:
    given, given_ids = DOCS.copy(), np.arange(120)[::-1].copy()
    index = index_of(given, store, given_ids)
    np.testing.assert_array_equal(given, DOCS)
    given[:], given_ids[:] = 0, 0
    holds(index, DOCS, np.arange(120)[::-1], "after the caller's arrays changed")


def test_adding_nothing_changes_nothing(store: str) -> None:
    index = index_of(DOCS, store)
    index.add(DOCS[:0])
    index.add(DOCS[:0], ids=[])
    holds(index, DOCS, np.arange(120), "after empty adds")


@metrics
def test_what_is_removed_is_gone_and_the_rest_keeps_its_order(store: str, metric: str) -> None:
    index = index_of(DOCS, store, metric=metric)
    gone = [5, 0, 119, 64, 63]
    index.remove(gone)
    kept = np.setdiff1d(np.arange(120), gone)
    holds(index, DOCS[kept], kept, "after a removal")


def test_removing_everything_leaves_an_empty_index(store: str) -> None:
    index = index_of(DOCS, store)
    index.remove(index.ids)
    assert len(index) == 0
    assert (index.search(QUERIES, 3).ids == -1).all()
    index.add(DOCS)
    holds(index, DOCS, np.arange(120, 240), "filled again")


def test_removing_nothing_changes_nothing(store: str) -> None:
    index = index_of(DOCS, store)
    index.remove([])
    holds(index, DOCS, np.arange(120), "after an empty removal")


def test_removed_ids_are_never_given_again(store: str) -> None:
    index = index_of(DOCS[:4], store)
    index.remove([2, 3])
    index.add(DOCS[4:6])
    assert index.ids.tolist() == [0, 1, 4, 5]


def test_a_removed_id_may_be_given_by_hand(store: str) -> None:
    index = index_of(DOCS[:4], store)
    index.remove([2])
    index.add(DOCS[10:11], ids=[2])
    holds(index, DOCS[[0, 1, 3, 10]], np.array([0, 1, 3, 2]), "with the id of another")


def test_any_history_is_the_documents_it_leaves(store: str) -> None:
    rng = np.random.default_rng(11)
    index, docs, ids = DenseIndex(D, "l2", store), np.empty((0, D), np.float32), np.empty(0, np.int64)
    for step in range(40):
        if rng.random() < 0.6:
            rows = TIED[rng.integers(0, 120, rng.integers(0, 30))]
            before = len(index)
            index.add(rows)
            docs, ids = np.concatenate([docs, rows]), np.concatenate([ids, index.ids[before:]])
        else:
            stay = rng.random(len(ids)) < 0.7
            index.remove(rng.permutation(ids[~stay]))
            docs, ids = docs[stay], ids[stay]
        holds(index, docs, ids, f"after step {step}")


@metrics
def test_ties_go_to_the_smaller_id_in_any_order_of_adding(store: str, metric: str) -> None:
    orders = [np.arange(120), np.arange(120)[::-1], np.random.default_rng(1).permutation(120)]
    answers = []
    for order in orders:
        index = DenseIndex(D, metric, store)
        for part in np.array_split(order, 5):
            index.add(TIED[part], ids=part)
        answers.append(index.search(QUERIES, 40))
    want = reference.topk(QUERIES, TIED, 40, metric)
    for answer in answers:
        conformance.same(answer, want, "in another order")


def test_mask_and_bias_follow_the_order_of_ids(store: str) -> None:
    index = index_of(DOCS, store, ids=np.arange(120)[::-1] * 3)
    index.remove([0, 9, 300])
    ids = index.ids
    docs = DOCS[119 - ids // 3]
    only_seven = ids % 7 == 0
    holds(index, docs, ids, "masked", mask=only_seven)
    holds(index, docs, ids, "masked per query", mask=np.stack([only_seven, ~only_seven, ids > 90, ids > 1000]))
    holds(index, docs, ids, "biased", bias=np.sin(ids))
    assert (index.search(QUERIES, 3, mask=only_seven).ids % 7 == 0).all()
    assert (index.search(QUERIES, 3, bias=1e6 * (ids == 42)).ids[:, 0] == 42).all()


def test_vectors_are_what_is_scored(store: str) -> None:
    """Stored values, or the vectors that codes stand for; in the order asked for, whatever was removed before them."""
    index = index_of(DOCS, store, ids=np.arange(120) * 3)
    index.remove([0, 33])
    ids = index.ids[::-1].copy()
    want = reference.topk(QUERIES, index.vectors(ids), 15, "cosine", ids=ids)
    conformance.same(index.search(QUERIES, 15), want, "of the vectors")
    with pytest.raises(ValueError, match="id 33 is not"):
        index.vectors([3, 33])
    before = index.vectors([3, 6])
    with pytest.raises(ValueError, match="id 6 comes again"):
        index.replace(iter([DOCS[:2], DOCS[:1]]), iter([[3, 6], [6]]))
    np.testing.assert_array_equal(index.vectors([3, 6]), before)
    with pytest.raises(ValueError, match="finite"):
        index.add(iter([DOCS[:1], np.full((1, D), np.nan, np.float32)]), iter([[1000], [1001]]))
    with pytest.raises(ValueError, match="id 1000 is not"):
        index.vectors([1000])


def test_dims_scores_a_prefix(store: str) -> None:
    index = index_of(DOCS, store)
    for dims in (1, 8, D - 1, D):
        holds(index, DOCS, np.arange(120), f"dims={dims}", dims=dims)


def test_the_backend_of_a_search_goes_before_that_of_the_index() -> None:
    index = DenseIndex(D, store="float32", backend="numpy")
    index.add(DOCS)
    want = reference.topk(QUERIES, DOCS, 5)
    for status in pyengine.backends():
        if status.available:
            conformance.same(index.search(QUERIES, 5, backend=status.name), want, status.name)
        else:
            with pytest.raises(RuntimeError, match=f"backend '{status.name}' cannot run"):
                index.search(QUERIES, 5, backend=status.name)


def test_results_held_do_not_change(store: str) -> None:
    index = index_of(DOCS[:50], store)
    result = index.search(QUERIES, 60)
    copy = TopK(*(part.copy() for part in result))
    index.add(DOCS[50:])
    index.remove(np.arange(0, 120, 2))
    index.search(QUERIES[::-1], 60)
    conformance.same(result, copy, "a result held")


def test_results_are_the_callers_own(store: str) -> None:
    index = index_of(DOCS, store)
    index.search(QUERIES, 15).ids[:] = -7
    result = index.search(QUERIES, 130)
    result.scores[:], result.ids[:], result.certified[:] = 0, 0, False
    holds(index, DOCS, np.arange(120), "after results were written to")


def test_ids_held_do_not_change_and_cannot_be_written(store: str) -> None:
    index = index_of(DOCS[:3], store)
    held = index.ids
    index.add(DOCS[3:4], ids=[77])
    assert held.tolist() == [0, 1, 2]
    index.remove([1])
    index.add(DOCS[4:6])
    assert held.tolist() == [0, 1, 2]
    assert index.ids.tolist() == [0, 2, 77, 78, 79]
    with pytest.raises(ValueError, match="read-only"):
        index.ids[0] = 5


def test_a_problem_made_before_a_change_sees_the_documents_of_then(store: str) -> None:
    """What a backend was given (the snapshot) is what it answers from, whatever happens to the index meanwhile."""
    index = index_of(DOCS[:50], store)
    problem = index._problem(QUERIES, 15)
    want = conformance.specified(problem)
    changes: list[Callable[[], None]] = [
        lambda: index.add(DOCS[50:60]),
        lambda: index.remove([0, 1, 2]),
        lambda: index.add(DOCS[60:]),
    ]
    for change in changes:
        change()
        for status in pyengine.backends():
            if status.available:
                result = pyengine.searches.dense.run(problem, status.name, "exact", like=QUERIES)
                conformance.same(result, want, f"{status.name}, after a change")


def test_threads_may_search_one_index(engine: str, store: str) -> None:
    index = index_of(DOCS, store, metric="l2")
    want = reference.topk(QUERIES, DOCS, 15, "l2", dims=7)
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(index.search, QUERIES, 15, dims=7, backend=engine) for _ in range(32)]
    for result in results:
        conformance.same(result.result(), want, "one of 32 searches at once")


def test_len_and_repr(store: str) -> None:
    index = DenseIndex(D, "l2", store)
    assert len(index) == 0
    assert repr(index) == f"DenseIndex(dim={D}, metric='l2', store='{store}', documents=0, bytes=0)"
    index.add(DOCS)
    shown = repr(index)
    assert shown.startswith(f"DenseIndex(dim={D}, metric='l2', store='{store}', documents=120, bytes=")
    assert int(shown.rpartition("=")[2].rstrip(")")) >= DOCS.nbytes


@pytest.mark.usefixtures("denormals_flushed")
@pytest.mark.parametrize("metric", reference.METRICS)
def test_a_caller_that_flushes_denormals_changes_nothing(engine: str, metric: str) -> None:
    rng = np.random.default_rng(0)
    docs = (rng.standard_normal((3000, 9)) * 10.0 ** rng.uniform(-44, -15, (3000, 1))).astype(np.float64)
    index = DenseIndex(9, metric, store="float32", backend=engine)
    index.add(docs)
    with exact.arithmetic():
        as_float32 = docs.astype(np.float32)
        want = reference.topk(as_float32[:4], as_float32, 7, metric)
    for found in (index.search(docs[:4], 7), topk(docs[:4], docs, 7, metric=metric, backend=engine)):
        assert np.array_equal(found.ids, want.ids)
        assert np.array_equal(found.scores.view(np.int32), want.scores.view(np.int32))


@pytest.fixture
def denormals_flushed() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    if exact.native() is None or not torch.set_flush_denormal(True):
        pytest.skip("no extension to restore the float environment with, or a processor that cannot flush")
    yield
    torch.set_flush_denormal(False)


def test_searches_see_one_state_while_others_add_and_remove(store: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((400, 16)).astype(np.float32)
    index = DenseIndex(16, store=store)
    index.add(rows[:100])
    done = Event()

    def change() -> None:
        for round in range(60):
            index.add(rows[100:400], ids=np.arange(1000 * (round + 1), 1000 * (round + 1) + 300))
            index.remove(np.arange(1000 * (round + 1), 1000 * (round + 1) + 300))
        done.set()

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        while not done.is_set() and not changing.done():
            found = index.search(rows[:2], 350)
            returned = set((found.ids[found.ids >= 100] // 1000).tolist())
            assert len(returned) <= 1, "documents of two states"
            assert (found.ids[0] >= 0).sum() in (100, 350)
        changing.result()


def test_an_index_can_be_copied_and_pickled(store: str) -> None:
    index = DenseIndex(5, store=store)
    index.add(np.eye(5), ids=[3, 1, 4, 15, 9])
    for copied in (copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
        copied.remove([1])
        assert copied.ids.tolist() == [3, 4, 15, 9]
        assert index.search(np.eye(5)[1:2], 1).ids.tolist() == [[1]]

"""`SparseIndex` against a dict of rows and the sparse specification: its weights, its segments, its life, its files."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pyengine as pe
from pyengine import SparseIndex, SparseRows, conformance, exact_sparse, segments, sparse_store, storage
from pyengine import reference_sparse as spec
from pyengine.arrays import DiskArray
from pyengine.problem_sparse import Postings, TermRows
from pyengine.types import I64

V = 40  # terms
RNG = np.random.default_rng(19)
KINDS = [(weights, originals) for weights in sparse_store.WEIGHTS for originals in sparse_store.ORIGINALS]
kinds = pytest.mark.parametrize(("weights", "originals"), KINDS)
mapped = pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])


def drawn(n: int, seed: int = 0, n_terms: int = V) -> SparseRows:
    """Rows of small integers of either sign, some of them empty, with ties and terms that nobody has."""
    rng = np.random.default_rng((seed, n))
    lengths = rng.integers(0, 9, n)
    terms = np.minimum(rng.geometric(0.15, lengths.sum()) - 1, n_terms - 2)
    return SparseRows(np.concatenate([[0], np.cumsum(lengths)]), terms, rng.integers(-2, 5, lengths.sum()), n_terms)


DOCS, QUERIES = drawn(200), drawn(4, seed=1)


def _inverted(rows: TermRows, first: int, last: int, terms: I64 | None = None, num_threads: int = 1) -> Postings:
    """In place of `exact_sparse.build` where there are no kernels: nothing reads it."""
    part = rows.decoded(np.arange(first, last))
    order = np.argsort(part.indices, kind="stable")
    owner = np.repeat(np.arange(len(part)), part.lengths)[order]
    return Postings(first, last - first, {"owner": owner.astype(np.uint16), "bits": part.values[order].view("u4")})


@pytest.fixture(scope="module")
def small_segments() -> Iterator[None]:
    """A few rows make a segment, also where the extension cannot make any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "LEAST", 5)
        if exact_sparse.native() is None:
            patch.setattr(segments, "available", lambda: True)
            patch.setattr(exact_sparse, "build", _inverted)
        yield


pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison", "small_segments"),
]


def made(weights: str = "float32", originals: str = "ram", docs: SparseRows = DOCS) -> SparseIndex:
    index = SparseIndex(V, weights, originals)
    index.add(docs)
    return index


def kept(rows: SparseRows, weights: str) -> list[tuple[list[int], list[float]]]:
    """What an index that keeps such weights makes of these rows."""
    values = rows.values.astype(np.float16).astype(np.float32)
    if weights == "uint8":
        parts = sparse_store.coded(rows)
        values = TermRows(rows.indptr, rows.indices, parts["values"], V, parts["low"], parts["step"]).decoded().values
    return listed(SparseRows.canonical(rows.indptr, rows.indices, rows.values if weights == "float32" else values, V))


def listed(rows: SparseRows) -> list[tuple[list[int], list[float]]]:
    return [(terms.tolist(), values.tolist()) for terms, values in rows]


def holds(index: SparseIndex, ids: Any, k: int = 8, **arguments: Any) -> None:
    """The index answers as the specification does over the rows that it says it keeps of these ids."""
    assert index.ids.tolist() == list(ids)
    assert len(index) == len(index.ids)
    docs = index.rows(index.ids)
    want = spec.topk(QUERIES, docs, k, ids=np.array(list(ids), np.int64), **arguments)
    conformance.same(index.search(QUERIES, k, **arguments), want, f"{index}, {arguments}")
    ordered(index)


def ordered(index: SparseIndex) -> None:
    """The segments cover the rows from the first on, each many times as long as the next."""
    stats, postings = index.stats(), index._contents.store.postings
    assert [each.first for each in postings] == [0, *np.cumsum(stats.segments)][:-1]
    assert all(long >= segments.RATIO * short for long, short in pairwise(stats.segments))
    assert sum(stats.segments) + stats.pending == index._contents.n_rows
    assert stats.pending < segments.LEAST


# --- What it keeps ----------------------------------------------------------------------------------------------------


@kinds
def test_every_weight_is_exact_over_what_it_keeps(weights: str, originals: str) -> None:
    index = made(weights, originals)
    assert listed(index.rows(index.ids)) == kept(DOCS, weights)
    if weights != "uint8":  # small integers are exact in every float
        assert listed(index.rows(index.ids)) == listed(DOCS)
    holds(index, range(200))
    holds(index, range(200), k=300, bias=np.linspace(-1, 1, 200))


@pytest.mark.parametrize("n_terms", [1 << 16, (1 << 16) + 1, (1 << 31) - 1])
def test_terms_take_what_they_need(n_terms: int) -> None:
    docs = SparseRows([0, 2, 3, 3], [0, n_terms - 1, n_terms - 1], [1, 2, 3], n_terms)
    index = SparseIndex(n_terms)
    index.add(docs)
    assert index._contents.store.arrays["terms"].dtype == (np.uint16 if n_terms == 1 << 16 else np.int32)
    conformance.same(index.search(docs, 3), spec.topk(docs, docs, 3), "")
    assert index.stats().terms == 2


HARD: dict[str, list[float]] = {
    "the largest": [3.4028235e38, 1.0, 1e30],
    "the smallest": [1e-45, 3e-45],
    "denormals that 255 steps are coarse for": [1e-45 * n for n in (1, 100, 380, 509, 511, 5000)],
    "negative": [-1.0, -3.0, -2.5],
    "one negative": [-7.0],
    "equal": [2.5, 2.5, 2.5],
    "far apart": [-1.7e38, 1.7e38, 1.0],
    "from small to large": [1e-40, 1e-20, 1e20],
    "just below": [-3.4028235e38, -1.0],
}


@pytest.mark.parametrize("case", HARD)
def test_uint8_codes_are_near(case: str) -> None:
    values = np.array(HARD[case], np.float32)
    rows = SparseRows([0, 0, len(values), len(values)], np.arange(len(values)), values, V)
    parts = sparse_store.coded(rows)
    found = TermRows(rows.indptr, rows.indices, parts["values"], V, parts["low"], parts["step"]).decoded().values
    low, high = min(0.0, float(values.min())), float(values.max())
    most = max((high - low) / 255 / 2 * 1.001 + 1e-6 * max(abs(low), abs(high)), 1.5e-45)  # half a step
    if high - low < 1e-42:  # denormal steps are up to twice as long
        most *= 2
    assert np.isfinite(found).all()
    assert np.abs(found.astype(np.float64) - values).max() <= most
    index = made("uint8", docs=SparseRows(rows.indptr, rows.indices, rows.values, V))
    holds(index, range(3))


@pytest.mark.parametrize(
    ("weights", "values", "says"),
    [
        ("float16", [1.0, 1e5], "rows must stay finite in float16; row 201 holds 100000"),
        ("uint8", [-3e38, 3e38], r"at most 3.4e38 apart in uint8; row 201 goes from -3e\+38 to 3e\+38"),
    ],
)
def test_weights_that_cannot_be_held_are_refused(weights: str, values: list[float], says: str) -> None:
    index = made(weights)
    with pytest.raises(ValueError, match=says):
        index.add(iter([DOCS, SparseRows([0, 1, 3], [1, 1, 2], [1.0, *values], V)]))
    holds(index, range(200))


def test_rows_come_in_any_form() -> None:
    forms: dict[str, Any] = {
        "rows": DOCS,
        "dicts": [dict(zip(terms.tolist(), values.tolist())) for terms, values in DOCS],
        "iterator": iter([DOCS.part(slice(0, 3)), DOCS.part(slice(3, 3)), DOCS.part(slice(3, 200))]),
    }
    with suppress(ImportError):
        from scipy import sparse

        matrix = sparse.csr_matrix((DOCS.values, DOCS.indices, DOCS.indptr), (200, V))
        forms |= {
            "csr": matrix,
            "coo": matrix.tocoo(),
            "csc": matrix.tocsc(),
            "matrices": iter([matrix[:9], matrix[9:]]),
        }
    for name, form in forms.items():
        index = SparseIndex(V)
        index.add(form)
        assert listed(index.rows(index.ids)) == listed(DOCS), name


def test_many_rows_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyengine.chunks.BLOCK_BYTES", 100)
    index = SparseIndex(V, "uint8")
    index.add(DOCS, ids=np.arange(200)[::-1])
    assert listed(index.rows(index.ids)) == kept(DOCS, "uint8")
    holds(index, range(199, -1, -1))


def test_originals_on_disk_are_read_here_and_there(tmp_path: Path) -> None:
    index = SparseIndex(V, originals="disk", directory=tmp_path)
    index.add(DOCS)
    index.remove(range(120))  # compacts, which moves them to other files
    holds(index, range(120, 200))
    for name in ("terms", "values"):
        array = index._contents.store.arrays[name]
        assert isinstance(array, DiskArray)
        assert not array.view.flags.owndata
    assert list(tmp_path.iterdir()) == []  # nothing to clean up


@kinds
def test_rows_are_copied_in_blocks(weights: str, originals: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyengine.arrays.BLOCK_BYTES", 100)
    index = made(weights, originals)
    index.remove(range(0, 200, 3))
    index.compact()
    assert (index.stats().removed, index.stats().pending) == (0, 0)
    assert listed(index.rows(index.ids)) == [row for i, row in enumerate(kept(DOCS, weights)) if i % 3]
    holds(index, [each for each in range(200) if each % 3])


# --- Segments ---------------------------------------------------------------------------------------------------------


def test_one_add_makes_one_segment() -> None:
    index = made()
    assert index.stats().segments == (200,)
    index.add(drawn(4))
    assert (index.stats().segments, index.stats().pending) == ((200,), 4)
    index.add(drawn(1))
    assert (index.stats().segments, index.stats().pending) == ((200, 5), 0)
    index.add(iter([drawn(20), drawn(30), drawn(1)]))
    assert index.stats().segments == (256,)


def test_rows_that_trickle_in_are_inverted_a_few_times_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rebuilt = 0
    right = exact_sparse.build

    def counting(rows: TermRows, first: int, last: int, **options: Any) -> Postings:
        nonlocal rebuilt
        rebuilt += last - first
        return right(rows, first, last, **options)

    monkeypatch.setattr(exact_sparse, "build", counting)
    index = SparseIndex(V)
    for _ in range(1000):
        index.add(drawn(1))
        ordered(index)
    assert len(index.stats().segments) <= 5
    assert rebuilt < 20 * 1000


def test_stats_count_what_is_there() -> None:
    index = made("uint8")
    index.remove(range(10))
    stats = index.stats()
    assert (stats.documents, stats.removed, stats.entries) == (190, 10, DOCS.nnz)
    assert stats.terms == len(np.unique(DOCS.indices))
    assert stats.row_bytes == 3 * DOCS.nnz + 8 * 201 + 8 * 200
    assert stats.posting_bytes == sum(each.nbytes for each in index._contents.store.postings[0].arrays.values())
    assert stats.bytes_per_posting == (stats.row_bytes + stats.posting_bytes) / DOCS.nnz
    index.compact()
    assert index.stats()[:2] == (190, 0)
    assert SparseIndex(V).stats().bytes_per_posting == 0


def test_without_kernels_there_are_no_segments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made().save(tmp_path / "inverted")
    monkeypatch.setattr(segments, "available", lambda: False)
    index = pe.load(tmp_path / "inverted")
    assert index.stats().segments == ()
    index.add(DOCS)
    index.save(tmp_path / "plain")
    assert not list((tmp_path / "plain").rglob("postings*"))
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "LEAST", 5)
        later = pe.load(tmp_path / "plain")
        for each in (index, later):
            conformance.same(each.search(QUERIES, 9, backend="numpy"), spec.topk(QUERIES, index.rows(index.ids), 9), "")


def test_a_failing_build_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> Postings:
        raise MemoryError

    index = made()
    with monkeypatch.context() as patch:
        patch.setattr(exact_sparse, "build", failing)
        with pytest.raises(MemoryError):
            index.add(drawn(100))
    holds(index, range(200))
    index.add(drawn(7))
    holds(index, range(207))


# --- Its life ---------------------------------------------------------------------------------------------------------


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


# --- Its files --------------------------------------------------------------------------------------------------------

OLD = {  # ids and score bits of the fixtures' answer
    "float32": (
        [[26, 21, 11, 18], [17, 27, 11, 26]],
        [[1097334784, 1093140480, 1092091904, 1089470464], [1065414569, 1043600404, 1042849921, 1041353812]],
    ),
    "uint8": (
        [[26, 21, 11, 18], [17, 27, 11, 26]],
        [[1097334784, 1093140480, 1092091904, 1089470464], [1065389897, 1043553962, 1042849921, 1041353812]],
    ),
}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same(found: SparseIndex, want: SparseIndex) -> None:
    assert found.ids.tolist() == want.ids.tolist()
    assert listed(found.rows(found.ids)) == listed(want.rows(want.ids))
    conformance.same(found.search(QUERIES, 30), want.search(QUERIES, 30), "after loading")


@kinds
@mapped
def test_what_is_loaded_lives_on(weights: str, originals: str, mmap: bool, tmp_path: Path) -> None:
    index = made(weights, originals)
    index.add(drawn(20))
    index.remove(range(0, 90, 3))
    index.save(tmp_path)
    loaded = pe.load(tmp_path, mmap, directory=tmp_path)
    assert (loaded.n_terms, loaded.weights, loaded.originals) == (V, weights, originals)
    assert loaded.stats().segments == (190,)
    same(loaded, index)
    for each in (index, loaded):
        each.add(drawn(40))
        each.add(drawn(2))
        each.replace(drawn(1, seed=3), [100])
    same(loaded, index)
    ordered(loaded)
    loaded.save(tmp_path)
    same(pe.load(tmp_path, mmap), index)
    assert len(list(tmp_path.iterdir())) == 2


def formula(n: int, first: int = 0) -> SparseRows:
    """Rows of the fixtures: row r has r % 5 terms."""
    rows = range(first, first + n)
    terms = [(3 * row + 7 * place) % 50 for row in rows for place in range(row % 5)]
    weights = [(row * place) % 7 - 1.25 for row in rows for place in range(row % 5)]
    return SparseRows(np.cumsum([0, *(row % 5 for row in rows)]), terms, weights, 50)


@mapped
@pytest.mark.parametrize("weights", OLD)
def test_format_version_1_keeps_loading(weights: str, mmap: bool) -> None:
    """Saved by pyengine 0.1.0, of which documents 25 and 19 were removed."""
    index = pe.load(Path(__file__).parent / "fixtures" / f"sparse_v1_{weights}", mmap, verify=True)
    assert index.ids.tolist() == [each for each in range(30, 10, -1) if each not in (25, 19)]
    every = np.arange(50)
    queries = SparseRows([0, 50, 100], np.tile(every, 2), np.concatenate([every % 5 - 1, 1 / (every + 1)]), 50)
    found = index.search(queries, 4)
    assert (found.ids.tolist(), found.scores.view(np.int32).tolist()) == OLD[weights]
    index.add(formula(1))
    assert index.ids[-1] == 31


def test_a_mapped_load_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It maps every array, looks at ids and offsets, and builds nothing."""
    made().save(tmp_path)
    monkeypatch.setattr(exact_sparse, "build", None)
    right, looked = np.isfinite, [0]

    def looking(array: Any) -> Any:
        looked.append(np.size(array))
        return right(array)

    monkeypatch.setattr(np, "isfinite", looking)
    index = pe.load(tmp_path, mmap=True)
    assert max(looked) <= 200
    arrays = [*index._contents.store.arrays.values()]
    postings = [*index._contents.store.postings[0].arrays.values()]
    assert not any(array.flags.writeable for array in [*(each.view for each in arrays), *postings] if array.size)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kill_9_leaves_the_old_index_or_the_new_one(tmp_path: Path) -> None:
    """60 times: a process that saves two states by turns is killed at a random moment."""
    rng, path = np.random.default_rng(17), tmp_path / "index"
    states = [made("uint8"), made("uint8", docs=drawn(300, seed=5))]
    states[0].save(path)
    last, changes, longest = 0, 0, 0.02  # seconds
    for _ in range(60):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    for state in (states[1 - last], states[last]):
                        state.save(path)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        loaded = pe.load(path)
        found = int(len(loaded) == 300)
        same(loaded, states[found])
        changes += found != last
        longest *= 0.9 if found != last else 1.1  # however fast the disk is, about half of the kills come after a save
        last = found
    assert 5 < changes < 55
    states[0].save(path)
    assert len(list(path.iterdir())) == 2  # nothing is left of those that were killed


@mapped
def test_a_truncated_or_longer_file_is_refused(tmp_path: Path, mmap: bool) -> None:
    made("uint8").save(tmp_path)
    for path in files(tmp_path):
        whole = path.read_bytes()
        lengths = {0, 1, 127, 128, 129, len(whole) // 2, len(whole) - 1} - {len(whole)}
        for content in [*(whole[:length] for length in lengths), whole + b"\0"]:
            path.write_bytes(content)
            with pytest.raises(ValueError, match=path.name):
                pe.load(tmp_path, mmap)
        path.write_bytes(whole)
    pe.load(tmp_path, mmap)


@mapped
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path, mmap: bool) -> None:
    rng, want = np.random.default_rng(9), made("uint8")
    want.save(tmp_path)
    for _ in range(300):
        path = files(tmp_path)[rng.integers(len(files(tmp_path)))]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with suppress(ValueError):
            loaded = pe.load(tmp_path, mmap)
            assert mmap or path.name == "manifest.json", path
            if mmap:
                loaded.search(QUERIES, 50)  # whatever it answers
            else:
                same(loaded, want)  # a blank for another
        path.write_bytes(whole)


def test_mapped_arrays_full_of_garbage_do_not_crash(tmp_path: Path) -> None:
    """They are refused, at loading or at searching, or answer somehow."""
    for weights in sparse_store.WEIGHTS:
        made(weights).save(tmp_path)
        for path in files(tmp_path):
            if path.suffix != ".npy" or path.stem == "ids":
                continue
            whole = path.read_bytes()
            for garbage in (b"\xff", b"\x7f", b"\x80\x00", b"\xf0\x7f\x00\x00"):
                path.write_bytes(whole[:128] + (garbage * len(whole))[: len(whole) - 128])
                for threads in (1, 3):
                    with suppress(ValueError):
                        pe.load(tmp_path, mmap=True).search(QUERIES, 50, num_threads=threads)
            path.write_bytes(whole)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, with its hash made right again."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["blake2b"]
    change(content)
    path.write_text(json.dumps(content | {"blake2b": storage._content_hash(content)}))


BAD_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no terms": (lambda content: content.update(n_terms=0), "index that this pyengine knows; got n_terms"),
    "more terms": (lambda content: content.update(n_terms=1 << 20), "must describe array 'terms'"),
    "other weights": (lambda content: content.update(weights="float16"), "must list the arrays ids, terms, values"),
    "unknown weights": (lambda content: content.update(weights="int4"), "index that this pyengine knows; got weights"),
    "fewer entries": (lambda content: content.update(entries=3), "must describe array 'terms'"),
    "no entries": (lambda content: content.pop("entries"), "must give entries as an integer of 0 or more; got None"),
    "fewer rows": (lambda content: content.update(documents=199), "must describe array 'ids'"),
    "no step": (lambda content: content["arrays"].pop("step"), "must list the arrays ids, terms, values"),
    "odd postings": (lambda content: content["arrays"].update(postings_x=3), "must name a file of its data"),
    "objects": (
        lambda content: content["arrays"][posting(content)].update(dtype="|O"),
        "must list the arrays ids, terms, values",
    ),
    "enormous": (
        lambda content: content["arrays"][posting(content)].update(shape=[1 << 39]),
        "must describe array 'postings_|is not whole",
    ),
    "no shape": (lambda content: content["arrays"][posting(content)].update(shape=[-1]), "must list the arrays ids"),
}


def posting(content: dict[str, Any]) -> str:
    return next(str(name) for name in content["arrays"] if name.startswith("postings_"))


@mapped
@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_manifest_made_by_hand_is_refused(tmp_path: Path, case: str, mmap: bool) -> None:
    change, says = BAD_MANIFESTS[case]
    made("uint8").save(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(ValueError, match=says) as caught:
        pe.load(tmp_path, mmap)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@mapped
def test_offsets_that_fall_are_refused(tmp_path: Path, mmap: bool) -> None:
    made().save(tmp_path)
    path = next(tmp_path.rglob("offsets.npy"))
    raw = bytearray(path.read_bytes())
    raw[-9] = 99
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"offsets.npy was altered|must list offsets that rise from 0 to its \d+ entr"):
        pe.load(tmp_path, mmap)


# --- Bad input --------------------------------------------------------------------------------------------------------

BAD: list[tuple[Callable[[SparseIndex], Any], str]] = [
    (lambda _: SparseIndex(0), "n_terms must be a positive integer below 2^31; got 0"),
    (lambda _: SparseIndex(4, "float64"), "weights must be one of 'float32', 'float16', 'uint8'; got 'float64'"),
    (lambda _: SparseIndex(4, originals=cast(Any, None)), "originals must be one of 'ram', 'disk'; got None"),
    (lambda _: SparseIndex(4, backend="gpu"), "backend must be one of"),
    (lambda index: index.add(np.ones((2, V))), r"rows must be SparseRows, .*; got a dense ndarray of shape \(2, 40\)"),
    (lambda index: index.add(drawn(2, n_terms=V + 1)), "rows must have 40 terms; got 41"),
    (lambda index: index.add(drawn(2), ids=[1]), "ids must have one entry per row, 2; got 1"),
    (lambda index: index.add(drawn(2), ids=[500, 7]), "ids must be new; id 7 is in the index already"),
    (lambda index: index.add([{1: np.inf}]), "rows must be finite in float32; row 0 holds"),
    (lambda index: index.add([{1: 1}, {V: 1}]), "rows must hold term ids 0 .. 39; row 1 holds 40"),
    (lambda index: index.add(iter([DOCS, 3])), "rows must be SparseRows, .*; got a int"),
    (lambda index: index.add(iter([drawn(2)]), ids=[3, 4]), "ids must be an iterator of id arrays where rows is an"),
    (lambda index: index.remove([777]), "ids must be in the index; id 777 is not"),
    (lambda index: index.rows([777]), "ids must be in the index; id 777 is not"),
    (lambda index: index.replace(drawn(1), [777]), "ids must be in the index; id 777 is not"),
    (lambda index: index.replace(drawn(1), None), "ids must be given; got None"),
    (lambda index: index.search(drawn(1, n_terms=V - 1)), "queries must have 40 terms; got 39"),
    (lambda index: index.search([{V: 1.0}]), "queries must hold term ids 0 .. 39; row 0 holds 40"),
    (lambda index: index.search([{1: np.nan}]), "queries must be finite in float32; row 0 holds"),
    (lambda index: index.search(QUERIES, 0), "k must be a positive integer below 2^31; got 0"),
    (lambda index: index.search(QUERIES, precision="near"), "precision must be one of"),
    (lambda index: index.search(QUERIES, bias=[1.0]), r"bias must have shape \(200,\), one per document; got \(1,\)"),
    (lambda index: index.range_search(QUERIES, None), "threshold must be a number, or one per query; got None"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_one_sentence_and_changes_nothing(call: Callable[[SparseIndex], Any], message: str) -> None:
    index = made()
    with pytest.raises((ValueError, TypeError), match=message.replace("2^31", r"2\^31")) as caught:
        call(index)
    assert "\n" not in str(caught.value)
    holds(index, range(200))

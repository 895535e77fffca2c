"""What a `SparseIndex` keeps, its segments, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import pyengine as pe
from pyengine import SparseIndex, SparseRows, conformance
from pyengine.indexes import segments, sparse_store
from pyengine.indexes.arrays import DiskArray, GrowingArray
from pyengine.problems.problem_sparse import Postings, TermRows
from pyengine.refining import exact_sparse
from pyengine.specification import reference_sparse as spec
from tests.sparse_model import DOCS, QUERIES, V, drawn, holds, kept, kinds, listed, made, ordered

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison", "small_segments"),
]


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
    monkeypatch.setattr("pyengine.indexes.chunks.BLOCK_BYTES", 100)
    index = SparseIndex(V, "uint8")
    index.add(DOCS, ids=np.arange(200)[::-1])
    assert listed(index.rows(index.ids)) == kept(DOCS, "uint8")
    holds(index, range(199, -1, -1))


def test_rows_of_a_known_number_of_entries_do_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyengine.indexes.chunks.BLOCK_BYTES", 100)
    grown: list[int] = []
    grow = GrowingArray._grow

    def noted(array: GrowingArray, capacity: int) -> None:
        grown.append(capacity)
        grow(array, capacity)

    index = SparseIndex(V)
    monkeypatch.setattr(GrowingArray, "_grow", noted)
    index.add(DOCS)
    assert sorted(grown) == [200, 201, DOCS.nnz, DOCS.nnz]  # ids, offsets, terms, weights
    holds(index, range(200))


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
    monkeypatch.setattr("pyengine.indexes.arrays.BLOCK_BYTES", 100)
    index = made(weights, originals)
    index.remove(range(0, 200, 3))
    index.compact()
    assert (index.stats().removed, index.stats().pending) == (0, 0)
    assert listed(index.rows(index.ids)) == [row for i, row in enumerate(kept(DOCS, weights)) if i % 3]
    holds(index, [each for each in range(200) if each % 3])


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


@pytest.mark.parametrize("originals", sparse_store.ORIGINALS)
def test_stats_count_what_is_there(originals: str) -> None:
    index = made("uint8", originals)
    index.remove(range(10))
    stats = index.stats()
    assert (stats.documents, stats.removed, stats.entries) == (190, 10, DOCS.nnz)
    assert stats.terms == len(np.unique(DOCS.indices))
    assert stats.row_bytes + stats.disk_bytes == 3 * DOCS.nnz + 8 * 201 + 8 * 200
    assert stats.disk_bytes == (3 * DOCS.nnz if originals == "disk" else 0)
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
    (lambda index: index.add(iter([drawn(2)]), ids=[3, 4]), "ids must be an iterator of arrays where rows is an"),
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

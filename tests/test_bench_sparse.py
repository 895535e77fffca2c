"""The benchmark of sparse search: at a tiny size, its data, its rows, its gate and its peers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

from bench import peers, registry, run
from bench.limits import ceilings
from bench.limits.ceilings import Ceilings
from bench.operations import lexicon, sparse_arena, sparse_life
from bench.operations.life import Worker
from bench.ours import sparse_contestants
from bench.ours.contestants import Contestant, Search, Unavailable
from bench.peers import _sparse
from bench.racing import gate, measure
from bench.racing.race import Settings
from bench.racing.row import Row
from bench.registry import OPS, Choice
from bench.workloads import presets, sparse_data, sparse_shapes, sparse_text
from bench.workloads.shapes import Heat
from bench.workloads.sparse_data import SPLADE, TEXT
from bench.workloads.sparse_shapes import Asking, SparseCorpus, SparseWorkload
from bench.workloads.sparse_text import Documents
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.specification import reference_sparse
from pyengine.types import F32

TINY = SparseWorkload(n_docs=300, n_queries=3, k=5)
BATCH = replace(TINY, apart=False)
TINY_TEXT = replace(sparse_shapes.TEXT, n_docs=300, n_queries=3, k=5)
CEILINGS = Ceilings(1, ((1 << 20, 2e10), (1 << 30, 1e10)), 8e9, 1e11, {"avx2": 1e12, "amx": 4e12}, "avx2")
SETTINGS = Settings(CEILINGS, rounds=3)
EXACT = sparse_contestants.one_off("numpy")
ALL = Choice(backends=None)


def nudged(docs: Documents, metric: str, threads: int) -> Search:
    """The specification, with every last score off by one unit in the last place."""

    def search(queries: SparseRows, k: int) -> Any:
        scores, ids, _ = reference_sparse.topk(queries, docs.rows, k)
        scores[-1, -1] = np.nextafter(scores[-1, -1], np.float32(99))
        return scores, ids

    return search


def measured(table: str, workload: SparseWorkload, *racing: Any) -> dict[str, Row]:
    """Rows of one workload with these contestants and no others."""
    with pytest.MonkeyPatch.context() as patch:
        op = registry.TABLES[table].op
        patch.setitem(OPS, op, OPS[op]._replace(contestants=racing))
        return {row.contestant: row for row in measure.measure([Heat(table, (workload,))], SETTINGS, ALL)}


def with_index() -> None:
    pytest.importorskip("pyengine.indexes.sparse_index")


def test_documents_follow_their_law() -> None:
    rows, counts = sparse_data.documents(2_000, SPLADE)
    assert abs(rows.nnz / 2_000 - SPLADE.mean) < 2
    frequency = np.sort(np.bincount(rows.indices, minlength=SPLADE.n_terms))[::-1]
    assert 0.48 < frequency[:100].sum() / rows.nnz < 0.52
    assert 0.97 < frequency[0] / 2_000 < 1
    assert counts.min() == 1
    assert 0.5 < rows.values.mean() < 0.6
    text, counts = sparse_data.documents(1_000, TEXT)
    assert abs(text.nnz / 1_000 - TEXT.mean) < 2
    assert counts.sum() > text.nnz


def test_the_first_documents_and_queries_do_not_depend_on_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_data, "PART", 64)
    many, few = sparse_data.documents(150, SPLADE)[0], sparse_data.documents(70, SPLADE)[0]
    np.testing.assert_array_equal(many.part(slice(0, 70)).indices, few.indices)
    many, few = (sparse_data.queries(count, SPLADE, 29, 1.4) for count in (9, 4))
    np.testing.assert_array_equal(many.part(slice(0, 4)).indices, few.indices)
    np.testing.assert_array_equal(many.part(slice(0, 4)).values, few.values)


@pytest.mark.parametrize(("n_terms", "touched"), [(29, 1.42), (44, 2.65)])
def test_queries_touch_what_was_asked_for(n_terms: int, touched: float) -> None:
    queries = sparse_data.queries(600, SPLADE, n_terms, touched)
    assert set(np.diff(queries.indptr)) == {n_terms}
    share = sparse_data.shares(SPLADE.rates())
    assert 0.9 * touched < share[queries.indices].sum() / 600 < 1.1 * touched


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="got 65537"):
        sparse_data.documents(1, SPLADE._replace(n_terms=65_537))
    with pytest.raises(ValueError, match="'dense'"):
        sparse_arena.documents(SparseCorpus(3, "dense", 1.0))
    with pytest.raises(ValueError, match="counts"):
        list(Documents(sparse_data.documents(1, SPLADE)[0]).texts())


def test_text_is_weighted_by_bm25() -> None:
    rows = SparseRows([0, 2, 3], [0, 1, 1], None, 2)  # "a a b" and "b"
    weights: F32 = sparse_text.impacts(rows, np.array([2, 1, 1], np.int32)).values
    rarity = np.log(1 + (2 - np.array([1, 2, 2]) + 0.5) / (np.array([1, 2, 2]) + 0.5))
    norm = 0.9 * (1 - 0.4 + 0.4 * np.array([3, 3, 1]) / 2)
    counts = np.array([2, 1, 1])
    np.testing.assert_allclose(weights, rarity * counts / (counts + norm), rtol=1e-6)
    assert list(Documents(rows, np.array([2, 1, 1], np.int32)).texts()) == ["t0 t0 t1", "t1"]


def test_real_text_is_all_there() -> None:
    try:
        docs = sparse_text.scifact()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    assert len(docs) == sparse_shapes.SCIFACT_DOCS
    assert abs(docs.rows.nnz / len(docs) - sparse_shapes.SCIFACT_TERMS) < 1
    assert docs.asked is not None
    assert docs.asked.n_terms == docs.rows.n_terms


def test_the_specification_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "ROWS", 7)
    docs, queries = sparse_data.documents(30, SPLADE)[0], sparse_data.queries(3, SPLADE, 29, 1.4)
    expected = reference_sparse.topk(queries, docs, 30)
    truth = gate.SparseSpecification(docs, queries)
    for query in range(3):
        scores, ids = truth.row(query, 30)
        np.testing.assert_array_equal(scores, expected.scores[query])
        np.testing.assert_array_equal(ids, expected.ids[query])


@pytest.mark.parametrize("workload", [TINY, BATCH], ids=["one by one", "at once"])
def test_ours_are_the_specification_and_what_is_not_is_not_timed(workload: SparseWorkload) -> None:
    rows = measured("sparse", workload, EXACT, Contestant("wrong", nudged, ours=True))
    assert rows[EXACT.name].samples
    assert rows[EXACT.name].verdict == gate.Verdict(True, 1.0, "")
    assert rows["wrong"].wrong
    assert rows["wrong"].samples is None
    assert f"query {0 if workload.apart else 2}, place 4" in rows["wrong"].note


def test_bytes_and_operations_are_of_the_lists_of_the_queries() -> None:
    docs = sparse_arena.documents(TINY.corpus)
    frequency = np.bincount(docs.rows.indices, minlength=docs.rows.n_terms)
    terms = sparse_arena.queries(TINY.corpus, docs, 3, TINY.asking).indices
    for workload, read in ((TINY, terms), (BATCH, np.unique(terms))):
        row = measured("sparse", workload, EXACT)[EXACT.name]
        assert row.n_bytes == 8 * frequency[read].sum()
        assert row.operations == 2 * frequency[terms].sum()
        assert row.floor


def test_kinds_of_queries_share_a_corpus() -> None:
    light, heavy = TINY, replace(TINY, kind="heavy", query_terms=44, touched=2.65)
    assert light.corpus == heavy.corpus
    with sparse_arena.SparseArena(light.corpus, 3, SETTINGS) as arena:
        lengths = [set(np.diff(row.indptr)) for each in (light, heavy) for row in arena.asked(each)]
        assert lengths == [{29}] * 3 + [{44}] * 3
        assert arena.truth(light) is not arena.truth(heavy)


@pytest.mark.parametrize("peer", peers.of("sparse_topk") + peers.of("bm25"), ids=lambda peer: peer.name)
def test_peers_find_what_the_specification_finds(peer: Contestant) -> None:
    corpus = TINY_TEXT.corpus._replace(n_docs=1_000)
    docs = sparse_arena.documents(corpus)
    queries = sparse_arena.queries(corpus, docs, 3, Asking(6, 0.5))
    try:
        search = peer.prepare(docs, "dot", 1)
    except Unavailable as reason:
        pytest.skip(str(reason))
    verdict = gate.judge(peer.read(search(queries, 10)), gate.SparseSpecification(docs.rows, queries), range(3), 10)
    assert verdict.recall > (0.95 if peer.exactness == _sparse.FLOAT32 else 0.5)


def test_bytes_are_by_posting() -> None:
    with_index()
    kept = [sparse_contestants.keeping(weights, backend="numpy") for weights in ("float32", "uint8")]
    rows = measured("postings", BATCH, *kept, sparse_contestants.keeping("float32", "disk", "numpy"))
    for row in rows.values():
        assert row.verdict
        assert row.verdict.exact
        assert row.bytes_per_vector is not None
        assert row.floor is None
    bytes_per_posting = [row.bytes_per_vector or 0 for row in rows.values()]
    assert bytes_per_posting[0] > bytes_per_posting[1] > bytes_per_posting[2]


def test_indexes_are_built_and_judged() -> None:
    with_index()
    ours = Worker("ours", lambda arena: sparse_life.build(arena, backend="numpy"), "ours")
    rows = measured("sparse-build", replace(sparse_shapes.BUILT, n_docs=300), ours, *sparse_life.BUILDING[1:3])
    assert rows["ours"].verdict == gate.Verdict(True, 1.0, "")
    assert rows["copy"].samples
    assert rows["ours"].ratio_to == "copy"


def test_a_lexicon_is_raced_with_a_dense_scan() -> None:
    with_index()
    sides = (
        lexicon.Side(sparse_contestants.keeping("float32", backend="numpy"), dense=False),
        lexicon.Side(lexicon.flat("float32", "numpy")),
        lexicon.SIDES[-1],
    )
    rows = measured("lexicon", TINY, *sides)
    assert all(row.verdict == gate.Verdict(True, 1.0, "") for row in rows.values() if row.role == "ours")
    assert (rows["dense-float32"].bytes_per_vector or 0) >= 4 * lexicon.DIM
    if rows["faiss-flat"].samples:
        assert rows["pyengine-float32"].ratio_to == "faiss-flat"


def test_what_is_not_there_yet_is_not_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyengine

    monkeypatch.delattr(pyengine, "SparseIndex", raising=False)
    rows = measured("postings", BATCH, sparse_contestants.keeping("float32"))
    assert {row.note for row in rows.values()} == {"this pyengine has no SparseIndex"}
    assert not any(row.wrong for row in rows.values())


def test_words_choose_rows() -> None:
    heats, wanted = run.select(["heavy", "sindi"], presets.PRESETS["sparse"])
    assert {each.kind for heat in heats for each in heat.workloads} == {"heavy"}  # type: ignore[attr-defined]
    assert wanted == {"sindi"}
    with pytest.raises(ValueError, match="light-n1m-lq29-q256-k10"):
        run.select(["faiss"], presets.PRESETS["sparse"])


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(ceilings, "measure", lambda threads, sizes: CEILINGS)
    for op in ("sparse_topk", "bm25"):
        monkeypatch.setitem(OPS, op, OPS[op]._replace(contestants=(EXACT,)))
    assert run.run(run.parse(["--save", "--rounds", "2", "--backends", "numpy", "--only", "sparse", "bm25"])) == 0
    printed = capsys.readouterr().out
    assert all(f"{kind}-n2k" in printed for kind in ("light", "heavy", "text"))
    (page,) = tmp_path.glob("*-quick-part.md")
    assert "| light: 2,000 x 120, 4 one by one, 10 |" in page.read_text()

"""The benchmark of late interaction: at a tiny size, its rows, its gate and its peers."""

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
from bench.operations import training
from bench.ours.contestants import Contestant, Search, Unavailable
from bench.ours.token_contestants import matrix, one_off
from bench.peers import _tokens, fast_plaid
from bench.peers._tokens import best
from bench.racing import gate, measure
from bench.racing.race import Settings
from bench.racing.row import Row
from bench.registry import OPS, Choice
from bench.workloads import data, presets, token_shapes
from bench.workloads.shapes import Heat
from bench.workloads.token_shapes import Lengths, TokenWorkload
from pyengine.inputs.ragged import Ragged
from pyengine.specification import reference_maxsim

TINY = TokenWorkload(n_docs=40, dim=24, n_queries=3, k=5, lengths=Lengths(1, 9, 4), query_tokens=6, letter="T")
CEILINGS = Ceilings(1, ((1 << 20, 2e10), (1 << 30, 1e10)), 8e9, 1e11, {"avx2": 1e12, "amx": 4e12}, "avx2")
SETTINGS = Settings(CEILINGS, rounds=3)
EXACT = one_off("numpy")
ALL = Choice(backends=None)


def nudged(docs: Ragged, reduce: str, threads: int) -> Search:
    """The specification, with one score off by one unit in the last place."""

    def search(queries: Ragged, k: int) -> Any:
        scores, ids, _ = reference_maxsim.topk(queries, docs, k)
        scores[-1, -1] = np.nextafter(scores[-1, -1], np.float32(99))
        return scores, ids

    return search


def measured(table: str, workload: TokenWorkload, *racing: Any) -> dict[str, Row]:
    """Rows of one workload with these contestants and no others."""
    with pytest.MonkeyPatch.context() as patch:
        op = registry.TABLES[table].op
        patch.setitem(OPS, op, OPS[op]._replace(contestants=racing))
        return {row.contestant: row for row in measure.measure([Heat(table, (workload,))], SETTINGS, ALL)}


def test_lengths_have_the_mean_and_the_ends() -> None:
    for lengths in (token_shapes.TEXTS, token_shapes.PAGES, token_shapes.PASSAGES, token_shapes.BATCH):
        found = lengths.of(1000)
        assert lengths.low <= found.min() < lengths.low + 3
        assert lengths.high - 3 < found.max() <= lengths.high
        assert abs(found.mean() - lengths.mean) < 0.1
    np.testing.assert_array_equal(token_shapes.LONG_BATCH.of(3), [1024] * 3)


def test_tokens_are_unit_vectors_and_queries_do_not_depend_on_their_number() -> None:
    docs, queries = data.load_tokens(TINY.corpus, 5)
    again, few = data.load_tokens(TINY.corpus, 2)
    np.testing.assert_array_equal(docs.values, again.values)
    np.testing.assert_allclose(queries[1], few[1], rtol=1e-6)
    np.testing.assert_array_equal(docs.lengths, TINY.lengths.of(40))
    assert queries.lengths.tolist() == [6] * 5
    for values in (docs.values, queries.values):
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="'gaussian'"):
        data.load_tokens(replace(TINY, data="gaussian").corpus, 1)


def test_real_tokens_are_those_of_the_demo() -> None:
    docs, queries = data.load_tokens(token_shapes.REAL.corpus, 7)
    assert (len(docs), len(docs.values), len(queries)) == (165, token_shapes.REAL.corpus.n_tokens, 7)
    assert abs(docs.lengths.mean() - token_shapes.ABSTRACTS.mean) < 1


def test_bytes_and_operations_are_of_all_tokens() -> None:
    n_tokens = int(TINY.lengths.of(40).sum())
    assert TINY.n_values == n_tokens * 24
    assert TINY.operations == 2 * n_tokens * 24 * 6 * 3
    row = measured("maxsim", TINY, EXACT)[EXACT.name]
    assert (row.n_bytes, row.operations) == (4 * n_tokens * 24, TINY.operations)
    assert "T-n40-ld4-d24-q3-lq6-k5" in row.columns().values()
    assert row.version


def test_ours_are_the_specification_and_what_is_not_is_not_timed() -> None:
    rows = measured("maxsim", TINY, EXACT, matrix("numpy"), Contestant("wrong", nudged, ours=True))
    for name in (EXACT.name, "pyengine-maxsim@numpy"):
        assert rows[name].samples
        assert rows[name].verdict == gate.Verdict(True, 1.0, "")
    assert rows["wrong"].wrong
    assert rows["wrong"].samples is None
    assert "query 2, place 4" in rows["wrong"].note


@pytest.mark.parametrize("k", [40, 3])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_the_specification_is_the_same_in_parts(reduce: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    docs, queries = data.load_tokens(TINY.corpus, 3)
    twice = docs.take(np.tile(np.arange(len(docs)), 2))  # every score has its like
    expected = reference_maxsim.topk(queries, twice, k, reduce=reduce)
    monkeypatch.setattr(gate, "TOKENS", 7)
    truth = gate.TokenSpecification(twice, queries, reduce)
    for query in range(3):
        scores, ids = truth.row(query, k)
        np.testing.assert_array_equal(scores, expected.scores[query])
        np.testing.assert_array_equal(ids, expected.ids[query])


@pytest.mark.parametrize("fits", [1 << 30, 0], ids=["at once", "in parts"])
@pytest.mark.parametrize("peer", peers.of("maxsim"), ids=lambda peer: peer.name)
def test_peers_find_what_the_specification_finds(peer: Contestant, fits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tokens, "FITS", fits)
    monkeypatch.setattr(_tokens, "DOCS", 16)
    docs, queries = data.load_tokens(replace(TINY, dim=32, lengths=Lengths(8, 20, 12)).corpus, 3)
    try:
        search = peer.prepare(docs, "sum", 1)
    except Unavailable as reason:
        pytest.skip(str(reason))
    verdict = gate.judge(peer.read(search(queries, 5)), gate.TokenSpecification(docs, queries, "sum"), range(3), 5)
    assert verdict.recall > (0.9 if peer.exactness != "approximate" else 0.5)


def test_a_wheel_for_another_torch_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(fast_plaid, "version_of", lambda package: "1.7.0.190")
    with pytest.raises(Unavailable, match="built for torch 190"):
        fast_plaid.fast_plaid(Ragged.of([np.ones((2, 4))]), "sum", 1)


def test_ties_go_to_the_smaller_id() -> None:
    scores, ids = best([[1, 3, 3, 2]], 3)
    assert ids.tolist() == [[1, 2, 3]]
    assert scores.tolist() == [[3, 3, 2]]


STEP = replace(TINY, n_docs=3, k=0)
TORCH = training.TRAINERS[1]


def test_a_step_is_judged_by_its_scores_and_gradients() -> None:
    pytest.importorskip("torch")
    (row,) = measured("training", STEP, TORCH).values()
    assert row.samples
    assert row.verdict
    assert row.verdict.reason == "" or "bits" in row.verdict.reason  # its scores are float32, its gradients are right
    docs, queries = data.load_tokens(STEP.corpus, 3)
    true = training.specified(queries, docs)
    assert training.judge(true, true) == gate.Verdict(True, 1.0, "")
    off = true._replace(doc_gradient=true.doc_gradient * np.float32(1.001))
    assert "doc_gradient is off by 0.001" in training.judge(off, true).reason
    assert not training.judge(true._replace(scores=np.nextafter(true.scores, np.float32(9))), true).exact


@pytest.mark.parametrize("trainer", training.TRAINERS, ids=lambda each: each.name)
def test_everybody_takes_the_same_step(trainer: training.Trainer) -> None:
    (row,) = measured("training", STEP, trainer).values()
    if row.verdict is None:
        pytest.skip(row.note)
    assert not row.wrong
    assert "gradient" not in row.note


def test_what_is_not_there_yet_is_not_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyengine

    monkeypatch.delattr(pyengine, "MultiVectorIndex", raising=False)
    rows = measured("codecs", TINY, *OPS["maxsim_codecs"].contestants)
    assert {row.note for row in rows.values()} == {"this pyengine has no MultiVectorIndex"}
    assert not any(row.wrong for row in rows.values())


def test_the_letters_choose_rows() -> None:
    heats, wanted = run.select(["A", "D'", "E"], presets.PRESETS["maxsim"])
    assert [each.letter for heat in heats for each in heat.workloads] == ["A", "D'", "E", "E"]  # type: ignore[attr-defined]
    assert wanted == set()
    with pytest.raises(ValueError, match="'faiss'"):
        run.select(["faiss"], presets.PRESETS["maxsim"])
    with pytest.raises(ValueError, match="'colbert-ai'"):
        run.select(["colbert-ai"], presets.PRESETS["dense"])


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(ceilings, "measure", lambda threads, sizes: CEILINGS)
    (numpy,) = (each for each in peers.of("maxsim") if each.name == "numpy")
    monkeypatch.setitem(OPS, "maxsim", OPS["maxsim"]._replace(contestants=(EXACT, numpy)))
    options = run.parse(["--op", "maxsim", "--backends", "numpy", "--save", "--rounds", "2"])
    assert run.run(options) == 0
    printed = capsys.readouterr().out
    assert all(f"{letter}-n60" in printed for letter in "ABCE")
    (page,) = tmp_path.glob("*-quick-part.md")
    assert "| A 60 x 9 x 128, 1 x 32, 5 |" in page.read_text()

"""The benchmark itself, at a tiny size: its rows and its gate."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")
from bench import peers
from bench.limits import machine
from bench.operations import life
from bench.operations.arena import Arena
from bench.operations.compress import Signs
from bench.ours.contestants import OURS, Contestant, Search, Unavailable, one_off, version_of
from bench.peers.numpy import numpy_matmul
from bench.racing import gate, measure, memory, timing, write_tables
from bench.registry import OPS, Choice, Op
from bench.workloads import data, shapes
from bench.workloads.shapes import Heat
from pyengine.refining import exact
from pyengine.specification import reference
from tests.bench_toy import CEILINGS, EXACT, HEATS, NUMPY, SETTINGS, SMALL, TINY, WRONG, absent, broken, measured, raced


def test_every_contestant_has_a_row_at_every_workload() -> None:
    racing = [EXACT, NUMPY, Contestant("absent", absent), Contestant("broken", broken)]
    rows = measured(HEATS, racing)
    assert {(row.workload, row.contestant) for row in rows} == {(each, who.name) for each in TINY for who in racing}
    for row in rows:
        columns = row.columns()
        assert not row.wrong
        if row.contestant in ("absent", "broken"):
            assert row.samples is None
            assert row.note == ("pip install absent" if row.contestant == "absent" else "MemoryError: 17 GiB")
            continue
        assert row.samples
        assert 0 < row.samples.percentile(20) <= row.samples.percentile(50) <= row.samples.percentile(80)
        assert columns["rounds"] == 3
        assert columns["recall"] == 1.0
        assert columns["of_ceiling"] is not None
    assert all(row.verdict and row.verdict.exact for row in rows if row.contestant == EXACT.name)


def test_a_failure_of_ours_is_a_fault() -> None:
    (row,) = measured(HEATS[:1], [Contestant("ours", broken, ours=True)])
    assert row.wrong
    assert row.samples is None


def test_an_answer_of_ours_that_is_one_bit_off_is_not_timed() -> None:
    rows = measured(HEATS[:1], [EXACT, WRONG])
    right, wrong = rows
    assert right.samples is not None
    assert wrong.samples is None
    assert wrong.verdict == (False, 1.0, wrong.note, 1.0)
    assert wrong.wrong
    assert "query 4, place 6" in wrong.note
    assert wrong.columns()["p50_ms"] is None
    assert any("WRONG" in line for line in write_tables.remarks(rows))


def test_a_peer_that_would_take_too_long_is_not_called() -> None:
    slow = Contestant("slow", numpy_matmul)
    workloads = tuple(replace(TINY[0], n_queries=count) for count in (1, 40, 80))
    (first, second, third) = measured([Heat("batches", workloads)], [slow], SETTINGS._replace(seconds=1e-9))
    assert first.samples
    assert second.samples  # one query says little about forty
    assert third.samples is None
    assert "going by 40 queries" in third.note


def test_there_must_be_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_kilobytes", lambda file, name: 1 << 21)  # 2 GiB
    memory.require(1e9)
    with pytest.raises(Unavailable, match="needs about 2"):
        memory.require(2e9)
    (row,) = measured([Heat("search", (replace(TINY[0], n_docs=300_000_000),))], [EXACT])
    assert "needs about 28.8 GB" in row.note


def test_ratios_are_of_the_time_per_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        timing, "interleave", lambda calls, rounds, clock: {at: timing.Samples([1.0], [1.0], [0]) for at in calls}
    )
    batches = tuple(replace(TINY[0], n_queries=count) for count in (1, 2, 8))
    rows = measured([Heat("batches", batches, "previous")], [EXACT])
    assert [row.ratio for row in rows] == [None, 0.5, 0.25]
    rows = measured([Heat("batches", batches, "first")], [EXACT])
    assert [row.ratio for row in rows] == [None, 0.5, 0.125]
    assert rows[-1].ratio_to == "q1"


def test_where_ours_disagree_the_specification_decides() -> None:
    """Query 5 of 9 is in no sample; that the two differ there is enough to look."""
    docs, queries = data.load(shapes.Corpus(100, 8, "clustered"), 9)
    truth = gate.Specification(docs, queries, "cosine")
    scores, ids, _ = reference.topk(queries, docs, 4)
    other = ids.copy()
    other[5, :2] = other[5, 1::-1]
    assert 5 not in truth.sample(9)
    assert gate.disagreements([(scores, ids), (scores, other)]) == [5]
    assert gate.judge((scores, ids), truth, [5], 4).exact
    assert not gate.judge((scores, other), truth, [5], 4).exact


def test_the_gate_refuses_a_wrong_shape() -> None:
    docs, queries = data.load(shapes.Corpus(50, 8, "gaussian"), 2)
    truth = gate.Specification(docs, queries, "dot")
    verdict = gate.judge((np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int64)), truth, [0], 3)
    assert (verdict.exact, verdict.recall) == (False, 0.0)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("peer", peers.of("dense_topk"), ids=lambda peer: peer.name)
def test_peers_find_what_the_specification_finds(peer: Contestant, metric: str) -> None:
    docs, queries = data.load(shapes.Corpus(400, 32, "clustered"), 6)
    try:
        search = peer.prepare(docs, metric, 1)
    except Unavailable as reason:
        pytest.skip(str(reason))
    answer = peer.read(search(queries, 10))
    assert gate.judge(answer, gate.Specification(docs, queries, metric), range(6), 10).recall > 0.98


@pytest.mark.parametrize(
    "contestant", [each for each in OURS if each.backend == "cpu"] + [one_off("numpy")], ids=lambda each: each.name
)
def test_ours_are_the_specification_or_say_why_not(contestant: Contestant) -> None:
    rows = measured(HEATS, [contestant])
    assert all(row.verdict.exact if row.verdict else "built" in row.note for row in rows)


@pytest.mark.parametrize("contestant", OPS["dense_filter"].contestants, ids=lambda each: each.name)
def test_filters_keep_what_they_should(contestant: Contestant) -> None:
    workloads = (SMALL, replace(SMALL, keep=0.2))
    all_of_it, part = measured([Heat("filters", workloads, "first")], [contestant])
    if part.verdict is None:
        pytest.skip(part.note)
    assert part.verdict.recall == 1.0
    assert part.samples
    assert all_of_it.samples
    assert part.verdict.exact or part.role == "peer"
    assert part.ratio_to == "none"


def test_namesakes_in_other_tables_have_their_own_setup() -> None:
    """There is a search and a filtered search called faiss."""
    heats = (Heat("search", (SMALL,)), Heat("filters", (SMALL, replace(SMALL, keep=0.2))))
    rows = measure.measure(heats, SETTINGS, Choice(frozenset({"faiss", "pyengine-int8"})))
    assert not any("Error" in row.note for row in rows)
    assert not any(row.wrong for row in rows)


def test_binary_codes_are_judged_by_their_signs() -> None:
    rows = raced("binary", SMALL)
    assert set(rows) == {who.name for who in OPS["dense_binary"].contestants}
    for row in rows.values():
        assert not row.wrong
        assert row.samples is None or (row.verdict and row.verdict.recall == 1.0 and row.bytes_per_vector)
    signs = Signs(np.array([[-2, 0.5], [3, -1]], np.float32))
    np.testing.assert_array_equal(signs[1:], [[1, -1]])


def test_residual_codes_have_recall_and_bytes() -> None:
    rows = raced("residual", replace(SMALL, k=3), "pyengine-residual2", "pyengine-residual4", "faiss-sq4")
    assert not any(row.wrong for row in rows.values())
    row = rows["faiss-sq4"]
    if row.samples:
        assert row.bytes_per_vector == 32
        assert row.verdict
        assert 0.5 < row.verdict.recall <= 1


@pytest.mark.parametrize("table", ["build", "save", "load"])
def test_an_index_has_a_life(table: str) -> None:
    if exact.native() is None:
        pytest.skip("the extension is not built")
    rows = raced(table, replace(SMALL, n_queries=0))
    assert not any(row.wrong for row in rows.values())
    ours = rows["pyengine-int8"]
    assert ours.note.startswith("this pyengine cannot") or (ours.samples and ours.verdict and ours.verdict.exact)
    yardsticks = [row for row in rows.values() if row.role == "yardstick"]
    assert all(row.samples and row.n_bytes > 0 for row in yardsticks)
    assert not ours.samples or all(ours.ratio_to == each.contestant for each in yardsticks)


def test_a_saved_index_that_answers_otherwise_is_refused() -> None:
    def lost(arena: Arena) -> life.Job:
        return life.Job(
            lambda: None, 0, lambda _: lambda queries, k: (np.zeros((1, k), np.float32), np.zeros((1, k), int))
        )

    with pytest.MonkeyPatch.context() as patch:
        liar = Op((life.Worker("liar", lost, "ours"),), life.entries, SMALL)
        patch.setitem(OPS, "dense_load", liar)
        (row,) = raced("load", replace(SMALL, n_queries=0)).values()
    assert row.wrong
    assert row.samples is None


def test_saved_results_hold_every_row_and_where_it_was_measured(tmp_path: Path) -> None:
    rows = measured(HEATS, [EXACT, NUMPY, Contestant("absent", absent)])
    sheet, page, everything = write_tables.save(rows, machine.here(), [CEILINGS], tmp_path, "dense-quick")
    with sheet.open() as file:
        records = list(csv.DictReader(file))
    assert len(records) == 9
    assert sheet.name.startswith(machine.here().date)
    assert sheet.name.endswith("-dense-quick.csv")
    assert all(record["cpu"] and record["versions"] and record["ceilings"] for record in records)
    assert {record["workload"] for record in records} == {each.name for each in TINY}
    found = json.loads(everything.read_text())
    assert len(found["rows"]) == 9
    assert [len(row["all_ms"]) for row in found["rows"]] == [3 * bool(row["rounds"]) for row in found["rows"]]
    assert found["ceilings"][0]["int8_ops"]["amx"] == 4e12
    exact = next(row for row in found["rows"] if row["contestant"] == EXACT.name)
    assert (exact["same_ranks"], exact["bound"]) == (1.0, "memory")
    assert exact["floor_ms"] == round(exact["n_bytes"] / 2e10 * 1e3, 4)
    assert page.read_text().count("✓") >= len(TINY) + 1  # each of ours, and the legend


def test_missing_real_data_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "SCIFACT", tmp_path)
    rows = measured([Heat("search", (replace(TINY[0], data="scifact"),))], [EXACT])
    assert len(rows) == 1
    assert "doc_dense_f32.npy" in rows[0].note


def test_every_peer_says_what_it_is() -> None:
    found = [(op, who) for op in OPS for who in peers.of(op)]
    assert {op for each in peers._all() for op in each} <= set(OPS)
    assert len({(op, who.name) for op, who in found}) == len(found) > 20
    for _, who in found:
        assert not who.ours
        assert who.package
        assert getattr(who, "exactness", "codes")
        assert bool(who.version) == bool(version_of(who.package))


def test_a_setup_is_closed_when_it_is_over() -> None:
    closed: list[Search] = []
    who = Contestant("numpy", numpy_matmul, close=closed.append)
    measured(HEATS[:1], [EXACT, who])
    assert len(closed) == 1

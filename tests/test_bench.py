"""The benchmark itself: at a tiny size, its rows, its gate and its figures."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

from bench import ceilings, data, dense, gate, machine, memory, report, shapes, timing
from bench.ceilings import Ceilings
from bench.contestants import OURS, Contestant, Search, Unavailable, index, one_off
from bench.peers import PEERS, numpy_matmul
from bench.race import Settings, measure, prepare
from pyengine import reference
from pyengine.types import F32

TINY = (
    shapes.Workload(n_docs=300, dim=24, n_queries=5, k=7),
    shapes.Workload(n_docs=300, dim=24, n_queries=1, k=3),
    shapes.Workload(n_docs=200, dim=16, n_queries=3, k=5, metric="l2", data="scaled"),
)
EXACT = index("float32", backend="numpy")  # ours without the extension
CEILINGS = Ceilings(threads=1, read_bytes=1e10, float32_ops=1e11, int8_ops=1e12)
SETTINGS = Settings(CEILINGS, rounds=3)


def nudged(docs: F32, metric: str, threads: int) -> Search:
    """The specification, with one score of the last query off by one unit in the last place."""

    def search(queries: F32, k: int) -> tuple[F32, np.ndarray]:
        scores, ids, _ = reference.topk(queries, docs, k, metric)
        scores[-1, -1] = np.nextafter(scores[-1, -1], np.float32(2))
        return scores, ids

    return search


WRONG = Contestant("wrong", nudged, ours=True)


def absent(docs: F32, metric: str, threads: int) -> Search:
    raise Unavailable("pip install absent")


def test_every_contestant_has_a_row_at_every_workload() -> None:
    racing = [EXACT, Contestant("numpy", numpy_matmul), Contestant("absent", absent)]
    rows = measure(TINY, racing, SETTINGS)
    assert {(row.workload, row.contestant) for row in rows} == {(each, who.name) for each in TINY for who in racing}
    for row in rows:
        columns = row.columns()
        if row.contestant == "absent":
            assert (row.samples, row.note) == (None, "pip install absent")
            continue
        assert row.samples
        assert 0 < row.samples.percentile(20) <= row.samples.percentile(50) <= row.samples.percentile(80)
        assert columns["rounds"] == 3
        assert columns["recall"] == 1.0
        assert columns["of_ceiling"] is not None
    assert all(row.verdict and row.verdict.exact for row in rows if row.contestant == EXACT.name)


def test_an_answer_of_ours_that_is_one_bit_off_is_not_timed() -> None:
    rows = measure(TINY[:1], [EXACT, WRONG], SETTINGS)
    right, wrong = rows
    assert right.samples is not None
    assert wrong.samples is None
    assert wrong.verdict == (False, 1.0, wrong.note)
    assert "query 4, place 6" in wrong.note
    assert wrong.columns()["p50_ms"] is None
    assert any("WRONG" in line for line in report.remarks(rows))


def test_where_ours_disagree_the_specification_decides() -> None:
    """Query 5 of 9 is in no sample; that the two differ there is enough to look."""
    docs, queries = data.load(shapes.Corpus(100, 8, "clustered"), 9)
    truth = gate.Specification(docs, queries, "cosine", 4)
    scores, ids, _ = reference.topk(queries, docs, 4)
    other = ids.copy()
    other[5, :2] = other[5, 1::-1]
    assert 5 not in gate.sample(9)
    assert gate.disagreements([(scores, ids), (scores, other)]) == [5]
    assert gate.judge((scores, ids), truth, [5], 4).exact
    assert not gate.judge((scores, other), truth, [5], 4).exact


def test_the_gate_refuses_a_wrong_shape() -> None:
    docs, queries = data.load(shapes.Corpus(50, 8, "gaussian"), 2)
    truth = gate.Specification(docs, queries, "dot", 3)
    verdict = gate.judge((np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int64)), truth, [0], 3)
    assert (verdict.exact, verdict.recall) == (False, 0.0)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peers_find_what_the_specification_finds(peer: Contestant, metric: str) -> None:
    docs, queries = data.load(shapes.Corpus(400, 32, "clustered"), 6)
    ready, skipped = prepare([peer], docs, metric, threads=1)
    if skipped:
        pytest.skip(skipped[peer.name])
    answer = peer.read(ready[0][1](queries, 10))
    assert gate.judge(answer, gate.Specification(docs, queries, metric, 10), range(6), 10).recall > 0.98


@pytest.mark.parametrize("contestant", [*OURS, one_off("numpy")], ids=lambda each: each.name)
def test_ours_are_the_specification_or_say_why_not(contestant: Contestant) -> None:
    rows = measure(TINY, [contestant], SETTINGS)
    assert all(row.verdict.exact if row.verdict else "built" in row.note for row in rows)


def test_saved_results_hold_every_row_and_where_it_was_measured(tmp_path: Path) -> None:
    rows = measure(TINY, [EXACT, Contestant("numpy", numpy_matmul), Contestant("absent", absent)], SETTINGS)
    sheet, page = report.save(rows, machine.here(), CEILINGS.describe(), tmp_path, "dense-quick")
    with sheet.open() as file:
        records = list(csv.DictReader(file))
    assert len(records) == 9
    assert sheet.name.startswith(machine.here().date)
    assert sheet.name.endswith("-dense-quick.csv")
    assert all(record["cpu"] and record["versions"] and record["ceilings"] for record in records)
    assert {record["workload"] for record in records} == {each.name for each in TINY}
    assert page.read_text().count("✓") >= len(TINY) + 1  # each of ours, and the legend


def test_rounds_rotate_and_repeat() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    samples = timing.interleave(calls, 3)
    assert "".join(order) == "abcbcacab"
    assert [len(each.wall) for each in samples.values()] == [3, 3, 3]
    assert timing.rounds_within(1.0, 10.0) == timing.MIN_ROUNDS
    assert timing.rounds_within(1.0, 0.0) == timing.MAX_ROUNDS


def test_speedup_is_taken_within_rounds() -> None:
    """One round in which the machine was busy does not show."""
    ours, peer = timing.Samples([1.0, 50.0, 1.0]), timing.Samples([2.0, 100.0, 2.0])
    assert ours.speedup_over(peer) == 2.0


@pytest.mark.parametrize("kind", ["clustered", "scaled", "gaussian"])
def test_corpora_are_seeded_and_queries_do_not_depend_on_their_number(kind: str) -> None:
    docs, queries = data.load(shapes.Corpus(data.CHUNK + 5, 8, kind), 20)
    again, few = data.load(shapes.Corpus(data.CHUNK + 5, 8, kind), 3)
    np.testing.assert_array_equal(docs, again)
    np.testing.assert_allclose(queries[:3], few, rtol=1e-6)  # a product of other height may round otherwise
    assert docs.dtype == queries.dtype == np.float32
    lengths = np.linalg.norm(docs, axis=1)
    assert (np.ptp(lengths) > 0.1) == (kind == "scaled")


def test_unknown_data_is_named() -> None:
    with pytest.raises(ValueError, match="'nonsense'"):
        data.load(shapes.Corpus(5, 4, "nonsense"), 1)


def test_missing_real_data_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "SCIFACT", tmp_path)
    rows = measure([replace(TINY[0], data="scifact")], [EXACT], SETTINGS)
    assert len(rows) == 1
    assert "doc_dense_f32.npy" in rows[0].note


def test_ceilings_are_rates() -> None:
    found = ceilings.measure(threads=1, n_bytes=1 << 20)
    assert min(found.read_bytes, found.float32_ops) > 1e8
    assert CEILINGS.floor(1e10, 1e11, "float32") == 1.0
    assert CEILINGS.floor(1e9, 1e12, "int8") == 1.0
    assert replace(CEILINGS, int8_ops=None).floor(1e9, 1e12, "int8") is None


def test_memory_of_a_call() -> None:
    extra = memory.extra_peak(lambda: np.ones(1 << 23))
    if extra is None:
        pytest.skip("the kernel does not count it")
    assert 60e6 < extra < 120e6


def test_only_names_workloads_and_contestants() -> None:
    workloads, contestants = dense.select(["faiss", "q1", "d128-q32"], shapes.DENSE)
    assert [each.name for each in workloads] == ["n200k-d768-q1-k100", "n200k-d128-q32-k100"]
    assert [who.name for who in contestants] == ["faiss"]
    assert [who.name for who in dense.select(["pyengine-int8@avx2"], shapes.DENSE)[1]] == ["pyengine-int8@avx2"]
    assert dense.select([], shapes.DENSE) == (list(shapes.DENSE), [*OURS, *PEERS])
    with pytest.raises(SystemExit, match="'nobody'"):
        dense.select(["nobody"], shapes.DENSE)


def test_the_environment_is_made_fair(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: started.append(environment))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setattr(machine, "_cpu_flags", lambda: {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"})
    machine.rerun_fairly(2)
    (environment,) = started
    assert environment["OPENBLAS_CORETYPE"] == "SkylakeX"
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "2"
    assert "MKL_CBWR" not in environment
    assert "OPENBLAS_CORETYPE=SkylakeX, " in environment[machine.CHANGED]
    assert "no MKL_CBWR" in capsys.readouterr().err
    monkeypatch.setattr(os, "environ", environment)
    machine.rerun_fairly(2)
    assert len(started) == 1


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shapes, "QUICK", TINY)
    monkeypatch.setattr(dense, "OURS", (EXACT,))
    monkeypatch.setattr(dense, "RESULTS", tmp_path)
    monkeypatch.setattr(ceilings, "measure", lambda threads: CEILINGS)
    options = dense.parse(["--quick", "--save", "--rounds", "2", "--only", EXACT.name, "numpy"])
    assert dense.run(options) == 0
    assert TINY[0].name in capsys.readouterr().out
    assert len(list(tmp_path.glob("*-dense-quick-part.*"))) == 2
    monkeypatch.setattr(dense, "OURS", (WRONG,))
    assert dense.run(dense.parse(["--quick", "--rounds", "2", "--only", "wrong"])) == 1

"""The benchmark itself: at a tiny size, its rows, its gate and its figures."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import runpy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

from bench import peers, readme, registry, run
from bench.gpus import gpu_shapes
from bench.limits import ceilings, machine, products
from bench.limits.ceilings import Ceilings
from bench.operations import life
from bench.operations.arena import Arena
from bench.operations.compress import Signs
from bench.ours import contestants
from bench.ours.contestants import OURS, Contestant, Search, Unavailable, index, one_off, version_of
from bench.peers.numpy import numpy_matmul
from bench.racing import energy, gate, measure, memory, timing, write_tables
from bench.racing.race import Settings
from bench.racing.row import Row
from bench.registry import OPS, Choice, Op
from bench.workloads import data, presets, shapes
from bench.workloads.shapes import Heat, Workload
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32

TINY = (
    Workload(n_docs=300, dim=24, n_queries=5, k=7),
    Workload(n_docs=300, dim=24, n_queries=1, k=3),
    Workload(n_docs=200, dim=16, n_queries=3, k=5, metric="l2", data="scaled"),
)
HEATS = tuple(Heat("search", (each,)) for each in TINY)
EXACT = index("float32", backend="numpy")  # ours without the extension
NUMPY = Contestant("numpy", numpy_matmul)
CEILINGS = Ceilings(1, ((1 << 20, 2e10), (1 << 30, 1e10)), 8e9, 1e11, {"avx2": 1e12, "amx": 4e12}, "avx2")
SETTINGS = Settings(CEILINGS, rounds=3)
ALL = Choice(backends=None)
SMALL = Workload(n_docs=300, dim=64, n_queries=2, k=5)


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


def broken(docs: F32, metric: str, threads: int) -> Search:
    raise MemoryError("17 GiB")


def measured(heats: Sequence[Heat], racing: Sequence[Contestant], settings: Settings = SETTINGS) -> list[Row]:
    """Searches with these contestants, and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for op in {registry.TABLES[heat.table].op for heat in heats}:
            patch.setitem(OPS, op, OPS[op]._replace(contestants=tuple(racing)))
        return measure.measure(heats, settings, ALL)


def raced(table: str, workload: Workload, *wanted: str) -> dict[str, Row]:
    """A heat of one workload, by contestant."""
    choice = Choice(frozenset(wanted))
    return {row.contestant: row for row in measure.measure([Heat(table, (workload,))], SETTINGS, choice)}


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


def test_rounds_rotate_and_the_slow_sit_some_out() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    samples = timing.interleave(calls, dict.fromkeys("abc", 6))
    assert "".join(order) == "abccbabcaacbcabbac"
    assert [len(each.wall) for each in samples.values()] == [6, 6, 6]
    samples = timing.interleave(calls, {"a": 7, "b": 3, "c": 7})
    assert [len(each.wall) for each in samples.values()] == [7, 3, 7]
    assert samples["b"].rounds[0] == 0
    assert timing.rounds_within(1.0, 10.0) == timing.MIN_ROUNDS
    assert timing.rounds_within(1.0, 0.0) == timing.MAX_ROUNDS


def test_who_fails_in_a_round_stops_and_the_others_go_on() -> None:
    samples = timing.interleave({"good": lambda: None, "bad": lambda: 1 / 0}, {"good": 3, "bad": 3})
    assert len(samples["good"].wall) == 3
    assert samples["bad"].wall == []
    assert "ZeroDivisionError" in samples["bad"].failure


def test_ratios_are_taken_within_rounds() -> None:
    """One round in which the machine was busy does not show, and only rounds in which both ran count."""
    ours = timing.Samples([1.0, 50.0, 1.0], rounds=[0, 1, 2])
    peer = timing.Samples([2.0, 100.0], rounds=[0, 1])
    assert peer.times(ours) == 2.0


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
    rows = measured([Heat("search", (replace(TINY[0], data="scifact"),))], [EXACT])
    assert len(rows) == 1
    assert "doc_dense_f32.npy" in rows[0].note


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 3), (0.1, 4), (0.02, 16)])
def test_the_fastest_of_as_many_calls_as_there_is_time_for(
    seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three where they are long; one of many may meet an idle processor."""
    clock, called = iter(range(100)), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) * seconds)
    monkeypatch.setattr(products, "TRIED", 0.31)
    assert products.fastest(lambda: called.append(1)) == pytest.approx(seconds)
    assert len(called) == calls + 1  # and one that warms up


def test_ceilings_are_rates() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceilings, "PEAKS", 1)
        patch.setattr(products, "SIDE", 256)
        patch.setattr(products, "TRIED", 0.0)
        found = ceilings.measure(threads=1, sizes=(1 << 20, 1 << 21))
    assert [size for size, _ in found.reads] == [1 << 20, 1 << 21]
    assert [size for size, _ in found.copies] == [1 << 20, 1 << 21]
    assert all(rate > 1e6 for _, rate in found.copies)  # whatever else the machine does meanwhile
    assert found.bf16_ops is None or found.bf16_ops > 1e6
    flags = machine.cpu_flags()
    wanted = [isa for isa, flag in (("avx2", "avx2"), ("avx512", "avx512dq")) if flag in flags]
    assert list(found.by_isa["float32"]) == wanted or not wanted
    assert max(found.by_isa["float32"].values()) == found.float32_ops
    assert all(rate > 1e6 for rates in found.by_isa.values() for rate in rates.values())
    assert min(found.small_page_read, found.float32_ops, *(rate for _, rate in found.reads)) > 1e8
    assert bool(found.int8_ops) == (exact.native() is not None)
    assert found.isa in found.int8_ops or not found.int8_ops
    assert CEILINGS.floor(1 << 20, 1e6, "float32") == (1 << 20) / 2e10  # fits the first working set
    assert CEILINGS.floor(1e10, 1e11, "float32") == 1.0
    assert CEILINGS.floor(1e9, 1e12, "int8") == 1.0
    assert CEILINGS.floor(1e9, 1e12, "int8", "amx") == 0.25
    assert CEILINGS.floor(1e9, 1e15, "none") == 0.1
    assert CEILINGS.floor(1e9, 1e12, "int8", "neon") is None


def test_memory_of_a_call() -> None:
    extra = memory.extra_peak(lambda: np.ones(1 << 23))
    if extra is None:
        pytest.skip("the kernel does not count it")
    assert 60e6 < extra < 120e6


def test_only_names_tables_workloads_and_contestants() -> None:
    heats, wanted = run.select(["search", "faiss", "q1", "d128-q32"], shapes.DENSE)
    assert [each.name for heat in heats for each in heat.workloads] == [
        "n1m-d768-q1-k100",
        "n200k-d768-q1-k100",
        "n200k-d128-q32-k100",
    ]
    assert wanted == {"faiss"}
    assert [who.name for who in registry.racing(heats[0], Choice(frozenset(wanted)))] == ["faiss"]
    forced = registry.racing(heats[0], Choice(frozenset({"pyengine-int8@avx2"})))
    assert [who.name for who in forced] == ["pyengine-int8@avx2"]
    assert run.select([], shapes.DENSE) == (list(shapes.DENSE), set())
    (batches,), _ = run.select(["batches", "q64"], shapes.DENSE)
    assert len(batches.workloads) == len(shapes.BATCHES)  # they are compared with one another
    with pytest.raises(ValueError, match="'nobody'"):
        run.select(["nobody"], shapes.DENSE)


def test_every_table_has_heats_and_every_operation_a_table() -> None:
    gpu = gpu_shapes.FAMILIES.values()
    for heats in (
        presets.PRESETS["paper"] + sum((family.heats for family in gpu), ()),
        presets.PRESETS["quick"] + sum((family.quick for family in gpu), ()),
    ):
        assert {heat.table for heat in heats} == set(registry.TABLES)
        assert all(len({each.corpus for each in heat.workloads}) == 1 for heat in heats)
        assert all(registry.racing(heat, ALL) for heat in heats)
    assert {table.op for table in registry.TABLES.values()} == set(OPS)


def test_the_environment_is_made_fair(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: started.append(environment))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"})
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


def test_a_floor_is_that_of_the_threads_of_the_workload() -> None:
    """A second thread may bring nothing: two virtual cores can be one."""
    alone, both = CEILINGS, dataclasses.replace(CEILINGS, threads=2, float32_ops=2 * CEILINGS.float32_ops)
    settings = Settings(alone, others=(both,))
    assert [settings.ceilings_of(threads) for threads in (1, 2, 3)] == [alone, both, None]


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(presets.PRESETS, "quick", HEATS)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(ceilings, "measure", lambda threads, sizes: CEILINGS)
    monkeypatch.setitem(OPS, "dense_topk", OPS["dense_topk"]._replace(contestants=(EXACT, NUMPY)))
    assert run.run(run.parse(["--save", "--rounds", "2", "--only", EXACT.name, "numpy"])) == 0
    assert TINY[0].name in capsys.readouterr().out
    assert len(list(tmp_path.glob("*-quick-part.*"))) == 3
    monkeypatch.setitem(OPS, "dense_topk", OPS["dense_topk"]._replace(contestants=(WRONG,)))
    assert run.run(run.parse(["--rounds", "2", "--only", "wrong"])) == 1


def test_peers_that_are_missing_are_named_before_the_race(monkeypatch: pytest.MonkeyPatch) -> None:
    options = run.parse(["--preset", "readme"])
    monkeypatch.setattr(contestants, "version_of", lambda package: "" if package == "scann" else "1")
    assert run._not_installed(options) == {"scann": "scann"}


def test_the_preset_readme_is_saved_and_goes_into_the_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[list[str]] = []

    def rewritten(words: list[str]) -> int:
        told.append(words)
        return 0

    monkeypatch.setitem(presets.PRESETS, "readme", HEATS)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(ceilings, "measure", lambda threads, sizes: CEILINGS)
    monkeypatch.setattr(readme, "main", rewritten)
    monkeypatch.setitem(OPS, "dense_topk", OPS["dense_topk"]._replace(contestants=(EXACT,)))
    assert run.run(run.parse(["--preset", "readme", "--rounds", "2", "--backends", "numpy"])) == 0
    assert told == []  # a part does not make the tables
    monkeypatch.setitem(OPS, "dense_topk", OPS["dense_topk"]._replace(contestants=(NUMPY,)))
    assert run.run(run.parse(["--preset", "readme", "--rounds", "2"])) == 0
    (sheet,) = tmp_path.glob("*-readme.csv")
    assert told == [[sheet.name]]


def test_every_line_of_the_readme_is_measured() -> None:
    """By the preset readme, or by the preset dense."""
    there = {each.name for heat in (*presets.PRESETS["readme"], *presets.PRESETS["dense"]) for each in heat.workloads}
    assert {line.workload for layout in readme.LAYOUTS.values() for line in layout.lines} <= there
    for layout in readme.LAYOUTS.values():
        known = {who.name for table in layout.tables for who in OPS[registry.TABLES[table].op].contestants}
        assert set(layout.columns) <= known


def test_a_shape_has_a_name_and_a_name_a_shape() -> None:
    for heat in presets.PRESETS["paper"]:
        base = OPS[registry.TABLES[heat.table].op].base
        assert [shapes.named(each.name, base) for each in heat.workloads] == list(heat.workloads)
    (heat,) = run.parse(["--op", "sparse_topk", "--shapes", "heavy-n2k-8x1-k5"]).heats
    assert heat.workloads[0].name == "heavy-n2k-lq44-8x1-k5"


def test_backends_and_peers_are_chosen_by_name() -> None:
    def names(*words: str) -> set[str]:
        options = run.parse(["--op", "dense_topk", "--shapes", "n300-d8-q2-k5", *words])
        return {who.name for who in registry.racing(options.heats[0], options.choice)}

    assert names("--peers", "none") == {"pyengine-int8", "pyengine-float32", "pyengine-topk"}
    assert names("--peers", "numpy", "--backends", "torch") == {
        *(f"pyengine-{each}@torch" for each in ("int8", "float32", "topk")),
        "numpy",
    }
    assert names("--backends", "all") > names() > names("--peers", "none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "fast"], "--preset: nothing is called 'fast'; there are quick, readme"),
        (["--op", "dense"], "--op: nothing is called 'dense'; there are dense_topk"),
        (["--peers", "google"], "--peers: nothing is called 'google'; there are"),
        (["--backends", "tpu"], "--backends: nothing is called 'tpu'; there are"),
        (["--only", "nobody"], "--only: nothing is called 'nobody'; there are"),
        (["--op", "dense_topk", "--shapes", "n5-x3"], "got 'x3' in 'n5-x3'"),
        (["--op", "dense_topk", "--shapes", "n5-k6"], "k documents; got 'n5-k6'"),
        (["--op", "maxsim", "--shapes", "n0"], "numbers above 0; got 'n0'"),
        (["--op", "maxsim", "--shapes", "A-ld0"], "got 'ld0' in 'A-ld0'"),
        (["--op", "dense_topk", "--shapes", "n9-k5-q0"], "got 'q0'"),
        (["--op", "dense_filter", "--shapes", "keep200%"], "got 'keep200%'"),
        (["--op", "sparse_topk", "--shapes", "0x1"], "got '0x1'"),
        (["--seconds", "inf"], "--seconds must be a number above 0"),
        (["--op", "sparse_topk", "--shapes", "d768"], "got 'd768'"),
        (["--shapes", "n200k"], "--shapes goes with one --op"),
        (["--preset", "dense", "--op", "maxsim"], "the preset 'dense' has nothing of maxsim"),
        (["--threads", "0"], "must be at least 1"),
        (["--threads", str(machine.cores() + 1)], f"--threads must be at most the {machine.cores()} cores there are"),
        (
            ["--op", "dense_topk", "--shapes", "n1k", "n1k-keep50%"],
            "--shapes: 'n1k-d768-q32-k100-keep50%' filters, which dense_topk does not: --op dense_filter does",
        ),
        (["--op", "dense_build", "--shapes", "n1k-keep50%"], "which dense_build does not"),
        (["--partial"], "--partial says something about --preset readme only"),
    ],
)
def test_what_is_not_known_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.parse(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


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


def test_energy_is_read_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.joules() is None
    assert timing.interleave({"a": lambda: None}, {"a": 3})["a"].joules() is None
    counter = tmp_path / "more" / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("0")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "more")
    spend = lambda: counter.write_text(str(int(counter.read_text()) + 2_500_000))  # noqa: E731
    assert timing.interleave({"a": spend}, {"a": 3})["a"].joules() == 2.5
    assert timing.Samples(energy=[-9.0, 1.0]).joules() == 1.0  # the counter began again
    assert timing.Samples(energy=[-9.0]).joules() is None


@pytest.mark.parametrize("preset", ["dense", "maxsim", "sparse"])
def test_commands_of_one_preset(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def kept(words: list[str]) -> int:
        given.append(words)
        return 0

    monkeypatch.setattr(run, "main", kept)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    for words in ([], ["--quick", "--threads", "2"]):
        monkeypatch.setattr("sys.argv", [preset, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(f"bench.{preset}", run_name="__main__")
        assert ended.value.code == 0
    assert run.parse(given[0]).heats == list(presets.PRESETS[preset])
    quick = run.parse(given[1])
    assert quick.threads == 2
    assert {heat.table for heat in quick.heats} <= {heat.table for heat in presets.PRESETS[preset]}
    assert set(quick.heats) <= {*presets.PRESETS["quick"]}


def test_what_cannot_be_written_or_is_stopped_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(error: BaseException) -> int:
        raise error

    monkeypatch.setattr(machine, "rerun_fairly", lambda threads: None)
    for error, code, said in (
        (OSError(28, "No space left on device", "x.csv"), 2, "No space left on device: 'x.csv'"),
        (KeyboardInterrupt(), 130, "stopped"),
    ):
        monkeypatch.setattr(run, "run", lambda options, error=error: fails(error))
        assert run.main([]) == code
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1


def test_only_ceilings_of_working_sets_that_occur_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def measured(threads: int, sizes: tuple[int, ...]) -> Ceilings:
        asked.append(sizes)
        return CEILINGS

    monkeypatch.setattr(ceilings, "measure", measured)
    for shape in ("n1k-d8-k5", "n50k-d768-k5", "n1m-d768"):
        run._settings(run.parse(["--op", "dense_topk", "--shapes", shape, shape]))
    assert asked == [ceilings.READ_SIZES[:1], ceilings.READ_SIZES[:4], ceilings.READ_SIZES]

"""The command `python -m bench.run`: what it takes, chooses, saves and refuses."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")
from bench import readme, registry, run
from bench.gpus import gpu_shapes
from bench.limits import ceilings, machine
from bench.limits.ceilings import Ceilings
from bench.ours import contestants
from bench.registry import OPS, Choice
from bench.workloads import presets, shapes
from tests.bench_toy import ALL, CEILINGS, EXACT, HEATS, NUMPY, TINY, WRONG


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

"""The ablation as a command: a toy grid from end to end, killed and continued; full disks; other results in the way."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

from rich.console import Console

from bench import ablate
from bench.ablation import journal, running
from bench.ablation.cells import Cell
from pyengine import SparseIndex
from tests.ablate_toy import DIM, GRID, N_DOCS, N_QUERIES, arguments, rows_of, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path)


def test_a_grid_from_end_to_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ir_measures")
    assert ablate.main(arguments(folder)) == 0
    rows = {row["cell"]: row for row in rows_of(folder)}
    names = ["dense", "prefix-dims=8", "prefix-dims=99", "words", "hybrid-fusion=rrf", "hybrid-fusion=convex"]
    assert list(rows) == names
    assert rows["dense"]["exactness"] == rows["words"]["exactness"] == rows["hybrid-fusion=rrf"]["exactness"] == "exact"
    assert rows["dense"]["recall"] == 1 > rows["prefix-dims=8"]["recall"]
    assert rows["dense"]["mrr_10"] == 1
    assert rows["dense"]["map_50"] is None
    assert rows["dense"]["b1_cpu_ratio"] is None
    assert rows["words"]["b1_cpu_ratio"] > 0
    assert rows["prefix-dims=8"]["ndcg_10_change"] < 0 < rows["prefix-dims=8"]["p_value"] <= 1
    assert rows["dense"]["memory_bytes"] >= N_DOCS * DIM * 4 < rows["dense"]["disk_bytes"]
    assert rows["prefix-dims=99"]["status"] == "missing"
    assert "16 dimensions" in rows["prefix-dims=99"]["reason"]
    with np.load(folder / "out" / "queries" / "words.npz") as arrays:
        assert set(arrays) == {"batch1", "batch32", "ndcg_10", "mrr_10", "r_k"}
        assert len(arrays["batch1"]) == rows["words"]["b1_calls"]
        assert arrays["ndcg_10"].shape == (N_QUERIES,)
        assert np.isclose(np.percentile(arrays["batch1"], 50) * 1000, rows["words"]["b1_p50_ms"], rtol=1e-4)
    with (folder / "out" / "claims.csv").open() as file:
        verdicts = {line["claim"]: line for line in csv.DictReader(file)}
    assert verdicts["smaller"]["verdict"] == "holds"
    assert 0.5 <= float(verdicts["smaller"]["figure"]) < 0.7
    assert verdicts["longer"]["verdict"] == "not measured"
    assert "16 dimensions" in verdicts["longer"]["reason"]
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["documents"] == N_DOCS
    assert manifest["judged_queries"] == N_QUERIES
    assert manifest["versions"]
    assert "Half of the dimensions" in capsys.readouterr().out


def test_a_finished_cell_is_not_measured_again(folder: Path) -> None:
    assert ablate.main(arguments(folder)) == 0
    table = folder / "out" / "cells.csv"
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # two cells, and a part of the third
    assert ablate.main(arguments(folder)) == 0
    again = table.read_bytes().splitlines(keepends=True)
    assert again[:3] == lines[:3]
    recalls = [row["recall"] for row in journal.read(table) if row["status"] == "ok"]
    assert all(isinstance(each, float) for each in recalls), "1 of a recall is printed as the others are"
    assert len(again) == len(lines)
    assert len(rows_of(folder)) == 6


def test_a_kill_loses_at_most_one_cell(folder: Path) -> None:
    text = GRID.replace("seconds = 0.002", "seconds = 0.05")  # long enough for a kill to come between
    (folder / "grid.toml").write_text(text)
    command = [sys.executable, "-c", "import sys; from bench import ablate; sys.exit(ablate.main(sys.argv[1:]))"]
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    table, seen = folder / "out" / "cells.csv", 0
    process = subprocess.Popen([*command, *arguments(folder)], env=environment, stdout=subprocess.DEVNULL, cwd=root)
    while seen < 3 and process.poll() is None:  # the header and two cells
        seen = table.read_bytes().count(b"\n") if table.exists() else 0
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert (folder / "out" / "scratch").is_dir()
    kept = table.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    assert 3 <= whole.count(b"\n") < 7
    for row in csv.DictReader(whole.decode().splitlines()):
        if row["status"] == "ok":
            with np.load(folder / "out" / "queries" / f"{row['cell']}.npz") as arrays:
                assert len(arrays["batch1"])
    assert (
        subprocess.run([*command, *arguments(folder)], env=environment, stdout=subprocess.DEVNULL, cwd=root).returncode
        == 0
    )
    assert not (folder / "out" / "scratch").exists()  # nor what the kill left
    ran = [line for line in whole.splitlines(keepends=True) if b",missing," not in line]
    assert table.read_bytes().startswith(b"".join(ran))
    assert len({row["cell"] for row in rows_of(folder)}) == 6


def test_what_could_not_run_is_tried_again_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []
    measure = running.Runner.measure

    def counted(runner: running.Runner, cell: Cell) -> running.Result:
        measured.append(cell.name)
        return measure(runner, cell)

    def absent(index: SparseIndex, *arguments: object) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(running.Runner, "measure", counted)
    with monkeypatch.context() as without:
        without.setattr(SparseIndex, "add", absent)
        assert ablate.main(arguments(folder)) == 0
    lacking = ["prefix-dims=99", "words", "hybrid-fusion=rrf", "hybrid-fusion=convex"]
    assert [row["cell"] for row in rows_of(folder) if row["status"] == "missing"] == lacking
    assert "the same command tries 4 again" in capsys.readouterr().out
    kept, measured[:] = (folder / "out" / "cells.csv").read_bytes().splitlines()[:3], []
    assert ablate.main(arguments(folder)) == 0
    assert measured == lacking
    assert [row["status"] for row in rows_of(folder)] == ["ok", "ok", "missing", "ok", "ok", "ok"]
    assert (folder / "out" / "cells.csv").read_bytes().splitlines()[:3] == kept
    assert f"again, since they could not run before: {', '.join(lacking)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "now", "agree"),
    [
        ("numpy 2", "numpy 2, faiss-cpu 1", True),
        ("numpy 2, faiss-cpu 1", "numpy 2", False),
        ("numpy 2", "numpy 3", False),
        ("numpy 2", "numpy 2, ir_measures 1", False),  # the cells there are have not been judged
    ],
)
def test_a_library_may_be_installed_between_two_runs(tmp_path: Path, before: str, now: str, agree: bool) -> None:
    same = dict.fromkeys(journal.MUST_AGREE, "same")
    with journal.opened(tmp_path, {**same, "versions": before}):
        pass
    if not agree:
        other = journal.opened(tmp_path, {**same, "versions": now})
        with pytest.raises(ValueError, match="results of other versions"), other:
            pass
        return
    with journal.opened(tmp_path, {**same, "versions": now}):
        assert json.loads((tmp_path / "manifest.json").read_text())["versions"] == now


def test_two_runs_do_not_share_a_folder_and_a_killed_one_leaves_it_free(folder: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from bench.ablation import journal
with journal.opened(Path(sys.argv[1]), dict.fromkeys(journal.MUST_AGREE, "same")):
    print("in", flush=True)
    time.sleep(60)
"""
    out, root = folder / "out", Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", script, str(out)], cwd=root, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match=r"another run is writing to .*: wait until it ends, or choose"):
            ablate.run(ablate.parser().parse_args(arguments(folder)), Console())
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        other.kill()
    with journal.opened(out, dict.fromkeys(journal.MUST_AGREE, "same")) as kept:
        assert kept.rows == []


def test_a_full_disk_is_a_sentence_and_the_run_goes_on_later(folder: Path) -> None:
    """A limit on the size of files is a disk that is full: a write stops in the middle."""
    script = """
import resource, sys
from pathlib import Path
from bench.ablation import journal
manifest = dict.fromkeys(journal.MUST_AGREE, "same")
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
with journal.opened(Path(sys.argv[1]), manifest) as kept:
    for number in range(99):
        kept.append({"cell": f"c{number}", "status": "ok", "reason": "x" * 100}, {})
"""
    out = folder / "full"
    command = [sys.executable, "-c", script, str(out)]
    ended = subprocess.run(command, cwd=Path(__file__).parent.parent, stderr=subprocess.PIPE, text=True)
    assert "OSError" in ended.stderr
    assert "File too large" in ended.stderr
    cut = (out / "cells.csv").read_bytes()
    assert len(cut) == 4000
    assert not cut.endswith(b"\n")
    with journal.opened(out, dict.fromkeys(journal.MUST_AGREE, "same")) as kept:
        assert kept.rows
    assert (out / "cells.csv").read_bytes().count(b"\n") == 1 + len(kept.rows)


def test_the_command_says_that_the_disk_is_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device", "cells.csv")

    monkeypatch.setattr(os, "fsync", full)
    assert ablate.main(arguments(folder)) == 2
    assert capsys.readouterr().err.strip() == "bench.ablate: No space left on device: cells.csv"
    assert not list((folder / "out").glob("*.part"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("grid", "another grid"),
        ("data", "other data"),
        ("manifest", "damaged"),
        ("stray", "other things in it"),
    ],
)
def test_results_of_something_else_are_left_alone(
    folder: Path, change: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if change != "stray":
        assert ablate.main(arguments(folder)) == 0
    out = folder / "out"
    if change == "grid":
        (folder / "grid.toml").write_text(GRID.replace("depth = 50", "depth = 60"))
    elif change == "data":
        (folder / "toy" / "qrels.txt").write_text("q0 0 d1 1\n")
    elif change == "manifest":
        (out / "manifest.json").write_text("{")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert ablate.main(arguments(folder)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_comments_and_claims_may_change(folder: Path) -> None:
    assert ablate.main(arguments(folder)) == 0
    (folder / "grid.toml").write_text("# said again\n" + GRID.replace("at_most = 0.7", "at_most = 0.1"))
    assert ablate.main(arguments(folder)) == 0


def test_the_installed_face_passes_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer")
    from pyengine.command_line import command_bench

    command = [sys.executable, "-m", "pyengine.command_line.cli", "ablate", "--grid", "nowhere.toml"]
    root = str(Path(__file__).parent.parent)
    ended = subprocess.run(command, cwd=root, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert "claims, scifact; nowhere.toml is missing" in ended.stderr
    monkeypatch.setattr(command_bench, "ROOT", tmp_path)
    with pytest.raises(ImportError, match=r"run python -m bench\.ablate, or install it from there"):
        command_bench.run("ablate", [])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--grid", "nowhere.toml"], "claims, scifact; nowhere.toml is missing"),
        (["--claims", "--grid", "scifact"], "--claims is a grid of its own"),
        (["--data", "nowhere"], "--data must be a folder"),
        (["--encoder", "a:b", "--model", "c"], "give one of them"),
    ],
)
def test_bad_options_are_a_sentence(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablate.main(given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1

"""The ablation: a toy grid from end to end, killed and continued; bad grids; full disks; figures and verdicts."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

import pyengine
from bench import ablate
from bench.ablation import approximate, claims, grid, journal, measures, stages
from bench.ablation.cells import Cell, made
from bench.ablation.claims import Claim
from bench.ablation.journal import COLUMNS
from bench.contestants import Unavailable
from bench.datasets.collection import Collection, Rows, numbered
from pyengine.ragged import Ragged
from pyengine.sparse_rows import SparseRows
from pyengine.types import TopK

N_DOCS, N_QUERIES, DIM = 300, 8, 16
GRID = """
title = "toy"
baseline = "dense"
seconds = 0.002

[[cells]]
name = "dense"
family = "dense"
k = 10

[[cells]]
name = "prefix"
family = "dense"
dims = [8, 99]
k = 10

[[cells]]
name = "words"
family = "sparse"
k = 10

[[cells]]
name = "hybrid"
family = "hybrid"
fusion = ["rrf", "convex"]
store = "float32"
depth = 50

[[claims]]
name = "smaller"
says = "Half of the dimensions take half of the memory"
source = "arithmetic"
cell = "prefix-dims=8"
against = "dense"
measure = "memory_bytes"
figure = "cell / against"
at_most = 0.7

[[claims]]
name = "longer"
says = "More dimensions find more"
source = "nobody"
cell = "prefix-dims=99"
measure = "recall"
figure = "cell"
at_least = 1
"""


def collection() -> Collection:
    """Vectors, tokens, sparse rows, a run and judgements: query i is about document i."""
    rng = np.random.default_rng(3)
    docs = rng.standard_normal((N_DOCS, DIM)).astype(np.float32)
    queries = docs[:N_QUERIES] + 0.3 * rng.standard_normal((N_QUERIES, DIM)).astype(np.float32)
    terms = rng.random((N_DOCS, 40)) * (rng.random((N_DOCS, 40)) < 0.3)
    bags = [rng.standard_normal((3 + row % 4, DIM)).astype(np.float32) for row in range(N_DOCS)]
    sparse = [_sparse(terms), _sparse(terms[:N_QUERIES])]
    run = np.argsort(-(queries @ docs.T), axis=1)[:, :20].astype(np.int64)
    return Collection(
        "toy",
        Rows(docs, Ragged.of(bags), sparse[0]),
        Rows(queries, Ragged.of(bags[:N_QUERIES]), sparse[1], run),
        [f"d{row}" for row in range(N_DOCS)],
        [f"q{row}" for row in range(N_QUERIES)],
        {f"q{row}": {f"d{row}": 1} for row in range(N_QUERIES)},
    )


def _sparse(dense: np.ndarray) -> SparseRows:
    rows, columns = np.nonzero(dense)
    return SparseRows(np.searchsorted(rows, np.arange(len(dense) + 1)), columns, dense[rows, columns], dense.shape[1])


TOY = collection()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The dense vectors and judgements in a folder, with texts for the sparse rows, and the grid."""
    data = tmp_path / "toy"
    data.mkdir()
    np.save(data / "docs.npy", TOY.docs.dense)  # type: ignore[arg-type]
    np.save(data / "queries.npy", TOY.queries.dense)  # type: ignore[arg-type]
    for name, ids, words in (("corpus", TOY.doc_ids, 9), ("queries", TOY.query_ids, 4)):
        told = enumerate(ids)
        records = [{"_id": each, "text": " ".join(f"w{row % (7 + at)}" for at in range(words))} for row, each in told]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    (data / "qrels.txt").write_text("".join(f"q{row} 0 d{row} 1\n" for row in range(N_QUERIES)))
    (tmp_path / "grid.toml").write_text(GRID)
    return tmp_path


def arguments(folder: Path, out: str = "out") -> list[str]:
    return ["--data", str(folder / "toy"), "--grid", str(folder / "grid.toml"), "--out", str(folder / out)]


def rows_of(folder: Path, out: str = "out") -> list[dict[str, Any]]:
    return journal.read(folder / out / "cells.csv")


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
    assert len(again) == len(lines)
    assert len(rows_of(folder)) == 6


def test_a_kill_loses_at_most_one_cell(folder: Path) -> None:
    text = GRID.replace("seconds = 0.002", "seconds = 0.15")  # long enough for a kill to come between
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
    assert table.read_bytes().startswith(whole)
    assert len({row["cell"] for row in rows_of(folder)}) == 6


def test_a_full_disk_is_a_sentence_and_the_run_goes_on_later(folder: Path) -> None:
    """A limit on the size of files is a disk that is full: a write stops in the middle."""
    script = """
import resource, sys
from pathlib import Path
from bench.ablation import journal
manifest = dict.fromkeys(journal.MUST_AGREE, "same")
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
kept = journal.Journal(Path(sys.argv[1]), manifest)
for number in range(99):
    kept.append({"cell": f"c{number}", "reason": "x" * 100}, {})
"""
    out = folder / "full"
    command = [sys.executable, "-c", script, str(out)]
    ended = subprocess.run(command, cwd=Path(__file__).parent.parent, stderr=subprocess.PIPE, text=True)
    assert "OSError" in ended.stderr
    assert "File too large" in ended.stderr
    cut = (out / "cells.csv").read_bytes()
    assert len(cut) == 4000
    assert not cut.endswith(b"\n")
    kept = journal.Journal(out, dict.fromkeys(journal.MUST_AGREE, "same"))
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cells = [", "must be TOML"),
        ("", "cells must be there"),
        ("sead = 3", "sead is no key of a grid"),
        ("seed = -1\n[[cells]]\nname='a'\nfamily='dense'", "seed must be a whole number, 0 or more; got -1"),
        ("cells = 3", "cells must be tables"),
        ("[[cells]]\nfamily='dense'", "cells[0]: name must be a word"),
        ("[[cells]]\nname='a b'\nfamily='dense'", "name must be a word"),
        ("[[cells]]\nname='a'", "cells[0] 'a': family must be given"),
        ("[[cells]]\nname='a'\nfamily='dens'", "family must be one of 'dense'"),
        ("[[cells]]\nname='a'\nfamily='dense'\nstor='int8'", "stor is no setting"),
        ("[[cells]]\nname='a'\nfamily='dense'\nstore=['int8', 'int9']", "store must be one of"),
        ("[[cells]]\nname='a'\nfamily='sparse'\nstore='int8'", "'uint8' for family 'sparse'; got 'int8'"),
        ("[[cells]]\nname='a'\nfamily='dense'\nk=0", "k must be a whole number, 1 or more; got 0"),
        ("[[cells]]\nname='a'\nfamily='dense'\nk=true", "k must be a whole number"),
        ("[[cells]]\nname='a'\nfamily='dense'\nk=[]", "k must be a value or a list of some"),
        ("[[cells]]\nname='a'\nfamily='dense'\nprobes=3", "probes must come with another family or other candidates"),
        ("[[cells]]\nname='a'\nfamily='maxsim'\ncandidates='ivf'", "candidates must be one of"),
        ("[[cells]]\nname='a'\nfamily='dense'\ncandidates='codes'", "store must be one of codes"),
        ("[[cells]]\nname='a'\nfamily='dense'\noriginals='disk'", "originals must be 'ram' for store 'float32'"),
        ("[[cells]]\nname='a'\nfamily='dense'\nbackend='gpu'", "backend must be one of 'auto'"),
        ("[[cells]]\nname='a'\nfamily='hybrid'\nweight=2", "weight must be a number from 0 to 1; got 2"),
        ("[[cells]]\nname='a'\nfamily='dense'\nagainst='b'", "against must name a cell; got 'b'"),
        ("baseline='b'\n[[cells]]\nname='a'\nfamily='dense'", "baseline must name a cell; got 'b'"),
        ("[[cells]]\nname='a'\nfamily='dense'\n[[cells]]\nname='a'\nfamily='dense'", "two cells are called 'a'"),
        ("[settings]\nkk=3\n[[cells]]\nname='a'\nfamily='dense'", "kk is no setting"),
        ("[[cells]]\nname='a'\nfamily='dense'\n[[claims]]\nname='c'", "claims[0] 'c': says must be given"),
    ],
)
def test_a_bad_grid_is_a_sentence(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert ablate.main(["--grid", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert str(path) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_installed_face_passes_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer")
    from pyengine import command_bench

    command = [sys.executable, "-m", "pyengine.cli", "ablate", "--grid", "nowhere.toml"]
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


def test_settings_of_all_cells_reach_those_that_take_them() -> None:
    found = grid.parse(
        {"settings": {"k": 7, "probes": 3, "store": "int8"},
         "cells": [{"name": "a", "family": "dense", "candidates": ["none", "ivf"]},
                   {"name": "b", "family": "maxsim", "k": [1, 2]}]},
        "here",
    )  # fmt: skip
    named = {cell.name: cell for cell in found.cells}
    assert named["a-candidates=none"].k == named["a-candidates=ivf"].k == 7
    assert (named["a-candidates=none"].probes, named["a-candidates=ivf"].probes) == (None, 3)
    assert named["b-k=2"].k == 2
    assert named["b-k=2"].store == "int8"
    assert named["b-k=2"].pool == 1


def test_the_bundled_grids_are_grids() -> None:
    scifact, claimed = grid.load(Path("scifact")), grid.load(Path("claims"))
    assert len(scifact.cells) >= 40
    assert {cell.family for cell in scifact.cells} == {
        "dense",
        "maxsim",
        "sparse",
        "hybrid",
    }
    assert {cell.candidates for cell in scifact.cells} >= {"none", "ivf", "hnsw", "pq", "projection", "dense", "sparse"}
    assert len(claimed.claims) >= 12
    assert all(claim.source for claim in claimed.claims)


EVERY = [
    {"family": "dense", "store": store} for store in ("float32", "int8", "float16", "bfloat16", "binary", "residual2")
] + [
    {"family": "dense", "store": "int8", "originals": "disk"},
    {"family": "dense", "candidates": "codes", "store": "binary", "depth": 100},
    {"family": "dense", "candidates": "projection", "project": 8, "depth": 60},
    {"family": "dense", "candidates": "projection", "project": 8, "depth": 0, "store": "int8"},
    {"family": "dense", "candidates": "ivf", "lists": 4, "probes": 4},
    {"family": "dense", "candidates": "hnsw", "links": 8, "ef": 50},
    {"family": "dense", "candidates": "pq", "code_bytes": 4, "depth": 100},
    {"family": "dense", "candidates": "hamming", "bits": 64, "depth": 100},
    {"family": "dense", "candidates": "hamming", "bits": 8, "depth": 0},
    {"family": "dense", "candidates": "sparse", "depth": 100, "dims": 8},
    {"family": "dense", "candidates": "run", "depth": 20},
    {"family": "maxsim"},
    {"family": "maxsim", "store": "residual2"},
    {"family": "maxsim", "pool": 2},
    {"family": "maxsim", "candidates": "codes", "store": "binary", "depth": 60},
    {"family": "maxsim", "candidates": "dense", "depth": 60},
    {"family": "maxsim", "candidates": "sparse", "depth": 60},
    {"family": "sparse", "store": "uint8", "originals": "disk"},
    {"family": "hybrid", "fusion": "product", "depth": 40},
]  # fmt: skip


@pytest.mark.parametrize("settings", EVERY, ids=lambda each: "-".join(str(value) for value in each.values()))
def test_every_stage_searches(settings: dict[str, Any], tmp_path: Path) -> None:
    cell = made("c", settings | {"k": 5, "backend": "auto"})
    try:
        built = stages.build(cell, TOY, tmp_path)
    except (Unavailable, RuntimeError) as error:
        pytest.skip(str(error))
    found, truth = built.search(TOY.queries, 5), measures.exact(cell, TOY)
    assert found.ids.shape == (N_QUERIES, 5)
    assert measures.recall(found, truth) > 0.2
    assert built.memory > 0
    assert measures.disk_bytes(built, tmp_path / "saved") > 0
    alone = built.search(TOY.queries.take(np.array([3])), 5)
    assert np.array_equal(alone.ids[0], found.ids[3])


def test_rescoring_is_the_exact_search_where_all_are_candidates() -> None:
    docs, queries = TOY.docs.dense, TOY.queries.dense
    assert docs is not None
    assert queries is not None
    everything = np.tile(np.arange(N_DOCS), (N_QUERIES, 1))
    for metric in ("cosine", "dot", "l2"):
        found = approximate.rescored(approximate.comparable(docs, metric), metric, queries, everything, 7)
        assert np.array_equal(found.ids, pyengine.topk(queries, docs, 7, metric=metric).ids)


def test_rescoring_pads_where_there_are_too_few_candidates() -> None:
    docs, queries = TOY.docs.dense, TOY.queries.dense
    assert docs is not None
    assert queries is not None
    found = approximate.rescored(docs, "dot", queries[:1], np.array([[5, -1, 9]]), 4)
    assert set(found.ids[0, :2]) == {5, 9}
    assert list(found.ids[0, 2:]) == [-1, -1]
    assert np.isneginf(found.scores[0, 2:]).all()


def test_principal_directions_keep_the_products_of_a_subspace() -> None:
    rng = np.random.default_rng(0)
    docs = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, DIM))).astype(np.float32)
    basis = approximate.principal(docs, 4)
    assert basis.shape == (DIM, 4)
    assert np.allclose(basis.T @ basis, np.eye(4), atol=1e-5)
    assert np.allclose((docs @ basis) @ (docs @ basis).T, docs @ docs.T, atol=1e-3)


def test_significance_is_of_paired_differences() -> None:
    rng = np.random.default_rng(1)
    base = rng.random(100)
    assert measures.significance(base, base, 7) == 1
    better = base + 0.1 + 0.01 * rng.random(100)
    assert measures.significance(better, base, 7) == 1 / (1 + measures.FLIPS)
    assert measures.significance(base, better, 7) == measures.significance(better, base, 7)
    exact = measures.significance(np.ones(5), np.zeros(5), 7)  # 2 of 32 sign patterns reach it
    assert abs(exact - 2 / 32) < 0.01
    noise = measures.significance(rng.standard_normal(100), rng.standard_normal(100), 7)
    assert 0.01 < noise <= 1


def test_exactness_knows_a_bit_from_a_proof() -> None:
    truth = pyengine.topk(TOY.queries.dense, TOY.docs.dense, 5)
    unproven = truth._replace(certified=np.zeros(N_QUERIES, bool))
    nudged = np.nextafter(truth.scores, np.float32(2))
    swapped = truth.ids[:, ::-1]
    assert measures.exactness(truth, truth) == "exact"
    assert measures.exactness(unproven, truth) == "same"
    assert measures.exactness(TopK(nudged, truth.ids, truth.certified), truth) == "ids"
    assert measures.exactness(TopK(truth.scores, swapped, truth.certified), truth) == "certified"
    assert measures.exactness(TopK(truth.scores, swapped, unproven.certified), truth) == "approximate"
    assert measures.recall(TopK(truth.scores, swapped, None), truth) == 1


def test_quality_counts_a_query_without_results_as_nothing() -> None:
    pytest.importorskip("ir_measures")
    ids = np.full((N_QUERIES, 10), -1, np.int64)
    ids[0, 0], ids[1, :2] = 0, (7, 1)
    values = measures.quality(ids, 10, replace(TOY, qrels={**(TOY.qrels or {}), "another": {"d1": 1}}))
    assert list(values["mrr_10"]) == [1, 0.5, *[0] * 6]
    assert "map_50" not in values
    assert values["ndcg_10"][1] == pytest.approx(1 / np.log2(3))


def test_batches_ask_every_query_once() -> None:
    assert [len(each) for each in measures.batches(TOY.queries, 1)] == [1] * N_QUERIES
    assert [len(each) for each in measures.batches(TOY.queries, 3)] == [3, 3]
    assert [len(each) for each in measures.batches(TOY.queries, 32)] == [N_QUERIES]


def test_calls_that_are_compared_ask_the_same_queries() -> None:
    asked: dict[str, list[float]] = {"own": [], "other": []}

    def noting(name: str) -> stages.Search:
        def search(queries: Rows, k: int) -> TopK:
            assert queries.dense is not None
            asked[name].append(float(queries.dense[0, 0]))
            return pyengine.topk(queries.dense, TOY.docs.dense, k)

        return search

    samples = measures.clock({name: (noting(name), 3) for name in asked}, TOY.queries, 1, 0.01)
    assert asked["own"] == asked["other"]
    assert len(samples["own"].wall) >= measures.FEWEST
    assert len(set(asked["own"])) == min(N_QUERIES, len(samples["own"].wall))


def test_a_missing_form_is_a_sentence() -> None:
    bare = Collection("bare", Rows(TOY.docs.dense), Rows(TOY.queries.dense), numbered(N_DOCS), numbered(N_QUERIES))
    with pytest.raises(Unavailable, match=r"bare has no token vectors: docs\.tokens\.npy"):
        bare.holding("tokens")
    assert bare.holding("dense") is bare
    assert replace(bare, part=TOY).holding("dense", "tokens") is TOY


@pytest.mark.parametrize(
    ("figure", "bounds", "cell", "against", "word"),
    [
        ("against / cell", {"at_least": 2.0}, 1.0, 4.0, "holds"),
        ("against / cell", {"at_least": 5.8}, 1.0, 4.0, "weaker"),
        ("against / cell", {"at_least": 5.8}, 4.0, 1.0, "does not hold"),
        ("cell / against", {"at_most": 0.5}, 1.0, 4.0, "holds"),
        ("cell / against", {"at_most": 0.1}, 1.0, 4.0, "weaker"),
        ("1 - cell / against", {"at_least": 0.3}, 2.0, 4.0, "holds"),
        ("cell - against", {"at_least": 0.5}, 4.0, 4.0, "does not hold"),
        ("1 / cell", {"at_least": 3.7}, 0.25, 0.0, "holds"),
        ("cell", {"at_least": 0.9}, 0.8, 0.0, "does not hold"),
        ("cell", {"at_least": 0.9}, 0.9, 0.0, "holds"),
        ("cell / against", {"at_most": 0.5}, 1.0, 0.0, "not measured"),
        ("cell / against", {"at_most": 0.5}, None, 1.0, "not measured"),
    ],
)
def test_verdicts(figure: str, bounds: dict[str, Any], cell: float | None, against: float, word: str) -> None:
    claim = replace(Claim("n", "says", "source", "a", "recall", figure, "b"), **bounds)
    rows: list[dict[str, Any]] = [
        {"cell": "a", "recall": cell, "reason": ""},
        {"cell": "b", "recall": against, "reason": ""},
    ]
    assert claims.judge([claim], rows)[0].word == word


@pytest.mark.parametrize(("figure", "word"), [(0.4, "holds"), (0.7, "weaker"), (1.2, "does not hold")])
def test_a_ratio_of_one_is_nothing_gained(figure: float, word: str) -> None:
    claim = Claim("n", "says", "source", "a", "b1_cpu_ratio", "cell", at_most=0.5)
    assert claims.judge([claim], [{"cell": "a", "b1_cpu_ratio": figure, "reason": ""}])[0].word == word


def test_every_setting_is_a_column() -> None:
    assert set(COLUMNS) >= {"cell", *Cell.__dataclass_fields__} - {"name"}
    assert len(set(COLUMNS)) == len(COLUMNS)

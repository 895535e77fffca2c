"""Runs and judgements, as evaluators see them: the engine's order whatever they do with equal scores."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.integrations import runs

RNG = np.random.default_rng(3)
LARGEST = float(np.finfo(np.float32).max)
TINY = float(np.finfo(np.float32).smallest_subnormal)


def top(scores: Any, ids: Any = None) -> pe.TopK:
    rows = np.atleast_2d(np.asarray(scores, np.float32))
    return pe.TopK(rows, np.tile(np.arange(rows.shape[1]), (len(rows), 1)) if ids is None else np.array(ids), None)


def names(count: int) -> list[str]:
    return [f"d{number}" for number in range(count)]


def same(got: runs.Run, want: runs.Run) -> bool:
    """Whether both have the same documents in the same order, with the same float32."""
    flat = [
        [(q, name, np.float32(score)) for q, found in run.items() for name, score in found.items()]
        for run in (got, want)
    ]
    return flat[0] == flat[1]


@pytest.mark.parametrize(
    "scores",
    [
        [3, 2, 1],
        [1, 1, 1, 1],
        [0.0, -0.0, 0, 0],
        [TINY, 0, 0, -TINY, -TINY, -1],
        [LARGEST] * 3,
        [-LARGEST] * 4,
        [LARGEST, -LARGEST, -LARGEST],
        [2, np.nextafter(np.float32(2), np.float32(0)), np.nextafter(np.float32(2), np.float32(0)), 1],
        np.sort(RNG.integers(-3, 3, 50))[::-1] / 7,
        [],
    ],
)
def test_scores_fall_strictly_and_as_little_as_possible(scores: Any, tmp_path: Path) -> None:
    wanted = np.asarray(scores, np.float32)
    run = runs.of(top(scores), names(len(wanted)), ["q"])
    found = np.array(list(run["q"].values()), np.float32)
    assert list(run["q"]) == names(len(wanted))
    assert np.isfinite(found).all()
    assert (found[1:] < found[:-1]).all()
    distinct = len(set(wanted.tolist())) == len(wanted)
    assert (found == wanted).all() == distinct
    last = np.float32(np.inf)
    for place, (got, given) in enumerate(zip(found, wanted)):
        if place + 1 < len(wanted) and given > -LARGEST / 2:
            assert got == min(given, np.nextafter(last, np.float32(-np.inf)))
        last = got
    runs.write(tmp_path / "a.run", run)
    assert same(runs.read(tmp_path / "a.run"), run if len(wanted) else {})


def test_a_search_becomes_a_run() -> None:
    docs = RNG.integers(-2, 3, (30, 4)).astype(np.float32)
    for metric in ("cosine", "dot", "l2"):
        found = pe.topk(docs[:3], docs, 40, metric=metric)
        run = runs.of(found, names(30), ["a", "b", "c"], metric)
        for row, query in enumerate("abc"):
            assert list(run[query]) == [f"d{id_}" for id_ in found.ids[row] if id_ >= 0]
            values = list(run[query].values())
            assert all(high > low for high, low in pairwise(values))
            np.testing.assert_allclose(values, (-1 if metric == "l2" else 1) * found.scores[row, :30], atol=1e-5)
    torch = pytest.importorskip("torch")
    tensors = pe.TopK(*(torch.from_numpy(each) for each in found))
    assert runs.of(tensors, names(30), ["a", "b", "c"], "l2") == run
    assert runs.of(pe.topk(docs[:0], docs, 3), names(30), []) == {}


def test_trec_files(tmp_path: Path) -> None:
    path = tmp_path / "some.run"
    run = {"7": {"b": 1.0, "a": 1.0, "c": 2.5}, "none": {}, "x": {"a": 1e-30}}
    runs.write(path, run, tag="mine")
    below = np.nextafter(np.float32(1), np.float32(0))
    expected = f"7 Q0 c 1 2.5 mine\n7 Q0 b 2 1 mine\n7 Q0 a 3 {below:.9g} mine\nx Q0 a 1 {np.float32(1e-30):.9g} mine\n"
    assert path.read_text(encoding="utf-8") == expected
    path.write_text("7 Q0 a 9 1 t\n\n7\tQ0  c 1 2.5 t\n7 Q0 b 1 1.0 t\n", encoding="utf-8")
    assert list(runs.read(path)["7"].items()) == [("c", 2.5), ("b", 1.0), ("a", 1.0)]
    with gzip.open(tmp_path / "qrels.gz", "wt", encoding="utf-8") as file:
        file.write("7 0 a 2\n7 0 b 0\nx 0 a -1\n")
    assert runs.read_qrels(tmp_path / "qrels.gz") == {"7": {"a": 2, "b": 0}, "x": {"a": -1}}


def test_ir_measures_keeps_the_order(tmp_path: Path) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    found = top([[1, 1, 1], [2, 2, 1]])
    run = runs.of(found, ["a", "b", "c"], ["p", "q"])
    qrels = {"p": {"a": 1}, "q": {"b": 1}}
    assert ir_measures.calc_aggregate([ir_measures.RR], {"p": {"a": 1}}, {"p": {"a": 1, "b": 1, "c": 1}}) == {
        ir_measures.RR: 1 / 3  # equal scores: by name, the largest first
    }
    runs.write(tmp_path / "a.run", run)
    (tmp_path / "qrels").write_text("p 0 a 1\nq 0 b 1\n", encoding="utf-8")
    for given in (run, runs.scored_docs(run), ir_measures.read_trec_run(str(tmp_path / "a.run"))):
        assert ir_measures.calc_aggregate([ir_measures.RR], qrels, given) == {ir_measures.RR: 0.75}
    assert same(runs.read(tmp_path / "a.run"), run)
    assert runs.read_qrels(tmp_path / "qrels") == qrels
    assert next(tuple(each) for each in runs.scored_docs(run)) == ("p", "a", 1.0)


def test_bad_input_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    for call, words in (
        (lambda: runs.of(top([2, 1]), ["a"], ["q"]), "doc_ids must name every id up to 1; got 1 names"),
        (lambda: runs.of(top([2, 1]), ["a", "a"], ["q"]), "doc_ids must be distinct"),
        (lambda: runs.of(top([2, 1]), ["a", "b"], []), "query_ids must be 1 distinct names"),
        (lambda: runs.of(top([[2, 1]] * 2), ["a", "b"], ["q", "q"]), "query_ids must be 2 distinct names"),
        (lambda: runs.of(top([1, 2]), ["a", "b"], ["q"]), "found must have its best first by metric='dot'"),
        (lambda: runs.of(top([2, 1]), ["a", "b"], ["q"], "l2"), "found must have its best first by metric='l2'"),
        (lambda: runs.write(path, {"q": {"a b": 1.0}}), "words without white space; got 'a b'"),
        (lambda: runs.write(path, {"": {"a": 1.0}}), "words without white space; got ''"),
        (lambda: runs.write(path, {"q": {"a": 1.0}}, tag="my run"), "words without white space; got 'my run'"),
        (lambda: runs.write(path, {"q": {"a": np.nan}}), "finite in float32; query 'q'"),
        (lambda: runs.write(path, {"q": {"a": 1e39}}), "finite in float32; query 'q'"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert not path.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("q Q0 a 1 2", "line 2: expected 'query Q0 document rank score tag'; got 5 words"),
        ("q Q0 b 1 high tag", "line 2: expected a finite number; got 'high'"),
        ("q Q0 b 1 nan tag", "line 2: expected a finite number; got 'nan'"),
        ("q Q0 a 1 2 tag", "line 2: 'a' was there before"),
    ],
)
def test_files_that_are_no_runs(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.run").write_text(f"q Q0 a 1 2 tag\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        runs.read(tmp_path / "a.run")
    with pytest.raises(ValueError, match="line 1: expected 'query 0 document grade'; got 6 words"):
        runs.read_qrels(tmp_path / "a.run")

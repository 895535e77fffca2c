"""Runs in ranx: the engine's order counts there, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pyengine as pe
from pyengine.integrations import runs

ranx = pytest.importorskip("ranx")

QRELS = {"p": {"a": 1}, "q": {"b": 1, "c": 2}}


def test_ties_count_as_the_engine_has_them(tmp_path: Path) -> None:
    scores, ids = np.array([[1, 1, 1], [2, 2, -np.inf]], np.float32), np.array([[1, 0, 2], [0, 1, -1]])
    run = runs.of(pe.TopK(scores, ids, None), ["a", "b", "c"], ["p", "q"])
    made = runs.to_ranx(run, "mine")
    assert (made.name, made.to_dict()) == ("mine", run)
    measures = ["mrr", "ndcg@10", "recall@10"]
    found = ranx.evaluate(ranx.Qrels.from_dict(QRELS), made, measures)
    assert found["mrr"] == 0.5
    assert found["recall@10"] == 0.75
    runs.write(tmp_path / "mine.trec", run)
    read = ranx.Run.from_file(str(tmp_path / "mine.trec"), kind="trec")
    assert ranx.evaluate(ranx.Qrels.from_dict(QRELS), read, measures) == found


def test_a_query_without_results() -> None:
    run = runs.to_ranx({"p": {"a": 1.0}, "q": {}})
    assert ranx.evaluate(ranx.Qrels.from_dict(QRELS), run, "mrr", make_comparable=True) == 0.5

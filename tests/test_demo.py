"""The demo's token vectors, its late-interaction part on a few of them, heatmaps, and its search by words."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

import pyengine as pe
from pyengine import heatmap

QUERY = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
DOC = np.array([[0.5, 0], [0, -1], [0.5, 0.25], [0, 0]], np.float32)


def test_a_heatmap_in_characters_names_the_winners() -> None:
    lines = heatmap.text(QUERY, DOC).splitlines()
    assert [line.split("|")[2].split() for line in lines] == [["0", "0.500"], ["2", "0.250"], ["1", "0.000"]]
    assert [line.split("|")[1] for line in lines] == ["@*@*", "* %*", "-*-*"]
    wide = heatmap.text(QUERY, np.tile(DOC, (100, 1))).splitlines()
    assert all(len(line.split("|")[1]) == heatmap.COLUMNS for line in wide)
    assert heatmap.text(QUERY, DOC[:0]) == heatmap.text(QUERY[:0], DOC) == "no tokens"
    assert "@" not in heatmap.text(QUERY[:1], np.zeros((2, 2)))  # nothing stands out
    with pytest.raises(ValueError, match="doc"):
        heatmap.text(QUERY, [[np.nan, 0]])


def test_a_heatmap_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "alignment.png"
    if heatmap.available():
        heatmap.save(picture, QUERY, DOC, query_labels=["a", "b", "c"], doc_labels=list("wxyz"), title="title")
        assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(heatmap, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'pyengine-search\[plot\]'"):
        heatmap.save(picture, QUERY, DOC)


def test_the_demo_compares_late_interaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = pytest.importorskip("rich.console")
    pytest.importorskip("ir_measures")
    from pyengine.demos import demo_maxsim

    tokens = demo_maxsim.load()
    assert (len(tokens.docs), len(tokens.queries), tokens.docs.dim) == (165, 80, 128)
    assert (len(tokens.doc_ids), len(tokens.query_ids)) == (165, 80)
    claim = tokens.query_ids.index(demo_maxsim.EXAMPLE)
    few = np.arange(claim + 1)
    short = tokens._replace(
        docs=pe.Ragged.of([doc[:10] for doc in tokens.docs]),
        queries=pe.Ragged.of([query[:4] for query in tokens.queries.take(few)]),
        query_ids=tokens.query_ids[: claim + 1],
    )
    monkeypatch.setattr(demo_maxsim, "load", lambda: short)
    monkeypatch.setattr(demo_maxsim, "COMPARED", 1)
    output = io.StringIO()
    assert demo_maxsim.run(console.Console(file=output, width=100), tmp_path / "picture.png")
    printed = output.getvalue()
    assert "nDCG@10" in printed
    assert "same bits" in printed
    assert "DIFFERENT" not in printed
    assert (tmp_path / "picture.png").exists() == heatmap.available()
    assert ("A line per token" in printed) != heatmap.available()


def test_the_demo_compares_words(monkeypatch: pytest.MonkeyPatch) -> None:
    console = pytest.importorskip("rich.console")
    pytest.importorskip("ir_measures")
    pytest.importorskip("Stemmer")
    from pyengine.demos import demo_sparse

    texts = demo_sparse.load()
    assert (len(texts.docs), len(texts.queries)) == (5183, 300)
    few = demo_sparse.Texts(
        {name: doc for name, doc in [*texts.docs.items()][:400] if "vitamin" in doc.text or name < "2"},
        {name: query for name, query in texts.queries.items() if int(name) < 50},
    )
    monkeypatch.setattr(demo_sparse, "load", lambda: few)
    monkeypatch.setattr(demo_sparse, "K", 10)
    output = io.StringIO()
    assert demo_sparse.run(console.Console(file=output, width=100))
    printed = output.getvalue()
    for wanted in ("both, RRF", "vitamin", "same bits"):
        assert wanted in printed
    assert "DIFFERENT" not in printed

    monkeypatch.setitem(sys.modules, "Stemmer", None)
    assert demo_sparse.run(console.Console(file=output, width=100))
    assert "Not shown: stems need the package PyStemmer" in output.getvalue()


def test_bm25_and_fusion_are_as_good_as_they_should_be() -> None:
    pytest.importorskip("ir_measures")
    pytest.importorskip("Stemmer")
    pytest.importorskip("rich")
    from pyengine import evaluate
    from pyengine.demos import demo_sparse
    from pyengine.lexical import text_search

    texts = demo_sparse.load()
    qrels = evaluate.load_qrels(demo_sparse.DATA)
    found = text_search.by_words(
        texts.docs.values(), texts.queries.values(), 100, language="english", backend="auto", threads=None
    )
    for result, expected in ((found, 0.682), (pe.fuse([demo_sparse.dense_search(texts), found]), 0.716)):
        measured = evaluate.metrics(result, list(texts.docs), list(texts.queries), qrels)
        assert round(measured["nDCG@10"], 3) == expected

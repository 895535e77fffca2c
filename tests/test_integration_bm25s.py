"""bm25s's class with this engine's `retrieve`, beside the library's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

bm25s = pytest.importorskip("bm25s")
from pyengine.integrations.bm25s import BM25  # noqa: E402

pytestmark = pytest.mark.usefixtures("poison")
RNG = np.random.default_rng(13)
WORDS = [f"word{number}" for number in range(50)]
DOCS = [RNG.choice(WORDS, RNG.integers(1, 12)).tolist() for _ in range(70)]
QUERIES = [["word1"], ["word3", "word3", "word7"], ["unknown", "word4"], ["unknown"], RNG.choice(WORDS, 9).tolist()]
METHODS = ["lucene", "robertson", "atire", "bm25l", "bm25+"]
QUIET: dict[str, Any] = {"show_progress": False}


def pair(corpus: Any = DOCS, **settings: Any) -> tuple[Any, Any]:
    made = BM25(**settings), bm25s.BM25(**settings)
    for each in made:
        each.index(corpus, **QUIET)
    return made


def summed(retriever: Any, ids: list[list[int]], weights: Any = 1.0) -> Any:
    """The scores [Q, N] of the library's weights, in float64."""
    held = retriever.scores
    dense = np.zeros((len(held["indptr"]), held["num_docs"]))
    terms = np.repeat(np.arange(len(held["indptr"]) - 1), np.diff(held["indptr"]))
    dense[terms, held["indices"]] = held["data"]
    return np.stack([dense[sorted(row)].sum(axis=0) for row in ids]) * weights


def same(ours: Any, theirs: Any, k: int, **arguments: Any) -> None:
    got, want = (each.retrieve(QUERIES, k=k, **QUIET, **arguments) for each in (ours, theirs))
    assert type(got) is type(want)
    assert got.scores.dtype == want.scores.dtype
    assert got.documents.shape == want.documents.shape == (len(QUERIES), k)
    np.testing.assert_allclose(got.scores, want.scores, rtol=1e-5, atol=1e-6)
    for q in range(len(QUERIES)):
        kept = np.flatnonzero(want.scores[q] > want.scores[q].min() + 1e-4)
        apart = [p for p in kept if np.sum(np.abs(want.scores[q] - want.scores[q, p]) < 1e-4) == 1]
        np.testing.assert_array_equal(got.documents[q][apart], want.documents[q][apart])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("idf_method", [None, "lucene"])
def test_the_same_documents_and_scores(method: str, idf_method: Any) -> None:
    ours, theirs = pair(method=method, idf_method=idf_method, k1=1.2, b=0.6)
    for k in (1, 10, 70):
        same(ours, theirs, k)
    mask = RNG.integers(0, 2, 70)
    same(ours, theirs, 70, weight_mask=mask)
    same(ours, theirs, 70, weight_mask=RNG.uniform(-1, 2, 70))
    same(ours, theirs, 10, n_threads=-1)


def test_the_order_is_the_engines() -> None:
    ours, _ = pair()
    ids = [ours.get_tokens_ids(query) for query in QUERIES]
    for weights in (None, RNG.integers(0, 2, 70)):
        found = ours.retrieve(QUERIES, k=70, weight_mask=weights, **QUIET)
        scores = summed(ours, ids, 1.0 if weights is None else weights)
        np.testing.assert_array_equal(found.scores, -np.sort(-scores.astype(np.float32), axis=1))
        np.testing.assert_array_equal(found.documents, np.argsort(-scores.astype(np.float32), axis=1, kind="stable"))
    np.testing.assert_array_equal(ours.retrieve([["unknown"], []], k=5, **QUIET).documents, [[0, 1, 2, 3, 4]] * 2)
    assert not ours.retrieve([["unknown"]], k=70, **QUIET).scores.any()


@pytest.mark.parametrize("kind", ["object", "tuple", "ids"])
def test_forms_of_tokens(kind: str) -> None:
    made = bm25s.tokenize([" ".join(row) for row in DOCS], stopwords=None, show_progress=False)
    asked = bm25s.tokenize([" ".join(row) for row in QUERIES], stopwords=None, show_progress=False)
    corpus = {"object": made, "tuple": (made.ids, made.vocab), "ids": made.ids}[kind]
    ours, theirs = pair(corpus)
    if kind == "ids":
        queries: Any = [[made.vocab[word] for word in row if word in made.vocab] or [0] for row in QUERIES]
    else:
        queries = asked if kind == "object" else (asked.ids, asked.vocab)
    got, want = (each.retrieve(queries, k=20, **QUIET) for each in (ours, theirs))
    np.testing.assert_allclose(got.scores, want.scores, rtol=1e-5, atol=1e-6)


def test_entries_of_a_corpus() -> None:
    texts = [" ".join(row) for row in DOCS]
    ours, _ = pair(corpus=DOCS)
    numbers = ours.retrieve(QUERIES, k=4, return_as="documents", **QUIET)
    for corpus in (texts, np.array(texts), [{"text": text} for text in texts]):
        found = ours.retrieve(QUERIES, corpus=corpus, k=4, **QUIET)
        assert found.documents.shape == (5, 4)
        assert found.documents[2, 1] == corpus[numbers[2, 1]]
    keeping = BM25(corpus=texts)
    keeping.index(DOCS, **QUIET)
    assert keeping.retrieve(QUERIES, k=4, **QUIET).documents[0, 0] == texts[numbers[0, 0]]


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("method", ["lucene", "bm25+"])
def test_files_are_the_librarys(mmap: bool, method: str, tmp_path: Path) -> None:
    ours, theirs = pair(method=method)
    ours.save(tmp_path / "ours", corpus=list(map(" ".join, DOCS)), **QUIET)
    theirs.save(tmp_path / "theirs", **QUIET)
    want = ours.retrieve(QUERIES, k=9, **QUIET)
    for folder in ("ours", "theirs"):
        loaded = BM25.load(tmp_path / folder, mmap=mmap, **QUIET)
        assert isinstance(loaded, BM25)
        for got, expected in zip(loaded.retrieve(QUERIES, k=9, **QUIET), want):
            np.testing.assert_array_equal(got, expected)
    back = bm25s.BM25.load(tmp_path / "ours", load_corpus=True, **QUIET)
    np.testing.assert_allclose(back.retrieve(QUERIES, k=9, **QUIET).scores, want.scores, rtol=1e-5, atol=1e-6)


def test_another_index_is_packed_anew() -> None:
    ours, _ = pair()
    ours.retrieve(QUERIES, k=1, **QUIET)
    ours.index([["word1"], ["word2"]], **QUIET)
    np.testing.assert_array_equal(ours.retrieve([["word2"]], k=2, **QUIET).documents, [[1, 0]])


def test_bad_input_is_a_sentence() -> None:
    ours, theirs = pair()
    for arguments, words in (
        ({"k": 71}, "k must be at most the number of documents, 70; got 71"),
        ({"return_as": "list"}, "return_as must be one of"),
        ({"weight_mask": [1] * 70}, r"weight_mask must be a numpy array of shape \(70,\)"),
        ({"weight_mask": np.ones(69)}, r"got shape \(69,\)"),
        ({"query_tokens": ["word1"]}, "query_tokens must be lists of words"),
    ):
        given = {"query_tokens": QUERIES, **QUIET, **arguments}
        with pytest.raises(ValueError, match=words):
            ours.retrieve(**given)
        with pytest.raises(ValueError):  # noqa: PT011
            theirs.retrieve(**given)
    with pytest.raises(ValueError, match="finite"):
        ours.retrieve(QUERIES, k=1, weight_mask=np.full(70, np.nan), **QUIET)

"""BEIR's face beside BEIR's own exact search."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("beir")
import torch
from beir.retrieval.evaluation import EvaluateRetrieval
from beir.retrieval.search.dense import DenseRetrievalExactSearch

from pyengine.integrations.beir import METRICS, ExactSearch
from pyengine.specification import reference

RNG = np.random.default_rng(8)
DOCS = {f"d{n}": {"title": f"t{n}", "text": "x" * int(RNG.integers(1, 40))} for n in range(90)}
QUERIES = {f"q{n}": f"query {n}" for n in range(6)} | {"d4": "one of a document's name"}
VECTORS = RNG.standard_normal((200, 16)).astype(np.float32)


class Model:
    """Vectors of texts by what they are, and a record of what was asked for."""

    def __init__(self, vectors: Any = VECTORS) -> None:
        self.vectors = vectors
        self.asked: list[dict[str, Any]] = []

    def encode_queries(self, queries: list[str], **options: Any) -> Any:
        self.asked.append(options)
        rows = self.vectors[[100 + list(QUERIES.values()).index(query) for query in queries]]
        return torch.from_numpy(rows) if options["convert_to_tensor"] else rows

    def encode_corpus(self, corpus: list[dict[str, str]], **options: Any) -> Any:
        rows = self.vectors[[int(doc["title"][1:]) for doc in corpus]]
        return torch.from_numpy(rows) if options["convert_to_tensor"] else rows


def specified(score_function: str, vectors: Any = VECTORS, own: bool = True) -> dict[str, list[str]]:
    """The documents of each query, best first."""
    scores = reference.scores(vectors[100 : 100 + len(QUERIES)], vectors[: len(DOCS)], METRICS[score_function])
    order = np.argsort(-scores, axis=1, kind="stable")
    return {query: [f"d{n}" for n in row if own or f"d{n}" != query] for query, row in zip(QUERIES, order)}


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 89, 50_000])
@pytest.mark.parametrize("score_function", sorted(METRICS))
def test_the_same_results(score_function: str, chunk: int, tensors: bool) -> None:
    options = {"corpus_chunk_size": chunk, "show_progress_bar": False, "convert_to_tensor": tensors, "batch_size": 5}
    model = Model()
    ours = ExactSearch(model, **options)
    for k in (1, 10, 89, 1000):
        got = ours.search(DOCS, QUERIES, k, score_function)
        assert got is ours.results
        want = DenseRetrievalExactSearch(Model(), **options).search(DOCS, QUERIES, k, score_function)
        best = specified(score_function, own=False)
        for query, found in got.items():
            assert list(found) == best[query][:k]
            assert set(found) == set(want[query])
            for name, score in found.items():
                assert score == pytest.approx(want[query][name], rel=1e-5, abs=1e-6)
    assert "d4" not in got["d4"]
    assert model.asked[0] == {"batch_size": 5, "show_progress_bar": False, "convert_to_tensor": tensors}


def test_one_query_no_document_and_ties() -> None:
    ours = ExactSearch(Model(), show_progress_bar=False)
    one = {"q3": QUERIES["q3"]}
    assert list(ours.search(DOCS, one, 5, "dot")["q3"]) == specified("dot")["q3"][:5]
    with pytest.raises(IndexError):
        DenseRetrievalExactSearch(Model(), show_progress_bar=False).search(DOCS, one, 5, "dot")
    assert ours.search({}, one, 5, "dot") == {"q3": {}}
    tied = ExactSearch(Model(np.ones((200, 3), np.int8)), corpus_chunk_size=7, show_progress_bar=False)
    for found in tied.search(DOCS, one, 20, "cos_sim").values():
        assert list(found) == list(DOCS)[:20]
        assert len(set(found.values())) == 20


def test_bad_input_is_a_sentence() -> None:
    for vectors, score_function, words in (
        (VECTORS, "cosine", "score_function must be one of 'cos_sim', 'dot'; got 'cosine'"),
        (np.full((200, 2), np.nan, np.float32), "dot", "must be finite"),
    ):
        with pytest.raises(ValueError, match=words):
            ExactSearch(Model(vectors)).search(DOCS, QUERIES, 5, score_function)
    with pytest.raises(ValueError, match="corpus_chunk_size must be a positive integer"):
        ExactSearch(Model(), corpus_chunk_size=0)


def test_by_way_of_files(tmp_path: Path) -> None:
    ours = ExactSearch(Model(), corpus_chunk_size=30, show_progress_bar=False)
    evaluation = EvaluateRetrieval(ours, k_values=[1, 10], score_function="dot")
    found = evaluation.encode_and_retrieve(DOCS, QUERIES, encode_output_path=str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"queries.pkl", *(f"corpus.{n}.pkl" for n in range(3))}
    assert {query: list(each) for query, each in found.items()} == {q: d[:10] for q, d in specified("dot").items()}
    other = ExactSearch(Model(-VECTORS), corpus_chunk_size=30, show_progress_bar=False)
    files = [str(tmp_path / f"corpus.{n}.pkl") for n in range(3)]
    for overwrite, vectors in ((False, VECTORS), (True, -VECTORS)):
        other.encode(DOCS, QUERIES, str(tmp_path), overwrite)
        got = other.search_from_files(str(tmp_path / "queries.pkl"), files, 100, "cos_sim")
        assert {query: list(each) for query, each in got.items()} == specified("cos_sim", vectors)
    (tmp_path / "pickle").write_bytes(pickle.dumps((VECTORS, [])))
    with pytest.raises(ValueError, match=r"pickle must hold embeddings that ExactSearch\.encode wrote"):
        other.search_from_files(str(tmp_path / "pickle"), files, 3)


def test_it_evaluates() -> None:
    best = specified("cos_sim", own=False)
    qrels = {query: {names[0]: 1, names[4]: 1} for query, names in best.items()}
    evaluation = EvaluateRetrieval(ExactSearch(Model(), show_progress_bar=False), k_values=[1, 5])
    results = evaluation.retrieve(DOCS, QUERIES)
    ndcg, _, recall, precision = evaluation.evaluate(qrels, results, [1, 5])
    assert (recall["Recall@1"], recall["Recall@5"], precision["P@1"]) == (0.5, 1.0, 1.0)
    assert 0.8 < ndcg["NDCG@5"] < 1

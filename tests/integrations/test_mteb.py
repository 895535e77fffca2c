"""MTEB with this engine, beside its own route: a small retrieval task, a small reranking task, and mteb's mock run."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

mteb = pytest.importorskip("mteb")
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models import ModelMeta, SearchEncoderWrapper  # noqa: E402
from mteb.models.models_protocols import SearchProtocol  # noqa: E402
from mteb.similarity_functions import cos_sim, dot_score, euclidean_sim, max_sim  # noqa: E402

import pyengine as pe  # noqa: E402
from pyengine.integrations.mteb import BM25Search, ExactIndex, LateInteractionSearch  # noqa: E402
from pyengine.specification import reference  # noqa: E402

RNG = np.random.default_rng(21)
WORDS = [f"word{number}" for number in range(60)]
CORPUS = [" ".join(RNG.choice(WORDS, RNG.integers(3, 12))) for _ in range(80)]
QUERIES = [" ".join(RNG.choice(WORDS, 3)) for _ in range(7)]
SIMILARITIES = {"cosine": cos_sim, "dot": dot_score, "euclidean": euclidean_sim}
DIM = 24


def embedded(text: str) -> Any:
    """One and the same vector for one text, of its words."""
    seeds = [zlib.crc32(word.encode()) for word in text.split()]
    return np.stack([np.random.default_rng(seed).standard_normal(DIM) for seed in seeds]).astype(np.float32)


class Encoder:
    """Deterministic, and of no weights: the sum of the words' vectors, or these themselves."""

    def __init__(self, similarity: str = "cosine") -> None:
        self.name = similarity
        meta = {"name": f"test/{similarity}", "revision": "1", "similarity_fn_name": similarity, "modalities": ["text"]}
        self.mteb_model_meta = ModelMeta.create_empty(meta)

    def encode(self, inputs: Any, **arguments: Any) -> Any:
        tokens = [embedded(text) for batch in inputs for text in batch["text"]]
        if self.name == "MaxSim":
            return [torch.from_numpy(each) for each in tokens]
        return np.stack([each.sum(axis=0) for each in tokens])

    def similarity(self, a: Any, b: Any) -> Any:
        return SIMILARITIES[self.name](a, b)

    def similarity_pairwise(self, a: Any, b: Any) -> Any:
        return SIMILARITIES[self.name](a, b).diagonal()


def task(top_ranked: bool = False) -> Any:
    class Task(AbsTaskRetrieval):  # type: ignore[misc, unused-ignore]
        metadata = TaskMetadata(
            name="Tiny", type="Reranking" if top_ranked else "Retrieval", main_score="ndcg_at_10",
            description="tiny", reference=None, dataset={"path": "none", "revision": "none"}, category="t2t",
            modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"], date=None, domains=None,
            task_subtypes=None, license=None, annotations_creators=None, dialect=None, sample_creation=None,
            bibtex_citation=None,
        )  # fmt: skip

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            names = [f"d{place}" for place in range(len(CORPUS))]
            chosen = {f"q{q}": list(np.random.default_rng(q).permutation(names)[:20]) for q in range(len(QUERIES))}
            titles = [text.split()[0] for text in CORPUS]
            data = {
                "corpus": Dataset.from_dict({"id": names, "title": titles, "text": CORPUS}),
                "queries": Dataset.from_dict({"id": list(chosen), "text": QUERIES}),
                "relevant_docs": {
                    query: {n: 1 for n, text in zip(names, CORPUS) if {*text.split()} & {*asked.split()}}
                    for query, asked in zip(chosen, QUERIES)
                },
                "top_ranked": {q: list(map(str, each)) for q, each in chosen.items()} if top_ranked else None,
            }
            self.dataset = {"default": {"test": data}}
            self.data_loaded = True

    return Task()


def evaluated(model: Any, reranking: bool, folder: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores, and the predictions."""
    import json

    result = mteb.evaluate(model, task(reranking), cache=None, prediction_folder=folder, show_progress_bar=False)
    file = next(path for path in folder.rglob("*.json") if "Tiny" in path.name)
    scores = dict(result.task_results[0].scores["test"][0])
    return scores, json.loads(file.read_text())["default"]["test"]


@pytest.mark.parametrize("reranking", [False, True])
@pytest.mark.parametrize("similarity", sorted(SIMILARITIES))
def test_an_index_gives_the_scores_of_mtebs_own_route(similarity: str, reranking: bool, tmp_path: Any) -> None:
    encoder = Encoder(similarity)
    ours = SearchEncoderWrapper(encoder, index_backend=ExactIndex(encoder))
    got, found = evaluated(ours, reranking, tmp_path / "ours")
    want, theirs = evaluated(SearchEncoderWrapper(encoder), reranking, tmp_path / "theirs")
    assert {name: value for name, value in got.items() if isinstance(value, (int, float)) and "time" not in name} == {
        name: value for name, value in want.items() if isinstance(value, (int, float)) and "time" not in name
    }
    assert got["ndcg_at_10"] > 0
    for query, scores in theirs.items():
        assert set(found[query]) == set(scores)
        for name, score in scores.items():
            assert found[query][name] == pytest.approx(score, rel=1e-5, abs=1e-6)


def test_an_index_by_itself() -> None:
    index = ExactIndex(Encoder("dot"))
    with pytest.raises(ValueError, match="search needs documents"):
        index.search(np.ones((1, 2)), 3)
    docs = RNG.integers(-3, 4, (50, 6)).astype(np.float32)
    for rows, start in ((docs[:20], 0), (torch.from_numpy(docs[20:]).to(torch.bfloat16), 20)):
        index.add_documents(rows, [f"d{start + place}" for place in range(len(rows))])
    for k in (1, 10, 80):
        scores, places = index.search(torch.from_numpy(docs[:4]), k, similarity_fn=dot_score)
        want = reference.topk(docs[:4], docs, min(k, 50), "dot")
        assert places == want[1].tolist()
        assert scores == want[0].tolist()
    listed = {"a": ["d7", "d3", "d7", "d49"], "b": [], "c": ["d1"]}
    scores, places = index.search(docs[:4], 3, top_ranked=listed, query_idx_to_id=dict(enumerate("abcx")))
    exact = docs[0] @ docs[[7, 3, 7, 49]].T
    assert places[0] == np.argsort(-exact, kind="stable")[:3].tolist()
    assert (places[1:], scores[1:]) == ([[], [0], []], [[], [float(docs[2] @ docs[1])], []])
    for call, words in (
        (lambda: index.search(docs[:1], 3, top_ranked={"a": ["x"]}, query_idx_to_id={0: "a"}), "'x' was not"),
        (lambda: index.add_documents(docs, ["a"]), "idxs must be 50 names"),
        (lambda: index.add_documents(np.full((1, 6), np.nan), ["a"]), "row 0"),
        (lambda: ExactIndex(Encoder("manhattan")), "the model's similarity must be one of"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert len(index.idxs) == 50
    index.clear()
    assert index.index is None
    assert index.idxs == []


@pytest.mark.parametrize("reranking", [False, True])
def test_bm25(reranking: bool, tmp_path: Any) -> None:
    model = BM25Search(str.split, k1=1.2, b=0.75)
    assert isinstance(model, SearchProtocol)
    _, found = evaluated(model, reranking, tmp_path)
    fitted = pe.BM25.fit([f"{text.split()[0]} {text}".split() for text in CORPUS], k1=1.2, b=0.75)
    scores = reference_sparse(fitted)
    listed = task(True)
    listed.load_data()
    for row, query in enumerate(f"q{q}" for q in range(len(QUERIES))):
        allowed = listed.dataset["default"]["test"]["top_ranked"][query] if reranking else None
        want = {f"d{doc}": float(s) for doc, s in enumerate(scores[row]) if s > 0}
        want = {name: score for name, score in want.items() if allowed is None or name in allowed}
        assert set(found[query]) == set(want)
        np.testing.assert_allclose([found[query][name] for name in want], list(want.values()), rtol=1e-6)


def reference_sparse(fitted: pe.BM25) -> Any:
    asked = fitted.queries([query.split() for query in QUERIES])
    found = pe.sparse_topk(asked, fitted.docs, len(CORPUS), backend="numpy")
    scores = np.empty((len(QUERIES), len(CORPUS)), np.float32)
    np.put_along_axis(scores, found.ids, found.scores, axis=1)
    return scores


@pytest.mark.parametrize("reranking", [False, True])
def test_late_interaction(reranking: bool, tmp_path: Any) -> None:
    _, found = evaluated(LateInteractionSearch(Encoder("MaxSim")), reranking, tmp_path)
    docs = [embedded(f"{text.split()[0]} {text}") for text in CORPUS]
    for row, query in enumerate(QUERIES):
        for name, score in found[f"q{row}"].items():
            want = max_sim(torch.from_numpy(embedded(query))[None], torch.from_numpy(docs[int(name[1:])])[None])
            assert score == pytest.approx(float(want), rel=1e-5)
        assert len(found[f"q{row}"]) == (20 if reranking else 80)


@pytest.mark.parametrize(
    "model",
    [SearchEncoderWrapper(Encoder("cosine"), index_backend=ExactIndex(Encoder("cosine"))), BM25Search(str.split),
     LateInteractionSearch(Encoder("MaxSim"))],
    ids=["ExactIndex", "BM25Search", "LateInteractionSearch"],
)  # fmt: skip
def test_mtebs_mock_run(model: Any) -> None:
    """Its check of a model by all of its mock tasks that fit."""
    results = mteb.mock_run(model)
    ran = {name: outcome for name, outcome in results.items() if outcome is not None}
    assert len(ran) >= 4
    assert results.all_passed, ran

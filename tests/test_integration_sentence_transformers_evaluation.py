"""The evaluator and the mining of hard negatives, beside the library's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyengine.integrations import sentence_transformers as face

torch = pytest.importorskip("torch")
library = pytest.importorskip("sentence_transformers")
evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
Original = evaluation.InformationRetrievalEvaluator
Base: Any = library.SentenceTransformer
RNG = np.random.default_rng(13)


class Card:
    base_model = ""

    def set_evaluation_metrics(self, *arguments: Any, **named: Any) -> None:
        pass


class Model(Base):  # type: ignore[misc]
    """Texts are numbers of rows of a table."""

    def __init__(self, table: Any, similarity: str = "cosine", sparse: bool = False) -> None:
        torch.nn.Module.__init__(self)
        self.table, self.sparse = table, sparse
        self.similarity_fn_name = similarity
        self.model_card_data = Card()

    device = torch.device("cpu")

    def encode(self, texts: Any, convert_to_numpy: bool = False, **options: Any) -> Any:
        rows = self.table[[int(text[1:]) for text in texts]]
        if options.get("normalize_embeddings"):
            rows = torch.nn.functional.normalize(rows)
        return rows.numpy() if convert_to_numpy else rows.to_sparse() if self.sparse else rows

    encode_query = encode_document = encode

    def get_embedding_dimension(self) -> int:
        return int(self.table.shape[1])


def table(kind: str) -> Any:
    rows = RNG.standard_normal((240, 12))
    if kind == "ties":
        rows = RNG.integers(-1, 2, (240, 4)).astype(np.float64)
    return torch.from_numpy(rows.astype(np.float32))


def arguments(chunk: int = 50_000) -> dict[str, Any]:
    ids = RNG.permutation(200)  # the order of ids as strings is neither that of the rows nor that of the numbers
    return {
        "queries": {f"q{i}": f"t{i}" for i in range(200, 240)},
        "corpus": {f"d{ids[i]}": f"t{i}" for i in range(200)},
        "relevant_docs": {f"q{i}": {f"d{d}" for d in RNG.integers(0, 200, 6)} for i in range(200, 235)},
        "corpus_chunk_size": chunk,
        "write_csv": False,
    }


@pytest.mark.parametrize("kind", ["random", "ties"])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("chunk", [50_000, 64, 7])
def test_metrics(kind: str, similarity: str, chunk: int, tmp_path: Path) -> None:
    model, given = Model(table(kind), similarity), arguments(chunk)
    ours = face.InformationRetrievalEvaluator(**given, name="x", write_predictions=True)
    theirs = Original(**given, name="x", write_predictions=True)
    if kind == "ties" and similarity in ("cosine", "euclidean"):  # whose float32 scores are not quite ties in theirs
        exact = {"cosine": face.cos_sim, "euclidean": face.euclidean_sim}[similarity]
        theirs = Original(**given, name="x", write_predictions=True, score_functions={similarity: exact})
    assert ours(model, str(tmp_path / "ours")) == theirs(model, str(tmp_path / "theirs"))
    assert ours.primary_metric == theirs.primary_metric
    file = f"Information-Retrieval_evaluation_x_predictions_{similarity}.jsonl"
    pairs = zip(*((tmp_path / each / file).read_text().splitlines() for each in ("ours", "theirs")), strict=True)
    for got, want in (map(json.loads, pair) for pair in pairs):
        assert got["query_id"] == want["query_id"]
        assert got["query"] == want["query"]
        assert [hit["corpus_id"] for hit in got["results"]] == [hit["corpus_id"] for hit in want["results"]]
        scores, near = ([hit["score"] for hit in each["results"]] for each in (got, want))
        np.testing.assert_allclose(scores, near, rtol=1e-5, atol=1e-5)


def test_several_functions_and_given_embeddings() -> None:
    rows = table("random")
    model, given = Model(rows), arguments(64)
    functions = {"cos": library.util.cos_sim, "dot": library.util.dot_score, "own": lambda a, b: -a @ b.T}
    for chosen in (["cos", "dot"], ["cos", "own"]):
        some = {name: functions[name] for name in chosen}
        ours, theirs = (each(**given, score_functions=some) for each in (face.InformationRetrievalEvaluator, Original))
        assert ours(model) == theirs(model)
        assert ours(model, corpus_embeddings=rows[:200]) == ours(model)
        assert ours(model, corpus_model=Model(rows.flip(0))) == theirs(model, corpus_model=Model(rows.flip(0)))


def test_sparse_embeddings() -> None:
    model, given = Model(table("random").relu(), "dot", sparse=True), arguments(64)
    ours, theirs = face.InformationRetrievalEvaluator(**given), Original(**given)
    assert ours(model) == theirs(model)
    embeddings = model.table[:200].to_sparse()
    assert ours(model, corpus_embeddings=embeddings) == theirs(model)


def test_the_patched_class(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = Model(table("random")), arguments(64)
    evaluator = Original(**given)
    want = evaluator(model)

    def none(*arguments: Any) -> Any:
        raise AssertionError("a matrix of scores")

    before = Original.compute_all_metrics
    with face.patched():
        monkeypatch.setattr(Model, "similarity", library.SentenceTransformer.similarity)
        monkeypatch.setattr(torch, "topk", none)
        assert evaluator(model) == want
        assert evaluator.compute_metrices.__func__ is evaluator.compute_all_metrics.__func__ is not before
    assert Original.compute_all_metrics is before is Original.compute_metrices


@pytest.mark.parametrize("use_faiss", [False, True])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_negatives": 3},
        {"num_negatives": 2, "range_min": 3, "range_max": 30, "relative_margin": 0.05, "output_format": "n-tuple"},
        {"num_negatives": 4, "max_score": 0.3, "output_scores": True},
        {"num_negatives": 5, "range_max": 400, "output_format": "labeled-list"},
    ],
)
def test_hard_negatives(use_faiss: bool, similarity: str, options: dict[str, Any]) -> None:
    datasets, model = pytest.importorskip("datasets"), Model(table("random"), similarity)
    texts = {"anchor": [f"t{i}" for i in range(30)], "positive": [f"t{i}" for i in range(40, 70)]}
    call: dict[str, Any] = {
        "dataset": datasets.Dataset.from_dict(texts),
        "model": model,
        "corpus": [f"t{i}" for i in range(70, 200)],
        "use_faiss": use_faiss,
        "verbose": False,
        **options,
    }
    want = library.util.mine_hard_negatives(**call)
    with face.patched():
        got = library.util.mine_hard_negatives(**call)
    assert got.column_names == want.column_names
    for name in want.column_names:
        if name != "scores" and name != "score":
            assert got[name] == want[name] or list(got[name]) == list(want[name])
        else:
            np.testing.assert_allclose(list(got[name]), list(want[name]), atol=1e-5)


def test_faiss_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setitem(sys.modules, "faiss", None)  # as if it were not installed
    texts = datasets.Dataset.from_dict({"a": ["t0", "t1"], "b": ["t2", "t3"]})
    call = {"dataset": texts, "model": Model(table("random")), "verbose": False, "use_faiss": True, "num_negatives": 1}
    with pytest.raises(ImportError, match="faiss"):
        library.util.mine_hard_negatives(**call)
    assert len(face.mine_hard_negatives(**call)) == 2
    assert sys.modules["faiss"] is None

"""PyTerrier's transformers with this engine, in its pipelines. No Java is started."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pt = pytest.importorskip("pyterrier")
import pandas as pd  # noqa: E402

import pyengine as pe  # noqa: E402
from pyengine.integrations.pyterrier import BM25Retriever, DenseRetriever, MaxSimScorer  # noqa: E402
from pyengine.specification import reference  # noqa: E402

RNG = np.random.default_rng(4)
VECTORS = RNG.integers(-3, 4, (40, 6)).astype(np.float32)
NAMES = [f"d{number}" for number in range(40)]
QUERIES = pd.DataFrame({"qid": ["7", "a", "1"], "query": ["cats", "dogs run", "nothing"]})
WORDS = ["cats", "dogs", "run", "sleep", "purr"]
TEXTS = [{"docno": name, "text": " ".join(RNG.choice(WORDS, 3))} for name in NAMES]
TOKENS = [RNG.standard_normal((int(n), 4)).astype(np.float32) for n in RNG.integers(1, 9, 40)]


def vectors_of(texts: list[str]) -> Any:
    return np.stack([np.random.default_rng(len(text)).integers(-3, 4, 6) for text in texts]).astype(np.float32)


def tokens_of(texts: list[str]) -> list[Any]:
    return [np.random.default_rng(len(text)).standard_normal((len(text), 4)).astype(np.float32) for text in texts]


def dense(metric: str = "dot", **settings: Any) -> Any:
    index = pe.DenseIndex(6, metric=metric)
    index.add(VECTORS)
    return DenseRetriever(index, NAMES, **settings)


def by_words(**settings: Any) -> Any:
    return BM25Retriever(TEXTS, str.split, **settings)


def late(encode: Any = tokens_of) -> Any:
    index = pe.MultiVectorIndex(4)
    index.add(TOKENS)
    return MaxSimScorer(index, NAMES, encode)


@pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
def test_vectors(metric: str) -> None:
    frame = QUERIES.assign(query_vec=list(vectors_of(QUERIES["query"].tolist())))
    want = reference.topk(np.stack(frame["query_vec"].tolist()), VECTORS, 7, metric)
    by_vector = dense(metric, num_results=7)(frame)
    by_text = dense(metric, encode=vectors_of, num_results=7)(QUERIES)
    for found in (by_vector, by_text):
        assert found["docno"].tolist() == [NAMES[each] for each in want[1].ravel()]
        np.testing.assert_array_equal(found["score"], (-want[0] if metric == "l2" else want[0]).ravel())
        assert found["rank"].tolist() == [*range(7)] * 3
        assert found["qid"].tolist() == np.repeat(QUERIES["qid"], 7).tolist()
        again = pt.model.add_ranks(found.copy())
        assert again["rank"].tolist() == found["rank"].tolist()
    assert list(by_text.columns) == ["qid", "query", "docno", "score", "rank"]
    assert len(dense(metric, encode=vectors_of)(QUERIES)) == 120


def test_words() -> None:
    retriever = by_words(k1=1.2)
    found = retriever.transform(QUERIES)
    model = pe.BM25.fit([each["text"].split() for each in TEXTS], k1=1.2)
    want = pe.sparse_topk(model.queries([text.split() for text in QUERIES["query"]]), model.docs, 40)
    for row, qid in enumerate(QUERIES["qid"]):
        one = found[found["qid"] == qid]
        positive = want.scores[row] > 0
        assert one["docno"].tolist() == [NAMES[each] for each in want.ids[row][positive]]
        assert one["score"].tolist() == want.scores[row][positive].tolist()
    assert retriever.search("purr")["rank"].tolist()[:2] == [0, 1]


def test_late_interaction() -> None:
    frame = by_words()(QUERIES).sample(frac=1.0, random_state=3).reset_index(drop=True)
    found = late()(frame)
    assert found["docno"].tolist() == frame["docno"].tolist()
    for _, row in found.iterrows():
        asked = tokens_of([row["query"]])
        assert row["score"] == pe.maxsim(asked, [TOKENS[int(row["docno"][1:])]])[0, 0]
    for _, one in found.groupby("qid"):
        assert sorted(one["rank"]) == [*range(len(one))]
        assert one.sort_values("rank")["score"].is_monotonic_decreasing
    given = frame.drop(columns=["query", "score", "rank"]).assign(query_embs=tokens_of(frame["query"].tolist()))
    assert late(None)(given)["score"].tolist() == found["score"].tolist()


def test_pipelines_and_cutoffs() -> None:
    pipeline = by_words() % 5 >> late()
    found = pipeline(QUERIES)
    assert set(found.groupby("qid").size()) == {5}
    compiled = (dense(encode=vectors_of) % 3).compile()
    assert isinstance(compiled, DenseRetriever)
    assert compiled.num_results == 3
    assert compiled(QUERIES)["docno"].tolist() == (dense(encode=vectors_of) % 3)(QUERIES)["docno"].tolist()
    both = 0.5 * dense(encode=vectors_of) + by_words()
    assert len(both(QUERIES)) == 120


@pytest.mark.parametrize(
    ("made", "inputs"),
    [
        (dense, [["qid", "query_vec"]]),
        (lambda: dense(encode=vectors_of), [["qid", "query_vec"], ["qid", "query"]]),
        (by_words, [["qid", "query"]]),
        (late, [["qid", "docno", "query_embs"], ["qid", "docno", "query"]]),
    ],
)
def test_inspection_and_empty_frames(made: Any, inputs: list[list[str]]) -> None:
    transformer = made()
    assert sorted(map(sorted, pt.inspect.transformer_inputs(transformer))) == sorted(map(sorted, inputs))
    for columns in inputs:
        given = [*columns, "extra", "score", "rank"]
        want = pt.inspect.transformer_outputs(transformer, given)
        empty = transformer(pd.DataFrame(columns=given))
        assert list(empty.columns) == want
        assert {"docno", "score", "rank", "extra"} <= set(want)
        assert not len(empty)
    with pytest.raises(pt.validate.InputValidationError):
        transformer(pd.DataFrame(columns=["qid"]))


def test_bad_input_is_a_sentence() -> None:
    index = pe.DenseIndex(6)
    index.add(VECTORS, ids=np.arange(40) + 1)
    for call, words in (
        (lambda: DenseRetriever(index, NAMES), "index must have the ids 0 .. 39"),
        (lambda: DenseRetriever(index, ["a"]), "docnos must be 40 distinct names"),
        (lambda: DenseRetriever(index, ["a"] * 40), "docnos must be 40 distinct names"),
        (lambda: dense(num_results=0), "num_results must be a positive integer"),
        (lambda: late()(QUERIES.assign(docno="x")), "docno must name documents of the index; 'x' does not"),
        (lambda: dense()(QUERIES.assign(query_vec=[np.full(6, np.nan)] * 3)), "must be finite"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_no_java_is_started() -> None:
    assert not pt.java.started()

"""The searches of sentence-transformers, beside the library's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.integrations import sentence_transformers as face

torch = pytest.importorskip("torch")
library = pytest.importorskip("sentence_transformers").util
RNG = np.random.default_rng(5)
DOCS = torch.from_numpy(RNG.standard_normal((300, 24)).astype(np.float32))
QUERIES = torch.from_numpy(RNG.standard_normal((7, 24)).astype(np.float32))
PATCHED = ("semantic_search", "community_detection", "maxsim", "mean_maxsim_pairwise", "mine_hard_negatives")
FUNCTIONS = [library.cos_sim, library.dot_score, library.euclidean_sim]


def close(ours: face.Hits, theirs: Any, atol: float = 1e-5) -> None:
    """The same ids, and scores as near as theirs are to the specification's."""
    assert [[hit["corpus_id"] for hit in row] for row in ours] == [[hit["corpus_id"] for hit in row] for row in theirs]
    for got, want in zip(ours, theirs):
        assert all(list(hit) == ["corpus_id", "score"] and type(hit["score"]) is float for hit in got)
        np.testing.assert_allclose([hit["score"] for hit in got], [hit["score"] for hit in want], rtol=0, atol=atol)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("top_k", [1, 10, 300, 1000])
def test_semantic_search(function: Any, top_k: int) -> None:
    ours = face.semantic_search(QUERIES, DOCS, top_k=top_k, score_function=function)
    close(ours, library.semantic_search(QUERIES, DOCS, top_k=top_k, score_function=function))
    if function is library.cos_sim:
        assert ours == face.semantic_search(QUERIES, DOCS, 3, 17, top_k)
        found = pe.topk(QUERIES.numpy(), DOCS.numpy(), min(top_k, 300))
        assert [[hit["score"] for hit in row] for row in ours] == found.scores.tolist()
        assert [[hit["corpus_id"] for hit in row] for row in ours] == found.ids.tolist()


def test_the_forms_of_embeddings() -> None:
    want = face.semantic_search(QUERIES, DOCS)
    for queries, docs in (
        (QUERIES.numpy(), DOCS.numpy()),
        (QUERIES.tolist(), DOCS),
        (list(QUERIES), list(DOCS)),
        (list(QUERIES.numpy()), DOCS.numpy()),
        (QUERIES.double(), DOCS.numpy()),
    ):
        assert face.semantic_search(queries, docs) == want
    assert face.semantic_search(QUERIES[0], DOCS) == want[:1]
    close(face.semantic_search(QUERIES.half(), DOCS.half()), library.semantic_search(QUERIES.half(), DOCS.half()))
    assert face.semantic_search(QUERIES, DOCS[:0]) == library.semantic_search(QUERIES, DOCS[:0]) == [[]] * 7
    assert face.semantic_search(QUERIES[:0], DOCS) == library.semantic_search(QUERIES[:0], DOCS) == []


def test_what_is_packed_once() -> None:
    index = pe.DenseIndex(24, metric="dot")
    index.add(DOCS.numpy(), ids=np.arange(300) + 1000)
    ours = face.semantic_search(QUERIES, index, score_function=library.dot_score)
    want = face.semantic_search(QUERIES, DOCS, score_function=library.dot_score)
    assert ours == [[{**hit, "corpus_id": hit["corpus_id"] + 1000} for hit in row] for row in want]
    with pytest.raises(ValueError, match="must be an index with metric 'cosine'; got 'dot'"):
        face.semantic_search(QUERIES, index)


@pytest.mark.parametrize("function", FUNCTIONS[:2])
def test_sparse_embeddings(function: Any) -> None:
    docs = torch.where(torch.from_numpy(RNG.random((300, 24))) < 0.2, DOCS.abs(), 0.0)
    queries = torch.where(torch.from_numpy(RNG.random((7, 24))) < 0.4, QUERIES.abs(), 0.0)
    ours = face.semantic_search(queries.to_sparse(), docs.to_sparse(), score_function=function)
    close(ours, library.semantic_search(queries.to_sparse(), docs.to_sparse(), score_function=function))
    assert ours == face.semantic_search(queries, docs.to_sparse(), score_function=function)
    with pytest.raises(ValueError, match="cos_sim or dot_score for sparse"):
        face.semantic_search(queries.to_sparse(), docs, score_function=library.euclidean_sim)


def test_the_search_of_sparse_encoders() -> None:
    docs, queries = DOCS.relu().to_sparse(), QUERIES.relu().to_sparse()
    hits, seconds, index = face.semantic_search_pyengine(queries, docs, top_k=5, output_index=True)  # type: ignore[misc]
    assert hits == face.semantic_search(queries, docs, top_k=5, score_function=library.dot_score)
    assert seconds > 0
    assert face.semantic_search_pyengine(queries, corpus_index=index, top_k=5)[0] == hits
    with pytest.raises(ValueError, match="one of corpus_embeddings and corpus_index"):
        face.semantic_search_pyengine(queries, docs, index)


def test_another_score_function_is_the_librarys_business() -> None:
    def cos_sim(a: Any, b: Any) -> Any:  # that it has the name is not enough
        return -library.cos_sim(a, b)

    for function in (cos_sim, library.manhattan_sim):
        want = library.semantic_search(QUERIES, DOCS, score_function=function)
        assert face.semantic_search(QUERIES, DOCS, score_function=function) == want
    pairs = library.paraphrase_mining_embeddings(DOCS, score_function=cos_sim)
    assert face.paraphrase_mining_embeddings(DOCS, score_function=cos_sim) == pairs


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("top_k", "max_pairs"), [(3, 100_000), (400, 500_000), (5, 40)])
def test_paraphrase_mining(function: Any, top_k: int, max_pairs: int) -> None:
    arguments = {"top_k": top_k, "max_pairs": max_pairs, "score_function": function}
    ours = face.paraphrase_mining_embeddings(DOCS, **arguments)
    theirs = library.paraphrase_mining_embeddings(DOCS, **arguments)
    assert {(i, j) for _, i, j in ours} == {(i, j) for _, i, j in theirs}
    np.testing.assert_allclose([each[0] for each in ours], [each[0] for each in theirs], rtol=0, atol=1e-5)
    assert all(i < j for _, i, j in ours)
    assert face.paraphrase_mining_embeddings(DOCS[:1]) == []


@pytest.mark.parametrize(("threshold", "least"), [(0.5, 3), (0.75, 10), (0.9, 2), (2.0, 2), (-1.0, 5)])
def test_community_detection(threshold: float, least: int) -> None:
    centres = RNG.standard_normal((12, 24))
    rows = torch.from_numpy(np.repeat(centres, RNG.integers(3, 30, 12), axis=0).astype(np.float32))
    rows += 0.25 * torch.from_numpy(RNG.standard_normal(rows.shape).astype(np.float32))
    ours = face.community_detection(rows, threshold, least, batch_size=17)
    theirs = library.community_detection(rows, threshold, least)
    assert sorted(map(sorted, ours)) == sorted(map(sorted, theirs))
    assert [len(each) for each in ours] == [len(each) for each in theirs]
    assert {each[0] for each in ours} == {each[0] for each in theirs} or threshold == -1.0  # there all tie
    assert face.community_detection(rows[:0]) == face.community_detection(rows[:2], min_community_size=3) == []


def test_patching() -> None:
    import sentence_transformers.util as util
    from sentence_transformers.util import retrieval

    own = {name: getattr(library, name) for name in PATCHED}
    want = util.semantic_search(QUERIES, DOCS)
    with face.patched():
        assert all(getattr(util, name) is getattr(face, name) for name in PATCHED)
        assert retrieval.semantic_search is face.semantic_search
        close(util.semantic_search(QUERIES, DOCS, score_function=util.cos_sim), want)
        assert util.semantic_search(QUERIES, DOCS, score_function=util.manhattan_sim)
        with face.patched():
            pass
        assert util.semantic_search is face.semantic_search
    assert {name: getattr(library, name) for name in PATCHED} == own
    assert retrieval.semantic_search is own["semantic_search"]


def test_bad_input_is_a_sentence() -> None:
    bad = DOCS.clone()
    bad[7, 3] = float("nan")
    for call, words in (
        (lambda: face.semantic_search(QUERIES, bad), "row 7"),
        (lambda: face.semantic_search(QUERIES, DOCS[:, :5]), "dimensions"),
        (lambda: face.semantic_search(QUERIES, DOCS, top_k=0), "top_k must be"),
        (lambda: face.community_detection(bad), "row 7"),
        (lambda: face.paraphrase_mining_embeddings(bad), "row 7"),
    ):
        with pytest.raises(ValueError, match=words):
            call()

"""The document store for Haystack and its retrievers: the library's standard tests, and ours beside its
`InMemoryDocumentStore`."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # it waits for the network
pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.testing import document_store as library
from haystack.testing import document_store_async as library_async

import pyengine as pe
from pyengine.integrations.haystack import PyengineDocumentStore
from pyengine.integrations.haystack_retrievers import PyengineEmbeddingRetriever, PyengineHybridRetriever

D = 16
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((200, D))
QUERIES = RNG.standard_normal((4, D)).tolist()
DOCUMENTS = [
    Document(
        id=str(row),
        content=None if row % 11 == 0 else f"number {row} of a cat or two",
        meta={"row": row, "date": f"2026-01-{row % 28 + 1:02}"},
        embedding=None if row % 13 == 0 else ROWS[row].tolist(),
    )
    for row in range(len(ROWS))
]
FILTERS: list[Any] = [
    None,
    {},
    {"field": "meta.row", "operator": ">", "value": 100},
    {"operator": "AND", "conditions": [
        {"field": "meta.date", "operator": "<=", "value": "2026-01-09"},
        {"operator": "NOT", "conditions": [{"field": "meta.row", "operator": "in", "value": [3, 4, 5]}]},
    ]},
    {"field": "content", "operator": "==", "value": "nothing"},
]  # fmt: skip


def rounded(document: Document) -> Document:
    """As it comes back."""
    return replace(document, embedding=None if document.embedding is None else np.float32(document.embedding))


class Ours:
    @pytest.fixture
    def document_store(self) -> PyengineDocumentStore:
        return PyengineDocumentStore()

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert received == [rounded(each) for each in expected]


class TestStandard(
    Ours,
    library.DocumentStoreBaseExtendedTests,
    library.CountDocumentsByFilterTest,
    library.CountUniqueMetadataByFilterTest,
    library.GetMetadataFieldsInfoTest,
    library.GetMetadataFieldMinMaxTest,
    library.GetMetadataFieldUniqueValuesTest,
):
    """The library's own."""

    def test_write_documents(self, document_store: PyengineDocumentStore) -> None:
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        self.assert_documents_are_equal(document_store.filter_documents(), [document])


class TestStandardAsync(
    Ours,
    library_async.CountDocumentsAsyncTest,
    library_async.WriteDocumentsAsyncTest,
    library_async.DeleteDocumentsAsyncTest,
    library_async.FilterDocumentsAsyncTest,
    library_async.DeleteAllAsyncTest,
    library_async.DeleteByFilterAsyncTest,
    library_async.UpdateByFilterAsyncTest,
    library_async.CountDocumentsByFilterAsyncTest,
    library_async.CountUniqueMetadataByFilterAsyncTest,
    library_async.GetMetadataFieldsInfoAsyncTest,
    library_async.GetMetadataFieldMinMaxAsyncTest,
    library_async.GetMetadataFieldUniqueValuesAsyncTest,
):
    """The library's own."""

    @pytest.mark.asyncio
    async def test_write_documents_async(self, document_store: PyengineDocumentStore) -> None:
        assert await document_store.write_documents_async([Document(content="test doc")]) == 1


def filled(**kwargs: Any) -> PyengineDocumentStore:
    store = PyengineDocumentStore(**kwargs)
    assert store.write_documents(DOCUMENTS) == len(DOCUMENTS)
    return store


@pytest.mark.parametrize("function", ["dot_product", "cosine"])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("top_k", [0, 1, 7, 1000])
def test_the_same_documents_and_scores(function: Any, filters: Any, top_k: int) -> None:
    store, original = (
        filled(embedding_similarity_function=function),
        InMemoryDocumentStore(embedding_similarity_function=function, shared=False),
    )
    original.write_documents(DOCUMENTS)
    assert store.filter_documents(filters) == [rounded(each) for each in original.filter_documents(filters)]
    for query in QUERIES[:2]:
        for scale, with_embedding in ((False, False), (True, True), (False, None)):
            found, want = (
                each.embedding_retrieval(query, filters, top_k, scale, with_embedding) for each in (store, original)
            )
            assert [replace(each, score=None) for each in found] == [
                rounded(replace(each, score=None)) for each in want
            ]
            np.testing.assert_allclose([e.score for e in found], [e.score for e in want], rtol=1e-5, atol=1e-7)


def test_words_and_hybrid() -> None:
    store = filled()
    texts = [each.content or "" for each in DOCUMENTS]
    analyze = pe.Analyzer()
    model = pe.BM25.fit(map(analyze, texts))
    want = pe.sparse_topk(model.queries([analyze("Numbers 78 and 79?")]), model.docs, 6)
    found = store.bm25_retrieval("Numbers 78 and 79?", top_k=6)
    assert [each.id for each in found] == [str(row) for row in want.ids[0]]
    assert [each.score for each in found] == want.scores[0].tolist()
    scaled = store.bm25_retrieval("Numbers 78 and 79?", top_k=6, scale_score=True)
    np.testing.assert_allclose([each.score for each in scaled], 1 / (1 + np.exp(-want.scores[0] / 8)), rtol=1e-6)
    assert store.bm25_retrieval("unheard") == store.bm25_retrieval("") == []
    assert store.bm25_retrieval("number", FILTERS[-1]) == []
    dense = store.embedding_retrieval(QUERIES[0], top_k=100)
    words = store.bm25_retrieval("Numbers 78 and 79?", top_k=100)
    rankings = [
        pe.TopK(
            np.array([[e.score for e in each]], np.float32), np.array([[int(e.id) for e in each]]), np.ones(1, bool)
        )
        for each in (dense, words)
    ]
    fused = pe.fuse(rankings, 9)
    hybrid = store.hybrid_retrieval("Numbers 78 and 79?", QUERIES[0], top_k=9)
    assert [(each.id, each.score) for each in hybrid] == [
        (str(row), score) for row, score in zip(fused.ids[0].tolist(), fused.scores[0].tolist())
    ]


def test_policies() -> None:
    store = filled()
    new = [replace(DOCUMENTS[1], content="other"), Document(id="new"), Document(id="new", content="twice")]
    for policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
        with pytest.raises(DuplicateDocumentError, match="'1' already exists"):
            store.write_documents(new, policy)
        with pytest.raises(DuplicateDocumentError, match="'new' already exists"):
            store.write_documents(new[1:], policy)
    assert store.count_documents() == 200
    assert store.write_documents(new, DuplicatePolicy.SKIP) == 1
    assert store.filter_documents()[1].content == "number 1 of a cat or two"
    assert store.filter_documents()[-1].content is None
    assert store.write_documents(new, DuplicatePolicy.OVERWRITE) == 3
    assert [each.content for each in store.filter_documents()[-2:]] == ["other", "twice"]


def test_what_does_not_fit_is_refused() -> None:
    store = filled()
    for embedding, said in (([1.0] * 3, f"vectors must have {D} dimensions"), ([np.inf] * D, "vectors must be finite")):
        with pytest.raises(ValueError, match=said):
            store.write_documents(
                [Document(content="a"), Document(id="1", embedding=embedding)], DuplicatePolicy.OVERWRITE
            )
    with pytest.raises(ValueError, match=f"queries must have {D} dimensions"):
        store.embedding_retrieval([1.0])
    with pytest.raises(ValueError, match="filters must have an operator"):
        store.embedding_retrieval(QUERIES[0], {"row": 3})
    with pytest.raises(ValueError, match="must be 'dot_product' or 'cosine'; got 'l2'"):
        PyengineDocumentStore("l2")
    assert store.filter_documents() == [rounded(each) for each in DOCUMENTS]


def test_an_empty_store() -> None:
    store = PyengineDocumentStore()
    assert store.embedding_retrieval([1.0]) == store.hybrid_retrieval("x", [1.0]) == store.bm25_retrieval("x") == []


def test_results_are_copies() -> None:
    store, given = PyengineDocumentStore(), Document(id="a", meta={"row": 1}, embedding=[1.0])
    store.write_documents([given])
    given.meta["row"] = 2
    store.embedding_retrieval([1.0])[0].meta["row"] = 3
    store.filter_documents()[0].meta["row"] = 4
    assert store.filter_documents()[0].meta == {"row": 1}


def test_what_was_saved_answers_the_same(tmp_path: Path) -> None:
    store = filled(embedding_similarity_function="cosine", language=None)
    store.write_documents([
        Document(id="blob", blob=ByteStream(b"\x00\xff", mime_type="x/y")),
        Document(id="sparse", sparse_embedding=SparseEmbedding([1, 5], [0.5, 2.0]), meta={"content": "of the meta"}),
    ])  # fmt: skip
    store.save_to_disk(tmp_path / "store")
    loaded = PyengineDocumentStore.load_from_disk(tmp_path / "store")
    assert loaded.to_dict() == store.to_dict()
    assert loaded.filter_documents() == store.filter_documents()
    for filters in FILTERS:
        for query in QUERIES:
            assert loaded.embedding_retrieval(query, filters) == store.embedding_retrieval(query, filters)
            found = loaded.hybrid_retrieval("number 8", query, filters)
            assert found == store.hybrid_retrieval("number 8", query, filters)
    file = next((tmp_path / "store").rglob("rows.npy"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"rows\.npy is not whole"):
        PyengineDocumentStore.load_from_disk(tmp_path / "store")


def test_pipelines_are_written_and_read() -> None:
    store = filled(embedding_similarity_function="cosine")
    pipeline = Pipeline()
    nearest = PyengineEmbeddingRetriever(store, FILTERS[2], 3, True, True, FilterPolicy.MERGE)
    pipeline.add_component("nearest", nearest)
    pipeline.add_component("hybrid", PyengineHybridRetriever(store, top_k=4))
    asked = {"nearest": {"query_embedding": QUERIES[0]}, "hybrid": {"query_embedding": QUERIES[0], "query": "number 8"}}
    found = pipeline.run(asked)
    assert found["nearest"]["documents"] == store.embedding_retrieval(QUERIES[0], FILTERS[2], 3, True, True)
    assert found["hybrid"]["documents"] == store.hybrid_retrieval("number 8", QUERIES[0], top_k=4)
    merged = nearest.run(QUERIES[0], {"field": "meta.date", "operator": "==", "value": "2026-01-03"}, 50, False, False)
    assert {each.meta["row"] for each in merged["documents"]} == {114, 142, 170, 198}
    assert asyncio.run(nearest.run_async(query_embedding=QUERIES[0])) == found["nearest"]
    modules = ["pyengine.integrations.haystack", "pyengine.integrations.haystack_retrievers"]
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=modules)
    assert again.to_dict() == pipeline.to_dict()
    again.get_component("nearest").document_store.write_documents(DOCUMENTS)
    assert again.run({"nearest": asked["nearest"], "hybrid": asked["hybrid"]})["nearest"] == found["nearest"]


def test_a_pipeline_that_waits() -> None:
    pipeline, store = Pipeline(), filled()
    pipeline.add_component("hybrid", PyengineHybridRetriever(store))
    found = asyncio.run(pipeline.run_async({"hybrid": {"query_embedding": QUERIES[0], "query": "number 8"}}))
    assert found["hybrid"]["documents"] == store.hybrid_retrieval("number 8", QUERIES[0])


@pytest.mark.parametrize("retriever", [PyengineEmbeddingRetriever, PyengineHybridRetriever])
def test_retrievers_refuse_what_makes_no_sense(retriever: Any) -> None:
    with pytest.raises(TypeError, match="document_store must be a PyengineDocumentStore; got a InMemoryDocumentStore"):
        retriever(InMemoryDocumentStore())
    with pytest.raises(ValueError, match="top_k must be above 0; got 0"):
        retriever(PyengineDocumentStore(), top_k=0)


def test_threads() -> None:
    store = filled()
    want = store.embedding_retrieval(QUERIES[0])
    with ThreadPoolExecutor(4) as pool:
        assert all(found == want for found in pool.map(store.embedding_retrieval, [QUERIES[0]] * 40))

"""The vector store for LangChain: the library's standard tests, and ours beside its `InMemoryVectorStore`."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from pyengine.integrations.langchain import PyengineVectorStore

TEXTS = [f"{'cat' if row % 3 else 'dog'} number {row} in a box of {row % 7} stones" for row in range(300)]
METADATA = [{"row": row, "tags": ["a", "b"]} for row in range(300)]
IDS = [f"id-{row}" for row in range(300)]
QUERIES = ["a cat", "stones", "", "dog number 7"]


class TestStandard(VectorStoreIntegrationTests):
    """The library's own."""

    @pytest.fixture
    def vectorstore(self) -> PyengineVectorStore:
        return PyengineVectorStore(self.get_embeddings())


for name, each in inspect.getmembers(VectorStoreIntegrationTests, inspect.iscoroutinefunction):
    setattr(TestStandard, name, pytest.mark.asyncio(each))


def embedding() -> Any:
    return DeterministicFakeEmbedding(size=32)


def ours(**kwargs: Any) -> PyengineVectorStore:
    return PyengineVectorStore.from_texts(TEXTS, embedding(), METADATA, ids=IDS, **kwargs)


@pytest.fixture(scope="module")
def stores() -> tuple[PyengineVectorStore, InMemoryVectorStore]:
    return ours(), InMemoryVectorStore.from_texts(TEXTS, embedding(), METADATA, ids=IDS)


def late(document: Document) -> bool:
    return bool(document.metadata["row"] > 200 and document.id != "id-250")


@pytest.mark.parametrize("k", [0, 1, 4, 1000])
@pytest.mark.parametrize("keep", [None, late, lambda document: False])
def test_the_same_documents_and_scores(stores: Any, k: int, keep: Any) -> None:
    for query in QUERIES:
        found, want = (each.similarity_search_with_score(query, k=k, filter=keep) for each in stores)
        assert [document for document, _ in found] == [document for document, _ in want]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in want], rtol=1e-5, atol=1e-7)
        assert stores[0].similarity_search(query, k=k, filter=keep) == [document for document, _ in want]
        vector = embedding().embed_query(query)
        assert stores[0].similarity_search_by_vector(vector, k=k, filter=keep) == [document for document, _ in want]
        assert stores[0].similarity_search_with_score_by_vector(vector, k=k, filter=keep) == found


@pytest.mark.parametrize("diversity", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("keep", [None, late])
def test_the_same_by_marginal_relevance(stores: Any, diversity: float, keep: Any) -> None:
    for query in QUERIES:
        found, want = (
            each.max_marginal_relevance_search(query, k=6, fetch_k=25, lambda_mult=diversity, filter=keep)
            for each in stores
        )
        assert found == want


def test_async_twins(stores: Any) -> None:
    store: PyengineVectorStore = stores[0]
    vector = embedding().embed_query("a cat")

    async def check() -> None:
        again = await PyengineVectorStore.afrom_texts(TEXTS, embedding(), METADATA, ids=IDS)
        assert await again.asimilarity_search("a cat", filter=late) == store.similarity_search("a cat", filter=late)
        assert await again.asimilarity_search("a cat", hybrid=True) == store.similarity_search("a cat", hybrid=True)
        found = await again.asimilarity_search_with_score("a cat")
        assert found == store.similarity_search_with_score("a cat")
        assert await again.asimilarity_search_by_vector(vector) == store.similarity_search_by_vector(vector)
        assert await again.amax_marginal_relevance_search("x") == store.max_marginal_relevance_search("x")
        relevant = await again.asimilarity_search_with_relevance_scores("a cat", score_threshold=0.6)
        assert relevant == store.similarity_search_with_relevance_scores("a cat", score_threshold=0.6)
        assert await again.aget_by_ids(["id-3"]) == store.get_by_ids(["id-3"])
        await again.adelete(["id-3"])
        assert await again.aget_by_ids(["id-3"]) == []
        with pytest.raises(ValueError, match="hybrid is for similarity_search"):
            await again.asimilarity_search_with_relevance_scores("a cat", hybrid=True)

    asyncio.run(check())


def test_retrievers(stores: Any) -> None:
    store: PyengineVectorStore = stores[0]
    assert store.as_retriever(search_kwargs={"k": 3, "filter": late}).invoke("x") == store.similarity_search(
        "x", 3, filter=late
    )
    scored = store.similarity_search_with_score("x", 10)
    middle = (scored[4][1] + 1) / 2
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": middle, "k": 10}
    )
    assert retriever.invoke("x") == [document for document, _ in scored[:5]]
    diverse = store.as_retriever(search_type="mmr", search_kwargs={"k": 5, "lambda_mult": 0.2})
    assert diverse.invoke("x") == store.max_marginal_relevance_search("x", 5, lambda_mult=0.2)
    hybrid = store.as_retriever(search_kwargs={"hybrid": True, "k": 2})
    assert hybrid.invoke("dog number 9") == store.similarity_search("dog number 9", 2, hybrid=True)
    with pytest.raises(ValueError, match="hybrid is for similarity_search"):
        store.similarity_search_with_relevance_scores("x", hybrid=True)


def test_hybrid_search_finds_by_words_what_the_vector_does_not() -> None:
    store = ours()
    store.add_texts(["the aardvark"], [{"row": 1000}], ids=["aardvark"])
    assert store.similarity_search("which aardvarks?", 300)[0].id != "aardvark"
    found = store.similarity_search_with_score("which aardvarks?", 3, hybrid=True)
    assert "aardvark" in {document.id for document, _ in found}
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    kept = store.similarity_search(
        "which aardvarks?", 300, hybrid=True, filter=lambda document: document.id != "aardvark"
    )
    assert "aardvark" not in {document.id for document in kept}


def test_ids() -> None:
    store = PyengineVectorStore(embedding())
    named = Document(id="own", page_content="a")
    assert store.add_documents([named, Document(page_content="b")])[0] == "own"
    assert store.add_documents([named, named], ids=["twice", "twice"]) == ["twice", "twice"]
    assert len(store.documents) == 3
    with pytest.raises(ValueError, match="ids must have one entry for each of the 1 documents; got 2"):
        store.add_documents([named], ids=["1", "2"])
    store.delete()
    store.delete([])
    assert len(store.documents) == 3


def test_results_are_copies() -> None:
    store = ours()
    given = Document(id="given", page_content="x", metadata={"n": 1})
    store.add_documents([given])
    given.metadata["n"] = 2
    found = store.similarity_search("x", 1)[0]
    found.metadata["n"] = 3
    assert store.get_by_ids(["given"])[0].metadata == {"n": 1}


class Wrong(DeterministicFakeEmbedding):  # type: ignore[misc, unused-ignore]
    """Of the dimensions that the text is."""

    size: int = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0] * int(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0] * int(text)


def test_vectors_that_do_not_fit_are_refused() -> None:
    store = PyengineVectorStore.from_texts(["3", "3"], Wrong())
    for call in (lambda: store.add_texts(["4"]), lambda: store.similarity_search("4")):
        with pytest.raises(ValueError, match="must have 3 dimensions"):
            call()
    with pytest.raises(TypeError, match="vectors must be an array"):
        store.add_texts(["3", "4"])
    assert len(store.documents) == 2


def test_what_was_saved_answers_the_same(tmp_path: Path) -> None:
    store = ours(language=None)
    store.delete(IDS[:50])
    store.save(tmp_path / "store")
    loaded = PyengineVectorStore.load(tmp_path / "store", embedding())
    for kwargs in ({}, {"filter": late}, {"hybrid": True}):
        for query in QUERIES:
            want = store.similarity_search_with_score(query, **kwargs)
            assert loaded.similarity_search_with_score(query, **kwargs) == want
    loaded.add_texts(["one more"], ids=["more"])
    loaded.save(tmp_path / "store")
    assert len(PyengineVectorStore.load(tmp_path / "store", embedding()).documents) == 251
    file = next((tmp_path / "store").rglob("vectors.npy"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"vectors\.npy was altered"):
        PyengineVectorStore.load(tmp_path / "store", embedding())


def test_copies(stores: Any) -> None:
    want = stores[0].similarity_search_with_score("a cat", 20)
    for store in (copy.deepcopy(stores[0]), pickle.loads(pickle.dumps(stores[0]))):
        assert store.similarity_search_with_score("a cat", 20) == want
        store.delete(IDS)
    assert stores[0].similarity_search_with_score("a cat", 20) == want


def test_hybrid_is_not_ignored(stores: Any) -> None:
    for call, query in (
        (stores[0].max_marginal_relevance_search, "a cat"),
        (stores[0].similarity_search_by_vector, [1.0] * 32),
        (stores[0].similarity_search_with_score_by_vector, [1.0] * 32),
    ):
        with pytest.raises(ValueError, match="hybrid is for similarity_search"):
            call(query, hybrid=True)


def test_threads(stores: Any) -> None:
    want = stores[0].similarity_search_with_score("a cat", 20)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: stores[0].similarity_search_with_score("a cat", 20), range(40)):
            assert found == want

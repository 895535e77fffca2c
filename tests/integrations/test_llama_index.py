"""The vector store for LlamaIndex, beside its `SimpleVectorStore`. (Its source distribution has no tests.)"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import Document, ImageNode, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

import pyengine as pe
from pyengine.integrations.llama_index import PyengineVectorStore

D = 24
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((200, D))
QUERIES = RNG.standard_normal((4, D)).tolist()


def node(row: int, **fields: Any) -> TextNode:
    """One of five documents' nodes; every seventh says nothing of its year."""
    metadata = {"row": row, "tags": ["a", "b"] if row % 2 else ["b"], "name": f"Name {row % 4}"}
    metadata |= {} if row % 7 == 0 else {"year": 2000 + row % 20}
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{row % 5}")}
    given = {"id_": f"node-{row}", "text": f"number {row} of a cat or two", "metadata": metadata}
    return TextNode(**{**given, "embedding": ROWS[row].tolist(), "relationships": source, **fields})


NODES = [node(row) for row in range(len(ROWS))]


def filled() -> PyengineVectorStore:
    store = PyengineVectorStore()
    assert store.add(NODES) == [each.node_id for each in NODES]
    return store


@pytest.fixture(scope="module")
def stores() -> tuple[PyengineVectorStore, SimpleVectorStore]:
    original = SimpleVectorStore()
    original.add(NODES)
    return filled(), original


def by(*conditions: tuple[str, Any, str], condition: str = "and") -> MetadataFilters:
    filters = [MetadataFilter(key=key, value=value, operator=FilterOperator(how)) for key, value, how in conditions]
    return MetadataFilters(filters=filters, condition=FilterCondition(condition))


FILTERS = [
    None,
    by(),
    by(("row", 100, ">=")),
    by(("row", 50, "<"), ("year", 2003, "!=")),
    by(("row", 3, "=="), ("row", 5, "=="), condition="or"),
    by(("row", 30, ">"), ("tags", "a", "contains"), condition="not"),
    by(("year", None, "is_empty")),
    by(("tags", ["a", "c"], "any"), ("tags", ["a", "b"], "all")),
    by(("name", "name 3", "text_match_insensitive")),
    by(("doc_id", "doc-2", "=="), ("row", [2, 7, 12, 150], "in")),
    by(("ref_doc_id", "doc-2", "=="), ("year", [2001, 2002], "nin")),
    by(("row", -1, "==")),
]


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("mode", ["default", "mmr"])
@pytest.mark.parametrize("k", [1, 6, 1000])
def test_the_same_ids_and_similarities(stores: Any, filters: Any, mode: str, k: int) -> None:
    if mode == "mmr" and k == 1000 and filters is None:
        k = 10  # the original takes minutes
    for vector in QUERIES[:2]:
        asked = VectorStoreQuery(
            query_embedding=vector, similarity_top_k=k, mode=VectorStoreQueryMode(mode), filters=filters
        )
        found, want = (each.query(asked, mmr_threshold=0.3) for each in stores)
        assert found.ids == want.ids
        np.testing.assert_allclose(found.similarities, want.similarities, rtol=1e-5, atol=1e-7)
        assert [each.node_id for each in found.nodes] == found.ids
    if filters is not None and mode == "default":
        assert {each.node_id for each in stores[0].get_nodes(filters=filters)} == set(
            stores[1].query(VectorStoreQuery(query_embedding=vector, similarity_top_k=1000, filters=filters)).ids
        )


def test_node_ids_and_doc_ids(stores: Any) -> None:
    asked = VectorStoreQuery(query_embedding=QUERIES[0], similarity_top_k=9, node_ids=["node-3", "node-9", "nowhere"])
    assert stores[0].query(asked).ids == stores[1].query(asked).ids
    asked = VectorStoreQuery(query_embedding=QUERIES[0], similarity_top_k=200, doc_ids=["doc-1", "doc-2"])
    assert {each.ref_doc_id for each in stores[0].query(asked).nodes} == {"doc-1", "doc-2"}


def test_words_and_hybrid(stores: Any) -> None:
    store: PyengineVectorStore = stores[0]

    def ask(mode: VectorStoreQueryMode, **fields: Any) -> Any:
        given = {"query_embedding": QUERIES[0], "query_str": "Numbers 77 and 78?", "similarity_top_k": 4, **fields}
        return store.query(VectorStoreQuery(mode=mode, **given))

    dense, words = ask(VectorStoreQueryMode.DEFAULT), ask(VectorStoreQueryMode.SPARSE, query_embedding=None)
    assert set(words.ids[:2]) == {"node-77", "node-78"}
    assert ask(VectorStoreQueryMode.TEXT_SEARCH) == words
    assert len(ask(VectorStoreQueryMode.SPARSE, sparse_top_k=7).ids) == 7
    hybrid = ask(VectorStoreQueryMode.HYBRID, sparse_top_k=4, hybrid_top_k=8)
    number = {each.node_id: place for place, each in enumerate(NODES)}
    rankings = [
        pe.TopK(np.array([each.similarities], np.float32), np.array([[number[i] for i in each.ids]]), np.ones(1, bool))
        for each in (dense, words)
    ]
    want = pe.fuse(rankings, 8)
    assert [number[i] for i in hybrid.ids] == [i for i in want.ids[0] if i >= 0]
    assert hybrid.similarities == [s for s in want.scores[0] if s >= 0]
    assert ask(VectorStoreQueryMode.HYBRID, alpha=1.0).ids[0] == dense.ids[0]
    assert ask(VectorStoreQueryMode.HYBRID, alpha=0.0).ids[:2] == words.ids[:2]
    with pytest.raises(ValueError, match="mode must be default, mmr, sparse, text_search or hybrid; got 'svm'"):
        ask(VectorStoreQueryMode.SVM)
    for mode, name in ((VectorStoreQueryMode.SPARSE, "query_str"), (VectorStoreQueryMode.DEFAULT, "query_embedding")):
        with pytest.raises(ValueError, match=f"{name} must be given with mode '{mode.value}'"):
            ask(mode, **{name: None})


def test_writing_again_and_removing() -> None:
    store, original = filled(), SimpleVectorStore()
    original.add(NODES)
    for each in (store, original):
        each.add([node(3, embedding=ROWS[4].tolist()), node(3, embedding=(ROWS[5] + 1).tolist())])
        each.delete("doc-1")
        each.delete_nodes(["node-2", "node-7", "nowhere"], by(("row", 5, "<")))
        each.delete_nodes(filters=by(("row", 150, ">")))
        each.delete_nodes([])
    asked = VectorStoreQuery(query_embedding=QUERIES[1], similarity_top_k=300)
    found, want = store.query(asked), original.query(asked)
    assert found.ids == want.ids
    assert store.get("node-3") == np.float32(ROWS[5] + 1).tolist()
    assert len(store.get_nodes(["node-3", "node-2", "nowhere"])) == 1
    with pytest.raises(KeyError, match="node-2"):
        store.get("node-2")
    store.clear()
    assert store.get_nodes() == store.query(asked).nodes == []


def test_what_does_not_fit_is_refused() -> None:
    store = filled()
    for embedding, said in (([1.0] * 3, f"vectors must have {D} dimensions"), ([np.nan] * D, "vectors must be finite")):
        with pytest.raises(ValueError, match=said):
            store.add([node(0, embedding=embedding)])
    with pytest.raises(ValueError, match=f"queries must have {D} dimensions"):
        store.query(VectorStoreQuery(query_embedding=[1.0]))
    with pytest.raises(ValueError, match="embedding not set"):
        store.add([node(0, embedding=None)])
    assert store.get_nodes() == filled().get_nodes()


def test_results_are_copies_without_embeddings() -> None:
    store, given = PyengineVectorStore(), node(1)
    store.add([given])
    given.metadata["row"] = 7
    found = store.get_nodes()[0]
    assert (found.metadata["row"], found.embedding) == (1, None)
    found.metadata["row"] = 8
    assert store.get_nodes()[0] == node(1, embedding=None)


def test_what_was_persisted_answers_the_same(tmp_path: Path) -> None:
    kinds = [Document(text="d"), ImageNode(image="aGk=", text="i"), IndexNode(text="x", index_id="other")]
    store = PyengineVectorStore(language=None)
    store.add(NODES + [each.model_copy(update={"embedding": ROWS[row].tolist()}) for row, each in enumerate(kinds)])
    path = tmp_path / "deep" / "store"
    store.persist(str(path))
    loaded = PyengineVectorStore.from_persist_path(str(path))
    assert loaded.language is None
    assert loaded.get_nodes() == store.get_nodes()
    assert list(map(type, loaded.get_nodes()[-3:])) == [Document, ImageNode, IndexNode]
    for mode in ("default", "hybrid", "sparse", "mmr"):
        asked = VectorStoreQuery(
            QUERIES[0], 5, query_str="number 7", mode=VectorStoreQueryMode(mode), filters=FILTERS[2]
        )
        assert loaded.query(asked) == store.query(asked)
    file = next(path.rglob("documents.npy"))
    file.write_bytes(file.read_bytes().replace(b"number 7 ", b"number 8 "))
    with pytest.raises(ValueError, match=r"documents\.npy was altered"):
        PyengineVectorStore.from_persist_path(str(path))
    with pytest.raises(FileNotFoundError, match="must be the folder of a saved index"):
        PyengineVectorStore.from_persist_path(str(tmp_path / "nowhere"))


def test_within_an_index(tmp_path: Path) -> None:
    texts = [TextNode(text=f"text {10 + row}", id_=str(row)) for row in range(5)]
    context = StorageContext.from_defaults(vector_store=PyengineVectorStore())
    index = VectorStoreIndex(texts, storage_context=context, embed_model=MockEmbedding(4))
    retriever = index.as_retriever(similarity_top_k=2, vector_store_query_mode="hybrid", alpha=0.5)
    assert retriever.retrieve("text 13")[0].node.node_id == "3"
    index.delete_nodes(["3"])
    assert {each.node.node_id for each in index.as_retriever(similarity_top_k=9).retrieve("x")} == {"0", "1", "2", "4"}
    context.persist(tmp_path)
    again = VectorStoreIndex.from_vector_store(PyengineVectorStore.from_persist_dir(str(tmp_path)), MockEmbedding(4))
    assert len(again.as_retriever(similarity_top_k=9).retrieve("x")) == 4


def test_async_and_threads(stores: Any) -> None:
    store: PyengineVectorStore = stores[0]
    asked = VectorStoreQuery(QUERIES[0], 5, query_str="number 7", mode=VectorStoreQueryMode.HYBRID)
    want = store.query(asked)
    assert asyncio.run(store.aquery(asked)) == want
    with ThreadPoolExecutor(4) as pool:
        assert all(found == want for found in pool.map(store.query, [asked] * 40))

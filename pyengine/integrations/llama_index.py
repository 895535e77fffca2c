"""A vector store for LlamaIndex: exact, with text and hybrid modes, in memory and in a folder.

    from pyengine.integrations.llama_index import PyengineVectorStore

    store = PyengineVectorStore()  # in the place of SimpleVectorStore()
    store.add(nodes)
    store.query(VectorStoreQuery(query_embedding=vector, query_str=question, similarity_top_k=5, mode="hybrid"))

Read against llama-index-core 0.14.25, beside whose `SimpleVectorStore` it is tested. The differences are in
`DIFFERENCES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyengine.integrations import documents_storage
from pyengine.integrations.documents import Documents, Hit

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode
    from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc
    from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE, NAMESPACE_SEP
    from llama_index.core.vector_stores.types import (
        DEFAULT_PERSIST_DIR,
        DEFAULT_PERSIST_FNAME,
        BasePydanticVectorStore,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import build_metadata_filter_fn
except ModuleNotFoundError as error:
    raise ImportError(
        "this needs llama-index-core, which is not installed: run 'pip install llama-index-core'"
    ) from error

LIBRARY = "llama-index-core"
DIFFERENCES = (
    "nodes are stored and returned, copies without their embeddings (the original: ids alone)",
    "vectors are kept as float32, and scores are those of the float64 specification, rounded to float32",
    "ties go to the node that was written first (the original: by id)",
    "an embedding with NaN, inf or other dimensions is refused when it is added, and nothing is",
    "a zero vector has similarity 0 (the original: NaN)",
    "modes sparse, text_search and hybrid (BM25) are new, and svm and the other learners are refused",
    "query.doc_ids and query.mmr_threshold are obeyed (the original reads neither), and an empty node_ids means any",
    "persist writes a folder (the original: a file), and to_dict has the settings alone",
)
BY_WORDS = (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH)


class PyengineVectorStore(BasePydanticVectorStore):
    """`llama_index.core.vector_stores.SimpleVectorStore`, exact, with nodes, words and hybrid search.

    Parameters
    ----------
    language : str or None
        How words are found: see `pyengine.Analyzer`. None does without PyStemmer.

    Modes of a query: default (cosine); mmr, over all nodes, each compared with the one before it, as the original does;
    sparse and text_search (BM25 of ``query_str``); hybrid: both rankings fused by reciprocal ranks, or with ``alpha``
    by that mean of scores stretched to 0 .. 1 (0: words, 1: vectors). With ``sparse_top_k``, hybrid fuses that many by
    words and ``similarity_top_k`` by vector, else 100 of each. A node that is added again replaces the one before.
    """

    stores_text: bool = True
    language: str | None = "english"
    _documents: Any = PrivateAttr()

    def __init__(self, language: str | None = "english", **kwargs: Any) -> None:
        super().__init__(language=language, **kwargs)
        self._documents = Documents(LIBRARY, _text, language=language)

    @classmethod
    def class_name(cls) -> str:
        return "PyengineVectorStore"

    @property
    def client(self) -> Any:
        """The shared `pyengine.integrations.documents.Documents`."""
        return self._documents

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Add nodes, which must have embeddings; their ids."""
        ids = [str(node.node_id) for node in nodes]
        self._documents.put(ids, [_copy(node) for node in nodes], [node.get_embedding() for node in nodes])
        return ids

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Remove all nodes of a document."""
        self._documents.drop([name for name, _ in self._documents.all(lambda node: node.ref_doc_id == ref_doc_id)])

    def delete_nodes(self, node_ids: list[str] | None = None, filters: Any = None, **_: Any) -> None:
        """Remove the nodes of these ids (None: of any) that fit the filters."""
        self._documents.drop([name for name, _ in self._chosen(node_ids, filters)])

    def clear(self) -> None:
        """Remove all nodes."""
        self._documents.clear()

    def get(self, text_id: str) -> list[float]:
        """The embedding of a node. KeyError where there is none."""
        vector = self._documents.vectors([text_id])[0]
        if vector is None:
            raise KeyError(text_id)
        return [float(each) for each in vector]

    def get_nodes(self, node_ids: list[str] | None = None, filters: Any = None) -> list[BaseNode]:
        """The nodes of these ids (None: of any) that fit the filters, in the order of the ids, or of writing."""
        return [_copy(node) for _, node in self._chosen(node_ids, filters)]

    def _chosen(self, node_ids: Sequence[str] | None, filters: Any) -> list[tuple[str, BaseNode]]:
        keep = _keep(filters)
        if node_ids is None:
            found: list[tuple[str, BaseNode]] = self._documents.all(keep)
            return found
        return [(name, node) for name, node in self._documents.get(node_ids) if keep is None or keep(node)]

    def query(self, query: Any, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes by the query's mode, their similarities or scores, and ids."""
        hits = self._search(query, _keep(query.filters, query.node_ids, query.doc_ids), kwargs)
        return VectorStoreQueryResult(
            nodes=[_copy(hit.record) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.name for hit in hits],
        )

    def _search(self, query: Any, keep: Callable[[BaseNode], bool] | None, kwargs: Mapping[str, Any]) -> list[Hit]:
        documents: Documents[BaseNode] = self._documents
        mode, k = query.mode, query.similarity_top_k
        if mode in BY_WORDS:
            return documents.matching(_given(query, "query_str"), query.sparse_top_k or k, keep)
        vector = _given(query, "query_embedding")
        if mode == VectorStoreQueryMode.DEFAULT:
            return documents.nearest(vector, k, keep)
        if mode == VectorStoreQueryMode.MMR:
            asked = kwargs.get("mmr_threshold", query.mmr_threshold)
            return documents.diverse(vector, k, None, 0.5 if asked is None else asked, keep, recent=True)
        if mode == VectorStoreQueryMode.HYBRID:
            depths = None if query.sparse_top_k is None else (k, query.sparse_top_k)
            k = k if query.hybrid_top_k is None else query.hybrid_top_k
            return documents.both(vector, _given(query, "query_str"), k, keep, query.alpha, depths)
        raise ValueError(f"mode must be default, mmr, sparse, text_search or hybrid; got {_named(mode)!r}")

    def persist(
        self, persist_path: str = os.path.join(DEFAULT_PERSIST_DIR, DEFAULT_PERSIST_FNAME), fs: Any = None
    ) -> None:
        """Write the store to the folder ``persist_path``: whatever stops it, the folder holds the old store or the new
        one, whole. Metadata must be JSON. ``fs`` other than None is refused: folders are local."""
        _local(fs)
        documents_storage.save(self._documents, persist_path, doc_to_json)

    @classmethod
    def from_persist_path(cls, persist_path: str, fs: Any = None) -> PyengineVectorStore:
        """A store that `persist` wrote; ValueError, naming the file, for one that was altered."""
        _local(fs)
        documents = documents_storage.load(persist_path, LIBRARY, _text, json_to_doc)
        store = cls(documents.language)
        store._documents = documents
        return store

    @classmethod
    def from_persist_dir(
        cls, persist_dir: str = DEFAULT_PERSIST_DIR, namespace: str = DEFAULT_VECTOR_STORE, fs: Any = None
    ) -> PyengineVectorStore:
        """A store that the `persist` of a StorageContext wrote."""
        name = f"{namespace}{NAMESPACE_SEP}{DEFAULT_PERSIST_FNAME}"
        return cls.from_persist_path(os.path.join(persist_dir, name), fs)


def _text(node: BaseNode) -> str:
    return str(node.get_content(metadata_mode=MetadataMode.NONE))


def _copy(node: BaseNode) -> BaseNode:
    """Without its embedding, with dictionaries of its own."""
    own = {"embedding": None, "metadata": dict(node.metadata), "relationships": dict(node.relationships)}
    return node.model_copy(update=own)


def _keep(
    filters: Any, node_ids: Sequence[str] | None = None, doc_ids: Sequence[str] | None = None
) -> Callable[[BaseNode], bool] | None:
    """Whether a node fits the filters and is one of these; None where all do."""
    checks: list[Callable[[BaseNode], bool]] = []
    if node_ids:  # an index over a store with texts asks for no ids in particular by an empty list
        nodes = frozenset(node_ids)
        checks.append(lambda node: node.node_id in nodes)
    if doc_ids:
        docs = frozenset(doc_ids)
        checks.append(lambda node: node.ref_doc_id in docs)
    if filters is not None and filters.filters:
        checks.append(build_metadata_filter_fn(_metadata, filters))  # it passes on what it is given
    return (lambda node: all(check(node) for check in checks)) if checks else None


def _metadata(node: BaseNode) -> dict[str, Any]:
    """What the library's own filters see."""
    owner = node.ref_doc_id or "None"
    ids = {"document_id": owner, "doc_id": owner, "ref_doc_id": owner}
    return {**node.metadata, **ids, "_node_type": node.class_name()}


def _given(query: Any, name: str) -> Any:
    value = getattr(query, name)
    if value is None:
        raise ValueError(f"{name} must be given with mode {_named(query.mode)!r}; got None")
    return value


def _named(mode: Any) -> Any:
    return getattr(mode, "value", mode)


def _local(fs: Any) -> None:
    if fs is not None and "file" not in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol):
        raise ValueError(f"fs must be None or the local file system; got {type(fs).__name__}")

"""A document store for Haystack: exact, with BM25 and hybrid search, in memory and in a folder.

    from pyengine.integrations.haystack import PyengineDocumentStore
    from pyengine.integrations.haystack_retrievers import PyengineEmbeddingRetriever

    store = PyengineDocumentStore()  # in the place of InMemoryDocumentStore()
    store.write_documents(documents)
    pipeline.add_component("retriever", PyengineEmbeddingRetriever(store, top_k=5))

Read against haystack-ai 3.4.0, beside whose `InMemoryDocumentStore` it is tested. The differences are in `DIFFERENCES`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyengine.integrations import documents_storage
from pyengine.integrations.documents import Documents, Hit, Keep

try:
    from haystack import Document, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.utils import expit
    from haystack.utils.filters import document_matches_filter
except ModuleNotFoundError as error:
    raise ImportError("this needs haystack-ai, which is not installed: run 'pip install haystack-ai'") from error

from pyengine.integrations.haystack_metadata import MetadataQueries, in_thread

LIBRARY = "haystack-ai"
DIFFERENCES = (
    "embeddings are kept, and come back, as float32, and scores are those of the float64 specification, rounded to it",
    "ties go to the document that was written first",
    "an embedding with NaN, inf or other dimensions is refused when it is written",
    "a call of write_documents that fails has written nothing (the original: what came before)",
    "BM25 is Lucene's (k1 = 0.9, b = 0.4) over stems without stop words, and finds what shares a word with the query",
    "filters do not see the embedding",
    "save_to_disk and load_from_disk take a folder (the original: a file)",
    "instances share nothing (the original: those of the same index)",
)
METRICS = {"dot_product": "dot", "cosine": "cosine"}
SCALES = {"dot_product": 100, "bm25": 8}  # the original's


class PyengineDocumentStore(MetadataQueries):
    """`haystack.document_stores.in_memory.InMemoryDocumentStore`, exact, and with hybrid search.

    Parameters
    ----------
    embedding_similarity_function : "dot_product" or "cosine"
    language : str or None
        How BM25 finds words: see `pyengine.Analyzer`. None does without PyStemmer.
    return_embedding : bool
        Whether documents come with their embeddings, where a call does not say.

    All methods have twins whose names end in ``_async``, which run in a thread.
    """

    def __init__(
        self,
        embedding_similarity_function: str = "dot_product",
        language: str | None = "english",
        return_embedding: bool = True,
    ) -> None:
        if embedding_similarity_function not in METRICS:
            wanted = " or ".join(map(repr, METRICS))
            raise ValueError(f"embedding_similarity_function must be {wanted}; got {embedding_similarity_function!r}")
        self.embedding_similarity_function = embedding_similarity_function
        self.language, self.return_embedding = language, return_embedding
        metric = METRICS[embedding_similarity_function]
        self.documents: Documents[Document] = Documents(LIBRARY, _text, metric, language)

    def to_dict(self) -> dict[str, Any]:
        """The settings, without the documents."""
        names = ("embedding_similarity_function", "language", "return_embedding")
        settings: dict[str, Any] = default_to_dict(self, **{name: getattr(self, name) for name in names})
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PyengineDocumentStore:
        """An empty store of these settings."""
        store: PyengineDocumentStore = default_from_dict(cls, data)
        return store

    def save_to_disk(self, path: str | os.PathLike[str]) -> None:
        """Write the store to a folder: whatever stops it, the folder holds the old store or the new one, whole. The
        metadata must be JSON."""
        documents_storage.save(self.documents, path, lambda document: document.to_dict(flatten=False))

    @classmethod
    def load_from_disk(cls, path: str | os.PathLike[str], return_embedding: bool = True) -> PyengineDocumentStore:
        """A store that `save_to_disk` wrote; ValueError, naming the file, for one that was altered."""
        documents = documents_storage.load(path, LIBRARY, _text, Document.from_dict)
        names = {metric: name for name, metric in METRICS.items()}
        store = cls(names[documents.metric], documents.language, return_embedding)
        store.documents = documents
        return store

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents, and return how many. Of an id that is there already, the policy says what becomes: FAIL (and
        NONE) raises DuplicateDocumentError, SKIP leaves the document there, OVERWRITE replaces it."""
        if isinstance(documents, str) or not isinstance(documents, Iterable):
            raise ValueError(f"documents must be a list of Documents; got a {type(documents).__name__}")
        given = list(documents)
        odd = next((each for each in given if not isinstance(each, Document)), None)
        if odd is not None:
            raise ValueError(f"documents must be a list of Documents; got one with a {type(odd).__name__}")
        if policy != DuplicatePolicy.OVERWRITE:
            given = self._new(given, policy)
        bare = [replace(each, embedding=None, meta=dict(each.meta)) for each in given]
        self.documents.put([each.id for each in given], bare, [each.embedding for each in given])
        return len(given)

    def _new(self, documents: Sequence[Document], policy: DuplicatePolicy) -> list[Document]:
        """The first of each id that is not there."""
        new: dict[str, Document] = {}
        for each in documents:
            if each.id not in new and each.id not in self.documents:
                new[each.id] = each
            elif policy != DuplicatePolicy.SKIP:
                raise DuplicateDocumentError(f"ID '{each.id}' already exists.")
        return list(new.values())

    def delete_documents(self, document_ids: list[str]) -> None:
        """Remove documents; ids that are not there do not matter."""
        self.documents.drop(document_ids)

    def delete_all_documents(self) -> None:
        """Remove all."""
        self.documents.clear()

    def count_documents(self) -> int:
        """How many there are."""
        return len(self.documents)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Copies of the documents that fit the filters, in the order of writing."""
        found = [(name, record, None) for name, record in self.documents.all(_keep(filters))]
        return self._copies(found, self.return_embedding)

    def embedding_retrieval(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool | None = False,
    ) -> list[Document]:
        """Copies of the ``top_k`` nearest documents that fit the filters, with scores; ``scale_score`` brings these to
        0 .. 1, as the original does."""
        hits = self.documents.nearest(query_embedding, top_k, _keep(filters))
        if scale_score:
            hits = [_scaled(hit, self.embedding_similarity_function) for hit in hits]
        return self._copies(hits, self.return_embedding if return_embedding is None else return_embedding)

    def bm25_retrieval(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int = 10, scale_score: bool = False
    ) -> list[Document]:
        """Copies of the ``top_k`` best documents by BM25 that fit the filters, with scores."""
        hits = self.documents.matching(query, top_k, _keep(filters))
        return self._copies([_scaled(hit, "bm25") for hit in hits] if scale_score else hits, False)

    def hybrid_retrieval(
        self, query: str, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int = 10
    ) -> list[Document]:
        """Copies of the ``top_k`` best by both rankings, fused by reciprocal ranks, which make the scores."""
        return self._copies(self.documents.both(query_embedding, query, top_k, _keep(filters)), False)

    def _copies(self, found: Sequence[tuple[str, Document, float | None]], with_embedding: bool) -> list[Document]:
        vectors = self.documents.vectors([name for name, _, _ in found]) if with_embedding else [None] * len(found)
        return [
            replace(record, score=score, meta=dict(record.meta), embedding=vector)
            for (_, record, score), vector in zip(found, vectors)
        ]

    def _matching(self, filters: Mapping[str, Any] | None) -> list[Document]:
        return [record for _, record in self.documents.all(_keep(filters))]

    count_documents_async = in_thread(count_documents)
    filter_documents_async = in_thread(filter_documents)
    write_documents_async = in_thread(write_documents)
    delete_documents_async = in_thread(delete_documents)
    delete_all_documents_async = in_thread(delete_all_documents)
    embedding_retrieval_async = in_thread(embedding_retrieval)
    bm25_retrieval_async = in_thread(bm25_retrieval)
    hybrid_retrieval_async = in_thread(hybrid_retrieval)


def _text(document: Document) -> str:
    return document.content or ""


def _keep(filters: Mapping[str, Any] | None) -> Keep[Document] | None:
    if not filters:
        return None
    if "operator" not in filters and "conditions" not in filters:
        raise ValueError(f"filters must have an operator, and conditions or a field and a value; got {filters!r}")
    return lambda document: document_matches_filter(filters, document)


def _scaled(hit: Hit, of: str) -> Hit:
    return hit._replace(score=(hit.score + 1) / 2 if of == "cosine" else float(expit(hit.score / SCALES[of])))

"""A vector store for LangChain: exact, with hybrid search, in memory and in a folder.

    from pyengine.integrations.langchain import PyengineVectorStore

    store = PyengineVectorStore(embedding)  # in the place of InMemoryVectorStore(embedding)
    store.add_texts(["Cats purr.", "It rains."], [{"year": 2025}, {"year": 2026}])
    store.as_retriever(search_kwargs={"k": 5, "filter": lambda doc: doc.metadata["year"] > 2025, "hybrid": True})

Read against langchain-core 1.7.2, beside whose `InMemoryVectorStore` it is tested. The differences are in
`DIFFERENCES`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pyengine.integrations import documents_storage
from pyengine.integrations.documents import Documents, Hit

try:
    from langchain_core.documents import Document
    from langchain_core.vectorstores import VectorStore
except ModuleNotFoundError as error:
    raise ImportError("this needs langchain-core, which is not installed: run 'pip install langchain-core'") from error

LIBRARY = "langchain-core"
DIFFERENCES = (
    "vectors are kept as float32, and scores are those of the float64 specification, rounded to float32",
    "ties go to the document that was written first (the original: last)",
    "an embedding with NaN, inf or other dimensions is refused when it is added, and nothing is",
    "relevance scores, of which score_threshold is a bound, are (cosine + 1) / 2 (the original has none)",
    "stored metadata is a copy, and so is what a search returns",
    "save and load take a folder (the original: dump and load, a file)",
)
Filter: TypeAlias = "Callable[[Document], bool] | None"


class PyengineVectorStore(VectorStore):
    """`langchain_core.vectorstores.InMemoryVectorStore`, exact, and with hybrid search.

    Parameters
    ----------
    embedding : langchain_core.embeddings.Embeddings
    language : str or None
        How hybrid search finds words: see `pyengine.Analyzer`. None does without PyStemmer.

    All searches take ``filter``, a function of a document, and `similarity_search` and `similarity_search_with_score`
    also ``hybrid=True``: the ranking by cosine and that by BM25, fused by reciprocal ranks, which are then the scores.
    A document that is added with an id that is there replaces the one that has it.
    """

    def __init__(self, embedding: Any, language: str | None = "english") -> None:
        self.embedding = embedding
        self.documents: Documents[Document] = Documents(LIBRARY, _text, language=language)

    @property
    def embeddings(self) -> Any:
        return self.embedding

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **_: Any) -> list[str]:
        """Embed documents, and add them under these ids, else under their own, else under random ones."""
        return self._add(documents, ids, self.embedding.embed_documents([each.page_content for each in documents]))

    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **_: Any) -> list[str]:
        """`add_documents`."""
        vectors = await self.embedding.aembed_documents([each.page_content for each in documents])
        return self._add(documents, ids, vectors)

    def _add(self, documents: Sequence[Document], ids: Sequence[str | None] | None, vectors: Any) -> list[str]:
        if ids and len(ids) != len(documents):
            raise ValueError(f"ids must have one entry for each of the {len(documents)} documents; got {len(ids)}")
        given = ids or [each.id for each in documents]
        names = [name or str(uuid.uuid4()) for name in given]
        self.documents.put(names, [_copy(each, name) for each, name in zip(documents, names)], vectors)
        return names

    def delete(self, ids: Sequence[str] | None = None, **_: Any) -> None:
        """Remove documents; ids that are not there do not matter, and None removes nothing."""
        self.documents.drop(ids or ())

    async def adelete(self, ids: Sequence[str] | None = None, **_: Any) -> None:
        """`delete`."""
        self.delete(ids)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of these ids, those that there are."""
        return [_copy(record, name) for name, record in self.documents.get(ids)]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """`get_by_ids`."""
        return self.get_by_ids(ids)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k most similar documents; ``filter`` and ``hybrid`` as the class says."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """`similarity_search`."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter = None, hybrid: bool = False, **_: Any
    ) -> list[tuple[Document, float]]:
        """The k most similar documents and their cosines, or scores of the fusion."""
        return self._search(self.embedding.embed_query(query), query, k, filter, hybrid)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter = None, hybrid: bool = False, **_: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_with_score`."""
        return self._search(await self.embedding.aembed_query(query), query, k, filter, hybrid)

    def _search(self, vector: Any, query: str, k: int, filter: Filter, hybrid: bool) -> list[tuple[Document, float]]:
        found = self.documents.both(vector, query, k, filter) if hybrid else self.documents.nearest(vector, k, filter)
        return _scored(found)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[Document]:
        """The k documents most similar to a vector."""
        _no_words(kwargs)
        return _found(self.documents.nearest(embedding, k, filter))

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """`similarity_search_by_vector`."""
        return self.similarity_search_by_vector(embedding, k, **kwargs)

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The k documents most similar to a vector, and their cosines."""
        _no_words(kwargs)
        return _scored(self.documents.nearest(embedding, k, filter))

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, filter: Filter = None,
        **kwargs: Any,
    ) -> list[Document]:  # fmt: skip
        """k of the ``fetch_k`` most similar documents, each unlike those before it: see `Documents.diverse`."""
        _no_words(kwargs)
        return _found(self.documents.diverse(embedding, k, fetch_k, lambda_mult, filter))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search_by_vector` of a query."""
        vector = self.embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search`."""
        vector = await self.embedding.aembed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        _no_words(kwargs)
        found: list[tuple[Document, float]] = super()._similarity_search_with_relevance_scores(query, k, **kwargs)
        return found

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        _no_words(kwargs)
        found: list[tuple[Document, float]]
        found = await super()._asimilarity_search_with_relevance_scores(query, k, **kwargs)
        return found

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (cosine + 1) / 2

    @classmethod
    def from_texts(
        cls, texts: list[str], embedding: Any, metadatas: list[dict[str, Any]] | None = None, *,
        ids: list[str] | None = None, **kwargs: Any,
    ) -> PyengineVectorStore:  # fmt: skip
        """A store of these texts; ``kwargs`` are arguments of the class."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls, texts: list[str], embedding: Any, metadatas: list[dict[str, Any]] | None = None, *,
        ids: list[str] | None = None, **kwargs: Any,
    ) -> PyengineVectorStore:  # fmt: skip
        """`from_texts`."""
        store = cls(embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the store to a folder: whatever stops it, the folder holds the old store or the new one, whole. The
        metadata must be JSON, of which tuples come back as lists and keys as strings."""
        documents_storage.save(self.documents, path, _encode)

    @classmethod
    def load(cls, path: str | os.PathLike[str], embedding: Any) -> PyengineVectorStore:
        """A store that `save` wrote; ValueError, naming the file, for one that was altered."""
        store = cls(embedding)
        store.documents = documents_storage.load(path, LIBRARY, _text, _decode)
        return store


def _text(document: Document) -> str:
    return str(document.page_content)


def _copy(document: Document, name: str) -> Document:
    return Document(id=name, page_content=document.page_content, metadata=dict(document.metadata))


def _found(hits: Sequence[Hit]) -> list[Document]:
    return [_copy(hit.record, hit.name) for hit in hits]


def _scored(hits: Sequence[Hit]) -> list[tuple[Document, float]]:
    return [(_copy(hit.record, hit.name), hit.score) for hit in hits]


def _no_words(kwargs: dict[str, Any]) -> None:
    if kwargs.get("hybrid"):
        raise ValueError("hybrid is for similarity_search and similarity_search_with_score, not for this search")


def _encode(document: Document) -> dict[str, Any]:
    return {"id": document.id, "page_content": document.page_content, "metadata": document.metadata}


def _decode(fields: dict[str, Any]) -> Document:
    return Document(id=fields["id"], page_content=fields["page_content"], metadata=fields["metadata"])

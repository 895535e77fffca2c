"""Retrievers for a `pyengine.integrations.haystack.PyengineDocumentStore` in Haystack's pipelines."""

from __future__ import annotations

from typing import Any

from pyengine.integrations.haystack import PyengineDocumentStore  # first: it says what to install
from pyengine.integrations.haystack_metadata import in_thread

from haystack import Document, component, default_from_dict, default_to_dict  # isort: skip
from haystack.document_stores.types import FilterPolicy, apply_filter_policy  # isort: skip


@component
class PyengineEmbeddingRetriever:
    """`haystack.components.retrievers.in_memory.InMemoryEmbeddingRetriever` for a `PyengineDocumentStore`."""

    def __init__(
        self,
        document_store: PyengineDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool = False,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        self.document_store, self.filters, self.top_k = _checked(document_store), filters, _positive(top_k)
        self.scale_score, self.return_embedding = scale_score, return_embedding
        self.filter_policy = filter_policy

    def to_dict(self) -> dict[str, Any]:
        """The settings, and those of the store."""
        return _to_dict(self, "filters", "top_k", "scale_score", "return_embedding")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """A retriever of these settings, of an empty store."""
        return _from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        scale_score: bool | None = None,
        return_embedding: bool | None = None,
    ) -> dict[str, list[Document]]:
        """``documents``: the nearest."""
        found = self.document_store.embedding_retrieval(
            query_embedding,
            apply_filter_policy(self.filter_policy, self.filters, filters),
            self.top_k if top_k is None else top_k,
            self.scale_score if scale_score is None else scale_score,
            self.return_embedding if return_embedding is None else return_embedding,
        )
        return {"documents": found}

    run_async = component.output_types(documents=list[Document])(in_thread(run))


@component
class PyengineHybridRetriever:
    """Documents by embedding and by words (BM25), both rankings fused by reciprocal ranks."""

    def __init__(
        self,
        document_store: PyengineDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        self.document_store, self.filters, self.top_k = _checked(document_store), filters, _positive(top_k)
        self.filter_policy = filter_policy

    def to_dict(self) -> dict[str, Any]:
        """The settings, and those of the store."""
        return _to_dict(self, "filters", "top_k")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """A retriever of these settings, of an empty store."""
        return _from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """``documents``: the best by both."""
        filters = apply_filter_policy(self.filter_policy, self.filters, filters)
        k = self.top_k if top_k is None else top_k
        return {"documents": self.document_store.hybrid_retrieval(query, query_embedding, filters, k)}

    run_async = component.output_types(documents=list[Document])(in_thread(run))


def _checked(store: Any) -> PyengineDocumentStore:
    if not isinstance(store, PyengineDocumentStore):
        raise TypeError(f"document_store must be a PyengineDocumentStore; got a {type(store).__name__}")
    return store


def _positive(top_k: int) -> int:
    if top_k <= 0:
        raise ValueError(f"top_k must be above 0; got {top_k}")
    return top_k


def _to_dict(retriever: Any, *names: str) -> dict[str, Any]:
    settings: dict[str, Any] = {name: getattr(retriever, name) for name in names}
    store, policy = retriever.document_store, retriever.filter_policy.value
    settings = default_to_dict(retriever, document_store=store, filter_policy=policy, **settings)
    return settings


def _from_dict(cls: type, data: dict[str, Any]) -> Any:
    settings = dict(data.get("init_parameters", {}))
    if "filter_policy" in settings:
        settings["filter_policy"] = FilterPolicy.from_str(settings["filter_policy"])
    return default_from_dict(cls, data | {"init_parameters": settings})

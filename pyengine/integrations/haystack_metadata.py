"""What Haystack's stores tell of the metadata of their documents, and change by filter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import wraps
from json import dumps
from typing import Any, TypeVar

from pyengine.integrations.documents import Documents

T = TypeVar("T")
KINDS = ((bool, "boolean"), (int, "int"), (float, "float"))  # what is none of them is a keyword


def in_thread(method: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
    """The method as a coroutine, which runs in a thread."""

    @wraps(method)
    async def call(*args: Any, **kwargs: Any) -> T:
        return await asyncio.to_thread(method, *args, **kwargs)

    return call


class MetadataQueries:
    """The methods of a store for which the metadata is enough. Names of fields may begin with ``meta.``"""

    documents: Documents[Any]

    def _matching(self, filters: Mapping[str, Any] | None) -> list[Any]:
        """The stored documents that fit."""
        raise NotImplementedError

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Merge ``meta`` into the metadata of the documents that fit; how many these were."""
        found = self._matching(filters)
        names = [each.id for each in found]
        changed = [replace(each, meta={**each.meta, **meta}) for each in found]
        self.documents.put(names, changed, self.documents.vectors(names))
        return len(found)

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Remove the documents that fit; how many these were."""
        return self.documents.drop([each.id for each in self._matching(filters)])

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """How many documents fit."""
        return len(self._matching(filters))

    def count_unique_metadata_by_filter(self, filters: dict[str, Any], metadata_fields: list[str]) -> dict[str, int]:
        """How many values each field has in the documents that fit; 1 and 1.0 are one value."""
        found = self._matching(filters)
        fields = [field.removeprefix("meta.") for field in metadata_fields]
        return {field: len({_key(value) for value in _values(found, field)}) for field in fields}

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The type of each field: that of the last document's value."""
        pairs = [pair for each in self._matching(None) for pair in each.meta.items() if pair[1] is not None]
        return {field: {"type": _kind(value)} for field, value in pairs}

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The least and the largest value, None where there is none, or they do not compare."""
        field = metadata_field.removeprefix("meta.")
        values = [each for each in _values(self._matching(None), field) if isinstance(each, (int, float, str))]
        try:
            return {"min": min(values, default=None), "max": max(values, default=None)}
        except TypeError:
            return {"min": None, "max": None}

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """``size`` values of a field from ``from_`` on, ordered as strings, of those that hold the term in any case, in
        the documents that fit; and how many such values there are in all. 1, 1.0, True and "1" are four."""
        found = _values(self._matching(filters), metadata_field.removeprefix("meta."))
        values = {(type(each).__name__, _key(each)): each for each in found}
        ordered = sorted(values.items(), key=lambda item: (str(item[1]), item[0][0]))
        kept = [value for _, value in ordered if (search_term or "").lower() in str(value).lower()]
        return kept[from_ : from_ + size], len(kept)

    update_by_filter_async = in_thread(update_by_filter)
    delete_by_filter_async = in_thread(delete_by_filter)
    count_documents_by_filter_async = in_thread(count_documents_by_filter)
    count_unique_metadata_by_filter_async = in_thread(count_unique_metadata_by_filter)
    get_metadata_fields_info_async = in_thread(get_metadata_fields_info)
    get_metadata_field_min_max_async = in_thread(get_metadata_field_min_max)
    get_metadata_field_unique_values_async = in_thread(get_metadata_field_unique_values)


def _values(documents: Iterable[Any], field: str) -> Iterable[Any]:
    return (each.meta[field] for each in documents if each.meta.get(field) is not None)


def _kind(value: Any) -> str:
    return next((name for kind, name in KINDS if isinstance(value, kind)), "keyword")


def _key(value: Any) -> Any:
    """The value, hashable, whatever JSON it is."""
    return dumps(value, sort_keys=True, default=str) if isinstance(value, (dict, list, tuple)) else value

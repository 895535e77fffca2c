"""What is searched: documents and queries in every form that there is of them, and judgements."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from bench.ours.contestants import Unavailable
from pyengine.evaluate import Qrels
from pyengine.inputs.ragged import Ragged
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.types import F32, I64

WHERE = {  # what a collection lacks -> how to give it one
    "dense": "vectors: docs.npy and queries.npy in the folder, --encoder or --model",
    "tokens": "token vectors: docs.tokens.npy, docs.offsets.npy and those of the queries in the folder",
    "sparse": "sparse rows or texts: corpus.jsonl and queries.jsonl, or docs.sparse.jsonl and queries.sparse.jsonl",
    "run": "a first stage: run.trec in the folder",
}


@dataclass(frozen=True)
class Rows:
    """The same n things in several forms, None where there is none: ``dense`` float32 [n, D], ``tokens``, ``sparse``,
    and of queries ``run``, int64 [n, C]: documents that somebody else found, best first, -1 where there is no more."""

    dense: F32 | None = None
    tokens: Ragged | None = None
    sparse: SparseRows | None = None
    run: I64 | None = None

    def __len__(self) -> int:
        return max(len(form) for form in (self.dense, self.tokens, self.sparse) if form is not None)

    def take(self, which: I64) -> Rows:
        """These rows, in this order."""
        return Rows(
            None if self.dense is None else self.dense[which],
            None if self.tokens is None else self.tokens.take(which),
            None if self.sparse is None else self.sparse.take(which),
            None if self.run is None else self.run[which],
        )


@dataclass(frozen=True)
class Collection:
    """``doc_ids`` and ``query_ids`` name the rows. ``part`` is the same collection less the rows without tokens, where
    only some have them."""

    name: str
    docs: Rows
    queries: Rows
    doc_ids: list[str]
    query_ids: list[str]
    qrels: Qrels | None = None
    metric: str = "cosine"
    part: Collection | None = None

    def holding(self, *forms: str) -> Collection:
        """This collection, or its part, if it has all of those forms; `Unavailable` says what is missing."""
        for each in (self, self.part):
            if each is not None and not any(each.lacks(form) for form in forms):
                return each
        missing = next(form for form in forms if self.lacks(form))
        raise Unavailable(f"{self.name} has no {WHERE[missing]}")

    def lacks(self, form: str) -> bool:
        """Whether documents or queries have no such form."""
        return getattr(self.queries, form) is None or (form != "run" and getattr(self.docs, form) is None)

    def digest(self) -> str:
        """A hash of everything that an answer or its judgement depends on."""
        found = hashlib.blake2b(digest_size=16)
        for rows in (self.docs, self.queries):
            for field in fields(rows):
                found.update(field.name.encode())
                _feed(found, getattr(rows, field.name))
        for part in (self.doc_ids, self.query_ids, self.metric, sorted((self.qrels or {}).items())):
            found.update(repr(part).encode())
        if self.part is not None:
            found.update(self.part.digest().encode())
        return found.hexdigest()


def _feed(found: Any, form: Any) -> None:
    """The arrays of that form."""
    arrays: list[Any]
    if isinstance(form, Ragged):
        arrays = [form.values, form.offsets]
    elif isinstance(form, SparseRows):
        arrays = [form.indptr, form.indices, form.values]
    else:
        arrays = [] if form is None else [form]
    for array in arrays:
        found.update(repr((array.shape, array.dtype.str)).encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data)


def numbered(count: int) -> list[str]:
    """Names for rows that have none: their numbers."""
    return [str(row) for row in range(count)]

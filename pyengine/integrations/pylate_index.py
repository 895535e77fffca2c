"""An index for PyLate that is exact: MaxSim of whole documents, and not of what a search by tokens proposes.

    from pyengine.integrations.pylate_index import MaxSim

    index = MaxSim(index_folder="indexes", index_name="exact", embedding_size=128)
    index.add_documents(documents_ids=ids, documents_embeddings=embeddings)
    retrieve.ColBERT(index=index).retrieve(queries_embeddings, k=10)

Read against PyLate 1.6, whose `indexes.PLAID` it can replace. Different: see `DIFFERENCES`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.indexes.loading import load
from pyengine.indexes.multi_vector import MultiVectorIndex
from pyengine.integrations import parts
from pyengine.integrations.pylate import LIBRARY as LIBRARY
from pyengine.types import F32, I64, TopK

Base: Any = parts.library("pylate.indexes.base", LIBRARY).Base

DIFFERENCES = (
    "the index finds the best documents themselves, with the scores of the specification; documents are not padded",
    "an id that is in the index already, or is to be removed and is not, is a ValueError",
    "an index without documents finds nothing, without an error",
)


class MaxSim(Base):
    """Documents by ids, text or numbers, in ``index_folder``/``index_name``; what is there already is opened, or with
    ``override`` replaced by nothing. Every change is saved, which writes the whole index: add many documents at once.

    ``codec`` is that of `pyengine.MultiVectorIndex`: "int8" scores by the embeddings as they are given, "residual2"
    by what it keeps of them, in a fourteenth of the memory.
    """

    is_end_to_end_index = True

    def __init__(
        self,
        index_folder: str | Path = "indexes",
        index_name: str = "colbert",
        override: bool = False,
        embedding_size: int = 128,
        codec: str = "int8",
    ) -> None:
        self.folder = Path(index_folder) / index_name
        self.index = MultiVectorIndex(embedding_size, codec, None if codec.startswith("residual") else "ram")
        self._names: dict[int, int | str] = {}  # by number in the index; those of removed documents may be among them
        if override and self.folder.exists():
            self._save()
        if (self.folder / "index").exists():
            self._load()
        self._numbers = {self._names[number]: number for number in self.index.ids.tolist()}

    def __len__(self) -> int:
        return len(self.index)

    def add_documents(self, documents_ids: Any, documents_embeddings: Any, batch_size: int = 2000) -> MaxSim:
        """Add documents, arrays or tensors [L, D]; all or none. ``batch_size`` is ignored."""
        ids = _ids(documents_ids)
        docs = parts.sets_of(documents_embeddings, "documents_embeddings", self.index.dim)
        if len(ids) != len(docs):
            raise ValueError(f"documents_ids must be one for each document; got {len(ids)} for {len(docs)}")
        taken = [each for each, count in Counter(ids).items() if count > 1 or each in self._numbers]
        if taken:
            raise ValueError(f"documents_ids must be new, each once; got {taken[0]!r}")
        first = max(self._names, default=-1) + 1
        numbers = range(first, first + len(ids))
        self.index.add(docs, np.arange(first, first + len(ids)))
        self._names.update(zip(numbers, ids))
        self._numbers.update(zip(ids, numbers))
        self._save()
        return self

    def remove_documents(self, documents_ids: str | Sequence[int | str]) -> MaxSim:
        """Remove documents; all or none."""
        ids = _ids(documents_ids)
        self.index.remove(self._numbers_of(ids))
        for each in ids:
            self._numbers.pop(each, None)
        self._save()
        return self

    def __call__(
        self, queries_embeddings: Any, k: int = 10, subset: Sequence[Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        """For each query, [L, D], the k best documents, as dictionaries with ``id`` and ``score``, best first.

        ``subset`` are ids among which alone to look, for all queries, or a list of them for each; those of no document
        are passed over.
        """
        queries = parts.sets_of(queries_embeddings, "queries_embeddings", self.index.dim)
        if subset is None:
            found = self.index.search(queries, k)
        elif any(isinstance(each, (list, tuple, set, np.ndarray)) for each in subset):
            found = self.index.rerank(queries, [self._known(each) for each in subset], k)
        else:
            found = self.index.search(queries, k, allow=self._known(subset))
        return self._results(found)

    def get_documents_embeddings(self, documents_ids: Sequence[Sequence[int | str]]) -> list[list[F32]]:
        """The embeddings, float32 [L, D], of lists of documents."""
        return [list(self.index.tokens(self._numbers_of(each))) for each in documents_ids]

    def _results(self, found: TopK) -> list[list[dict[str, Any]]]:
        rows = zip(found.ids.tolist(), found.scores.tolist())
        return [
            [{"id": self._names[number], "score": score} for number, score in zip(*row) if number >= 0] for row in rows
        ]

    def _known(self, ids: Sequence[int | str]) -> I64:
        return np.array([self._numbers[each] for each in ids if each in self._numbers], np.int64)

    def _numbers_of(self, ids: Sequence[int | str]) -> I64:
        unknown = next((each for each in ids if each not in self._numbers), None)
        if unknown is not None:
            raise ValueError(f"documents_ids must be in the index; got {unknown!r}")
        return self._known(ids)

    def _save(self) -> None:
        """Names first: whatever stops this, the index on disk has a name for each of its documents."""
        self.folder.mkdir(parents=True, exist_ok=True)
        written = self.folder / "names.json.tmp"
        written.write_text(json.dumps(list(self._names.items())), encoding="utf-8")
        os.replace(written, self.folder / "names.json")
        self.index.save(self.folder / "index")

    def _load(self) -> None:
        index = load(self.folder / "index")
        names = dict(json.loads((self.folder / "names.json").read_text(encoding="utf-8")))
        wanted, there = (
            (type(each).__name__, each.dim, each.codec) if isinstance(each, MultiVectorIndex) else type(each).__name__
            for each in (self.index, index)
        )
        if wanted != there:
            raise ValueError(f"index_folder must hold an index like {wanted}; got {there}")
        self.index, self._names = index, {number: names[number] for number in index.ids.tolist()}


def _ids(given: str | Sequence[int | str]) -> list[int | str]:
    each = [given] if isinstance(given, str) else given
    return [name if isinstance(name, str) else checks.integer(name, "documents_ids") for name in each]

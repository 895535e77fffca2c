"""Documents with names over the engine: what the stores of LangChain, LlamaIndex and Haystack have in common.

A document is a record of its library's kind, under a name (a string), with a vector or without one, and a text.
Vectors are searched by a `pyengine.DenseIndex`, texts by BM25 (Lucene's, k1 = 0.9, b = 0.4) over a
`pyengine.SparseIndex`, and both rankings are fused by `pyengine.fuse`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from pyengine import checks
from pyengine.fuse import fuse
from pyengine.indexes.index import DenseIndex
from pyengine.integrations.documents_words import NOTHING, Words
from pyengine.searches.dense import topk
from pyengine.types import F32, F64, Bool, TopK

R = TypeVar("R")  # the record of a document
T = TypeVar("T")
Keep = Callable[[R], Any]  # whether a document may be returned

DEPTH = 100  # results of each ranking that is fused, at least


class Entry(NamedTuple):
    """A document as it is kept."""

    name: str
    record: Any
    has_vector: bool


class Hit(NamedTuple):
    """A document that was found. The record is the store's own: a face hands out copies."""

    name: str
    record: Any
    score: float


class Documents(Generic[R]):
    """Named documents, searched by vector, by words or by both; each search sees one state of them.

    Parameters
    ----------
    library : str
        Whose records these are. A saved store says so, and is read back by the same.
    text : function of a record
        The words to search.
    metric : "cosine" or "dot"
    language : str or None
        Of `pyengine.Analyzer`, made at the first search by words: None does without PyStemmer.

    Scores are exact, ties go to the document that was written first, and a document that is written again counts as
    new. BM25 depends on all texts: the first search by words after a change counts them anew, in time that grows with
    the store; each text is split into words once.
    """

    def __init__(
        self, library: str, text: Callable[[R], str], metric: str = "cosine", language: str | None = "english"
    ) -> None:
        self.library, self.text, self.language = library, text, language
        self.metric = checks.choice(metric, "metric", ("cosine", "dot"))
        self._lock = RLock()  # of those who change it
        self._changes = 0  # odd during a change
        self._next = 0
        self._numbers: dict[str, int] = {}
        self._entries: dict[int, Entry] = {}  # by number, which is the id that the engine knows
        self._dense: DenseIndex | None = None  # until there is a vector
        self._words = Words(language)

    def __reduce__(self) -> Any:
        found, vectors = self.state()
        return _made, (self.library, self.text, self.metric, self.language, found, vectors)

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def put(self, names: Sequence[str], records: Sequence[R], vectors: Any) -> None:
        """Write documents, in the place of those that have these names; of a name that comes twice, the last. Of the
        vectors, an array [n, D] or a list of n, some may be None. ValueError or TypeError for what does not fit, and
        nothing is written."""
        last = sorted({name: place for place, name in enumerate(names)}.values())
        rows = [place for place in last if vectors[place] is not None]
        with self._changing():
            numbers = dict(zip(last, range(self._next, self._next + len(last))))
            if rows:
                given = checks.vectors([vectors[place] for place in rows], "vectors")
                if not self._dense:  # none, or an empty one, which may have had other dimensions
                    self._dense = DenseIndex(given.shape[1], self.metric)
                self._dense.add(given, [numbers[place] for place in rows])
            self._next += len(last)  # nothing fails from here on
            self._forget([names[place] for place in last])
            for place, number in numbers.items():
                self._numbers[names[place]] = number
                self._entries[number] = Entry(names[place], records[place], vectors[place] is not None)

    def drop(self, names: Iterable[str]) -> int:
        """Remove the documents of these names, those that there are; how many these were."""
        with self._changing():
            return self._forget(names)

    def clear(self) -> None:
        """Remove all."""
        with self._changing():
            self._numbers, self._entries, self._dense, self._words = {}, {}, None, Words(self.language)

    def _forget(self, names: Iterable[str]) -> int:
        numbers = [number for name in names if (number := self._numbers.pop(name, None)) is not None]
        entries = [self._entries.pop(number) for number in numbers]
        self._words.changed(numbers)
        if self._dense is not None:
            self._dense.remove([number for number, entry in zip(numbers, entries) if entry.has_vector])
        return len(numbers)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            self._changes += 1
            try:
                yield
            finally:
                self._changes += 1

    def _steady(self, read: Callable[[], T]) -> T:
        """What ``read`` finds in one state: once more, with changes held off, if one came between."""
        before = self._changes
        if before % 2 == 0:
            try:
                found = read()
            except Exception:
                if self._changes == before:
                    raise
            else:
                if self._changes == before:
                    return found
        with self._lock:
            return read()

    def get(self, names: Iterable[str]) -> list[tuple[str, R]]:
        """The documents of these names, those that there are."""
        return self._steady(lambda: [self._entries[self._numbers[name]][:2] for name in names if name in self._numbers])

    def all(self, keep: Keep[R] | None = None) -> list[tuple[str, R]]:
        """Names and records, in the order of writing."""
        return [each[:2] for each in list(self._entries.values()) if keep is None or keep(each.record)]

    def state(self) -> tuple[list[tuple[str, R]], list[F32 | None]]:
        """`all`, and their `vectors`."""

        def read() -> tuple[list[tuple[str, R]], list[F32 | None]]:
            found = self.all()
            return found, self._vectors([name for name, _ in found])

        return self._steady(read)

    def vectors(self, names: Sequence[str]) -> list[F32 | None]:
        """The vectors [D] of documents, None where there is none, or no such document."""
        return self._steady(lambda: self._vectors(names))

    def _vectors(self, names: Sequence[str]) -> list[F32 | None]:
        numbers = {name: number for name in names if (number := self._numbers.get(name)) is not None}
        having = {name: number for name, number in numbers.items() if self._entries[number].has_vector}
        if self._dense is None or not having:
            return [None] * len(names)
        rows = dict(zip(having, self._dense.vectors(list(having.values()))))
        return [rows.get(name) for name in names]

    def nearest(self, vector: Any, k: int, keep: Keep[R] | None = None) -> list[Hit]:
        """The k best by vector, best first; fewer where there are no more, or ``keep`` is false of them."""
        return self._steady(lambda: self._hits(self._by_vector(vector, k, self._kept(keep))))

    def matching(self, text: str, k: int, keep: Keep[R] | None = None) -> list[Hit]:
        """The k best by BM25 among those that share a word with the text."""
        return self._steady(lambda: self._hits(self._by_words(text, k, self._kept(keep))))

    def both(
        self, vector: Any, text: str, k: int, keep: Keep[R] | None = None, share: float | None = None,
        depths: tuple[int, int] | None = None,
    ) -> list[Hit]:  # fmt: skip
        """The k best by vector and words together: by reciprocal ranks, or with ``share``, from 0 (words) to 1
        (vectors), by that mean of scores stretched to 0 .. 1. ``depths``: how many of each ranking are fused."""
        by_vector, by_words = (max(k, DEPTH), max(k, DEPTH)) if depths is None else depths
        how: dict[str, Any] = {} if share is None else {"method": "convex", "weights": (share, 1 - share)}

        def search() -> list[Hit]:
            kept = self._kept(keep)
            parts = [self._by_vector(vector, by_vector, kept), self._by_words(text, by_words, kept)]
            return self._hits(fuse(parts, k, **how)) if k > 0 else []

        return self._steady(search)

    def diverse(
        self, vector: Any, k: int, pool: int | None, balance: float, keep: Keep[R] | None = None, recent: bool = False
    ) -> list[Hit]:
        """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): one after the other, the document of the
        ``pool`` nearest (None: of all) with the largest balance * similarity to the query - (1 - balance) * its largest
        similarity to those chosen before (``recent``: to the last of them). The score is that; the first is the
        nearest, with balance * similarity. Similarities are the engine's scores, and ties go to the nearer."""
        return self._steady(lambda: self._hits(self._spread(vector, k, pool, balance, self._kept(keep), recent)))

    def _spread(self, vector: Any, k: int, pool: int | None, balance: float, kept: Bool | None, recent: bool) -> TopK:
        found = self._by_vector(vector, len(self) if pool is None else pool, kept)
        ids = found.ids[found.ids >= 0]
        similar = balance * found.scores[found.ids >= 0].astype(np.float64)
        value, redundant, free = similar, np.full(len(ids), -np.inf), np.ones(len(ids), bool)
        chosen: list[int] = []
        scores: list[float] = []
        vectors = self._dense.vectors(ids) if self._dense else np.empty((0, 1), np.float32)
        while len(chosen) < min(k, len(ids)):
            best = int(np.argmax(np.where(free, value, -np.inf)))
            free[best] = False
            chosen.append(best)
            scores.append(value[best])
            overlap = similarities(vectors, best, self.metric)
            redundant = overlap if recent else np.maximum(redundant, overlap)
            value = similar - (1 - balance) * redundant
        return TopK(np.array([scores]), ids[None, chosen], found.certified)

    def _by_vector(self, vector: Any, k: int, kept: Bool | None) -> TopK:
        if not self._dense or k < 1:
            return NOTHING
        if kept is not None and len(self._dense) < len(kept):  # which has one row for each vector, in the same order
            kept = kept[[entry.has_vector for entry in self._entries.values()]]
        return self._dense.search(checks.host_array(vector, "query")[None], min(k, len(self._dense)), mask=kept)

    def _by_words(self, text: str, k: int, kept: Bool | None) -> TopK:
        if k < 1 or not self._entries:
            return NOTHING
        with self._lock:
            lexicon = self._words.lexicon(self._entries, lambda number: self.text(self._entries[number].record))
        return lexicon.search(text, k, kept)

    def _kept(self, keep: Keep[R] | None) -> Bool | None:
        """bool [N]: which documents, in the order of writing, may be returned; None for all."""
        if keep is None:
            return None
        if not callable(keep):
            raise TypeError(f"filter must be a function of a document; got {keep!r}")
        entries = self._entries.copy()
        return np.fromiter((keep(entry.record) for entry in entries.values()), bool, len(entries))

    def _hits(self, found: TopK) -> list[Hit]:
        entries = self._entries
        pairs = zip(found.ids[0].tolist(), found.scores[0].tolist())
        return [Hit(*entries[number][:2], score) for number, score in pairs if number in entries]  # -1 is a pad


def _made(
    library: str, text: Callable[[R], str], metric: str, language: str | None, found: Sequence[tuple[str, R]],
    vectors: Sequence[F32 | None],
) -> Documents[R]:  # fmt: skip
    """A copy of a store, of its `Documents.state`."""
    documents = Documents(library, text, metric, language)
    documents.put([name for name, _ in found], [record for _, record in found], vectors)
    return documents


def similarities(vectors: F32, of: int, metric: str) -> F64:
    """float64 [n]: the scores of all vectors [n, D] for one of them."""
    found = topk(vectors[of : of + 1], vectors, len(vectors), metric=metric)
    scores = np.empty(len(vectors))
    scores[found.ids[0]] = found.scores[0]
    return scores

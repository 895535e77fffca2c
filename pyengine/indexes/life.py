"""What every index does with its documents: count them, drop them, save them. Adding and searching are its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any, ClassVar, Generic

import numpy as np

from pyengine import checks
from pyengine.backends import registry
from pyengine.indexes import storage
from pyengine.indexes.contents import Contents
from pyengine.indexes.ids import RowIds
from pyengine.indexes.row_store import S
from pyengine.refining import exact
from pyengine.types import I64

MAX_ID = 2**63 - 1


class Index(Generic[S]):
    """Documents with ids. Searches may run while other threads add and remove: each sees one state of the index, as
    does `save`. A call that fails changes nothing, nor does one that Ctrl-C stops."""

    kind: ClassVar[str]  # what a manifest calls it
    settings: ClassVar[tuple[str, ...]]  # the attributes, also arguments, that it is made from

    def __init__(self, empty: S, backend: str) -> None:
        self.backend = checks.choice(backend, "backend", ("auto", *registry.names()))
        self._contents = Contents(empty, RowIds())
        self._lock = RLock()  # of those who change it; who reads `_contents` needs none
        self._changing = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_contents": self._contents.detached(), "_lock": None, "_changing": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())

    def __len__(self) -> int:
        return len(self._contents)

    @property
    def ids(self) -> I64:
        """The ids in the order that ``mask`` and ``bias`` follow, int64 [len(self)]: that of adding."""
        return self._contents.ids

    @contextmanager
    def _change(self) -> Iterator[Contents[S]]:
        """What to change, one thread at a time; what an earlier failed attempt appended is dropped."""
        with self._lock:
            if self._changing:
                raise RuntimeError("documents must not come from an iterator that changes the index they are added to")
            self._changing = True
            try:
                self._contents.forget_beyond()
                yield self._contents
            finally:
                self._changing = False

    def _add(
        self, pieces: Iterator[tuple[Any, I64 | None]], total: int | None, replacing: bool = False, entries: int = 0
    ) -> None:
        """Append rows, as the store takes them, with their ids (None: counting on), all or nothing; ``total`` rows if
        that is known, and so many ``entries`` (0: unknown). Where they are ``replacing``, their ids are there, and what
        had them is dropped."""
        with self._change() as contents:
            contents, pieces = contents.readied(pieces)
            added, largest, old = 0, contents.largest_id, [np.empty(0, np.int64)]
            for rows, given in pieces:
                if added == 0 and total is not None:
                    contents.reserve(total, entries)
                new_ids = _count_on(largest, len(rows)) if given is None else given
                old.append(_replaced(contents, new_ids) if replacing else _none_of(contents, new_ids, largest))
                with exact.arithmetic():
                    contents.append(rows, new_ids, first=added)
                added, largest = added + len(rows), max(largest, int(new_ids.max()))
            if added:
                grown, gone = contents.grown(largest), np.concatenate(old)
                self._publish(grown.without(gone) if len(gone) else grown)

    def _publish(self, contents: Contents[S]) -> None:
        self._contents = contents
        if 2 * len(contents) < contents.n_rows:
            with suppress(MemoryError, OSError):  # it can wait
                self._contents = contents.compacted()

    def remove(self, ids: Any) -> None:
        """Remove documents by id, in constant time each: they are masked, until more than half of the rows are and
        `compact` follows by itself. Raises ValueError, removing none, if one of the ids is unknown."""
        gone = checks.id_list(checks.unordered(ids))
        with self._change() as contents:
            rows = contents.rows_of(gone)
            if len(gone):
                self._publish(contents.without(rows))

    def compact(self) -> None:
        """Give back the memory of removed documents. Answers stay the same; it takes as long as copying the rest."""
        with self._change() as contents:
            self._contents = contents.compacted()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to the folder ``path``, which is made, or must be empty or a saved index.

        Whatever stops it, and be it kill -9, the folder holds the old index or the new one, whole. Removed documents
        are left out; ``backend`` and ``directory`` are not kept. Others may search and change the index meanwhile.
        Raises ValueError for a folder with other things in it, OSError when the disk is full.
        """
        contents = self._contents
        rows = None if contents.living is None else contents.living.rows
        ids = (contents.row_ids.head(contents.n_rows), rows)
        facts = {name: getattr(self, name) for name in self.settings}
        facts |= {"documents": len(contents), "largest_id": contents.largest_id}
        arrays = {"ids": ids, **contents.store.chosen(contents.n_rows, rows)}
        lengths = {name: len(array if kept is None else kept) for name, (array, kept) in arrays.items()}
        storage.write(checks.path(path, "path"), self.kind, facts | contents.store.sizes_of(lengths), arrays)

    def _backend(self, name: str | None) -> str:
        return self.backend if name is None else name


def _count_on(largest: int, count: int) -> I64:
    """The next ``count`` ids above ``largest``."""
    first = largest + 1
    if first + count > MAX_ID:
        raise ValueError(f"ids must be given, since counting on from {first} would pass 2^63-1; got None")
    return first + np.arange(count, dtype=np.int64)


def _none_of(contents: Contents[S], ids: I64, largest: int) -> I64:
    """No rows: none has these ids, of which only those up to ``largest`` were ever used."""
    used = ids[ids <= largest]
    rows, known = contents.find(used)
    if known.any():
        raise ValueError(f"ids must be new; id {used[known][0]} is in the index already")
    return rows[:0]


def _replaced(contents: Contents[S], ids: I64) -> I64:
    """The rows that have these ids."""
    rows, known = contents.find(ids)
    if not known.all():
        raise ValueError(f"ids must be in the index; id {ids[~known][0]} is not")
    again = rows >= contents.n_rows
    if again.any():
        raise ValueError(f"ids must be replaced once; id {ids[again][0]} comes again")
    return rows

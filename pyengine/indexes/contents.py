"""What an index holds at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from pyengine.indexes.ids import RowIds
from pyengine.indexes.row_store import S
from pyengine.inputs.living import Living
from pyengine.types import I64


@dataclass(frozen=True)
class Contents(Generic[S]):
    """One state of an index, which never changes: an index goes from state to state by one assignment, and whoever
    reads one needs no lock.

    The first ``n_rows`` rows of ``store`` and ``row_ids`` belong to it, less those that ``living`` lacks (None: all
    live). What lies beyond is not seen yet. ``largest_id`` is the largest ever used, or -1; ``cache`` holds what
    backends derived from these rows.
    """

    store: S
    row_ids: RowIds
    n_rows: int = 0
    living: Living | None = None
    largest_id: int = -1
    cache: dict[Any, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.n_rows if self.living is None else len(self.living)

    @cached_property
    def ids(self) -> I64:
        """The ids of the documents, int64 [len(self)]; read-only."""
        head: I64 = self.row_ids.head(self.n_rows)
        ids = head.view() if self.living is None else head[self.living.rows]
        ids.flags.writeable = False
        return ids

    def find(self, ids: I64) -> tuple[I64, NDArray[np.bool_]]:
        """The rows of these ids, int64 [n], and which of them are documents here, or were appended since."""
        rows = self.row_ids.rows_of(ids)
        found = rows >= 0
        if self.living is not None:
            old = np.flatnonzero(found & (rows < self.n_rows))
            found[old] = self.living.has(rows[old])
        return rows, found

    def rows_of(self, ids: I64) -> I64:
        """The rows of these documents. Raises ValueError, naming the first id that is not one of them."""
        rows, known = self.find(ids)
        for place in np.flatnonzero(rows >= self.n_rows):  # one that replaces it is being added, or could not be
            before = np.flatnonzero(self.row_ids.head(self.n_rows) == ids[place])[-1:]
            known[place] = len(before) > 0 and (self.living is None or bool(self.living.has(before)[0]))
            rows[place] = before[0] if len(before) else -1
        if not known.all():
            raise ValueError(f"ids must be in the index; id {ids[~known][0]} is not")
        return rows

    def forget_beyond(self) -> None:
        """Drop what was appended by a call that failed."""
        self.store.truncate(self.n_rows)
        self.row_ids.truncate(self.n_rows)

    def reserve(self, count: int, entries: int) -> None:
        self.store.reserve(count, entries)
        self.row_ids.reserve(count)

    def readied(self, pieces: Iterator[Any]) -> tuple[Contents[S], Iterator[Any]]:
        """What these first pieces may be added to, and all of them: see `RowStore.readied`."""
        store, pieces = self.store.readied(pieces)
        return self if store is self.store else replace(self, store=store, cache={}), pieces

    def append(self, rows: Any, ids: I64, first: int) -> None:
        """Rows as the store takes them. Raises ValueError for one with NaN or inf, counting them from ``first``."""
        self.store.append(rows, first)
        self.row_ids.append(ids)

    def grown(self, largest_id: int) -> Contents[S]:
        """With all that was appended since."""
        n_rows = len(self.row_ids)
        living = None if self.living is None else self.living.with_more(n_rows)
        return Contents(self.store.grown(n_rows), self.row_ids, n_rows, living, largest_id)

    def without(self, rows: I64) -> Contents[S]:
        """Without these documents, each listed once."""
        living = Living.all(self.n_rows) if self.living is None else self.living
        return replace(self, living=living.without(rows))

    def compacted(self) -> Contents[S]:
        """The same documents in new arrays, with no dead rows between them."""
        if self.living is None:
            return self
        rows = self.living.rows
        return Contents(self.store.picked(rows), self.row_ids.picked(rows), len(rows), largest_id=self.largest_id)

    def detached(self) -> Contents[S]:
        """The same, in arrays that grow apart from these."""
        heads = {name: self.store.arrays[name].adopted(head) for name, head in self.store.heads(self.n_rows).items()}
        row_ids = self.row_ids.adopted(self.row_ids.head(self.n_rows))
        return replace(self, store=self.store.holding(heads), row_ids=row_ids, cache={})

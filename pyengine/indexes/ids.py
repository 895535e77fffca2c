"""The id of each row, and the row of each id."""

from __future__ import annotations

import numpy as np

from pyengine.indexes.arrays import GrowingArray
from pyengine.types import I64


class RowIds(GrowingArray):
    """The ids of rows, int64 [N], which can also be looked up.

    Ids that ascend from row to row are found by bisection, which keeps nothing. From the first that does not, a table
    has them, made when something is first looked up. An id may be given again once its row is dead: the last row
    with it is the one that counts.
    """

    def __init__(self) -> None:
        super().__init__(np.int64)
        self._ascending = 0  # rows from the first on whose ids ascend
        self._seen = 0  # rows looked at
        self._table: dict[int, int] = {}  # of the rows in between

    def new(self) -> RowIds:
        return RowIds()

    def truncate(self, size: int) -> None:
        super().truncate(size)
        if self._seen > size:
            self._ascending, self._seen, self._table = 0, 0, {}

    def rows_of(self, wanted: I64) -> I64:
        """int64 [n]: the last row that has each of these ids, -1 where none has."""
        ids = self.view
        self._look_at(ids)
        rows = _bisect(ids[: self._ascending], wanted)
        if self._table:
            later = np.fromiter((self._table.get(each, -1) for each in wanted.tolist()), np.int64, len(wanted))
            rows = np.maximum(rows, later)
        return rows

    def _look_at(self, ids: I64) -> None:
        """Look at the rows that came since."""
        if self._seen == self._ascending:
            start = max(0, self._seen - 1)
            breaks = np.flatnonzero(ids[start + 1 :] <= ids[start:-1])
            self._ascending = start + 1 + int(breaks[0]) if breaks.size else len(ids)
            self._seen = self._ascending
        self._table.update(zip(ids[self._seen :].tolist(), range(self._seen, len(ids))))
        self._seen = len(ids)


def _bisect(ascending: I64, wanted: I64) -> I64:
    if not len(ascending):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[at] == wanted, at, -1)

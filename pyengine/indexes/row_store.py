"""What every store is: arrays that grow together, one entry per row in each."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyengine.indexes.arrays import GrowingArray
from pyengine.types import I64

Arrays = dict[str, NDArray[Any]]
Layout = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]  # dtypes and shapes by name
S = TypeVar("S", bound="RowStore")
SHARED = ("centroids",)  # arrays that are not one entry per row


class RowStore:
    """Rows kept as ``arrays`` by name, which grow together: what was given out is never written again."""

    arrays: dict[str, GrowingArray]
    bulk: ClassVar[frozenset[str]] = frozenset()  # arrays that are too long to be looked at when they are loaded

    def append(self, rows: Any, first: int = 0) -> None:
        """Add rows. Raises ValueError for one that it cannot hold, counting them from ``first``."""
        raise NotImplementedError

    def reserve(self, count: int, entries: int = 0) -> None:
        """Make room for ``count`` more rows; where rows have any number of entries, for so many more of them."""
        for array in self.arrays.values():
            array.reserve(count)

    def readied(self: S, pieces: Iterator[Any]) -> tuple[S, Iterator[Any]]:
        """The store that these pieces of rows, each with its ids, may be added to; and all of them."""
        return self, pieces

    def grown(self: S, count: int) -> S:
        """The store by which ``count`` rows are to be seen, all that it has."""
        return self

    def truncate(self, size: int) -> None:
        """Forget the rows from ``size`` on, which nobody has seen."""
        for array in self.arrays.values():
            array.truncate(size)

    @property
    def share(self) -> Arrays:
        """The arrays that all rows share."""
        return {name: array.view for name, array in self.arrays.items() if name in SHARED}

    def heads(self, count: int) -> Arrays:
        """The first ``count`` rows of each array."""
        return {name: array.head(count) for name, array in self.arrays.items()}

    def chosen(self, count: int, rows: I64 | None) -> dict[str, tuple[NDArray[Any], I64 | None]]:
        """The first ``count`` rows of each array, and which entries of them ``rows`` (None: all) are."""
        return {name: (head, rows) for name, head in self.heads(count).items()}

    def picked(self: S, rows: I64) -> S:
        """A new store of these rows, in this order."""
        return self.holding({name: array.picked(rows) for name, array in self.arrays.items()})

    def holding(self: S, arrays: Mapping[str, GrowingArray]) -> S:
        """A store like this of other arrays."""
        other = copy.copy(self)
        other.arrays = dict(arrays)
        return other

    def nbytes(self, count: int) -> int:
        """What ``count`` rows take."""
        return sum(head.nbytes for head in self.heads(count).values())

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the numbers, besides that of rows, that say how long its arrays are."""
        return ()

    def sizes_of(self, lengths: Mapping[str, int]) -> dict[str, int]:
        """Those numbers, where arrays have these lengths."""
        return {}

    def lengths(self, count: int, sizes: Mapping[str, int]) -> dict[str, int]:
        """How many entries each array of ``count`` rows has."""
        return dict.fromkeys(self.arrays, count)

    def layout(self, count: int, sizes: Mapping[str, int], listed: Mapping[str, Any]) -> Layout:
        """The arrays of ``count`` rows, where a manifest lists these entries."""
        lengths = self.lengths(count, sizes)
        return {name: (array.dtype, (lengths[name], *array.width)) for name, array in self.arrays.items()}

    def flaw(self, heads: Arrays) -> str | None:
        """What is wrong with arrays of the right lengths that somebody gives; None where they can be its own."""
        for name, head in ((name, heads[name]) for name in self.arrays if name not in self.bulk):
            if head.ndim == 1 and head.dtype.kind == "f" and not np.isfinite(head).all():
                return f"an array {name!r} of finite numbers"
        return None

    def loaded(self: S, heads: Arrays, count: int) -> S:
        """A store that begins with these arrays of ``count`` rows."""
        return self.holding({name: array.adopted(heads[name]) for name, array in self.arrays.items()})

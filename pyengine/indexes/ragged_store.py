"""A store whose rows have any number of entries each: documents of tokens, and sparse rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyengine.indexes.arrays import GrowingArray, blocks
from pyengine.indexes.row_store import SHARED, Arrays, RowStore
from pyengine.inputs import ragged
from pyengine.types import I64

R = TypeVar("R", bound="RaggedStore")


def offsets_array() -> GrowingArray:
    """Offsets of no rows yet."""
    offsets = GrowingArray(np.int64)
    offsets.append(np.zeros(1, np.int64))
    return offsets


class RaggedStore(RowStore):
    """Arrays of entries; ``offsets`` [N+1] of the rows among them; one value per row in those of ``per_row``; and what
    all rows share."""

    unit: ClassVar[str]  # what entries are, in the manifest
    per_row: ClassVar[tuple[str, ...]] = ()

    @property
    def offsets(self) -> I64:
        offsets: I64 = self.arrays["offsets"].view
        return offsets

    def _entries(self) -> list[str]:
        """The names of the arrays with one value per entry."""
        return [name for name in self.arrays if name not in ("offsets", *self.per_row, *SHARED)]

    def _rows(self) -> list[str]:
        """The names of those with one value per row."""
        return [name for name in self.arrays if name in self.per_row]

    def reserve(self, count: int, entries: int = 0) -> None:
        for name in ("offsets", *self._rows()):
            self.arrays[name].reserve(count)
        for name in self._entries():
            self.arrays[name].reserve(entries)

    def extend(self, parts: Arrays, offsets: I64) -> None:
        """Append these values of the entries of some rows, which lie as ``offsets`` say, and of the rows."""
        ends = self.offsets[-1] + offsets[1:]
        for name in (*self._entries(), *self._rows()):
            self.arrays[name].append(parts[name])
        self.arrays["offsets"].append(ends)

    def truncate(self, size: int) -> None:
        n_entries = int(self.offsets[size])
        for name, length in self.lengths(size, self._sizes(n_entries)).items():
            self.arrays[name].truncate(length)

    def heads(self, count: int) -> Arrays:
        lengths = self.lengths(count, self._sizes(int(self.offsets[count])))
        return {name: array.head(lengths[name]) for name, array in self.arrays.items()}

    def chosen(self, count: int, rows: I64 | None) -> dict[str, tuple[NDArray[Any], I64 | None]]:
        heads = self.heads(count)
        kept: dict[str, I64 | None] = dict.fromkeys(heads)
        if rows is not None:
            places, heads["offsets"] = ragged.taken(heads["offsets"], rows)
            kept |= dict.fromkeys(self._entries(), places) | dict.fromkeys(self._rows(), rows)
        return {name: (head, kept[name]) for name, head in heads.items()}

    def picked(self: R, rows: I64) -> R:
        lengths = np.diff(self.offsets)[rows]
        own = {name: self.arrays[name].new() for name in self._entries()}
        for array in own.values():
            array.reserve(int(lengths.sum()))
        widest = max(8, *(array.row_bytes for array in own.values()))
        for block in blocks(len(rows), widest * int(lengths.sum()) // max(1, len(rows))):
            places, _ = ragged.taken(self.offsets, rows[block])
            for name, array in own.items():
                array.append(self.arrays[name].view[places])
        own |= {name: self.arrays[name].picked(rows) for name in self._rows()}
        own["offsets"] = self.arrays["offsets"].adopted(np.concatenate([[0], np.cumsum(lengths)]))
        return self.holding(self.arrays | own)

    def _sizes(self, n_entries: int) -> dict[str, int]:
        return {self.unit: n_entries} | {name: len(self.arrays[name]) for name in self.arrays if name in SHARED}

    @property
    def sizes(self) -> tuple[str, ...]:
        return (self.unit, *self.share)

    def sizes_of(self, lengths: Mapping[str, int]) -> dict[str, int]:
        return {self.unit: lengths[self._entries()[0]]} | {name: lengths[name] for name in self.share}

    def lengths(self, count: int, sizes: Mapping[str, int]) -> dict[str, int]:
        """``sizes`` are the numbers of entries, and of what all share."""
        whole = {name: sizes[name] for name in self.share}
        each = dict.fromkeys(self._entries(), sizes[self.unit]) | dict.fromkeys(self._rows(), count)
        return each | whole | {"offsets": count + 1}

    def flaw(self, heads: Arrays) -> str | None:
        offsets, n_entries = heads["offsets"], len(heads[self._entries()[0]])
        if offsets[0] == 0 and offsets[-1] == n_entries and (offsets[1:] >= offsets[:-1]).all():
            return super().flaw(heads)
        return f"offsets that rise from 0 to its {n_entries} {self.unit}"

"""Which rows of a corpus are documents, where some were removed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine.types import I64, U8


@dataclass(frozen=True)
class Living:
    """A bitmap uint8 [ceil(n_rows/8)] of the rows that may be returned; the others, ``n_dead`` of them, were removed.

    Callers know the living only, in the order of their rows: what they give per document is spread over all rows here.
    """

    bits: U8
    n_rows: int
    n_dead: int = 0

    @classmethod
    def all(cls, n_rows: int) -> Living:
        return cls(np.empty(0, np.uint8), 0).with_more(n_rows)

    def __len__(self) -> int:
        return self.n_rows - self.n_dead

    @cached_property
    def rows(self) -> I64:
        """The rows that live, int64 [len(self)], rising."""
        return np.flatnonzero(np.unpackbits(self.bits, count=self.n_rows, bitorder="little"))

    def has(self, rows: I64) -> NDArray[np.bool_]:
        """Which of these rows live."""
        alive: NDArray[np.bool_] = (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(bool)
        return alive

    def without(self, rows: I64) -> Living:
        """Without these living rows, each listed once."""
        bits = self.bits.copy()
        np.bitwise_and.at(bits, rows >> 3, ~np.left_shift(1, rows & 7).astype(np.uint8))
        return Living(bits, self.n_rows, self.n_dead + len(rows))

    def with_more(self, n_rows: int) -> Living:
        """Up to ``n_rows`` rows, of which the new ones live."""
        bits = np.full(-(-n_rows // 8), 255, np.uint8)
        bits[: len(self.bits)] = self.bits
        if self.n_rows % 8:
            bits[self.n_rows // 8] |= 255 << self.n_rows % 8 & 255
        if n_rows % 8:
            bits[-1] &= (1 << n_rows % 8) - 1
        return Living(bits, n_rows, self.n_dead)

    def mask(self, given: U8 | None) -> U8:
        """A bitmap over the documents, [1 or Q, ceil(len(self)/8)] or None, as one over all rows."""
        if given is None:
            return self.bits[None]
        spread = np.empty((len(given), len(self.bits)), np.uint8)
        for bits, own in zip(given, spread):
            allowed = np.zeros(self.n_rows, bool)
            allowed[self.rows] = np.unpackbits(bits, count=len(self), bitorder="little")
            own[:] = np.packbits(allowed, bitorder="little")
        return spread

    def spread(self, values: NDArray[Any] | None) -> NDArray[Any] | None:
        """One value per document [len(self)] as one per row, 0 where it is dead."""
        if values is None:
            return None
        wide = np.zeros(self.n_rows, values.dtype)
        wide[self.rows] = values
        return wide

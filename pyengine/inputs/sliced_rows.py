"""Densified lexical vectors: a weight for each slice of a vocabulary, and which term of the slice it is of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.types import F32, I64, U8, Bool

INDICES = 256  # that a byte tells apart
DEPTH_STEP = 64  # bytes to which the extension wants rows padded
PORTION = 1 << 20  # weights that are converted together


@dataclass(frozen=True, eq=False, init=False)
class SlicedRows:
    """n vectors of D weights, each with an index: the product of two vectors takes a position where the indices are
    equal, and leaves it out where not, sum_p q_p d_p [i_p = j_p]: the gated inner product of DSR (arXiv 2112.04666)
    and of DHR (arXiv 2206.09912). A position is a slice of the vocabulary, and the index says which of its terms the
    weight belongs to.

    Parameters
    ----------
    values : real [n, D]
        Weights of either sign, rounded to float32. A weight of 0 is no term, whatever its index.
    slices : int [n, D]
        Indices, 0 .. 255.

    The fields are float32 [n, D] and uint8 [n, D]. What already is that is not copied (indices where D is a multiple of
    64), so that it must not be written to later. Rows that are searched on the CPU keep their int8 codes once they are
    made, D bytes more each. Raises ValueError or TypeError naming the argument, and the row of NaN or inf.
    """

    values: F32
    padded: U8 = field(repr=False)  # [n, D padded to 64]
    cache: dict[Any, Any] = field(repr=False)

    def __init__(self, values: Any, slices: Any) -> None:
        weights = checks.vectors(values, "values")
        checks.finite(weights, "values")
        self._set(weights, _padded(_indices(slices, weights.shape)))

    def _set(self, values: F32, padded: U8) -> None:
        fields: dict[str, Any] = {"values": values, "padded": padded, "cache": {}}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, rows: Any, dims: int, *, strided: bool = False) -> SlicedRows:
        """Sparse vectors over V terms, densified: of the terms in a slice of the vocabulary the one whose weight is
        largest in magnitude stays (of equals that of the smaller id).

        Parameters
        ----------
        rows : SparseRows, or what `SparseRows.of` takes
        dims : int, D
            How many slices: of w = ceil(V / D) terms each, 256 at most.
        strided : bool
            Slice p is the terms p w .. p w + w - 1; where strided, the terms p, p + D, p + 2 D, and so on.
        """
        sparse = SparseRows.of(rows)
        dims, strided = checks.positive_int(dims, "dims"), checks.flag(strided, "strided")
        width = -(-sparse.n_terms // dims)
        if width > INDICES:
            least = -(-sparse.n_terms // INDICES)
            raise ValueError(f"dims must be at least {least}, so that a slice has 256 terms at most; got {dims}")
        values, padded = np.zeros((len(sparse), dims), np.float32), np.zeros((len(sparse), _depth(dims)), np.uint8)
        for part in _portions(sparse.indptr):
            owner = np.repeat(np.arange(part.start, part.stop), sparse.lengths[part])
            span = slice(*sparse.indptr[[part.start, part.stop]])
            terms, weights = sparse.indices[span], sparse.values[span]
            place, index = (terms % dims, terms // dims) if strided else np.divmod(terms, width)
            order = np.lexsort((terms, -np.abs(weights), place, owner))
            kept = order[_first(owner[order], place[order])]
            at = owner[kept], place[kept]
            values[at], padded[at] = weights[kept], index[kept]
        made = cls.__new__(cls)
        made._set(values, padded)
        return made

    def sparse(self) -> SparseRows:
        """The same vectors over 256 D terms: that of position p and index i is 256 p + i. Weights of 0 are no terms."""
        owner, place = np.nonzero(self.values)
        terms = INDICES * place + self.slices[owner, place]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(self)))])
        return SparseRows(indptr, terms, self.values[owner, place], INDICES * self.dim)

    @property
    def slices(self) -> U8:
        """uint8 [n, D]: the indices."""
        return self.padded[:, : self.dim]

    @property
    def dim(self) -> int:
        """D, the number of slices."""
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> tuple[F32, U8]:
        number = checks.integer(row, "row")
        if not -len(self) <= number < len(self):
            raise IndexError(f"row must be one of the {len(self)} rows; got {row!r}")
        return self.values[number], self.slices[number]

    def __iter__(self) -> Iterator[tuple[F32, U8]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"SlicedRows({len(self)} rows, {self.dim} slices)"

    def take(self, which: I64 | slice) -> SlicedRows:
        """These rows, in this order."""
        made = SlicedRows.__new__(SlicedRows)
        made._set(np.ascontiguousarray(self.values[which]), np.ascontiguousarray(self.padded[which]))
        return made


def _indices(value: Any, shape: tuple[int, ...]) -> U8:
    array = checks.host_array(value, "slices")
    if array.dtype.kind not in "iu":
        raise TypeError(f"slices must be integers; got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"slices must have the shape of values, {shape}; got {array.shape}")
    if array.dtype != np.uint8 and array.size and not 0 <= array.min() <= array.max() < INDICES:
        raise ValueError(f"slices must lie in 0 .. 255; got values from {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, np.uint8)


def _depth(dim: int) -> int:
    return -(-dim // DEPTH_STEP) * DEPTH_STEP


def _padded(slices: U8) -> U8:
    missing = _depth(slices.shape[1]) - slices.shape[1]
    return np.pad(slices, ((0, 0), (0, missing))) if missing else slices


def _portions(indptr: I64) -> Iterator[slice]:
    """Rows that hold about so many weights together."""
    start, end = 0, len(indptr) - 1
    while start < end:
        stop = max(start + 1, int(np.searchsorted(indptr, indptr[start] + PORTION, side="right")) - 1)
        yield slice(start, stop)
        start = stop


def _first(owner: NDArray[Any], place: NDArray[Any]) -> Bool:
    """bool [M]: which are the first of their row and position, these lying together."""
    first = np.ones(len(owner), bool)
    first[1:] = (owner[1:] != owner[:-1]) | (place[1:] != place[:-1])
    return first

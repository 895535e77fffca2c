"""Sparse rows over term ids: what queries and documents of the sparse family are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.inputs.ragged import taken
from pyengine.types import F32, I64

I32 = NDArray[np.int32]
LOOKED_AT = 1 << 18  # entries checked together: they stay in a cache
SORTED = 1 << 19  # entries put into order together, in some 30 MB of scratch


@dataclass(frozen=True, eq=False, init=False)
class SparseRows:
    """n sparse vectors over the term ids 0 .. n_terms-1: row i has the weights ``values[indptr[i]:indptr[i + 1]]`` of
    the terms ``indices[indptr[i]:indptr[i + 1]]``, and may be empty.

    Parameters
    ----------
    indptr : int [n + 1]
        From 0 to P, never falling.
    indices : int [P]
        Term ids, in any order within a row. The weights of a term that comes more than once in a row are summed, in
        float64 in the order given, and rounded to float32 once.
    values : real [P] or None
        Weights of either sign, rounded to float32; those that are 0 are dropped. None: all are 1.
    n_terms : int
        At most 2^31 - 1. Nothing of this size is ever allocated.

    The fields are int64 [n + 1], int32 [P], float32 [P] and int, in canonical form: ascending distinct terms in each
    row, and no zeros. Arrays that already are that are not copied, so that they must not be written to later. ``len()``
    is n, and ``[i]`` the terms and the weights of row i. `SparseRows.of` takes other libraries' forms.

    Raises ValueError or TypeError naming the argument, and the row of NaN, inf or a term that is not one.
    """

    indptr: I64
    indices: I32
    values: F32
    n_terms: int

    def __init__(self, indptr: Any, indices: Any, values: Any, n_terms: int) -> None:
        made = build(indptr, indices, values, checks.positive_int(n_terms, "n_terms"))
        self._set(made.indptr, made.indices, made.values, made.n_terms)

    def _set(self, indptr: I64, indices: I32, values: F32, n_terms: int) -> None:
        fields = {"indptr": indptr, "indices": indices, "values": values, "n_terms": n_terms}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def canonical(cls, indptr: I64, indices: I32, values: F32, n_terms: int) -> SparseRows:
        """From arrays that are known to be in canonical form: nothing is looked at."""
        made = cls.__new__(cls)
        made._set(indptr, indices, values, n_terms)
        return made

    @classmethod
    def of(cls, value: Any, n_terms: int | None = None, name: str = "rows") -> SparseRows:
        """From SparseRows, a scipy sparse matrix or array [n, V], a torch sparse COO or CSR tensor [n, V], or a list of
        n dicts {term id: weight}. In boolean matrices and tensors True is a weight of 1. ``n_terms`` is what V must be;
        dicts without it have as many as their largest id asks for."""
        from pyengine.inputs.sparse_forms import rows_of

        return rows_of(value, n_terms, name)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, row: int) -> tuple[I32, F32]:
        number = checks.integer(row, "row")
        if not -len(self) <= number < len(self):
            raise IndexError(f"row must be one of the {len(self)} rows; got {row!r}")
        low, high = self.indptr[number % len(self) :][:2]
        return self.indices[low:high], self.values[low:high]

    def __iter__(self) -> Iterator[tuple[I32, F32]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"SparseRows({len(self)} rows, {self.n_terms} terms, {self.nnz} weights)"

    @property
    def nnz(self) -> int:
        """P, how many weights there are."""
        return len(self.indices)

    @property
    def lengths(self) -> I64:
        """int64 [n]: the number of terms of each row."""
        return np.diff(self.indptr)

    def part(self, rows: slice) -> SparseRows:
        """Consecutive rows, not copied."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"rows must be consecutive, a slice of step 1; got {rows}")
        indptr = self.indptr[start : max(start, stop) + 1]
        span = slice(indptr[0], indptr[-1])
        return SparseRows.canonical(indptr - indptr[0], self.indices[span], self.values[span], self.n_terms)

    def take(self, which: I64) -> SparseRows:
        """These rows, in this order."""
        places, indptr = taken(self.indptr, which)
        return SparseRows.canonical(indptr, self.indices[places], self.values[places], self.n_terms)


def build(indptr: Any, indices: Any, values: Any, n_terms: int, name: str = "") -> SparseRows:
    """Checked rows in canonical form. ``name`` is the argument that errors speak of; else they name these."""
    prefix = f"{name}." if name else ""
    terms = _numbers(indices, f"{prefix}indices", "iu", "integers")
    weights = None if values is None else _numbers(values, f"{prefix}values", "fiu", "real numbers (float or int)")
    if weights is not None and len(weights) != len(terms):
        raise ValueError(f"{prefix}values must have one weight per index, {len(terms)}; got {len(weights)}")
    offsets = _offsets(indptr, f"{prefix}indptr", len(terms))
    _check_terms(terms, offsets, n_terms, name or "indices")
    given = np.ones(len(terms), np.float32) if weights is None else weights
    with np.errstate(over="ignore", under="ignore"):  # what overflows becomes inf, and is refused as such
        floats = np.require(given, np.float32, ["C", "A"])
    ids = np.require(terms, np.int32, ["C", "A"])
    if _is_canonical(ids, floats, offsets, name or "values"):
        return SparseRows.canonical(offsets, ids, floats, n_terms)
    return _in_order(offsets, ids, given, n_terms, name or "values")


def _numbers(value: Any, name: str, kinds: str, wanted: str) -> NDArray[Any]:
    array = checks.host_array(value, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape [P]; got shape {array.shape}")
    if array.dtype.kind not in kinds and array.size:
        raise TypeError(f"{name} must hold {wanted}; got dtype {array.dtype}")
    return array if array.size else np.empty(0, np.int32)


def _offsets(value: Any, name: str, n_entries: int) -> I64:
    array = checks.host_array(value, name)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must have shape [n + 1]; got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers; got dtype {array.dtype}")
    if array[0] != 0 or array[-1] != n_entries:
        raise ValueError(f"{name} must begin with 0 and end with the {n_entries} indices; got {array[0]}, {array[-1]}")
    falls = np.flatnonzero(array[1:] < array[:-1])
    if falls.size:
        row = int(falls[0])
        raise ValueError(f"{name} must not fall; it goes from {array[row]} to {array[row + 1]} at row {row}")
    offsets = np.array(array, np.int64)  # a copy, so that nobody can change it
    offsets.flags.writeable = False
    return offsets


def _blocks(n_entries: int) -> Iterator[slice]:
    return (slice(start, min(start + LOOKED_AT, n_entries)) for start in range(0, n_entries, LOOKED_AT))


def _row_of(offsets: I64, entry: int) -> int:
    return int(np.searchsorted(offsets, entry, side="right")) - 1


def _check_terms(terms: NDArray[Any], offsets: I64, n_terms: int, name: str) -> None:
    for span in _blocks(len(terms)):
        part = terms[span]
        if part.min() < 0 or part.max() >= n_terms:
            place = span.start + int(np.argmax((part < 0) | (part >= n_terms)))
            row = _row_of(offsets, place)
            raise ValueError(f"{name} must hold term ids 0 .. {n_terms - 1}; row {row} holds {terms[place]}")


def _is_canonical(terms: I32, weights: F32, offsets: I64, name: str) -> bool:
    """Whether terms rise in each row and no weight is 0. Raises for a weight that is not finite."""
    canonical = True
    for span in _blocks(len(terms)):
        part = weights[span]
        if not np.isfinite([part.min(), part.max()]).all():  # NaN passes through both; this is fast
            row = _row_of(offsets, span.start + int(np.argmin(np.isfinite(part))))
            raise checks.non_finite(name, f"row {row}")
        canonical = canonical and bool(part.all()) and _rise(terms, offsets, span)
    return canonical


def _rise(terms: I32, offsets: I64, span: slice) -> bool:
    """Whether each of these terms is above the one before it, or the first of its row."""
    first = max(1, span.start)
    rises = terms[first : span.stop] > terms[first - 1 : span.stop - 1]
    low, high = np.searchsorted(offsets, [first, span.stop])
    rises[offsets[low:high] - first] = True
    return bool(rises.all())


def _in_order(offsets: I64, terms: I32, weights: NDArray[Any], n_terms: int, name: str) -> SparseRows:
    """The canonical form, some rows at a time."""
    parts, start = [], 0
    while start < len(offsets) - 1:
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + SORTED, side="right")) - 1)
        parts.append(_sorted_rows(offsets[start : stop + 1], terms, weights, start, name))
        start = stop
    lengths, ids, sums = (np.concatenate(each) for each in zip(*parts))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return SparseRows.canonical(indptr, ids, sums, n_terms)


def _sorted_rows(offsets: I64, terms: I32, weights: NDArray[Any], first: int, name: str) -> tuple[I64, I32, F32]:
    """Consecutive rows, whose entries are ``offsets[0]:offsets[-1]``: their lengths, terms and weights."""
    span = slice(offsets[0], offsets[-1])
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    key, weight = rows << 31 | terms[span], weights[span].astype(np.float64)
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key, kind="stable")
        key, rows, weight = key[order], rows[order], weight[order]
    new = np.ones(len(key), bool)
    new[1:] = key[1:] != key[:-1]
    with np.errstate(over="ignore", under="ignore"):
        sums = np.bincount(np.cumsum(new) - 1, weight).astype(np.float32)  # one running sum per term, in order
    rows, ids = rows[new], (key[new] & (1 << 31) - 1).astype(np.int32)
    if not np.isfinite(sums).all():
        raise checks.non_finite(name, f"row {first + rows[np.argmin(np.isfinite(sums))]}, of terms that are summed,")
    kept = sums != 0
    return np.bincount(rows[kept], minlength=len(offsets) - 1), ids[kept], sums[kept]

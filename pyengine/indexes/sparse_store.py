"""How an index keeps sparse rows: terms, weights, where each row's begin, and inverted forms of them (segments)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.indexes import segments
from pyengine.indexes.arrays import DiskArray, GrowingArray
from pyengine.indexes.ragged_store import RaggedStore, offsets_array
from pyengine.indexes.row_store import Arrays, Layout
from pyengine.inputs.living import Living
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import Postings, SparseDocuments, TermRows
from pyengine.types import F32, I64

WEIGHTS = ("float32", "float16", "uint8")
ORIGINALS = ("ram", "disk")
SHORT_TERMS = 1 << 16  # so many have numbers of 16 bits
LEVELS = 255  # the largest code of a weight
FLOAT32_MAX = float(np.finfo(np.float32).max)
LARGEST_STEP = np.nextafter(np.float32(FLOAT32_MAX / LEVELS), np.float32(0))  # 255 of these do not overflow
PREFIX = "postings_"  # of a segment's arrays, in files
PLAIN = [np.dtype(each).str for each in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")]  # their dtypes


class SparseStore(RaggedStore):
    """Rows over ``n_terms`` terms, and ``postings``: the segments of those that are to be seen, a tuple that never
    changes (a store that has others is another one, of the same arrays).

    ``terms`` uint16 or int32 [P] and ``values`` [P] are in memory, or with ``originals="disk"`` in files without names
    in ``directory``. uint8 weights are steps from the row's ``low``, float32 [N] as is ``step``.
    """

    unit = "entries"
    per_row = ("low", "step")
    bulk = frozenset(["values"])

    def __init__(self, n_terms: int, weights: str, originals: str, directory: str | None = None) -> None:
        checks.choice(weights, "weights", WEIGHTS)
        checks.choice(originals, "originals", ORIGINALS)
        self.n_terms, self.weights = n_terms, weights
        self.postings: tuple[Postings, ...] = ()
        dtypes = {"terms": np.uint16 if n_terms <= SHORT_TERMS else np.int32, "values": np.dtype(weights)}
        on_disk = originals == "disk"
        self.arrays = {
            name: DiskArray(dtype, directory=directory) if on_disk else GrowingArray(dtype)
            for name, dtype in dtypes.items()
        }
        self.arrays["offsets"] = offsets_array()
        if weights == "uint8":
            self.arrays |= {name: GrowingArray(np.float32) for name in self.per_row}

    def append(self, rows: Any, first: int = 0) -> None:
        """Add `SparseRows`. Raises ValueError for one with weights that float16 or uint8 cannot hold."""
        given: SparseRows = rows
        parts = self._encoded(given, first) | {"terms": given.indices.astype(self.arrays["terms"].dtype)}
        self.extend(parts, given.indptr)

    def _encoded(self, rows: SparseRows, first: int) -> Arrays:
        if self.weights == "uint8":
            return coded(rows, first)
        if self.weights == "float32":
            return {"values": rows.values}
        values = rows.values.astype(self.weights)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            row = first + int(np.searchsorted(rows.indptr, bad[0], side="right")) - 1
            raise ValueError(f"rows must stay finite in float16; row {row} holds {rows.values[bad[0]]:g}")
        return {"values": values}

    def grown(self, count: int) -> SparseStore:
        return self._inverted(segments.grown(self.postings, self.term_rows(count)))

    def picked(self, rows: I64) -> SparseStore:
        return super().picked(rows)._inverted(()).grown(len(rows))

    def _inverted(self, postings: tuple[Postings, ...]) -> SparseStore:
        """The same rows, with these segments."""
        other = self.holding(self.arrays)
        other.postings = postings
        return other

    def term_rows(self, count: int) -> TermRows:
        """The first ``count`` rows; later changes do not show in it."""
        return TermRows(n_terms=self.n_terms, **self.heads(count))

    def documents(self, count: int, cache: dict[Any, Any], living: Living | None) -> SparseDocuments:
        """The same as a backend sees it."""
        if "rows" not in cache:
            cache["rows"] = self.term_rows(count)
        return SparseDocuments(cache["rows"], self.postings, cache=cache, living=living)

    def disk_bytes(self, count: int) -> int:
        """What the first ``count`` rows take in files."""
        heads = self.heads(count)
        return sum(heads[name].nbytes for name, array in self.arrays.items() if isinstance(array, DiskArray))

    def chosen(self, count: int, rows: I64 | None) -> dict[str, tuple[NDArray[Any], I64 | None]]:
        """With one segment of all these rows, so that who loads them has nothing to build."""
        if rows is not None:
            return self.picked(rows).chosen(len(rows), None)
        inverted = segments.single(self.postings, self.term_rows(count))
        postings = {PREFIX + name: array for each in inverted for name, array in each.arrays.items()}
        return super().chosen(count, None) | {name: (array, None) for name, array in postings.items()}

    def layout(self, count: int, sizes: Mapping[str, int], listed: Mapping[str, Any]) -> Layout:
        """With the segment's arrays, of which only the extension knows how long they are to be."""
        shapes = {name: _shape(entry) for name, entry in listed.items() if name.startswith(PREFIX)}
        return super().layout(count, sizes, listed) | {name: shape for name, shape in shapes.items() if shape}

    def flaw(self, heads: Arrays) -> str | None:
        return super().flaw(heads) or segments.flaw(_unprefixed(heads), len(heads["offsets"]) - 1)

    def loaded(self, heads: Arrays, count: int) -> SparseStore:
        arrays = _unprefixed(heads) if segments.available() else {}
        return super().loaded(heads, count)._inverted((Postings(0, count, arrays),) if arrays else ())


def coded(rows: SparseRows, first: int = 0) -> Arrays:
    """``values`` uint8 [P], ``low`` and ``step`` float32 [n]: a weight is step * code + low, and the codes of a row go
    from its smallest weight, or 0 if that is less, to its largest.

    Raises ValueError, counting from ``first``, for a row whose weights are further apart than float32 can say.
    """
    low, high = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32)
    filled = np.flatnonzero(rows.lengths)
    if filled.size:
        starts = rows.indptr[filled]
        low[filled] = np.minimum(np.minimum.reduceat(rows.values, starts), np.float32(0))
        high[filled] = np.maximum.reduceat(rows.values, starts)
    span = high.astype(np.float64) - low
    wide = np.flatnonzero(span > FLOAT32_MAX)
    if wide.size:
        row = int(wide[0])
        got = f"row {first + row} goes from {low[row]:g} to {high[row]:g}"
        raise ValueError(f"rows must have weights at most 3.4e38 apart in uint8; {got}")
    step = _steps(span)
    lengths = rows.lengths
    above = rows.values.astype(np.float64) - np.repeat(low, lengths)
    codes = np.divide(above, np.repeat(step, lengths), out=np.zeros_like(above), where=above > 0)
    return {"values": np.minimum(np.rint(codes), LEVELS).astype(np.uint8), "low": low, "step": step}


def _steps(span: NDArray[np.float64]) -> F32:
    """float32: the least of which 255 cover the span (denormals are coarse), as far as that does not overflow."""
    step = (span / LEVELS).astype(np.float32)
    short = step.astype(np.float64) * LEVELS < span
    steps: F32 = np.minimum(np.where(short, np.nextafter(step, np.float32(np.inf)), step), LARGEST_STEP)
    return steps


def _unprefixed(heads: Arrays) -> Arrays:
    return {name.removeprefix(PREFIX): head for name, head in heads.items() if name.startswith(PREFIX)}


def _shape(entry: Any) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """The dtype and shape that an entry of a manifest gives, if they are such as a segment's arrays may have."""
    dtype, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
    if not isinstance(dtype, str) or dtype not in PLAIN or not isinstance(shape, list) or len(shape) not in (1, 2):
        return None
    if not all(type(each) is int and 0 <= each < 1 << 40 for each in shape):
        return None
    return np.dtype(dtype), tuple(shape)

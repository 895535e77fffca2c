"""How an index keeps its vectors: a store grows by rows, drops rows, and gives backends an unchanging view
(`Documents`)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pyengine import checks, exact
from pyengine.problem import Codes, Documents
from pyengine.types import F32, I64


CACHE_LINE = 64  # bytes


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array that starts at a cache line: vector loads that straddle two cost twice."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


class GrowingArray:
    """Rows of one dtype and width, appended in amortised O(1). Views given out are never written again."""

    def __init__(self, dtype: Any, width: tuple[int, ...] = ()) -> None:
        self._buffer: NDArray[Any] = np.empty((0, *width), dtype)
        self._size = 0

    @property
    def view(self) -> NDArray[Any]:
        return self._buffer[: self._size]

    def reserve(self, count: int) -> None:
        """Make room for ``count`` more rows, which is all that can fail in `append`."""
        size = self._size + count
        if size > len(self._buffer):
            capacity = size if self._size == 0 else max(size, len(self._buffer) + len(self._buffer) // 2)
            grown = _aligned((capacity, *self._buffer.shape[1:]), self._buffer.dtype)
            grown[: self._size] = self.view
            self._buffer = grown

    def append(self, rows: NDArray[Any]) -> None:
        self.reserve(len(rows))
        size = self._size + len(rows)
        self._buffer[self._size : size] = rows
        self._size = size

    def replace(self, rows: NDArray[Any]) -> None:
        """Hold these rows, and no others."""
        self._buffer, self._size = rows, len(rows)


class Float32Store:
    """The vectors themselves, 4 bytes a dimension, and their norms."""

    name: ClassVar[str] = "float32"

    def __init__(self, dim: int) -> None:
        self.rows = GrowingArray(np.float32, (dim,))
        self.norms = GrowingArray(np.float64)
        self._cache: dict[Any, Any] = {}

    def _arrays(self) -> list[GrowingArray]:
        return [self.rows, self.norms]

    def append(self, rows: F32) -> None:
        """Add rows. Raises ValueError for one with NaN or inf; all that can fail comes before anything is changed."""
        norms = exact.norms(rows, rows.shape[1], checks.thread_count(None))
        bad = np.flatnonzero(~np.isfinite(norms))  # float64 does not overflow here, so these have NaN or inf
        if bad.size:
            raise checks.non_finite("vectors", int(bad[0]))
        parts: list[NDArray[Any]] = [rows, norms, *self._code(rows)]
        for array, part in zip(self._arrays(), parts):
            array.reserve(len(part))
        for array, part in zip(self._arrays(), parts):
            array.append(part)
        self._cache = {}

    def _code(self, rows: F32) -> tuple[NDArray[Any], ...]:
        """What else is stored of these rows: one array for each further one of `_arrays`."""
        return ()

    def keep(self, rows: I64) -> None:
        """Keep only these rows, in this order."""
        kept = [array.view[rows] for array in self._arrays()]
        for array, part in zip(self._arrays(), kept):
            array.replace(part)
        self._cache = {}

    def documents(self) -> Documents:
        """The present state as a backend sees it; later changes do not show in it."""
        return Documents(self.rows.view, self._codes(), self.norms.view, checked=True, cache=self._cache)

    def _codes(self) -> Codes | None:
        return None

    @property
    def nbytes(self) -> int:
        return sum(array.view.nbytes for array in self._arrays())


class Int8Store(Float32Store):
    """One byte a dimension for proposing (codes of the unit vector, its scale, its residual norm); the vectors
    themselves stay in memory for refining."""

    name = "int8"

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        if exact.native() is None:
            raise RuntimeError("store 'int8' needs the compiled extension (pip install .); store='float32' does not")
        self.codes = GrowingArray(np.uint8, (-(-dim // 64) * 64,))
        self.scale = GrowingArray(np.float32)
        self.residual = GrowingArray(np.float32)

    def _arrays(self) -> list[GrowingArray]:
        return [self.rows, self.norms, self.codes, self.scale, self.residual]

    def _code(self, rows: F32) -> tuple[NDArray[Any], ...]:
        return exact.quantize(rows, checks.thread_count(None))

    def _codes(self) -> Codes:
        return Codes(self.codes.view, self.scale.view, self.residual.view)


STORES: dict[str, type[Float32Store]] = {store.name: store for store in (Float32Store, Int8Store)}

"""Arrays that grow by rows, in memory or in a file. What was given out is never written again.

A `head` of ``count`` rows stays as it is while rows are appended behind it, so an array may hold rows that nobody
sees yet: an index publishes a count, and what lies beyond it may be truncated and written anew.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyengine.types import I64

Self = TypeVar("Self", bound="GrowingArray")

CACHE_LINE = 64  # bytes
BLOCK_BYTES = 1 << 22  # rows are copied in blocks of about this size


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array that starts at a cache line: vector loads that straddle two cost twice."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def blocks(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Slices of about `BLOCK_BYTES` that cover the rows."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


class GrowingArray:
    """Rows of one dtype and width in memory, appended in amortised O(1)."""

    def __init__(self, dtype: Any, width: tuple[int, ...] = ()) -> None:
        self._buffer: NDArray[Any] = np.empty((0, *width), dtype)
        self._size = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._buffer.dtype

    @property
    def width(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self._buffer.shape[1:]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.width)

    def __len__(self) -> int:
        return self._size

    def head(self, count: int) -> NDArray[Any]:
        """The first ``count`` rows."""
        return self._buffer[:count]

    @property
    def view(self) -> NDArray[Any]:
        return self.head(self._size)

    def reserve(self, count: int) -> None:
        """Make room for ``count`` more rows, which is all that can fail in `append`."""
        size = self._size + count
        if size > len(self._buffer):
            self._grow(size if self._size == 0 else max(size, len(self._buffer) + len(self._buffer) // 2))

    def _grow(self, capacity: int) -> None:
        grown = aligned((capacity, *self.width), self.dtype)
        grown[: self._size] = self.view
        self._buffer = grown

    def append(self, rows: NDArray[Any]) -> None:
        if not len(rows):  # where the buffer is a file's, even that would be a write
            return
        self.reserve(len(rows))
        self._write(rows, self._size)
        self._size += len(rows)

    def room(self, count: int) -> NDArray[Any]:
        """Where the next ``count`` rows are to be, to be written before they are `filled`."""
        self.reserve(count)
        return self._buffer[self._size : self._size + count]

    def filled(self, count: int) -> None:
        """Append what was written to the room for ``count`` rows."""
        self._size += count

    def _write(self, rows: NDArray[Any], at: int) -> None:
        self._buffer[at : at + len(rows)] = rows

    def truncate(self, size: int) -> None:
        """Forget the rows from ``size`` on. Those must not have been given out."""
        self._size = min(self._size, size)

    def new(self: Self) -> Self:
        """An empty array of the same kind."""
        return type(self)(self.dtype, self.width)

    def picked(self: Self, rows: I64) -> Self:
        """A new array of these rows, in this order."""
        chosen = self.new()
        chosen.reserve(len(rows))
        for block in blocks(len(rows), self.row_bytes):
            chosen.append(self._buffer[rows[block]])
        return chosen

    def adopted(self: Self, rows: NDArray[Any]) -> Self:
        """A new array of the same kind that begins with these rows, without copying them before it must grow."""
        begun = self.new()
        begun._buffer, begun._size = rows, len(rows)
        return begun


class DiskArray(GrowingArray):
    """The same in a file, of which memory holds what was read lately.

    The file has no name: it takes space in ``directory`` (default: that of temporary files) for as long as this
    process, or a view that it gave out, needs it, and is gone even after a crash. Rows that were adopted, or are
    shared with a forked process, move to a file of its own before the first append.
    """

    def __init__(self, dtype: Any, width: tuple[int, ...] = (), directory: str | None = None) -> None:
        super().__init__(dtype, width)
        self._directory = directory
        self._file: Any = None
        self._owner = -1  # the process that may write the file

    def new(self) -> DiskArray:
        return DiskArray(self.dtype, self.width, self._directory)

    def reserve(self, count: int) -> None:
        if self._owner != os.getpid() and count:
            self._move()
        super().reserve(count)

    def _move(self) -> None:
        rows, own = self.view, self.new()
        own._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115, it lives as long as the array
        own._owner, own._size = os.getpid(), len(rows)
        for block in blocks(len(rows), self.row_bytes):
            own._write(rows[block], block.start)
        own._grow(len(rows))
        self._file, self._owner, self._buffer = own._file, own._owner, own._buffer
        weakref.finalize(self, self._file.close)

    def _grow(self, capacity: int) -> None:
        """Map a longer file. It is sparse: only what was written takes space."""
        n_bytes = capacity * self.row_bytes
        if n_bytes:
            os.ftruncate(self._file.fileno(), n_bytes)
            mapped = mmap.mmap(self._file.fileno(), n_bytes, access=mmap.ACCESS_READ)
            mapped.madvise(mmap.MADV_RANDOM)  # a search reads rows here and there, not what lies around them
            self._buffer = np.frombuffer(mapped, self.dtype).reshape(capacity, *self.width)

    def _write(self, rows: NDArray[Any], at: int) -> None:
        left, offset = np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data, at * self.row_bytes
        while left:  # the page cache shows a write to the mapping at once
            written = os.pwrite(self._file.fileno(), left, offset)
            left, offset = left[written:], offset + written

    def __reduce__(self) -> tuple[Any, ...]:
        return _disk_array, (self._directory, np.array(self.view))


def _disk_array(directory: str | None, rows: NDArray[Any]) -> DiskArray:
    made = DiskArray(rows.dtype, rows.shape[1:], directory)
    made.append(rows)
    return made

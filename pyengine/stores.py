"""How an index keeps its vectors: a store grows by rows, picks rows, and gives backends an unchanging view
(`Documents`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyengine import checks, exact
from pyengine.arrays import DiskArray, GrowingArray
from pyengine.problem import Codes, Documents
from pyengine.types import F32, I64

Store = TypeVar("Store", bound="Float32Store")


class Float32Store:
    """The vectors themselves, 4 bytes a dimension, and their norms.

    Everything a store keeps is in ``arrays``, by the names under which it is saved: one row per document each.
    """

    name: ClassVar[str] = "float32"
    originals: ClassVar[tuple[str, ...]] = ("ram",)

    def __init__(self, dim: int, originals: str = "ram", directory: str | None = None) -> None:
        rows = DiskArray(np.float32, (dim,), directory) if originals == "disk" else GrowingArray(np.float32, (dim,))
        self.arrays: dict[str, GrowingArray] = {"rows": rows, "norms": GrowingArray(np.float64)}

    def reserve(self, count: int) -> None:
        """Make room for ``count`` more rows."""
        for array in self.arrays.values():
            array.reserve(count)

    def append(self, rows: F32, first: int = 0) -> None:
        """Add rows. Raises ValueError for one with NaN or inf, counting them from ``first``."""
        norms = exact.norms(rows, rows.shape[1], checks.thread_count(None))
        bad = np.flatnonzero(~np.isfinite(norms))  # float64 does not overflow here, so these have NaN or inf
        if bad.size:
            raise checks.non_finite("vectors", first + int(bad[0]))
        parts: dict[str, NDArray[Any]] = {"rows": rows, "norms": norms, **self._code(rows)}
        for name, array in self.arrays.items():
            array.append(parts[name])

    def _code(self, rows: F32) -> dict[str, NDArray[Any]]:
        """What else is stored of these rows, by the names in ``arrays``."""
        return {}

    def truncate(self, size: int) -> None:
        """Forget the rows from ``size`` on, which nobody has seen."""
        for array in self.arrays.values():
            array.truncate(size)

    def picked(self: Store, rows: I64) -> Store:
        """A new store of these rows, in this order."""
        return self.holding({name: array.picked(rows) for name, array in self.arrays.items()})

    def holding(self: Store, arrays: Mapping[str, GrowingArray]) -> Store:
        """A store like this of other arrays."""
        other = copy.copy(self)
        other.arrays = dict(arrays)
        return other

    def documents(self, count: int | None = None, cache: dict[Any, Any] | None = None) -> Documents:
        """The first ``count`` rows as a backend sees them; later changes do not show in it."""
        count = len(self.arrays["rows"]) if count is None else count
        heads = {name: array.head(count) for name, array in self.arrays.items()}
        return Documents(heads["rows"], self._codes(heads), heads["norms"], checked=True, cache=cache)

    def _codes(self, heads: dict[str, NDArray[Any]]) -> Codes | None:
        return None

    def nbytes(self, count: int) -> int:
        """What ``count`` rows take."""
        return count * sum(array.row_bytes for array in self.arrays.values())


class Int8Store(Float32Store):
    """One byte a dimension for proposing (codes of the unit vector, its scale, its residual norm); the vectors
    themselves stay in memory or on disk for refining."""

    name = "int8"
    originals = ("ram", "disk")

    def __init__(self, dim: int, originals: str = "ram", directory: str | None = None) -> None:
        super().__init__(dim, originals, directory)
        if exact.native() is None:
            raise RuntimeError("store 'int8' needs the compiled extension (pip install .); store='float32' does not")
        self.arrays["codes"] = GrowingArray(np.uint8, (-(-dim // 64) * 64,))
        self.arrays["scale"] = GrowingArray(np.float32)
        self.arrays["residual"] = GrowingArray(np.float32)

    def _code(self, rows: F32) -> dict[str, NDArray[Any]]:
        return dict(zip(("codes", "scale", "residual"), exact.quantize(rows, checks.thread_count(None))))

    def _codes(self, heads: dict[str, NDArray[Any]]) -> Codes:
        return Codes(heads["codes"], heads["scale"], heads["residual"])


STORES: dict[str, type[Float32Store]] = {store.name: store for store in (Float32Store, Int8Store)}

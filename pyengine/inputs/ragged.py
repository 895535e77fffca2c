"""Ragged rows of token vectors: what queries and documents of the MaxSim family are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.types import F32, I64, Bool

FORMS = "a pyengine.Ragged, a list of arrays [L, D], or an array [n, L, D]"


@dataclass(frozen=True, eq=False, init=False)
class Ragged:
    """n rows of token vectors: row i is ``values[offsets[i]:offsets[i + 1]]``, and may be empty.

    Parameters
    ----------
    values : real [T, D]
        NumPy, torch, DLPack or nested lists; converted to float32 once, a memory map of another type too. Not copied
        where it is float32 already, so that it must not be written to later.
    offsets : int [n + 1]
        From 0 to T, never falling.

    ``len()`` is n, and ``[i]`` the tokens of row i, float32 [L_i, D].

    Raises ValueError or TypeError naming the argument. Whether the values are finite is checked where they are used.
    """

    values: F32
    offsets: I64

    def __init__(self, values: Any, offsets: Any) -> None:
        object.__setattr__(self, "values", checks.vectors(values, "values"))
        object.__setattr__(self, "offsets", _offsets(offsets, len(self.values)))

    @classmethod
    def of(cls, rows: Sequence[Any], name: str = "rows", dim: int | None = None, first: int = 0) -> Ragged:
        """From a list of n arrays [L_i, D]. ``dim`` is what D must be; an empty list needs it. Errors count the arrays
        from ``first``."""
        if not len(rows) and dim is None:
            raise ValueError(f"{name} must hold at least one array [L, D]; got an empty list")
        parts = [checks.vectors(row, f"{name}[{i}]", dim) for i, row in enumerate(rows, first)]
        dim = parts[0].shape[1] if dim is None else dim
        wrong = next((i for i, part in enumerate(parts) if part.shape[1] != dim), None)
        if wrong is not None:
            raise ValueError(
                f"{name}[{first + wrong}] must have {dim} dimensions per row; got shape {parts[wrong].shape}"
            )
        values = np.concatenate([np.empty((0, dim), np.float32), *parts])
        return cls(values, np.cumsum([0, *(len(part) for part in parts)]))

    @classmethod
    def padded(cls, array: Any, mask: Any = None, name: str = "array") -> Ragged:
        """From an array [n, L, D] and a mask bool [n, L], True where there is a token: the others are left out, be
        they at the end, at the start or between. Without a mask every row has L tokens."""
        given = checks.host_array(array, name)
        if given.ndim != 3:
            raise ValueError(f"{name} must have shape [n, L, D]; got shape {given.shape}")
        n_rows, length, dim = given.shape
        flat = given.reshape(n_rows * length, dim)
        if mask is None:
            return cls(checks.vectors(flat, name), length * np.arange(n_rows + 1))
        real = checks.host_array(mask, "mask")
        if real.dtype != np.bool_:
            raise TypeError(f"mask must be bool, True for a token; got dtype {real.dtype}")
        if real.shape != (n_rows, length):
            raise ValueError(f"mask must have shape ({n_rows}, {length}), one per token; got {real.shape}")
        return cls(
            checks.vectors(np.take(flat, np.flatnonzero(real), axis=0), name),
            np.concatenate([[0], np.cumsum(real.sum(axis=1))]),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> F32:
        number = checks.integer(row, "row")
        if not -len(self) <= number < len(self):
            raise IndexError(f"row must be one of the {len(self)} rows; got {row!r}")
        low, high = self.offsets[number % len(self) :][:2]
        return self.values[low:high]

    def __iter__(self) -> Iterator[F32]:
        return (self[row] for row in range(len(self)))

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    @property
    def lengths(self) -> I64:
        """int64 [n]: the number of tokens of each row."""
        return np.diff(self.offsets)

    def part(self, rows: slice) -> Ragged:
        """Consecutive rows, not copied."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"rows must be consecutive, a slice of step 1; got {rows}")
        offsets = self.offsets[start : max(start, stop) + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def places(self, which: I64) -> I64:
        """int64: where the tokens of these rows lie in ``values``, row after row."""
        return taken(self.offsets, which)[0]

    def take(self, which: I64) -> Ragged:
        """These rows, in this order."""
        places, offsets = taken(self.offsets, which)
        return Ragged(self.values[places], offsets)

    def without(self, dropped: Bool) -> Ragged:
        """These rows less some tokens, of which ``dropped`` [T] is True; not copied where there are none."""
        if not dropped.any():
            return self
        kept_before = np.concatenate([[0], np.cumsum(~dropped)])
        return Ragged(self.values[~dropped], kept_before[self.offsets])


def taken(offsets: I64, rows: I64) -> tuple[I64, I64]:
    """Where the tokens of these rows lie, row after row, and the offsets that they then have."""
    lengths = np.diff(offsets)[rows]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(ends[-1]) + np.repeat(offsets[rows] - ends[:-1], lengths), ends


def tokens(value: Any, name: str, dim: int | None = None) -> Ragged:
    """What a caller gave as `Ragged`: one, a list of n arrays [L_i, D], or an array [n, L, D] without padding.
    ``dim`` is what D must be."""
    if isinstance(value, Ragged):
        ragged = value
    elif isinstance(value, (list, tuple)):
        return Ragged.of(value, name, dim)
    else:
        array = checks.host_array(value, name)
        if array.dtype == object or array.dtype.kind in "US":
            raise TypeError(f"{name} must be {FORMS}; got a {type(value).__name__}")
        if array.ndim != 3:
            raise ValueError(f"{name} must be {FORMS}; got shape {array.shape}")
        ragged = Ragged.padded(array, name=name)
    if dim is not None and ragged.dim != dim:
        raise ValueError(f"{name} must have {dim} dimensions per token; got {ragged.dim}")
    return ragged


def both(queries: Any, docs: Any) -> tuple[Ragged, Ragged]:
    """Queries and documents of one dimension; an empty list takes that of the other side."""
    if isinstance(docs, (list, tuple)) and not docs:
        checked = tokens(queries, "queries")
        return checked, tokens(docs, "docs", checked.dim)
    rows = tokens(docs, "docs")
    return tokens(queries, "queries", rows.dim), rows


def per_token(value: Any, name: str, offsets: I64) -> F32 | None:
    """One finite weight per token, in their order, as float32 [T]; a list of n arrays [L_i] is taken too."""
    if value is None:
        return None
    array = _flat(value, name, np.diff(offsets))
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers (float or int); got dtype {array.dtype}")
    weights: F32 = np.require(array, np.float32, ["C", "A"])
    bad = np.flatnonzero(~np.isfinite(weights))
    if bad.size:
        raise ValueError(f"{name} must be finite in float32; entry {bad[0]} is {array[bad[0]]}")
    return weights


def marks(value: Any, name: str, lengths: I64) -> Bool | None:
    """One bool per token, in their order, as bool [T]; a list of n arrays [L_i] is taken too."""
    if value is None:
        return None
    array = _flat(value, name, lengths)
    if array.dtype != np.bool_ and array.size:
        raise TypeError(f"{name} must be bool, one per token; got dtype {array.dtype}")
    return array.astype(bool)


def _flat(value: Any, name: str, lengths: I64) -> np.ndarray:
    """[T]: one value per token of rows of these lengths."""
    if isinstance(value, (list, tuple)) and len(value) and np.ndim(value[0]) == 1:
        parts = [checks.host_array(part, f"{name}[{i}]") for i, part in enumerate(value)]
        if [part.shape for part in parts] != [(length,) for length in lengths]:
            raise ValueError(f"{name} must have one array for each row, of one value per token; got other lengths")
        value = np.concatenate([part for part in parts if part.size] or parts)
    array = checks.host_array(value, name)
    total = int(lengths.sum())
    if array.shape != (total,):
        raise ValueError(f"{name} must have shape ({total},), one per token; got {array.shape}")
    return array


def finite(values: Any, offsets: I64, name: str, first: int = 0) -> None:
    """Raise for the first token, of ``values`` [T, D], that holds NaN or inf (or overflowed float32), counting rows
    from ``first``."""
    block = max(1, (1 << 20) // max(1, values.shape[1]))
    for start in range(0, len(values), block):
        part = values[start : start + block]
        if not np.isfinite([part.min(), part.max()]).all():  # NaN passes through both; this is fast
            token = start + int(np.argmin(np.isfinite(part).all(axis=1)))
            raise checks.non_finite(name, place(offsets, token, first))


def place(offsets: I64, token: int, first: int = 0) -> str:
    """Where a token is, in words."""
    row = int(np.searchsorted(offsets, token, side="right")) - 1
    return f"token {token - offsets[row]} of row {first + row}"


def _offsets(value: Any, n_tokens: int) -> I64:
    array = checks.host_array(value, "offsets")
    if array.ndim != 1 or not array.size:
        raise ValueError(f"offsets must have shape [n + 1]; got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"offsets must be integers; got dtype {array.dtype}")
    if array.dtype.kind == "u" and array.max() > n_tokens:
        raise ValueError(f"offsets must be at most the {n_tokens} rows of values; got {array.max()}")
    offsets = np.array(array, np.int64)  # a copy, so that nobody can change it
    offsets.flags.writeable = False
    if offsets[0] != 0 or offsets[-1] != n_tokens:
        got = f"{array[0]} and {array[-1]}"
        raise ValueError(f"offsets must begin with 0 and end with the {n_tokens} rows of values; got {got}")
    falls = np.flatnonzero(np.diff(offsets) < 0)
    if falls.size:
        place = int(falls[0])
        raise ValueError(f"offsets must not fall; got {offsets[place]} and then {offsets[place + 1]}, at {place + 1}")
    return offsets

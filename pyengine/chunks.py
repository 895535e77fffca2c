"""What `DenseIndex.add` is given, piece by piece: an array of any size and kind, or an iterator of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyengine import checks, exact
from pyengine.arrays import blocks
from pyengine.types import F32, I64

MANY_ROWS = 1 << 17  # fewer never take long
PATIENCE = 5.0  # seconds before a bar shows


def pieces(vectors: Any, ids: Any, dim: int) -> Iterator[tuple[F32, I64 | None]]:
    """Rows float32 [n, D] and their ids [n] (None where none are given), a few megabytes at a time.

    Raises ValueError or TypeError, naming the argument, as soon as something is wrong.
    """
    if not isinstance(vectors, Iterator):
        yield from _split(vectors, ids, dim)
        return
    if ids is not None and not isinstance(ids, Iterator):
        got = type(ids).__name__
        raise TypeError(f"ids must be an iterator of id arrays where vectors is an iterator; got a {got}")
    for number, chunk in enumerate(vectors):
        chunk_ids = None if ids is None else next(ids, None)
        if ids is not None and chunk_ids is None:
            raise ValueError(f"ids must have one array for each chunk of vectors; got {number}")
        yield from _split(chunk, chunk_ids, dim)
    if ids is not None and next(ids, None) is not None:
        raise ValueError("ids must have one array for each chunk of vectors; got more")


def _split(vectors: Any, ids: Any, dim: int) -> Iterator[tuple[F32, I64 | None]]:
    """The pieces of one array, of which only one at a time is converted."""
    array = vectors if checks.is_torch(vectors) else checks.host_array(vectors, "vectors")
    if array.ndim != 2 or array.shape[1] != dim or not len(array):
        checks.vectors(array, "vectors", dim)  # a wrong shape, or nothing: the message is about the whole
    given = None if ids is None else checks.id_list(ids)
    if given is not None and len(given) != len(array):
        raise ValueError(f"ids must have one entry per vector, {len(array)}; got {len(given)}")
    for block in blocks(len(array), 4 * dim):
        with exact.arithmetic():  # not while the caller's iterator runs
            rows = checks.vectors(array[block], "vectors", dim)
        yield rows, None if given is None else given[block]


def length(vectors: Any) -> int | None:
    """How many rows `pieces` will give; None where nobody knows."""
    sized = hasattr(vectors, "__len__") and not isinstance(vectors, Iterator)
    return len(vectors) if sized else None


def watched(parts: Iterator[tuple[F32, I64 | None]], n_rows: int | None) -> Iterator[tuple[F32, I64 | None]]:
    """The same, with a bar of tqdm's where that is installed, the work is long and somebody looks on."""
    bar = _bar(n_rows) if n_rows is None or n_rows > MANY_ROWS else None
    if bar is None:
        yield from parts
        return
    with bar:
        for rows, ids in parts:
            yield rows, ids
            bar.update(len(rows))


def _bar(n_rows: int | None) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=n_rows, unit="row", unit_scale=True, disable=None, delay=PATIENCE)

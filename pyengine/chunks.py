"""What `add` is given, piece by piece: arrays or documents of any size and kind, or an iterator of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from pyengine import checks, exact, ragged
from pyengine.arrays import BLOCK_BYTES, blocks
from pyengine.ragged import Ragged
from pyengine.sparse_rows import SparseRows
from pyengine.types import I64

WEIGHT_BYTES = 8  # a term and its weight
MANY_ROWS = 1 << 17  # fewer never take long
PATIENCE = 5.0  # seconds before a bar shows

Piece = tuple[Any, I64 | None]  # rows and their ids [n]; None where none are given


def vectors(given: Any, ids: Any, dim: int) -> Iterator[Piece]:
    """Rows float32 [n, D] and their ids, a few megabytes at a time.

    Raises ValueError or TypeError, naming the argument, as soon as something is wrong.
    """
    return _pieces(given, ids, "vectors", lambda chunk, chunk_ids: _vectors(chunk, chunk_ids, dim))


def documents(given: Any, ids: Any, dim: int) -> Iterator[Piece]:
    """The same of documents of token vectors, each piece a `Ragged`."""
    return _pieces(given, ids, "docs", lambda chunk, chunk_ids: _documents(chunk, chunk_ids, dim))


def sparse(given: Any, ids: Any, n_terms: int) -> Iterator[Piece]:
    """The same of sparse rows, each piece `SparseRows`."""
    return _pieces(given, ids, "rows", lambda chunk, chunk_ids: _sparse(chunk, chunk_ids, n_terms))


def first_tokens(pieces: Iterator[Piece], count: int) -> list[Piece]:
    """The first pieces of documents, so many that they have ``count`` tokens together; or all."""
    taken: list[Piece] = []
    while sum(len(docs.values) for docs, _ in taken) < count:
        piece = next(pieces, None)
        if piece is None:
            break
        taken.append(piece)
    return taken


def _pieces(given: Any, ids: Any, name: str, split: Callable[[Any, Any], Iterator[Piece]]) -> Iterator[Piece]:
    if not isinstance(given, Iterator):
        yield from split(given, ids)
        return
    if ids is not None and not isinstance(ids, Iterator):
        got = type(ids).__name__
        raise TypeError(f"ids must be an iterator of id arrays where {name} is an iterator; got a {got}")
    for number, chunk in enumerate(given):
        chunk_ids = None if ids is None else next(ids, None)
        if ids is not None and chunk_ids is None:
            raise ValueError(f"ids must have one array for each chunk of {name}; got {number}")
        yield from split(chunk, chunk_ids)
    if ids is not None and next(ids, None) is not None:
        raise ValueError(f"ids must have one array for each chunk of {name}; got more")


def _vectors(given: Any, ids: Any, dim: int) -> Iterator[Piece]:
    """The pieces of one array, of which only one at a time is converted."""
    array = given if checks.is_torch(given) else checks.host_array(given, "vectors")
    if array.ndim != 2 or array.shape[1] != dim or not len(array):
        checks.vectors(array, "vectors", dim)  # a wrong shape, or nothing: the message is about the whole
    kept = _ids(ids, len(array), "vector")
    for block in blocks(len(array), 4 * dim):
        with exact.arithmetic():  # not while the caller's iterator runs
            rows = checks.vectors(array[block], "vectors", dim)
        yield rows, None if kept is None else kept[block]


def _documents(given: Any, ids: Any, dim: int) -> Iterator[Piece]:
    """The pieces of documents in any form; of a list, one piece at a time is converted."""
    docs = given if isinstance(given, (list, tuple)) else ragged.tokens(given, "docs", dim)
    kept = _ids(ids, len(docs), "document")
    lengths = docs.lengths if isinstance(docs, Ragged) else [_size(each) for each in docs]
    for block in _ragged_blocks(lengths, 4 * dim):
        with exact.arithmetic():
            part = docs.part(block) if isinstance(docs, Ragged) else Ragged.of(docs[block], "docs", dim, block.start)
        yield part, None if kept is None else kept[block]


def _sparse(given: Any, ids: Any, n_terms: int) -> Iterator[Piece]:
    with exact.arithmetic():
        rows = SparseRows.of(given, n_terms)
    kept = _ids(ids, len(rows), "row")
    for block in _ragged_blocks(rows.lengths, WEIGHT_BYTES):
        yield rows.part(block), None if kept is None else kept[block]


def _ragged_blocks(lengths: Any, entry_bytes: int) -> Iterator[slice]:
    """Slices of rows with so many entries each, about `BLOCK_BYTES` of them."""
    number = np.cumsum(lengths) * entry_bytes // BLOCK_BYTES
    starts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(lengths)]
    return (slice(low, high) for low, high in pairwise(starts) if low < high)


def _size(given: Any) -> int:
    return len(given) if hasattr(given, "__len__") else 1  # what has none is refused when its turn comes


def _ids(ids: Any, count: int, what: str) -> I64 | None:
    given = None if ids is None else checks.id_list(ids)
    if given is not None and len(given) != count:
        raise ValueError(f"ids must have one entry per {what}, {count}; got {len(given)}")
    return given


def length(vectors: Any) -> int | None:
    """How many rows its pieces will have; None where nobody knows."""
    sized = hasattr(vectors, "__len__") and not isinstance(vectors, Iterator)
    return len(vectors) if sized else None


def watched(parts: Iterator[Piece], n_rows: int | None) -> Iterator[Piece]:
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

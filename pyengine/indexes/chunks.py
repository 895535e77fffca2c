"""What `add` is given, piece by piece: arrays or documents of any size and kind, or an iterator of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from pyengine import checks
from pyengine.indexes.arrays import BLOCK_BYTES, blocks
from pyengine.indexes.pooling import Pooler
from pyengine.inputs import ragged
from pyengine.inputs.ragged import Ragged
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.refining import exact
from pyengine.types import I64, Bool

WEIGHT_BYTES = 8  # a term and its weight
MANY_ROWS = 1 << 17  # fewer never take long
PATIENCE = 5.0  # seconds before a bar shows

T = TypeVar("T")
Piece = tuple[Any, I64 | None]  # rows and their ids [n]; None where none are given


def vectors(given: Any, ids: Any, dim: int) -> Iterator[Piece]:
    """Rows float32 [n, D] and their ids, a few megabytes at a time.

    Raises ValueError or TypeError, naming the argument, as soon as something is wrong.
    """
    return _pieces(given, "vectors", partial(_vectors, dim=dim), ids=ids)


def documents(given: Any, ids: Any, dim: int, pooler: Pooler | None = None, drop: Any = None) -> Iterator[Piece]:
    """The same of documents of token vectors, each piece a `Ragged`, or what a ``pooler`` leaves of it; ``drop`` says
    which tokens are for it to drop."""
    for part, kept, dropped in _pieces(given, "docs", partial(_documents, dim=dim), ids=ids, drop=drop):
        yield part if pooler is None else pooler(part, dropped), kept


def sparse(given: Any, ids: Any, n_terms: int) -> Iterator[Piece]:
    """The same of sparse rows, each piece `SparseRows`."""
    return _pieces(given, "rows", partial(_sparse, n_terms=n_terms), ids=ids)


def first_tokens(pieces: Iterator[Piece], count: int) -> list[Piece]:
    """The first pieces of documents, so many that they have ``count`` tokens together; or all."""
    taken: list[Piece] = []
    while sum(len(docs.values) for docs, _ in taken) < count:
        piece = next(pieces, None)
        if piece is None:
            break
        taken.append(piece)
    return taken


def _pieces(given: Any, name: str, split: Callable[..., Iterator[T]], **along: Any) -> Iterator[T]:
    """The pieces of an array, or of each array that an iterator gives. What goes ``along`` (None: nothing) belongs to
    that array, or is an iterator of as many."""
    if not isinstance(given, Iterator):
        yield from split(given, **along)
        return
    along = {key: value for key, value in along.items() if value is not None}
    for key, value in along.items():
        if not isinstance(value, Iterator):
            got = type(value).__name__
            raise TypeError(f"{key} must be an iterator of arrays where {name} is an iterator; got a {got}")
    number = 0
    for number, chunk in enumerate(given, 1):
        own = {key: next(value, None) for key, value in along.items()}
        for key in own:
            if own[key] is None:
                raise ValueError(f"{key} must have one array for each chunk of {name}; got {number - 1}")
        yield from split(chunk, **own)
    for key, value in along.items():
        if next(value, None) is not None:
            raise ValueError(f"{key} must have one array for each chunk of {name}; got more than {number}")


def _vectors(given: Any, *, dim: int, ids: Any = None) -> Iterator[Piece]:
    """The pieces of one array, of which only one at a time is converted."""
    as_is = checks.is_torch(given) or isinstance(given, np.ndarray)
    array = given if as_is else checks.host_array(given, "vectors")
    if array.ndim != 2 or array.shape[1] != dim or not len(array):
        checks.vectors(array, "vectors", dim)  # a wrong shape, or nothing: the message is about the whole
    kept = _ids(ids, len(array), "vector")
    for block in blocks(len(array), 4 * dim):
        with exact.arithmetic():  # not while the caller's iterator runs
            rows = checks.vectors(array[block], "vectors", dim)
        yield rows, None if kept is None else kept[block]


def _documents(
    given: Any, *, dim: int, ids: Any = None, drop: Any = None
) -> Iterator[tuple[Ragged, I64 | None, Bool | None]]:
    """The pieces of documents in any form, with their ids and marks; of a list, one piece at a time is converted."""
    docs = given if isinstance(given, (list, tuple)) else ragged.tokens(given, "docs", dim)
    kept = _ids(ids, len(docs), "document")
    lengths = docs.lengths if isinstance(docs, Ragged) else np.array([_size(each) for each in docs], np.int64)
    dropped, ends = ragged.marks(drop, "drop", lengths), np.concatenate([[0], np.cumsum(lengths)])
    for block in _ragged_blocks(ends, 4 * dim):
        with exact.arithmetic():
            part = docs.part(block) if isinstance(docs, Ragged) else Ragged.of(docs[block], "docs", dim, block.start)
        own = None if dropped is None else dropped[ends[block.start] : ends[block.stop]]
        yield part, None if kept is None else kept[block], own


def _sparse(given: Any, *, n_terms: int, ids: Any = None) -> Iterator[Piece]:
    with exact.arithmetic():
        rows = SparseRows.of(given, n_terms)
    kept = _ids(ids, len(rows), "row")
    for block in _ragged_blocks(rows.indptr, WEIGHT_BYTES):
        yield rows.part(block), None if kept is None else kept[block]


def _ragged_blocks(ends: I64, entry_bytes: int) -> Iterator[slice]:
    """Slices of rows, with about `BLOCK_BYTES` of entries each; ``ends`` [n + 1] are those of rows, from 0 on."""
    number = ends[1:] * entry_bytes // BLOCK_BYTES
    starts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
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

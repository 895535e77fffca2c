"""Sparse queries as the scan of `pyengine.kernels.sparse_topk` reads them: tables of scaled weights in half precision,
and how far the sums may be off. The letters are those of that module."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyengine.backends.shared import row_pools
from pyengine.backends.shared.row_pools import Errors
from pyengine.backends.triton.triton_tiles import EXACT, Tiles
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.kernels.sparse_plan import SHORT
from pyengine.kernels.sparse_topk import QueryTables
from pyengine.types import F64, I64

HALF = 2.0**-11  # what half precision loses of a number at most, relatively
SMALL = 2.0**-14  # below it, it loses more
DEEP_LOSS = 2.0**-109  # of a product that float32 cannot hold
FLOAT32_LOSS = 2.0**-19  # of bounds
WHOLE = float(1 << 24)  # integers below it are exact in float32


class Terms(NamedTuple):
    """Those terms of the queries that documents have: ``owner`` int64 the query, ``numbers`` int64 as in `Tiles`, and
    ``weights`` float64."""

    owner: I64
    numbers: I64
    weights: F64


class Written(NamedTuple):
    """Zeros, so many, but for ``values`` at ``places`` int64."""

    size: int
    places: I64
    values: NDArray[Any]


class Scaled(NamedTuple):
    """Queries for a scan, on the host: the parts of `QueryTables`, and float64 [Q] ``units``, U D."""

    slots: Written
    table: Written
    starts: I64
    columns: Written | None
    errors: Errors
    signed: bool
    units: F64

    def arrays(self) -> tuple[Any, ...]:
        """What a scan reads of them, as `tables` takes it."""
        written = self.slots[1:] + self.table[1:] + ((None, None) if self.columns is None else self.columns[1:])
        return *written, self.starts, *self.errors, np.zeros(1, np.float32)


def scaled(queries: SparseRows, held: Tiles, block: int, biased: bool) -> Scaled:
    """The queries in blocks of so many."""
    found, count = _known(queries, held), len(queries)
    largest = np.zeros(count)
    np.maximum.at(largest, found.owner, np.abs(found.weights))
    factors = row_pools.factors(largest, held.unit, biased)
    weights = found.weights / factors[found.owner]
    halves = weights.astype(np.float16)
    units = factors * held.unit
    errors = row_pools.errors(*_errors(found, weights, halves, count, held), units, biased)
    slots, table, starts = _table(found, halves, count, block, held)
    signed = held.signed or bool((found.weights < 0).any())
    return Scaled(slots, table, starts, _columns(found, halves, count, block, held), errors, signed, units)


def tables(own: Scaled, held: Tiles, block: int, room: Workspace, sent: tuple[Any, ...]) -> QueryTables:
    """The queries as the scan reads them, of what was ``sent``: `Scaled.arrays`."""
    slot_places, slots, table_places, halves, column_places, columns, starts, *errors = sent
    n_blocks, heads = len(starts), None
    numbers = _zeros_but(room, "slots", own.slots.size, slot_places, slots)
    numbers = numbers.view(torch.uint16) if held.n_tail <= SHORT else numbers
    table = _zeros_but(room, "table", own.table.size, table_places, halves)
    if own.columns is not None:
        heads = _zeros_but(room, "columns", own.columns.size, column_places, columns)
        heads = heads.view(n_blocks, held.n_columns, block)
    widen, slack, inverse, nothing = errors
    return QueryTables(
        numbers.view(n_blocks, held.n_tail + 1), table.view(-1, block), starts, heads, widen, slack, inverse, nothing,
        own.signed,
    )  # fmt: skip


def _zeros_but(room: Workspace, name: str, size: int, places: Tensor, values: Tensor) -> Tensor:
    """`Written`, on the device."""
    return room.roomy(name, (size,), values.dtype).zero_().scatter_(0, places, values)


def _known(queries: SparseRows, held: Tiles) -> Terms:
    owner, names = np.repeat(np.arange(len(queries)), queries.lengths), held.names
    if not len(names):
        return Terms(owner[:0], owner[:0], np.empty(0))
    at = np.minimum(np.searchsorted(names, queries.indices), len(names) - 1)
    known = names[at] == queries.indices
    return Terms(owner[known], held.numbers[at[known]], queries.values[known].astype(np.float64))


def _errors(found: Terms, weights: F64, halves: NDArray[Any], count: int, held: Tiles) -> tuple[F64, F64]:
    """float64 [Q]: e and a."""
    owner, sizes = found.owner, np.abs(weights)
    n_terms = np.bincount(owner, minlength=count)
    gamma = 4 * (n_terms + 16) * 2.0**-24
    error = (1 + HALF) ** 2 * (1 + gamma / (1 - gamma)) - 1
    lost = np.where(sizes < SMALL, np.abs(halves - weights), 0.0)
    slack = 1.001 * held.largest * np.bincount(owner, lost, count) + DEEP_LOSS * n_terms * held.deep
    plain = np.abs(found.weights)
    rough = (found.weights != np.round(found.weights)) | (plain > EXACT) | (halves != weights)
    exact = held.integers & (np.bincount(owner, rough, count) == 0)
    exact &= np.bincount(owner, plain, count) * held.largest * held.unit <= WHOLE
    return np.where(exact, 0.0, error / (1 - error) + FLOAT32_LOSS), np.where(exact, 0.0, slack)


def _table(found: Terms, halves: NDArray[Any], count: int, block: int, held: Tiles) -> tuple[Written, Written, I64]:
    """``slots``, ``table`` and ``starts`` of `QueryTables`."""
    n_blocks, n_slots, short = -(-count // block), held.n_tail + 1, held.n_tail <= SHORT
    tail = found.numbers >= held.n_columns
    owner, numbers = found.owner[tail], found.numbers[tail] - held.n_columns
    keys, place = np.unique(owner // block * n_slots + numbers, return_inverse=True)
    of_block = keys // n_slots
    sizes = np.bincount(of_block, minlength=n_blocks) + 1  # with place 0, of the terms that no query has
    starts = np.cumsum(sizes) - sizes
    slot = np.arange(len(keys)) + of_block + 1 - starts[of_block]
    slots = slot.astype(np.uint16).view(np.int16) if short else slot.astype(np.int32)
    at = (starts[owner // block] + slot[place]) * block + owner % block
    return Written(n_blocks * n_slots, keys, slots), Written(int(sizes.sum()) * block, at, halves[tail]), starts


def _columns(found: Terms, halves: NDArray[Any], count: int, block: int, held: Tiles) -> Written | None:
    """``columns`` of `QueryTables`."""
    if not held.n_columns:
        return None
    n_blocks, heads = -(-count // block), found.numbers < held.n_columns
    owner, numbers = found.owner[heads], found.numbers[heads]
    at = (owner // block * held.n_columns + numbers) * block + owner % block
    return Written(n_blocks * held.n_columns * block, at, halves[heads])

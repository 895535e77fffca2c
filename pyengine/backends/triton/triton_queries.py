"""Sparse queries as the scan of `pyengine.kernels.sparse_topk` reads them: tables of scaled weights in half precision,
and how far the sums may be off. The letters are those of that module."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyengine.backends.shared import row_pools
from pyengine.backends.triton import triton_pools
from pyengine.backends.triton.triton_tiles import EXACT, Tiles
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


class Scaled(NamedTuple):
    """Queries for a scan: ``tables``, and float64 [Q] ``units``, U D."""

    tables: QueryTables
    units: F64


def scaled(queries: SparseRows, held: Tiles, block: int, biased: bool, device: torch.device) -> Scaled:
    """The queries in blocks of so many, on the device."""
    found, count = _known(queries, held), len(queries)
    largest = np.zeros(count)
    np.maximum.at(largest, found.owner, np.abs(found.weights))
    factors = row_pools.factors(largest, held.unit, biased)
    weights = found.weights / factors[found.owner]
    halves = weights.astype(np.float16)
    units = factors * held.unit
    widen, slack, inverse, nothing = triton_pools.errors(
        *_errors(found, weights, halves, count, held), units, biased, device
    )
    slots, table, starts = _table(found, halves, count, block, held, device)
    columns = _columns(found, halves, count, block, held, device)
    signed = held.signed or bool((found.weights < 0).any())
    return Scaled(QueryTables(slots, table, starts, columns, widen, slack, inverse, nothing, signed), units)


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


def _table(
    found: Terms, halves: NDArray[Any], count: int, block: int, held: Tiles, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """``slots``, ``table`` and ``starts`` of `QueryTables`."""
    n_blocks, n_slots, short = -(-count // block), held.n_tail + 1, held.n_tail <= SHORT
    tail = found.numbers >= held.n_columns
    owner, numbers = found.owner[tail], found.numbers[tail] - held.n_columns
    keys, place = np.unique(owner // block * n_slots + numbers, return_inverse=True)
    of_block = keys // n_slots
    sizes = np.bincount(of_block, minlength=n_blocks) + 1  # with place 0, of the terms that no query has
    starts = np.cumsum(sizes) - sizes
    slot = np.arange(len(keys)) + of_block + 1 - starts[of_block]
    slots = torch.zeros(n_blocks * n_slots, dtype=torch.int16 if short else torch.int32, device=device)
    _put(slots, keys, slot.astype(np.uint16).view(np.int16) if short else slot.astype(np.int32))
    table = torch.zeros(int(sizes.sum()) * block, dtype=torch.float16, device=device)
    _put(table, (starts[owner // block] + slot[place]) * block + owner % block, halves[tail])
    slots = slots.view(torch.uint16) if short else slots
    return slots.view(n_blocks, n_slots), table.view(-1, block), torch.from_numpy(starts).to(device)


def _columns(
    found: Terms, halves: NDArray[Any], count: int, block: int, held: Tiles, device: torch.device
) -> Tensor | None:
    """``columns`` of `QueryTables`."""
    if not held.n_columns:
        return None
    n_blocks, heads = -(-count // block), found.numbers < held.n_columns
    owner, numbers = found.owner[heads], found.numbers[heads]
    columns = torch.zeros(n_blocks * held.n_columns * block, dtype=torch.float16, device=device)
    _put(columns, (owner // block * held.n_columns + numbers) * block + owner % block, halves[heads])
    return columns.view(n_blocks, held.n_columns, block)


def _put(into: Tensor, places: I64, values: NDArray[Any]) -> None:
    into[torch.from_numpy(places).to(into.device)] = torch.from_numpy(np.ascontiguousarray(values)).to(into.device)

"""Sparse rows on a device: as they are, and as the scan of `pyengine.kernels.sparse_topk` reads them.

For the scan, the most frequent terms become columns of a matrix, in half precision (`sparse_plan.plan_columns`), and
the other postings of ``TILE`` documents lie interleaved: place j of all of them, then place j + 1, and so on to the
longest, padded with a term that no query has. Documents are sorted by their number of postings, the most first, so that
little is padded and good thresholds are found soon.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyengine.inputs.sparse_rows import I32
from pyengine.kernels import sparse_plan
from pyengine.kernels.sparse_plan import SHORT, TILE, UNROLL
from pyengine.kernels.sparse_refine import DeviceRows
from pyengine.kernels.sparse_topk import DocumentTiles
from pyengine.problems.problem_sparse import TermRows
from pyengine.types import I64

PORTION = 1 << 24  # postings looked at together: some 500 MB of scratch
COLUMN_RANGE = 2.0**-14  # weights below it are no normal half-precision numbers
DEEP = 2.0**-100  # scaled weights below it may vanish in a float32 product
EXACT = 2048  # integers up to it are exact in half precision


@dataclass(frozen=True)
class Tiles:
    """Documents as a scan reads them. A weight is ``unit`` times what is kept.

    ``names`` int32 [T] are the terms that documents have, rising, and ``numbers`` int64 [T] says where each is: below
    ``n_columns`` its column, else ``n_columns`` and its number among the other ``n_tail``. Tile t has the places
    ``offsets[t]:offsets[t + 1]`` of ``terms`` uint16 or int32 and ``weights`` float32 or float16 (None: all are 1), and
    the rows ``order[t TILE:(t + 1) TILE]`` int32, -1 where there is none. ``columns`` float16 [N padded, n_columns].
    """

    names: I32
    numbers: I64
    n_columns: int
    n_tail: int
    terms: Tensor
    weights: Tensor | None
    offsets: Tensor
    order: Tensor
    columns: Tensor | None
    unit: float
    largest: float  # of the kept weights, in magnitude
    signed: bool
    deep: bool  # some weights are so small beside the largest that products vanish
    integers: bool  # all weights are, and small

    def arrays(self) -> DocumentTiles:
        """What the kernel reads."""
        return DocumentTiles(self.terms, self.weights, self.offsets, self.order, self.columns)


@dataclass(frozen=True)
class _Summary:
    """What one pass over the documents finds of each of the rising ``names``: int64 ``frequency``, and float64 the
    ``smallest`` magnitude, [T]; and of all weights."""

    names: Tensor
    frequency: Tensor
    smallest: Tensor
    largest: float
    least: float
    signed: bool
    integers: bool


def device_rows(rows: TermRows, device: torch.device) -> DeviceRows:
    """The rows as they are, copied to the device."""

    def copy(array: NDArray[Any] | None) -> Tensor | None:
        if array is None:
            return None
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)

    offsets, terms, values, low, step = map(copy, (rows.offsets, rows.terms, rows.values, rows.low, rows.step))
    return DeviceRows(offsets, terms, values, low, step, int(np.diff(rows.offsets).max(initial=0)))


def tiles(rows: DeviceRows) -> Tiles:
    """The documents as a scan reads them, on the device where their rows are."""
    device, n_docs = rows.offsets.device, len(rows.offsets) - 1
    found = _summary(rows)
    equal = found.largest == found.least and not found.signed
    unit = found.largest if equal else 2.0 ** (np.frexp(found.largest)[1] - 15)
    by_frequency = torch.argsort(found.frequency, descending=True, stable=True)
    fits = found.smallest[by_frequency] >= COLUMN_RANGE * unit
    first = by_frequency[fits][: sparse_plan.HEADS[-1]]
    n_columns, _ = sparse_plan.plan_columns(found.frequency[first].tolist(), n_docs)
    heads = first[:n_columns]
    numbers = torch.full_like(found.frequency, -1)
    numbers[heads] = torch.arange(len(heads), device=device)
    others = by_frequency[numbers[by_frequency] < 0]
    numbers[others] = n_columns + torch.arange(len(others), device=device)
    filled = _Filled(rows, found.names, numbers, n_columns, len(others), unit)
    weights = None if equal else filled.weights
    if weights is not None and bool((weights.half().float() == weights).all()):
        weights = weights.half()
    return Tiles(
        found.names.cpu().numpy(), numbers.cpu().numpy(), n_columns, len(others), filled.terms, weights,
        filled.offsets, filled.order, filled.columns, unit, found.largest / unit, found.signed,
        deep=found.least / unit < DEEP, integers=found.integers,
    )  # fmt: skip


def _portions(rows: DeviceRows) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some rows at a time: the row, int64, the term, int32, and the weight, float32, of each posting that is not 0."""
    offsets, n_docs = rows.offsets, len(rows.offsets) - 1
    edges = torch.arange(0, int(offsets[-1]) + PORTION, PORTION, device=offsets.device)
    places = torch.searchsorted(offsets, edges).clamp(max=n_docs)
    cuts = torch.unique_consecutive(places).tolist()
    for first, last in pairwise(cuts):
        span = slice(*offsets[[first, last]].tolist())
        lengths = offsets[first + 1 : last + 1] - offsets[first:last]
        owner = torch.repeat_interleave(torch.arange(first, last, device=offsets.device), lengths)
        weights = rows.values[span].float()
        if rows.low is not None:
            weights = rows.step[owner] * weights + rows.low[owner]
        kept = weights != 0
        yield owner[kept], rows.terms[span].to(torch.int32)[kept], weights[kept]


def _summary(rows: DeviceRows) -> _Summary:
    device = rows.offsets.device
    names = torch.empty(0, dtype=torch.int32, device=device)
    frequency = torch.empty(0, dtype=torch.int64, device=device)
    smallest = torch.empty(0, dtype=torch.float64, device=device)
    largest, least, signed, integers = 0.0, np.inf, False, True
    for _, terms, weights in _portions(rows):
        if not len(terms):
            continue
        sizes = weights.abs().double()
        names, place = torch.unique(torch.cat([names, terms]), return_inverse=True)
        counts = torch.cat([frequency, torch.ones_like(terms, dtype=torch.int64)])
        frequency = torch.zeros(len(names), dtype=torch.int64, device=device).index_add_(0, place, counts)
        limits = torch.full((len(names),), torch.inf, dtype=torch.float64, device=device)
        smallest = limits.scatter_reduce_(0, place, torch.cat([smallest, sizes]), "amin")
        largest, least = max(largest, float(sizes.max())), min(least, float(sizes.min()))
        signed = signed or bool((weights < 0).any())
        integers = integers and largest <= EXACT and bool((weights == weights.round()).all())
    if not len(names):
        largest = least = 1.0
    return _Summary(names, frequency, smallest, largest, least, signed, integers)


class _Filled:
    """The arrays of `Tiles` that hold postings."""

    def __init__(
        self, rows: DeviceRows, names: Tensor, numbers: Tensor, n_columns: int, n_tail: int, unit: float
    ) -> None:
        device, n_docs = rows.offsets.device, len(rows.offsets) - 1
        n_tiles = -(-n_docs // TILE)
        lengths = torch.zeros(n_docs, dtype=torch.int64, device=device)
        for owner, terms, _ in _portions(rows):
            tail = numbers[torch.searchsorted(names, terms)] >= n_columns
            lengths += torch.bincount(owner[tail], minlength=n_docs)
        lengths, order = torch.sort(lengths, descending=True, stable=True)
        places = torch.empty_like(order)
        places[order] = torch.arange(n_docs, device=device)
        self.order = torch.full((n_tiles * TILE,), -1, dtype=torch.int32, device=device)
        self.order[:n_docs] = order
        longest = -(-lengths[::TILE] // UNROLL) * UNROLL
        self.offsets = torch.zeros(n_tiles + 1, dtype=torch.int64, device=device)
        torch.cumsum(TILE * longest, 0, out=self.offsets[1:])
        total, kind = int(self.offsets[-1]), torch.int16 if n_tail <= SHORT else torch.int32
        pad = np.uint16(n_tail).astype(np.int16) if n_tail <= SHORT else n_tail
        self.terms = torch.full((total,), int(pad), dtype=kind, device=device)
        self.weights = torch.zeros(total, dtype=torch.float32, device=device)
        self.columns = None
        if n_columns:
            self.columns = torch.zeros((n_tiles * TILE, n_columns), dtype=torch.float16, device=device)
        for owner, terms, weights in _portions(rows):
            number, place = numbers[torch.searchsorted(names, terms)], places[owner]
            scaled, tail = weights.double() / unit, number >= n_columns
            if self.columns is not None:
                self.columns[place[~tail], number[~tail]] = scaled[~tail].half()
            self._fill(owner[tail], place[tail], number[tail] - n_columns, scaled[tail])
        self.terms = self.terms.view(torch.uint16) if n_tail <= SHORT else self.terms

    def _fill(self, owner: Tensor, place: Tensor, number: Tensor, scaled: Tensor) -> None:
        """Whole rows, whose postings follow one another."""
        if not len(owner):
            return
        index = torch.arange(len(owner), device=owner.device)
        new = torch.ones_like(owner, dtype=torch.bool)
        new[1:] = owner[1:] != owner[:-1]
        within = index - torch.cummax(torch.where(new, index, 0), 0).values
        target = self.offsets[place // TILE] + within * TILE + place % TILE
        self.terms[target] = number.to(self.terms.dtype)
        self.weights[target] = scaled.float()

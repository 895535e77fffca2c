"""The pools of a scan, between the device and the search core: what the backends of sparse and of sliced rows share.

The scans bound scores in units of each query; what is read here is multiplied by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyengine.backends import triton_device
from pyengine.backends.triton_filters import limits
from pyengine.kernels import filtering, selection
from pyengine.kernels.selection import Pools
from pyengine.problems.problem import Problem
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Attempt, Candidates

P = TypeVar("P", bound=Problem)
PLACES = 1 << 29  # of all pools of one scan, at most
ROOM = 1024  # places of a pool beyond those asked for
LARGE_UNIT = 2.0**90  # above it, the inverse of a unit may vanish


class Found(NamedTuple):
    """What a scan leaves, and the ``units`` of its bounds, float64 [Q]."""

    pools: Pools
    units: F64

    def counts(self) -> Tensor:
        return self.pools.counts.clamp(max=self.pools.capacity)

    def starts(self) -> Tensor:
        return self.pools.capacity * torch.arange(len(self.units), device=self.pools.rows.device)

    def scores(self) -> Tensor:
        """Room for a score of each place."""
        return torch.empty(self.pools.rows.shape, dtype=torch.float32, device=self.pools.rows.device)

    def dropped(self) -> F64:
        """float64 [Q]: a bound on what the pools do not hold."""
        bound: F64 = selection.dropped(self.pools).cpu().numpy().astype(np.float64) * self.units
        return bound


def candidates(found: Found) -> Candidates:
    """What the pools hold; the estimates lie in the middle of the bounds."""
    rows, upper, lower, counts = (each.cpu().numpy() for each in (*found.pools[:3], found.counts()))
    held = np.arange(found.pools.capacity) < counts[:, None]
    middle = (upper[held].astype(np.float64) + lower[held]) / 2 * np.repeat(found.units, counts)
    estimates = reference.round_score(np.where(np.isfinite(middle), middle, 0.0))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Candidates(rows[held].astype(np.int64), offsets, estimates, found.dropped())


def together(each: list[Candidates]) -> Candidates:
    """The candidates of one part of the queries after another."""
    lengths = np.concatenate([[0], *(np.diff(own.offsets) for own in each)]).astype(np.int64)
    rows, estimates, dropped = (np.concatenate([getattr(own, name) for own in each]) for name in PER_PART)
    return Candidates(rows, np.cumsum(lengths), estimates, dropped)


PER_PART = ("rows", "estimates", "dropped")


class Listed(NamedTuple):
    """Candidates on the device, as the refining kernels take them: ``rows`` int32 [M], of each query ``counts`` int32
    [Q] from ``starts`` int64 [Q] on, at most ``longest``; and room for ``scores`` float32 [M]."""

    rows: Tensor
    starts: Tensor
    counts: Tensor
    longest: int
    scores: Tensor


def listed(candidates: Candidates, device: torch.device) -> Listed:
    lengths = np.diff(candidates.offsets)
    arrays = candidates.rows.astype(np.int32), candidates.offsets[:-1].copy(), lengths.astype(np.int32)
    rows, starts, counts = (torch.from_numpy(each).to(device) for each in arrays)
    scores = torch.empty(len(rows), dtype=torch.float32, device=device)
    return Listed(rows, starts, counts, int(lengths.max(initial=0)), scores)


def selected(problem: Problem, found: Found, scores: Tensor) -> Attempt:
    """The k best of what the pools hold and the filters leave, by these scores of it."""
    rising = None if problem.ids is None else problem.docs.id_order(problem.ids)
    order = None if rising is None else _order(problem, rising)
    rows, counts = found.pools.rows, left(problem, scores, found.pools.rows, found.counts(), order)
    best = selection.select(scores, rows, counts, problem.k, order, False).cpu().numpy()
    rank, places = selection.decode(best)
    held = best != selection.PAD
    at = np.where(held, places, 0)
    ids = problem.ids_of(at if rising is None else rising[at]) if len(problem.docs) else at
    return Attempt(np.where(held, rank, np.float32(-np.inf)), np.where(held, ids, -1), found.dropped())


def left(problem: Problem, scores: Tensor, rows: Tensor, counts: Tensor, order: Tensor | None) -> Tensor:
    """How many of these the filters leave: they come first then (`pyengine.kernels.filtering.leave`)."""
    given = limits(problem, rows.device)
    return counts if given is None else filtering.leave(scores, rows, counts, given, order, False)


def _order(problem: Problem, rising: I64) -> Tensor:
    """int32 [N]: the place of each row by ``rising`` ids."""

    def build(device: torch.device) -> Tensor:
        places = np.empty(len(rising), np.int32)
        places[rising] = np.arange(len(rising))
        return torch.from_numpy(places).to(device)

    return triton_device.mirrored(problem.docs, "order of ids", build)


def capacity(problem: Problem, width: int) -> int:
    """Places of a pool."""
    return max(1, min(max(width, 2 * problem.k) + ROOM, len(problem.docs)))


def parts(problem: P, width: int) -> Iterator[P]:
    """The problem for so few queries at a time that their pools have at most ``PLACES``."""
    step = max(1, PLACES // capacity(problem, width))
    for start in range(0, max(1, problem.n_queries), step):
        yield problem.only(np.arange(start, min(start + step, problem.n_queries)))


def on_device(array: NDArray[Any] | None, device: torch.device) -> Tensor | None:
    """A copy there."""
    if array is None:
        return None
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def bias_of(problem: Problem, device: torch.device) -> Tensor | None:
    """float32 [N]: NaN for what it cannot hold, of which the scan then knows nothing."""
    if problem.bias is None:
        return None
    rounded = problem.bias.astype(np.float32)
    return on_device(np.where(np.isinf(rounded), np.float32(np.nan), rounded), device)


def mask_of(problem: Problem, device: torch.device) -> Tensor | None:
    return on_device(None if problem.mask is None else np.ascontiguousarray(problem.mask), device)


def floor_of(problem: Problem, units: F64, least: np.float32, device: torch.device) -> Tensor:
    """float32 [Q], at least ``least``: bounds below it need no place."""
    floor = np.full(len(units), least, np.float32)
    if problem.floor is not None:
        floor = np.maximum(floor, np.nextafter((problem.floor / units).astype(np.float32), np.float32(-np.inf)))
    return torch.from_numpy(floor).to(device)


def factors(largest: F64, unit: float, biased: bool) -> F64:
    """float64 [Q]: of queries with these largest magnitudes the powers of two by which they become 2^14 to 2^15;
    with a bias larger ones, where times ``unit`` they would be below 2^-60."""
    exponents = np.frexp(largest)[1] - 15
    if biased:
        exponents = np.maximum(exponents, -59 - np.frexp(unit)[1])
    powers: F64 = np.ldexp(1.0, exponents)
    return powers


def above(values: F64) -> F32:
    """float32, none below what it stands for, and 0 for 0."""
    rounded = np.nextafter(values.astype(np.float32), np.float32(np.inf))
    upper: F32 = np.where(values > 0, rounded, np.float32(0))
    return upper


def errors(widen: F64, slack: F64, units: F64, biased: bool, device: torch.device) -> list[Tensor]:
    """Float32 on the device: ``widen``, ``slack``, 1 / units (0 without a bias), and a bias of nothing. With a bias,
    its own errors are added (`pyengine.kernels.sparse_topk`)."""
    if biased:
        widen, slack = np.maximum(widen, 2.0**-19), slack + np.where(units > LARGE_UNIT, 4.0, 2.0**-60)
    inverse = (1 / units if biased else np.zeros_like(units)).astype(np.float32)
    each = above(widen), above(slack), inverse, np.zeros(1, np.float32)
    return [torch.from_numpy(array).to(device) for array in each]

"""The pools of a scan, between the device and the search core: what the backends of sparse and of sliced rows share.

The scans bound scores in units of each query; what is read here is multiplied by them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyengine.backends.shared import row_pools
from pyengine.backends.shared.row_pools import Held
from pyengine.backends.triton import triton_device
from pyengine.backends.triton.triton_filters import limits
from pyengine.kernels import filtering, selection
from pyengine.kernels.selection import Pools
from pyengine.problems.problem import Problem
from pyengine.types import F64, I64, Attempt, Candidates


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
    held = Held(*(each.cpu().numpy() for each in (*found.pools[:3], found.counts())))
    return row_pools.candidates(held, found.units, found.dropped())


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


def on_device(array: NDArray[Any] | None, device: torch.device) -> Tensor | None:
    """A copy there."""
    if array is None:
        return None
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def bias_of(problem: Problem, device: torch.device) -> Tensor | None:
    """The bias there, as `row_pools.single` rounds it."""
    return on_device(row_pools.single(problem.bias), device)


def mask_of(problem: Problem, device: torch.device) -> Tensor | None:
    return on_device(None if problem.mask is None else np.ascontiguousarray(problem.mask), device)


def floor_of(problem: Problem, units: F64, least: np.float32, device: torch.device) -> Tensor:
    """`row_pools.floors` there."""
    return torch.from_numpy(row_pools.floors(problem, units, least)).to(device)


def errors(widen: F64, slack: F64, units: F64, biased: bool, device: torch.device) -> list[Tensor]:
    """`row_pools.errors` on the device, and a bias of nothing."""
    each = *row_pools.errors(widen, slack, units, biased), np.zeros(1, np.float32)
    return [torch.from_numpy(array).to(device) for array in each]

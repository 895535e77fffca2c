"""The pools of a scan, between the device and the search core: what the backends of sparse and of sliced rows share.

The scans bound scores in units of each query; what is read here is multiplied by them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyengine.backends.shared import row_pools
from pyengine.backends.shared.row_pools import Held
from pyengine.backends.triton import triton_workspace
from pyengine.backends.triton.triton_answers import answer_room, id_places, on_host
from pyengine.backends.triton.triton_filters import limits
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.kernels import answers, filtering, selection
from pyengine.kernels.selection import Pools
from pyengine.kernels.triton_parts import LEAST
from pyengine.problems.problem import Problem
from pyengine.types import F32, F64, Attempt, Candidates

P = TypeVar("P", bound=Problem)


class Beginning(NamedTuple):
    """What pools of Q queries are at first: ``counts`` and ``lost`` int32 and ``threshold`` float32 [Q] of `Pools`."""

    counts: NDArray[np.int32]
    threshold: F32
    lost: NDArray[np.int32]


def beginning(problem: Problem, units: F64, least: np.float32) -> Beginning:
    """Of empty pools, with thresholds at `row_pools.floors`."""
    count = len(units)
    lost = np.full(count, LEAST.value, np.int32)
    return Beginning(np.zeros(count, np.int32), row_pools.floors(problem, units, least), lost)


def pools(room: Workspace, capacity: int, counts: Tensor, threshold: Tensor, lost: Tensor) -> Pools:
    """Pools that begin so, of ``capacity`` places each."""
    shape = len(counts), capacity
    upper, lower = (room.room(name, shape, torch.float32) for name in ("upper", "lower"))
    return Pools(room.room("rows", shape, torch.int32), upper, lower, counts, threshold, lost)


@dataclass(frozen=True)
class Found:
    """What a scan leaves in a workspace, the ``units`` of its bounds, float64 [Q], and the ``bias`` float64 [N]."""

    pools: Pools
    units: F64
    bias: Tensor | None

    def starts(self, room: Workspace) -> Tensor:
        """int64 [Q]: where the places of each query begin."""
        pools = self.pools
        return room.kept("starts", lambda: pools.capacity * torch.arange(len(pools.rows), device=room.device))

    def scores(self, room: Workspace) -> Tensor:
        """Room for a score of each place."""
        return room.room("scores", tuple(self.pools.rows.shape), torch.float32)

    def dropped(self, bounds: F64) -> F64:
        """float64 [Q]: `selection.dropped`, these bounds, as rank scores."""
        return bounds * self.units


def room_for(problem: Problem, k: int, width: int) -> AbstractContextManager[Workspace]:
    """Room for a search of these queries for their k best."""
    shapes = problem.n_queries, k, row_pools.capacity(problem, width)
    return triton_workspace.room_for(problem.docs, *shapes)


def bias_and_mask(problem: Problem, room: Workspace) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The bias as `row_pools.single` rounds it, as it is, and the mask."""
    single, bias = room.sent("biases", row_pools.single(problem.bias), problem.bias)
    return single, bias, None if problem.mask is None else room.copied("mask", problem.mask)


def candidates(found: Found) -> Candidates:
    """What the pools hold; the estimates lie in the middle of the bounds."""
    held = Held(*(each.cpu().numpy() for each in found.pools[:4]))
    bounds = selection.dropped(found.pools).cpu().numpy().astype(np.float64)
    return row_pools.candidates(held, found.units, found.dropped(bounds))


def proposed(problem: P, width: int, scanned: Callable[[P, int, Workspace], Found]) -> Candidates:
    """What the pools hold that ``scanned`` fills, for some of the queries at a time."""
    each = []
    for part in row_pools.parts(problem, width):
        with room_for(part, part.k, width) as room:
            each.append(candidates(scanned(part, width, room)))
    return row_pools.together(each)


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


def selected(problem: Problem, found: Found, scores: Tensor, room: Workspace) -> Attempt:
    """The k best of what the pools hold and the filters leave, by these scores of it; and the host waits for them."""
    order = id_places(problem)
    rows, counts = found.pools.rows, left(problem, scores, found.pools.rows, found.pools.counts, order)
    keys = room.room("keys", (problem.n_queries, problem.k), torch.int64)
    selection.choose(scores, rows, counts, order, False, keys)
    into = answer_room(room, *keys.shape)
    answers.finish(keys, found.pools, None, False, into)
    best = on_host(problem, into.packed)
    return best._replace(dropped=found.dropped(best.dropped))


def left(problem: Problem, scores: Tensor, rows: Tensor, counts: Tensor, order: Tensor | None) -> Tensor:
    """How many of these the filters leave: they come first then (`pyengine.kernels.filtering.leave`)."""
    given = limits(problem, rows.device)
    return counts if given is None else filtering.leave(scores, rows, counts, given, order, False)


def on_device(array: NDArray[Any] | None, device: torch.device) -> Tensor | None:
    """A copy there."""
    if array is None:
        return None
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)

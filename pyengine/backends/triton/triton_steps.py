"""The launches of a dense search on a GPU, into tensors that stay: none waits for the host, and none allocates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyengine.backends.triton.triton_answers import answer_room
from pyengine.backends.triton.triton_filters import ceiling
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.kernels import answers, dense_between, filtering, selection
from pyengine.kernels import refine as refining
from pyengine.kernels.answers import Answer
from pyengine.kernels.chips import Chip
from pyengine.kernels.dense_plan import DenseScan
from pyengine.kernels.dense_topk import ScanDocuments, ScanQueries, code_queries, query_room, scan
from pyengine.kernels.filtering import Limits


class Originals(NamedTuple):
    """The vectors, as they are refined: ``values`` [N, D] of floats, or int8 codes to be multiplied by ``step``."""

    values: Tensor
    step: Tensor | None = None


class Found(NamedTuple):
    """The pools of the queries [first, first + Q), float32 ``queries`` [Q, D] as they were ``coded``."""

    first: int
    queries: Tensor
    coded: ScanQueries
    pools: selection.Pools


class Refined(NamedTuple):
    """Room for a block of Q queries: where each one's pool begins, ``starts`` int64 [Q], ``scores`` float32 [Q, C] of
    what it holds, and ``keys`` int64 [Q, k] of the best."""

    starts: Tensor
    scores: Tensor
    keys: Tensor


@dataclass(frozen=True)
class Steps:
    """What the launches of a search of Q queries read, all but the queries. ``units`` float64 [2] belong to the terms
    of the documents, ``floor`` float64 [Q] are rank scores below which nothing counts, ``mask`` uint8 [1 or Q,
    ceil(N / 8)], ``bias`` float64 [N], ``order`` int32 [N] the place of each row by its id, ``names`` int64 [N] the ids
    in that order."""

    docs: ScanDocuments
    units: Tensor
    originals: Originals
    plan: DenseScan
    chip: Chip
    n_queries: int
    k: int
    metric: str
    floor: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None
    order: Tensor | None = None
    names: Tensor | None = None
    limits: Limits | None = None
    ceiling: Tensor | None = None

    def scans(self, queries: Tensor, room: Workspace) -> Iterator[Found]:
        """The pools of one block of queries after another, in the same room: of those before nothing is left."""
        plan, block = self.plan, self.plan.query_block
        padded = -(-block // plan.tile.queries) * plan.tile.queries
        kind, device = self.docs.values.dtype, self.docs.values.device
        coded = room.kept("coded", lambda: query_room(kind, plan.dims, plan.tile.parts, padded, device))
        pools = room.kept("pools", lambda: selection.pools(block, plan.capacity, device))
        for first in range(0, self.n_queries, block):
            which = slice(first, min(first + block, self.n_queries))
            count = which.stop - first
            own = selection.Pools(*(each[:count] for each in pools))
            mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[which]
            code_queries(queries[which], self.units, self.floor[which], self.metric, plan.dims, coded, own)
            if self.ceiling is None or mask is None:
                scan(self.docs, coded, mask, own, plan)
            else:
                over = ceiling(self.ceiling[which], coded, count, plan.dims)
                dense_between.scan(self.docs, coded, mask, own, over, plan, rising=True)
            yield Found(first, queries[which], coded, own)

    def answer(self, queries: Tensor, room: Workspace) -> Answer:
        """The whole search, but for what its certificate does not cover."""
        found = answer_room(room, self.n_queries, self.k)
        for block in self.scans(queries, room):
            self._answer_block(block, room, found)
        return found

    def _answer_block(self, found: Found, room: Workspace, into: Answer) -> None:
        pools, dims, count = found.pools, self.plan.dims, len(found.queries)
        starts, scores, keys = (each[:count] for each in room.kept("refined", self._refined))
        refining.refine(
            found.queries, *self.originals, self.bias, pools.rows, starts, pools.counts, scores, pools.capacity,
            self.metric, dims, self.chip,
        )  # fmt: skip
        own, counts, negate = slice(found.first, found.first + count), pools.counts, self.metric == "l2"
        if self.limits is not None:
            counts = filtering.leave(scores, pools.rows, counts, self.limits.part(own), self.order, negate)
        selection.choose(scores, pools.rows, counts, self.order, negate, keys)
        part = Answer(into.packed, *(each[own] for each in into[1:]))
        answers.finish(keys, pools, self.names, negate, part, found.coded.scaling, dims)

    def _refined(self) -> Refined:
        block, capacity, device = self.plan.query_block, self.plan.capacity, self.docs.values.device
        return Refined(
            capacity * torch.arange(block, device=device),
            torch.empty((block, capacity), dtype=torch.float32, device=device),
            torch.empty((block, self.k), dtype=torch.int64, device=device),
        )

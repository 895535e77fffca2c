"""Filters by refined scores: what a query may get of what its pool lists (`pyengine.inputs.filters`).

First what it is not to get at all leaves, then what others of its group come before; of the rest stays what reaches the
threshold and ranks after the mark, in the order in which it was listed.
"""

from __future__ import annotations

from itertools import product as every
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.selection import _keys as keys

BLOCK = 128  # candidates at a time
OTHERS = 32  # met by so many others of their groups
WARPS = 4


class Limits(NamedTuple):
    """Filters of Q queries and N documents. ``excluded`` int32 [M] rows that rise for each query, from ``offsets``
    int64 [Q + 1] on, at most ``longest`` for one; ``labels`` int64 [N] of which each query gets ``per_group`` (None:
    any); rank scores of ``threshold`` float64 [Q] at least, and below ``mark`` float64 [Q], or equal to it from the
    ``place`` int32 [Q] on."""

    excluded: Tensor
    offsets: Tensor
    longest: int
    labels: Tensor | None
    per_group: int
    threshold: Tensor
    mark: Tensor
    place: Tensor

    def part(self, which: slice) -> Limits:
        """Those of some of the queries."""
        offsets = self.offsets[which.start : which.stop + 1]
        threshold, mark, place = self.threshold[which], self.mark[which], self.place[which]
        return self._replace(offsets=offsets, threshold=threshold, mark=mark, place=place)


def leave(scores: Tensor, rows: Tensor, counts: Tensor, limits: Limits, order: Tensor | None, negate: bool) -> Tensor:
    """int32 [Q]: how many of the first ``counts`` int32 [Q] entries of ``scores`` float32 and ``rows`` int32 [Q, C] the
    limits leave; these come first then. ``order`` int32 [N] gives places for rows (None: themselves), and rank scores
    are the scores, negated where ``negate``."""
    left = torch.empty_like(counts)
    if len(counts):
        filter_kernel[(len(counts),)](
            scores, rows, torch.empty_like(scores), torch.empty_like(rows), counts, left,
            rows if order is None else order, limits.excluded, limits.offsets,
            limits.offsets if limits.labels is None else limits.labels, limits.threshold, limits.mark, limits.place,
            rows.shape[1], limits.longest.bit_length(), limits.per_group,
            order is not None, limits.labels is not None, negate, BLOCK, OTHERS, num_warps=WARPS,
        )  # fmt: skip
    return left


@triton.jit
def listed_in(excluded_ptr, first, last, steps, rows):
    """bool [BLOCK]: which of the ``rows`` are among the rising ``excluded`` from ``first`` to ``last``, at most
    2^steps - 1, by bisection."""
    low, high = tl.zeros_like(rows).to(tl.int64) + first, tl.zeros_like(rows).to(tl.int64) + last
    for _step in range(steps):
        middle = (low + high) // 2
        less = tl.load(excluded_ptr + middle, mask=low < high, other=2147483647) < rows
        low = tl.where(less, middle + 1, low)
        high = tl.where(less, high, middle)
    return tl.load(excluded_ptr + low, mask=low < last, other=-1) == rows


@triton.jit(do_not_specialize=["capacity", "steps", "per_group"])
def filter_kernel(
    scores_ptr, rows_ptr, some_scores_ptr, some_rows_ptr, counts_ptr, left_ptr, order_ptr, excluded_ptr, offsets_ptr,
    labels_ptr, threshold_ptr, mark_ptr, place_ptr, capacity, steps, per_group,
    HAS_ORDER: tl.constexpr, HAS_GROUPS: tl.constexpr, NEGATE: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    start, count = query * capacity, tl.load(counts_ptr + query)
    first, last = tl.load(offsets_ptr + query), tl.load(offsets_ptr + query + 1)
    some = 0  # that are not excluded: they move to some_scores and some_rows
    for at in range(0, count, BLOCK):
        places = at + tl.arange(0, BLOCK)
        held = places < count
        rows = tl.load(rows_ptr + start + places, mask=held, other=0)
        scores = tl.load(scores_ptr + start + places, mask=held, other=0.0)
        keep = (held & (listed_in(excluded_ptr, first, last, steps, rows) == 0)).to(tl.int32)
        to = start + some + tl.cumsum(keep, axis=0) - keep
        tl.store(some_rows_ptr + to, rows, mask=keep != 0)
        tl.store(some_scores_ptr + to, scores, mask=keep != 0)
        some += tl.sum(keep, axis=0)
    tl.debug_barrier()  # what follows is read by other threads than wrote it

    threshold, mark = tl.load(threshold_ptr + query), tl.load(mark_ptr + query)
    mark_place = tl.load(place_ptr + query)
    left = 0
    for at in range(0, some, BLOCK):
        places = at + tl.arange(0, BLOCK)
        keep = places < some
        rows = tl.load(some_rows_ptr + start + places, mask=keep, other=0)
        scores = tl.load(some_scores_ptr + start + places, mask=keep, other=0.0)
        key = keys(some_scores_ptr, some_rows_ptr, order_ptr, start, places, keep, HAS_ORDER, NEGATE)
        if HAS_GROUPS:
            label = tl.load(labels_ptr + rows, mask=keep, other=0)
            before = tl.zeros([BLOCK], tl.int32)
            for beside in range(0, some, OTHERS):
                others = beside + tl.arange(0, OTHERS)
                there = others < some
                other_rows = tl.load(some_rows_ptr + start + others, mask=there, other=0)
                other_label = tl.load(labels_ptr + other_rows, mask=there, other=0)
                other_key = keys(some_scores_ptr, some_rows_ptr, order_ptr, start, others, there, HAS_ORDER, NEGATE)
                beats = (other_label[None, :] == label[:, None]) & (other_key[None, :] > key[:, None])
                before += tl.sum((beats & there[None, :]).to(tl.int32), axis=1)
            keep &= before < per_group
        rank = (-scores if NEGATE else scores).to(tl.float64)
        place = 0x7FFFFFFF - (key & 0x7FFFFFFF)
        keep &= (rank >= threshold) & ((rank < mark) | ((rank == mark) & (place >= mark_place)))
        kept = keep.to(tl.int32)
        to = start + left + tl.cumsum(kept, axis=0) - kept
        tl.store(rows_ptr + to, rows, mask=keep)
        tl.store(scores_ptr + to, scores, mask=keep)
        left += tl.sum(kept, axis=0)
    tl.store(left_ptr + query, left)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    types = dict.fromkeys(("rows_ptr", "some_rows_ptr", "counts_ptr", "left_ptr", "order_ptr"), "*i32")
    types |= dict.fromkeys(("excluded_ptr", "place_ptr"), "*i32") | dict.fromkeys(("offsets_ptr", "labels_ptr"), "*i64")
    types |= dict.fromkeys(("scores_ptr", "some_scores_ptr"), "*fp32")
    types |= dict.fromkeys(("threshold_ptr", "mark_ptr"), "*fp64")
    types |= dict.fromkeys(("capacity", "steps", "per_group"), "i32")
    found = []
    for order, groups, negate in every((False, True), (False, True), (False, True)):
        values = {"HAS_ORDER": order, "HAS_GROUPS": groups, "NEGATE": negate, "BLOCK": BLOCK, "OTHERS": OTHERS}
        found.append(Shipped("filtering:filter_kernel", types | dict.fromkeys(values, "constexpr"), values, WARPS, 1))
    return found

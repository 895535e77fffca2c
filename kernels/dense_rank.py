"""How many of the documents that a pool lists come before a given one, by their refined scores."""

from __future__ import annotations

from itertools import product as every

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped

BLOCK = 1024
WARPS = 4


def before(
    scores: Tensor, rows: Tensor, counts: Tensor, own: Tensor, place: Tensor, order: Tensor | None, negate: bool
) -> Tensor:
    """int32 [Q]: of the ``counts`` int32 [Q] documents ``rows`` int32 [Q, C] with these ``scores`` float32 [Q, C], how
    many rank before the rank score ``own`` float32 [Q] at ``place`` int32 [Q] in the ``order`` int32 [N] of ids (None:
    the rows). Rank scores are the scores, negated where ``negate``."""
    found = torch.empty(len(counts), dtype=torch.int32, device=rows.device)
    if len(counts):
        before_kernel[(len(counts),)](
            scores, rows, counts, own, place, rows if order is None else order, found, rows.shape[1],
            order is not None, negate, BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return found


@triton.jit(do_not_specialize=["capacity"])
def before_kernel(
    scores_ptr, rows_ptr, counts_ptr, own_ptr, place_ptr, order_ptr, found_ptr, capacity,
    HAS_ORDER: tl.constexpr, NEGATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    start, count = query * capacity, tl.load(counts_ptr + query)
    own, own_place = tl.load(own_ptr + query), tl.load(place_ptr + query)
    better = tl.zeros([BLOCK], tl.int32)
    for at in range(0, count, BLOCK):
        places = at + tl.arange(0, BLOCK)
        held = places < count
        rank = tl.load(scores_ptr + start + places, mask=held, other=0.0)
        if NEGATE:
            rank = -rank
        place = tl.load(rows_ptr + start + places, mask=held, other=0)
        if HAS_ORDER:
            place = tl.load(order_ptr + place, mask=held, other=0)
        better += (held & ((rank > own) | ((rank == own) & (place < own_place)))).to(tl.int32)
    tl.store(found_ptr + query, tl.sum(better, axis=0))


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    types = dict.fromkeys(("scores_ptr", "own_ptr"), "*fp32") | {"capacity": "i32"}
    types |= dict.fromkeys(("rows_ptr", "counts_ptr", "place_ptr", "order_ptr", "found_ptr"), "*i32")
    found = []
    for order, negate in every((False, True), (False, True)):
        values = {"HAS_ORDER": order, "NEGATE": negate, "BLOCK": BLOCK}
        found.append(Shipped("dense_rank:before_kernel", types | dict.fromkeys(values, "constexpr"), values, WARPS, 1))
    return found

"""Selection without a heap: pools of survivors, thresholds that tighten, and an exact select at the end.

Each query has a pool of documents that may be among its k best, with bounds on their rank scores (or on any increasing
function of them). A scan goes through the documents in parts of rising size. What may reach the threshold is appended
(`triton_parts.append`); after each part `tighten` raises the threshold to the k-th largest lower bound and drops what
can no longer reach it. A stale threshold only lets more pass, so that at the end the pool holds the k best, unless
`dropped` says otherwise. The costs hardly depend on k.

Thresholds that `tighten` sets are lower than the k-th bound t by 2^-21 |t + centre|, more than rounding a rank score
u (s + centre) to float32 may change, here and there: so what is dropped is strictly below k documents, also as
float32, and a certificate holds. And lower by 2^-118, so that bounds may be off by 2^-120 (`STEP`) through underflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.triton_parts import LEAST, digit_counts, digit_of_kth, ordered, unordered

BLOCK = 2048  # pool entries at a time
WARPS = 8
STEP = 2.0**-120
PAD = -(2**63)  # the key of a place that no document fills


class Pools(NamedTuple):
    """Survivors of Q queries, in fixed places: ``rows`` int32 [Q, C] and bounds on their scores, ``upper`` and
    ``lower`` float32 [Q, C]; of each the first ``counts`` int32 [Q], of which more than C found no room. ``threshold``
    float32 [Q]; ``lost`` int32 [Q] the largest upper bound of what found no room, as `ordered` keys."""

    rows: Tensor
    upper: Tensor
    lower: Tensor
    counts: Tensor
    threshold: Tensor
    lost: Tensor

    @property
    def capacity(self) -> int:
        return int(self.rows.shape[1])

    def arguments(self) -> tuple[Any, ...]:
        """What `triton_parts.append` takes first."""
        return self.rows, self.upper, self.lower, self.counts, self.lost, self.capacity


def pools(n_queries: int, capacity: int, device: torch.device, floor: Tensor | None = None) -> Pools:
    """Empty pools of ``capacity`` places each, with thresholds at the ``floor`` float32 [Q]: what is below is dropped
    from the start."""
    shape = (n_queries, capacity)
    return Pools(
        torch.empty(shape, dtype=torch.int32, device=device),
        torch.empty(shape, dtype=torch.float32, device=device),
        torch.empty(shape, dtype=torch.float32, device=device),
        torch.zeros(n_queries, dtype=torch.int32, device=device),
        torch.full((n_queries,), -torch.inf, dtype=torch.float32, device=device) if floor is None else floor.clone(),
        torch.full((n_queries,), LEAST.value, dtype=torch.int32, device=device),
    )


def tighten(found: Pools, k: int, centre: Tensor | None = None) -> None:
    """Raise each threshold to the k-th largest lower bound, and keep only what may reach it. ``centre`` float32 [Q]
    makes scores of the numbers that are bounded, up to a factor (None: zeros)."""
    if len(found.counts):
        tighten_kernel[(len(found.counts),)](
            *found.arguments()[:4], found.threshold, found.threshold if centre is None else centre,
            found.capacity, k, centre is not None, BLOCK, num_warps=WARPS,
        )  # fmt: skip


def dropped(found: Pools) -> Tensor:
    """float32 [Q]: a bound on everything that a pool does not hold; -inf where it holds all."""
    lost = found.lost ^ ((found.lost >> 31) & 0x7FFFFFFF)
    return torch.maximum(found.threshold, torch.where(found.lost == LEAST.value, -torch.inf, lost.view(torch.float32)))


def select(scores: Tensor, rows: Tensor, counts: Tensor, k: int, order: Tensor | None, negate: bool) -> Tensor:
    """int64 [Q, k]: what `choose` finds, best first. `decode` reads it."""
    best = torch.empty((len(counts), k), dtype=torch.int64, device=rows.device)
    choose(scores, rows, counts, order, negate, best)
    return torch.sort(best, dim=1, descending=True).values


def choose(
    scores: Tensor, rows: Tensor, counts: Tensor, order: Tensor | None, negate: bool, best: Tensor
) -> None:  # fmt: skip
    """Write to ``best`` int64 [Q, k] the keys of the k best of each query, by score (falling; rising where ``negate``),
    then by the place of the row in ``order`` int32 [N] (None: the row itself): in no order, and after them `PAD`.

    ``scores`` float32 and ``rows`` int32 [Q, C] hold ``counts`` int32 [Q] of each query, not more than C.
    """
    if len(counts):
        select_kernel[(len(counts),)](
            scores, rows, counts, best, rows if order is None else order, rows.shape[1], best.shape[1],
            order is not None, negate, BLOCK, num_warps=WARPS,
        )  # fmt: skip


def decode(keys: Any) -> tuple[Any, Any]:
    """Of the keys of `select`, an array int64 [Q, K]: rank scores float32, and places in the order int64. Those of
    `PAD` mean nothing."""
    high = (keys >> 32).astype("int32")
    return (high ^ ((high >> 31) & 0x7FFFFFFF)).view("float32"), 0x7FFFFFFF - (keys & 0x7FFFFFFF)


@triton.jit(do_not_specialize=["capacity", "k"])
def tighten_kernel(
    rows_ptr, upper_ptr, lower_ptr, counts_ptr, threshold_ptr, centre_ptr, capacity, k,
    HAS_CENTRE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    start = query * capacity
    count = tl.minimum(tl.load(counts_ptr + query), capacity)
    if count >= k:
        prefix, wanted = 0, k
        for level in tl.static_range(4):
            counts = tl.zeros([256], tl.int32)
            for at in range(0, count, BLOCK):
                places = at + tl.arange(0, BLOCK)
                lower = tl.load(lower_ptr + start + places, mask=places < count, other=float("-inf"))
                key = ordered(lower) ^ LEAST  # as unsigned digits
                alike = places < count
                if level > 0:
                    alike = alike & (((key >> (32 - 8 * level)) & ((1 << (8 * level)) - 1)) == prefix)
                counts += digit_counts((key >> (24 - 8 * level)) & 0xFF, alike)
            digit, wanted = digit_of_kth(counts, wanted)
            prefix = (prefix << 8) | digit
        kth = unordered(prefix ^ LEAST)
        centre = 0.0
        if HAS_CENTRE:
            centre = tl.load(centre_ptr + query)
        reach = kth - 4.76837158203125e-07 * tl.abs(kth + centre) - 3.009265538105056e-36  # 2^-21, 2^-118
        threshold = tl.maximum(tl.load(threshold_ptr + query), reach)
        tl.store(threshold_ptr + query, threshold)

        kept = 0
        for at in range(0, count, BLOCK):
            places = at + tl.arange(0, BLOCK)
            held = places < count
            upper = tl.load(upper_ptr + start + places, mask=held, other=float("-inf"))
            lower = tl.load(lower_ptr + start + places, mask=held, other=float("-inf"))
            rows = tl.load(rows_ptr + start + places, mask=held, other=0)
            keep = (held & (upper >= threshold)).to(tl.int32)
            to = start + kept + tl.cumsum(keep, axis=0) - keep
            tl.debug_barrier()  # what follows is written where other threads have just read
            tl.store(upper_ptr + to, upper, mask=keep != 0)
            tl.store(lower_ptr + to, lower, mask=keep != 0)
            tl.store(rows_ptr + to, rows, mask=keep != 0)
            kept += tl.sum(keep, axis=0)
        count = kept
    tl.store(counts_ptr + query, count)


@triton.jit
def _keys(scores_ptr, rows_ptr, order_ptr, start, places, held, HAS_ORDER: tl.constexpr, NEGATE: tl.constexpr):
    """int64: larger for what comes earlier in the ranking, and each once."""
    score = tl.load(scores_ptr + start + places, mask=held, other=0.0)
    place = tl.load(rows_ptr + start + places, mask=held, other=0)
    if HAS_ORDER:
        place = tl.load(order_ptr + place, mask=held, other=0)
    rank = ordered(-score if NEGATE else score).to(tl.int64)
    return (rank << 32) | (0x7FFFFFFF - place).to(tl.int64)


@triton.jit(do_not_specialize=["capacity", "k"])
def select_kernel(
    scores_ptr, rows_ptr, counts_ptr, best_ptr, order_ptr, capacity, k,
    HAS_ORDER: tl.constexpr, NEGATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    start = query * capacity
    count = tl.minimum(tl.load(counts_ptr + query), capacity)
    least = tl.full([], -(2**63), tl.int64)
    if count > k:
        prefix, wanted = tl.full([], 0, tl.int64), k
        for level in tl.static_range(8):
            counts = tl.zeros([256], tl.int32)
            for at in range(0, count, BLOCK):
                places = at + tl.arange(0, BLOCK)
                alike = places < count
                key = _keys(scores_ptr, rows_ptr, order_ptr, start, places, alike, HAS_ORDER, NEGATE) ^ (-(2**63))
                if level > 0:
                    alike = alike & (((key >> (64 - 8 * level)) & ((1 << (8 * level)) - 1)) == prefix)
                counts += digit_counts(((key >> (56 - 8 * level)) & 0xFF).to(tl.int32), alike)
            digit, wanted = digit_of_kth(counts, wanted)
            prefix = (prefix << 8) | digit.to(tl.int64)
        least = prefix ^ (-(2**63))

    taken = 0
    for at in range(0, count, BLOCK):
        places = at + tl.arange(0, BLOCK)
        held = places < count
        key = _keys(scores_ptr, rows_ptr, order_ptr, start, places, held, HAS_ORDER, NEGATE)
        keep = (held & (key >= least)).to(tl.int32)
        to = query * k + taken + tl.cumsum(keep, axis=0) - keep
        tl.store(best_ptr + to, key, mask=keep != 0)
        taken += tl.sum(keep, axis=0)
    for at in range(taken, k, BLOCK):
        places = at + tl.arange(0, BLOCK)
        tl.store(best_ptr + query * k + places, tl.full([BLOCK], -(2**63), tl.int64), mask=places < k)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    tighten_types = {
        "rows_ptr": "*i32", "upper_ptr": "*fp32", "lower_ptr": "*fp32", "counts_ptr": "*i32", "threshold_ptr": "*fp32",
        "centre_ptr": "*fp32", "capacity": "i32", "k": "i32",
    }  # fmt: skip
    select_types = {
        "scores_ptr": "*fp32", "rows_ptr": "*i32", "counts_ptr": "*i32", "best_ptr": "*i64", "order_ptr": "*i32",
        "capacity": "i32", "k": "i32",
    }  # fmt: skip

    def form(kernel: str, types: Mapping[str, str], **constants: bool) -> Shipped:
        values = constants | {"BLOCK": BLOCK}
        signature = {**types, **dict.fromkeys(values, "constexpr")}
        return Shipped(f"selection:{kernel}", signature, values, WARPS, 1)

    both = (False, True)
    return [form("tighten_kernel", tighten_types, HAS_CENTRE=centre) for centre in both] + [
        form("select_kernel", select_types, HAS_ORDER=order, NEGATE=negate) for order in both for negate in both
    ]

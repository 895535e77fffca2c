"""From the keys that `selection.choose` leaves to an answer: scores and ids in order, and the certificate.

The place of a key is the number of larger ones, which are counted: for up to `COUNTED` keys of a query that takes less
time than a launch more, and no room.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.refine import rounded
from pyengine.kernels.selection import PAD, Pools
from pyengine.kernels.triton_parts import LEAST, float64_loss, unordered

COUNTED = 2048  # keys of a query; more are sorted by torch
BLOCK = 64  # keys at a time, by as many
WARPS = 4
ALIGN = 16  # bytes: pointers that are no multiples would have the kernel compiled once more
EMPTY = tl.constexpr(PAD)


class Answer(NamedTuple):
    """The k best of Q queries: ``scores`` float32 and ``ids`` int64 [Q, k], -1 where there is none; ``dropped`` float64
    [Q] bounds the rank scores of all others; ``certified`` uint8 [Q] says whether none of them can belong there. All
    lie in ``packed``, so that one copy brings them to the host."""

    packed: Tensor
    ids: Tensor
    dropped: Tensor
    scores: Tensor
    certified: Tensor


def answer_bytes(n_queries: int, k: int) -> int:
    return sum(-(-size // ALIGN) * ALIGN for size in _sizes(n_queries, k))


def _sizes(n_queries: int, k: int) -> list[int]:
    """Bytes of ids, dropped, scores and certified."""
    return [8 * n_queries * k, 8 * n_queries, 4 * n_queries * k, n_queries]


def unpacked(packed: Tensor, n_queries: int, k: int) -> Answer:
    """The answer in those bytes, uint8 [`answer_bytes`]: each part begins at a multiple of `ALIGN`."""
    sizes = _sizes(n_queries, k)
    parts = torch.split(packed, [-(-size // ALIGN) * ALIGN for size in sizes])
    ids, dropped, scores, certified = (part[:size] for part, size in zip(parts, sizes))
    return Answer(
        packed,
        ids.view(torch.int64).view(n_queries, k),
        dropped.view(torch.float64),
        scores.view(torch.float32).view(n_queries, k),
        certified,
    )


def finish(
    keys: Tensor, found: Pools, names: Tensor | None, negate: bool, into: Answer, scaling: Tensor | None = None,
    dims: int = 0,
) -> None:  # fmt: skip
    """Write the answer of Q queries, of which ``keys`` int64 [Q, k] are the best. ``names`` int64 [N] makes ids of
    places in the order (None: they are the ids), ``scaling`` float64 [Q, 2] rank scores of the bounds in the pools
    (`dense_topk.ScanQueries`); without it ``dropped`` is a bound like those, and nothing is said of what is certified.
    A query that is not finite is not."""
    n_queries, k = keys.shape
    if k > COUNTED:
        keys = torch.sort(keys, dim=1, descending=True).values
    if n_queries:
        finish_kernel[(n_queries, -(-k // BLOCK))](
            keys, found.threshold, found.lost, into.dropped if scaling is None else scaling,
            into.ids if names is None else names, into.ids, into.dropped, into.scores, into.certified,
            k, k if k <= COUNTED else 0, dims, int(negate), scaling is not None, names is not None, BLOCK,
            num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip


@triton.jit(do_not_specialize=["k", "counted", "dims", "negate"])
def finish_kernel(
    keys_ptr, threshold_ptr, lost_ptr, scaling_ptr, names_ptr, ids_ptr, dropped_ptr, scores_ptr, certified_ptr,
    k, counted, dims, negate, HAS_SCALE: tl.constexpr, HAS_NAMES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    start = query * k
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys_ptr + start + at, mask=at < k, other=EMPTY)
    larger = tl.zeros([BLOCK], tl.int32)
    for first in range(0, counted, BLOCK):
        others = first + tl.arange(0, BLOCK)
        other = tl.load(keys_ptr + start + others, mask=others < counted, other=EMPTY)
        larger += tl.sum((other[None, :] > key[:, None]).to(tl.int32), axis=1)
    filled = key != EMPTY
    place = tl.where(filled & (counted > 0), larger, at)

    rank = tl.where(filled, unordered((key >> 32).to(tl.int32)), float("-inf"))
    score = tl.where(negate != 0, -rank, rank) + 0.0
    name = 0x7FFFFFFF - (key & 0x7FFFFFFF)
    if HAS_NAMES:
        name = tl.load(names_ptr + name, mask=filled, other=-1)
    tl.store(scores_ptr + start + place, score, mask=at < k)
    tl.store(ids_ptr + start + place, tl.where(filled, name, -1), mask=at < k)

    last = (place == k - 1) & (at < k)
    here = tl.max(last.to(tl.int32), axis=0) > 0  # one program of each query certifies it
    worst = tl.max(tl.where(last, rank, float("-inf")), axis=0)
    lost = tl.load(lost_ptr + query)
    reach = tl.maximum(tl.load(threshold_ptr + query), tl.where(lost == LEAST, float("-inf"), unordered(lost)))
    bound, nothing = reach.to(tl.float64), reach == float("-inf")
    if HAS_SCALE:
        unit, base = tl.load(scaling_ptr + 2 * query), tl.load(scaling_ptr + 2 * query + 1)
        bound = unit * (bound + 7.52316384526264e-37)  # selection.STEP
        bound = bound + 8.881784197001252e-16 * tl.abs(bound) + base + float64_loss(base, dims)
        finite = (base > float("-inf")) & (base <= 0.0)
        sure = finite & (nothing | (rounded(bound) < worst))
        tl.store(certified_ptr + query, sure.to(tl.uint8), mask=here)
    tl.store(dropped_ptr + query, tl.where(nothing, float("-inf"), bound), mask=here)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    types = {
        "keys_ptr": "*i64", "threshold_ptr": "*fp32", "lost_ptr": "*i32", "scaling_ptr": "*fp64", "names_ptr": "*i64",
        "ids_ptr": "*i64", "dropped_ptr": "*fp64", "scores_ptr": "*fp32", "certified_ptr": "*u8",
        "k": "i32", "counted": "i32", "dims": "i32", "negate": "i32",
    }  # fmt: skip
    forms = []
    for scale, names in ((False, False), (True, False), (True, True)):
        values = {"HAS_SCALE": scale, "HAS_NAMES": names, "BLOCK": BLOCK}
        signature = types | dict.fromkeys(values, "constexpr")
        forms.append(Shipped("answers:finish_kernel", signature, values, WARPS, 1, fp_fusion=False))
    return forms

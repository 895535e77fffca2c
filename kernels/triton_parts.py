"""Pieces that several Triton kernels share."""

from __future__ import annotations

import triton
import triton.language as tl

LEAST = tl.constexpr(-(2**31))  # as an ordered key: below that of every number
DIGITS = tl.constexpr(256)  # of a pass of a radix select


@triton.jit
def ordered(x):
    """float32 as int32 in the same order; -0.0 comes right below +0.0. NaN has no place."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def unordered(key):
    """The float32 of which `ordered` made the key."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def allowed(mask_ptr, mask_stride, masks, rows, within):
    """bool [BN, M]: the bits of documents ``rows`` [BN] in the bitmaps ``masks`` [M], of uint8 [.., ceil(N / 8)]; false
    where not ``within`` [BN, M]."""
    byte = tl.load(mask_ptr + masks[None, :].to(tl.int64) * mask_stride + (rows >> 3)[:, None], mask=within, other=0)
    return ((byte.to(tl.int32) >> (rows & 7)[:, None]) & 1) != 0


@triton.jit
def append(rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, queries, rows, upper, lower, keep):
    """Append the pairs of a tile that are kept to the pools of their queries (`selection.Pools`).

    ``queries`` int32 [BQ] and ``rows`` int32 [BN] are numbers; ``upper`` and ``lower`` float32 [BN, BQ] bounds on the
    rank scores, where NaN says that nothing is known; ``keep`` bool [BN, BQ], false for what is beyond the end. One
    atomic a query. What finds no room is counted all the same, and its bound kept in what is ``lost``.
    """
    upper = tl.where(upper == upper, upper, float("inf"))
    lower = tl.where(lower == lower, lower, float("-inf"))
    taken = keep.to(tl.int32)
    number = tl.sum(taken, axis=0)
    first = tl.atomic_add(counts_ptr + queries, number, mask=number > 0, sem="relaxed")
    place = first[None, :] + tl.zeros_like(taken)
    if keep.shape[0] > 1:  # Triton 3.6 cannot compile a scan of a single row
        place += tl.cumsum(taken, axis=0) - taken
    fits = keep & (place < capacity)
    at = queries[None, :].to(tl.int64) * capacity + place
    tl.store(rows_ptr + at, tl.broadcast_to(rows[:, None], keep.shape), mask=fits)
    tl.store(upper_ptr + at, upper, mask=fits)
    tl.store(lower_ptr + at, lower, mask=fits)
    beyond = tl.max(tl.where(keep & (place >= capacity), ordered(upper), LEAST), axis=0)
    tl.atomic_max(lost_ptr + queries, beyond, mask=beyond > LEAST, sem="relaxed")


@triton.jit
def digit_counts(digit, counted):
    """int32 [256]: how often each of the digits that are ``counted`` occurs."""
    kept = tl.where(counted, digit, 0)
    found = tl.histogram(kept, DIGITS)
    skipped = tl.sum(1 - counted.to(tl.int32), axis=0)
    return found - tl.where(tl.arange(0, DIGITS) == 0, skipped, 0)


@triton.jit
def digit_of_kth(counts, wanted):
    """The digit of the ``wanted``-th largest, of numbers with these `digit_counts`; and which it is among those that
    share the digit."""
    digits = tl.arange(0, DIGITS)
    from_here = tl.sum(counts, axis=0) - tl.cumsum(counts, axis=0) + counts  # how many have this digit or a larger one
    digit = tl.max(tl.where(from_here >= wanted, digits, 0), axis=0)
    larger = tl.sum(tl.where(digits > digit, counts, 0), axis=0)
    return digit, wanted - larger


@triton.jit
def float64_loss(base, dims):
    """float64: by how much the specification may round what all scores of a query share, |q|^2 in l2."""
    return (dims + 16).to(tl.float64) * 8.881784197001252e-16 * tl.abs(base)  # 2^-50

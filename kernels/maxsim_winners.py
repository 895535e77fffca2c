"""Maxima for training in Triton, with the tokens that have them: cheap estimates decide, float64 says how large.

A program takes a pair of padded sets and a few tokens of the choosing one, and streams the tokens of the other through
tensor cores. Products of float16 and bfloat16 are exact there; float32 takes three, of two parts in tf32 each. With
these summed in float32, an estimate of <q, d> is off by at most `looseness` |q| |d|. Of each choosing token the largest
estimate is kept, who has it, and the second largest: if these are further apart than twice the bound, the maximum of
the specification belongs to that token. A second kernel makes this one product in float64, by its lanes, and takes the
other tokens, whose maxima are equal or too close, through all products in float64, one after the other.

Where a norm is so large or small that float32 may overflow or lose what underflows, nothing is decided: with norms in
`LEAST` .. `MOST`, what underflows is below 1/16 of the bound, D 2^-126 of D 2^-22 2^-100.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels import maxsim_refine
from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.maxsim_refine import Maxima, Scoring
from pyengine.kernels.token_values import TYPES, TokenSets, exact_partners, exact_products

LEAST, MOST = tl.constexpr(2.0**-50), tl.constexpr(2.0**60)
STEP = tl.constexpr(16)  # dimensions that rows are padded to
UNIT = 2.0**-24
CUT = 2.0**-18  # of a product, relatively: two small parts' product 2^-20, and what is cut of each 2^-20
BLOCK_N = 64
EXACT_M = 32  # choosing tokens of one program in float64
EXACT = tl.constexpr(32)  # tokens of an exact row at a time
SHORT = (1 << 15) - 1  # places that int16 holds


def looseness(dims: int, dtype: torch.dtype) -> float:
    """How far an estimate may be off, in units of |q| |d|: what tf32 cuts, and 4 (n + 12) u of a sum of n products on
    tensor cores, which align and truncate. Twice that covers terms of second order, and norms and quotients in
    float32."""
    if dtype == torch.float32:
        return 2 * (CUT + 4 * (3 * dims + 12) * UNIT)
    return 2 * 4 * (dims + 12) * UNIT


def place_type(length: int) -> torch.dtype:
    """What places among so many tokens are kept in."""
    return torch.int16 if length <= SHORT else torch.int32


@triton.jit
def _estimates(a, i, asked, b, j, real, dims, BLOCK_K: tl.constexpr):
    """float32 [M, N]: products on tensor cores of tokens i [M] and j [N] of rows of ``dims`` values."""
    total = tl.zeros([i.shape[0], j.shape[0]], tl.float32)
    for first in range(0, dims, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        x = tl.load(a + i[:, None] * dims + k[None, :], mask=asked[:, None] & (k[None, :] < dims), other=0.0)
        y = tl.load(b + j[:, None] * dims + k[None, :], mask=real[:, None] & (k[None, :] < dims), other=0.0)
        total = tl.dot(x, tl.trans(y), total, input_precision="tf32x3")
    return total


@triton.jit
def _exact_row(a, i, a_norms, b, begin, b_mask, b_norms, length, dims, NORMALIZE: tl.constexpr):
    """float64 and int32 [1]: the largest product of token i [1] with the tokens of a set, and the first that has it."""
    best = tl.full([1], float("-inf"), tl.float64)
    winner = tl.full([1], -1, tl.int32)
    for first in range(0, length, EXACT):
        place = first + tl.arange(0, EXACT)
        j = begin + place
        real = place < length
        real = real & (tl.load(b_mask + j, mask=real, other=0) != 0)
        product = exact_products(a, i, i >= 0, b, j, real, dims)
        if NORMALIZE:
            norm = tl.load(a_norms + i)[:, None] * tl.load(b_norms + j, mask=real, other=0.0)[None, :]
            product = tl.where(norm > 0, product / tl.where(norm > 0, norm, 1.0), 0.0)
        product = tl.where(real[None, :], product, float("-inf"))
        here = tl.max(product, axis=1)
        at = tl.min(tl.where(product == here[:, None], place[None, :], 2147483647), axis=1)
        winner = tl.where(here > best, at, winner)
        best = tl.maximum(best, here)
    return best, winner


@triton.jit(do_not_specialize=["a_length", "b_length", "steps", "blocks", "loose"])
def estimated_winners_kernel(
    winners,  # int32 [pairs, a_length]: which token of the chosen set, -1 for none, -2 where it is not decided
    a, a_mask, a_norms, a_of,  # the choosing sets [n, a_length, dims], int8 and float64 [n, a_length], int64 [pairs]
    b, b_mask, b_norms, b_of,  # and the chosen ones
    a_length, b_length, blocks,
    steps,  # dims / 16: so the compiler knows that rows are aligned
    loose,  # `looseness`
    NORMALIZE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    pair, dims = tl.program_id(0) // blocks, steps * STEP
    token = tl.program_id(0) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    i, begin = tl.load(a_of + pair) * a_length + token, tl.load(b_of + pair) * b_length
    asked = token < a_length
    asked = asked & (tl.load(a_mask + i, mask=asked, other=0) != 0)
    best, second = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.full([BLOCK_M], float("-inf"), tl.float32)
    winner = tl.full([BLOCK_M], -1, tl.int32)
    largest, smallest = 0.0, float("inf")  # norms of the chosen
    for first in range(0, b_length, BLOCK_N):
        place = first + tl.arange(0, BLOCK_N)
        j = begin + place
        real = place < b_length
        real = real & (tl.load(b_mask + j, mask=real, other=0) != 0)
        norm = tl.load(b_norms + j, mask=real, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.max(norm, axis=0))
        smallest = tl.minimum(smallest, tl.min(tl.where(real, norm, float("inf")), axis=0))
        estimate = _estimates(a, i, asked, b, j, real, dims, BLOCK_K)
        if NORMALIZE:
            estimate = estimate / tl.where(norm > 0, norm, 1.0)[None, :]
        estimate = tl.where(real[None, :], estimate, float("-inf"))
        here = tl.max(estimate, axis=1)
        at = tl.min(tl.where(estimate == here[:, None], place[None, :], 2147483647), axis=1)
        behind = tl.max(tl.where(place[None, :] == at[:, None], float("-inf"), estimate), axis=1)
        second = tl.maximum(tl.maximum(second, behind), tl.minimum(best, here))
        winner = tl.where(here > best, at, winner)
        best = tl.maximum(best, here)
    size = tl.load(a_norms + i, mask=asked, other=0.0)
    bound = size.to(tl.float32) * loose * (1.0 if NORMALIZE else largest)
    least, most = tl.minimum(size, smallest if NORMALIZE else largest), tl.maximum(size, largest)
    decided = (least >= LEAST) & (most <= MOST) & (winner >= 0) & (best - second > 2 * bound)
    some = tl.where(asked, smallest, float("inf")) < float("inf")
    found = tl.where(some, tl.where(decided, winner, -2), -1)
    tl.store(winners + pair.to(tl.int64) * a_length + token, found, mask=token < a_length)


@triton.jit(do_not_specialize=["a_length", "b_length", "steps", "pairs", "blocks"])
def exact_winners_kernel(
    maxima,  # float64 [a_length, pairs]
    winners, a, a_mask, a_norms, a_of, b, b_mask, b_norms, b_of,  # as above; nothing is left undecided
    a_length, b_length, pairs, blocks, steps,
    NORMALIZE: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    pair, dims = tl.program_id(0) // blocks, steps * STEP
    token = tl.program_id(0) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    i, begin = tl.load(a_of + pair) * a_length + token, tl.load(b_of + pair) * b_length
    at = winners + pair.to(tl.int64) * a_length + token
    winner = tl.load(at, mask=token < a_length, other=-1)
    decided = winner >= 0
    mine, theirs = (a, None, None, None, 0, 0, 0, dims), (b, None, None, None, 0, 0, 0, dims)
    value = exact_partners(mine, i, theirs, begin + winner, decided, dims)
    if NORMALIZE:
        norm = tl.load(a_norms + i, mask=decided, other=1.0) * tl.load(
            b_norms + begin + winner, mask=decided, other=1.0
        )
        value = value / norm
    value = tl.where(decided, value, float("-inf"))
    left = winner == -2
    if tl.max(left.to(tl.int32), axis=0) > 0:
        for row in range(0, BLOCK_M):
            this = tl.arange(0, BLOCK_M) == row
            if tl.max((this & left).to(tl.int32), axis=0) > 0:
                only = tl.sum(tl.where(this, i, 0), axis=0) + tl.arange(0, 1)
                exact, first_place = _exact_row(
                    mine, only, a_norms, theirs, begin, b_mask, b_norms, b_length, dims, NORMALIZE
                )
                value = tl.where(this, exact, value)
                winner = tl.where(this, first_place, winner)
        tl.store(at, winner, mask=token < a_length)
    tl.store(maxima + token.to(tl.int64) * pairs + pair, value, mask=token < a_length)


def scores(queries: TokenSets, docs: TokenSets, query_of: Tensor, doc_of: Tensor, how: Scoring) -> Maxima:
    """`maxsim_refine.scores` of padded sets, whose masks and norms are there, of rows of whole steps, with winners."""
    types = place_type(docs.longest), place_type(queries.longest)
    return maxsim_refine.scores(queries, docs, query_of, doc_of, how, find, types)


def find(
    choosers: TokenSets, chosen: TokenSets, chooser_of: Tensor, chosen_of: Tensor, normalize: bool,
    winners: Tensor | None,
) -> Tensor:  # fmt: skip
    """float64 [L, P]: the maximum of each token of the choosers of each pair; and write its ``winners`` [P, L]."""
    pairs, width, dims = len(chooser_of), choosers.longest, choosers.dims
    found = torch.empty((width, pairs), dtype=torch.float64, device=chooser_of.device)
    if found.numel():
        places = torch.empty((pairs, width), dtype=torch.int32, device=found.device)
        sides = ((side.rows, side.mask, side.norms, of) for side, of in ((choosers, chooser_of), (chosen, chosen_of)))
        sets, lengths = (*next(sides), *next(sides)), (width, chosen.longest)
        chosen_tile = tile(width, choosers.rows.dtype)
        blocks = triton.cdiv(width, chosen_tile.block_m)
        estimated_winners_kernel[(pairs * blocks,)](
            places, *sets, *lengths, blocks, dims // STEP.value, looseness(dims, choosers.rows.dtype),
            **chosen_tile.constants(normalize), num_warps=chosen_tile.num_warps, num_stages=chosen_tile.num_stages,
        )  # fmt: skip
        blocks = triton.cdiv(width, EXACT_M)
        exact_winners_kernel[(pairs * blocks,)](
            found, places, *sets, *lengths, pairs, blocks, dims // STEP.value, NORMALIZE=normalize, BLOCK_M=EXACT_M,
            num_warps=4, num_stages=2, enable_fp_fusion=False,
        )  # fmt: skip
        if winners is not None:
            winners.copy_(places)
    return found


class Tile(NamedTuple):
    """Of the estimates: choosing tokens of one program, and dimensions at a time."""

    block_m: int
    block_k: int
    num_warps: int
    num_stages: int

    def constants(self, normalize: bool) -> dict[str, Any]:
        return {"NORMALIZE": normalize, "BLOCK_M": self.block_m, "BLOCK_N": BLOCK_N, "BLOCK_K": self.block_k}


def tile(width: int, dtype: torch.dtype) -> Tile:
    """For sets of so many tokens: float32 in two parts takes twice the registers."""
    if dtype == torch.float32:
        return Tile(32, 32, num_warps=8, num_stages=2)
    return Tile(32, 64, num_warps=8, num_stages=3) if width <= 32 else Tile(64, 64, num_warps=4, num_stages=3)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form: one for each type of tokens, for short sets and long ones."""
    forms = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for normalize in (False, True):
            tiles = {tile(width, dtype) for width in (32, 64)}
            forms += [_estimating(dtype, normalize, each) for each in sorted(tiles)]
            forms.append(_exact(dtype, normalize))
    return forms


def _sets(dtype: torch.dtype) -> dict[str, str]:
    signature = {"winners": "*i32"}
    for side in "ab":
        signature |= {side: TYPES[dtype], f"{side}_mask": "*i8", f"{side}_norms": "*fp64", f"{side}_of": "*i64"}
    return signature | dict.fromkeys(("a_length", "b_length", "blocks", "steps"), "i32")


def _estimating(dtype: torch.dtype, normalize: bool, chosen: Tile) -> Shipped:
    constants = chosen.constants(normalize)
    signature = _sets(dtype) | {"loose": "fp32"} | dict.fromkeys(constants, "constexpr")
    name = "maxsim_winners:estimated_winners_kernel"
    return Shipped(name, signature, constants, chosen.num_warps, chosen.num_stages)


def _exact(dtype: torch.dtype, normalize: bool) -> Shipped:
    constants = {"NORMALIZE": normalize, "BLOCK_M": EXACT_M}
    signature = _sets(dtype) | {"maxima": "*fp64", "pairs": "i32"} | dict.fromkeys(constants, "constexpr")
    return Shipped("maxsim_winners:exact_winners_kernel", signature, constants, 4, 2, fp_fusion=False)

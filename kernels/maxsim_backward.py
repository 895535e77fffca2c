"""Gradients of MaxSim from winners in Triton: every row of a gradient has one owner, and nothing is atomic.

A token i of a pair's choosing set that has the winner j gets factor_p times token j, and j gets factor_p times token
i. The rows of a gradient are sums of such terms in the order of pairs, and within a pair of tokens; every product and
sum is rounded on its own (``enable_fp_fusion=False``), as on the CPU: the same bits.

A choosing token has one term for each pair of its set: winners are read as they lie, by lists of pairs. A chosen token
has any number: a stable sort by row makes the list of each, of so many pairs at a time that it takes `SCRATCH` bytes,
and sums go on where those of the pairs before ended. So beside winners and gradients a call takes, whatever Q, N and
Lq are, that much; 16 bytes for each pair; and 8 for each chosen token.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped

BLOCK = 128  # dimensions of one program
TOKENS = 8  # choosing tokens of one program
WARPS = 4
SCRATCH = 6 << 20  # bytes of a sorted list
LISTED = 48  # bytes of an entry: its owner, before and after the sort, its number, and what sorting takes


@triton.jit(do_not_specialize=["width", "chosen_width", "dims", "blocks", "parts"])
def add_chosen_kernel(
    gradient,  # float32 [sets * width, dims]
    others,  # the chosen sets [m * chosen_width, dims]
    starts,  # int64 [sets + 1]: where the pairs of each set begin
    pairs,  # int64 [P]: in their order, set by set
    chosen_of,  # int64 [P]
    winners,  # int16 or int32 [P, width]
    factors,  # float32 [P]
    width, chosen_width, dims, blocks, parts,
    TOKENS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """TOKENS rows of the gradient of the choosing sets."""
    program = tl.program_id(0)
    owner = (program // (blocks * parts)).to(tl.int64)
    token = program // blocks % parts * TOKENS + tl.arange(0, TOKENS)
    k = program % blocks * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([TOKENS, BLOCK], tl.float32)
    for at in range(tl.load(starts + owner), tl.load(starts + owner + 1)):
        pair = tl.load(pairs + at)
        winner = tl.load(winners + pair * width + token, mask=token < width, other=-1).to(tl.int64)
        row = tl.load(chosen_of + pair) * chosen_width + winner
        there = (winner >= 0)[:, None] & (k < dims)[None, :]
        value = tl.load(others + row[:, None] * dims + k[None, :], mask=there, other=0.0).to(tl.float32)
        total += tl.where(there, value * tl.load(factors + pair), 0.0)
    rows = owner * width + token
    tl.store(gradient + rows[:, None] * dims + k[None, :], total, mask=(token < width)[:, None] & (k < dims)[None, :])


@triton.jit(do_not_specialize=["width", "dims", "blocks"])
def add_choosers_kernel(
    gradient,  # float32 [T, dims], added to
    others,  # the choosing sets [n * width, dims]
    starts,  # int64 [T + 1]: where the terms of each row begin
    terms,  # int64: pair * width + choosing token
    chooser_of,  # int64 [P]
    factors,  # float32 [P]
    width, dims, blocks,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of the gradient of the chosen sets: it and its terms, in their order."""
    row = (tl.program_id(0) // blocks).to(tl.int64)
    k = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    first, last = tl.load(starts + row), tl.load(starts + row + 1)
    if first < last:
        total = tl.load(gradient + row * dims + k, mask=k < dims, other=0.0)
        for at in range(first, last):
            term = tl.load(terms + at)
            pair = term // width
            token = tl.load(chooser_of + pair) * width + term % width
            value = tl.load(others + token * dims + k, mask=k < dims, other=0.0).to(tl.float32)
            total += value * tl.load(factors + pair)
        tl.store(gradient + row * dims + k, total, mask=k < dims)


def add_choices(
    choosers: Tensor, chosen: Tensor, chooser_of: Tensor, chosen_of: Tensor, winners: Tensor, factors: Tensor,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients float32 of both sides [n, L, D], None where not ``wanted``: each token of pair p's choosers whose
    winner, int16 or int32 [P, L], is a token of its chosen gets factors[p] times that token, and the other way
    round."""
    pairs = (chooser_of.contiguous(), chosen_of.contiguous(), winners.contiguous(), factors.float())
    sides = choosers.contiguous(), chosen.contiguous()
    return (_of_choosers(*sides, *pairs) if wanted[0] else None, _of_chosen(*sides, *pairs) if wanted[1] else None)


def _of_choosers(
    choosers: Tensor, chosen: Tensor, chooser_of: Tensor, chosen_of: Tensor, winners: Tensor, factors: Tensor
) -> Tensor:
    gradient = torch.empty(choosers.shape, dtype=torch.float32, device=choosers.device)
    n_sets, width, dims = choosers.shape
    order, starts = _by_owner(chooser_of, n_sets)
    parts, blocks = triton.cdiv(width, TOKENS), triton.cdiv(dims, BLOCK)
    if gradient.numel():
        add_chosen_kernel[(n_sets * parts * blocks,)](
            gradient, chosen, starts, order, chosen_of, winners, factors, width, chosen.shape[1], dims, blocks, parts,
            TOKENS=TOKENS, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return gradient


def _of_chosen(
    choosers: Tensor, chosen: Tensor, chooser_of: Tensor, chosen_of: Tensor, winners: Tensor, factors: Tensor
) -> Tensor:
    gradient = torch.zeros(chosen.shape, dtype=torch.float32, device=chosen.device)
    (n_sets, width, dims), blocks = chosen.shape, triton.cdiv(chosen.shape[2], BLOCK)
    step = max(16, SCRATCH // LISTED // max(1, winners.shape[1]) // 16 * 16)  # so that parts are aligned alike
    for start in range(0, len(winners) if gradient.numel() else 0, step):
        part = slice(start, start + step)
        owners = torch.where(winners[part] >= 0, chosen_of[part, None] * width + winners[part], -1)
        order, starts = _by_owner(owners.flatten(), n_sets * width)
        add_choosers_kernel[(n_sets * width * blocks,)](
            gradient, choosers, starts, order, chooser_of[part], factors[part], winners.shape[1], dims, blocks,
            BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return gradient


def _by_owner(owners: Tensor, n_owners: int) -> tuple[Tensor, Tensor]:
    """An order, int64 [M], that groups terms by owner and keeps theirs within, and where each owner's begin, [n + 1].
    Owner -1 comes first, before what the first begins with."""
    sorted_owners, order = torch.sort(owners, stable=True)
    bounds = torch.arange(n_owners + 1, device=owners.device)
    return order, torch.searchsorted(sorted_owners, bounds)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form: one for each type of tokens, and of winners where they are read."""
    numbers = {"gradient": "*fp32", "others": "*fp32", "starts": "*i64", "factors": "*fp32"}
    forth = numbers | {"pairs": "*i64", "chosen_of": "*i64", "winners": "*i16"}
    forth |= dict.fromkeys(("width", "chosen_width", "dims", "blocks", "parts"), "i32")
    back = numbers | {"terms": "*i64", "chooser_of": "*i64"} | dict.fromkeys(("width", "dims", "blocks"), "i32")
    types = ("*fp32", "*fp16", "*bf16")
    every = [
        ("add_chosen_kernel", forth | {"others": kind, "winners": places}, {"TOKENS": TOKENS, "BLOCK": BLOCK})
        for kind in types
        for places in ("*i16", "*i32")
    ]
    every += [("add_choosers_kernel", back | {"others": kind}, {"BLOCK": BLOCK}) for kind in types]
    return [
        Shipped(f"maxsim_backward:{name}", {**signature, **dict.fromkeys(constants, "constexpr")}, constants, WARPS, 3,
                fp_fusion=False)
        for name, signature, constants in every
    ]  # fmt: skip

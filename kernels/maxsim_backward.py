"""Gradients of MaxSim from saved winners in Triton: every row of a gradient has one owner, and nothing is atomic.

A token i of a pair's choosing set that has the winner j gets factor_p times token j, and j gets factor_p times token
i. The rows of a gradient are sums of such terms in the order of pairs, and within a pair of tokens; a stable sort by
row makes the list of each. Every product and sum is rounded on its own (``enable_fp_fusion=False``), as on the CPU: the
same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped

BLOCK = 128  # dimensions of one program
WARPS = 4


@triton.jit(do_not_specialize=["other_stride", "dims", "blocks"])
def add_rows_kernel(
    gradient,  # float32 [T, dims]
    others, other_stride,  # the tokens of the other side, [U, dims]
    starts,  # int64 [T + 1]: where the terms of each row begin
    tokens,  # int64 [terms]: rows of the other side; -1 for none
    factors,  # float32 [terms]
    dims, blocks,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of a gradient: the sum of its terms, in their order."""
    row = (tl.program_id(0) // blocks).to(tl.int64)
    k = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for term in range(tl.load(starts + row), tl.load(starts + row + 1)):
        token = tl.load(tokens + term)
        there = k < tl.where(token >= 0, dims, 0)
        value = tl.load(others + token * other_stride + k, mask=there, other=0.0).to(tl.float32)
        total += tl.where(there, value * tl.load(factors + term), 0.0)
    tl.store(gradient + row * dims + k, total, mask=k < dims)


def add_choices(
    choosers: Tensor, chosen: Tensor, chooser_of: Tensor, chosen_of: Tensor, winners: Tensor, factors: Tensor,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients float32 of both sides [n, L, D], None where not ``wanted``: each token of pair p's choosers whose
    winner, int32 [P, L], is a token of its chosen gets factors[p] times that token, and the other way round."""
    count = choosers.shape[1]
    token = torch.arange(count, device=winners.device)
    own = chooser_of[:, None] * count + token
    other = torch.where(winners >= 0, chosen_of[:, None] * chosen.shape[1] + winners, -1)
    factor = factors.float()[:, None].expand(winners.shape)
    return (
        _gradient(choosers, chosen, own, other, factor) if wanted[0] else None,
        _gradient(chosen, choosers, other, own, factor) if wanted[1] else None,
    )


def _gradient(side: Tensor, others: Tensor, owners: Tensor, terms: Tensor, factors: Tensor) -> Tensor:
    """Of one side [n, L, D]: rows ``owners`` [P, L] get rows ``terms`` [P, L] of the others; -1 is neither."""
    gradient = torch.empty(side.shape, dtype=torch.float32, device=side.device)
    n_rows, dims = side.shape[0] * side.shape[1], side.shape[2]
    order, starts = _by_owner(owners.flatten(), n_rows)
    rows, blocks = others.flatten(0, 1).contiguous(), triton.cdiv(dims, BLOCK)
    if n_rows:
        add_rows_kernel[(n_rows * blocks,)](
            gradient, rows, rows.stride(0), starts, terms.flatten()[order], factors.flatten()[order], dims, blocks,
            BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return gradient


def _by_owner(owners: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """An order, int64 [M], that groups terms by owner and keeps theirs within, and where each owner's begin, [n + 1].
    Owner -1 comes first, before what the first begins with."""
    sorted_owners, order = torch.sort(owners, stable=True)
    bounds = torch.arange(n_rows + 1, device=owners.device)
    return order, torch.searchsorted(sorted_owners, bounds)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form: one for each type of tokens."""
    signature = {
        "gradient": "*fp32", "others": "*fp32", "other_stride": "i32", "starts": "*i64", "tokens": "*i64",
        "factors": "*fp32", "dims": "i32", "blocks": "i32", "BLOCK": "constexpr",
    }  # fmt: skip
    types = ("*fp32", "*fp16", "*bf16")
    name = "maxsim_backward:add_rows_kernel"
    return [Shipped(name, signature | {"others": kind}, {"BLOCK": BLOCK}, WARPS, 3, False) for kind in types]

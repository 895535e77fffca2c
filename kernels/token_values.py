"""Tokens of every store as the specification reads them, in Triton: decoded in registers, multiplied in float64 lanes.

Every product and every sum is rounded on its own: launches have ``enable_fp_fusion=False``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int8: "*i8"}
PACKED = "*i32"


class Packed(NamedTuple):
    """How `TokenSets` with rows of few bits are decoded: a token is step (2c - most) + a centroid.

    c of dimension k are the ``bits``, 1, 2 or 4, from bit k bits % 32 on of word k bits // 32 of its row, int32.
    ``centroid`` uint16 [T] are the numbers of ``centroids`` float32 [C, D]; or [1], where all have the same.
    """

    bits: int
    most: int
    centroid: Tensor
    centroids: Tensor

    @property
    def apart(self) -> int:
        """From the centroid's number of a token to that of the next."""
        return int(len(self.centroid) > 1)


class TokenSets(NamedTuple):
    """Sets of tokens: set n is rows offsets[n] : offsets[n + 1], without those whose ``mask`` is 0.

    ``rows`` [T, stride] of float32, float16, bfloat16, or int8 with a ``step`` float32 [T] that they are multiplied by,
    or the words of ``packed`` ones, with a step; ``offsets`` int64 [n + 1], ``mask`` int8 [T], ``norms`` float64 [T]
    where tokens are compared by their cosine.
    """

    rows: Tensor
    offsets: Tensor
    dims: int
    longest: int  # tokens of a set
    step: Tensor | None = None
    mask: Tensor | None = None
    norms: Tensor | None = None
    packed: Packed | None = None

    def source(self) -> tuple[Tensor | int | None, ...]:
        """What `token_values` reads, as kernels take it."""
        more = (None, None, 0, 0, 0)
        if self.packed is not None:
            bits, most, centroid, centroids = self.packed
            more = (centroid, centroids, bits, most, self.packed.apart)  # type: ignore[assignment]
        return self.rows, self.step, *more, self.rows.stride(0)


def source_types(side: str, rows: str) -> dict[str, str]:
    """The types of the parameters of `TokenSets.source`, for rows of type ``rows``."""
    packed = rows == PACKED
    return {
        side: rows,
        f"{side}_step": "*fp32" if packed or rows == "*i8" else "constexpr",
        f"{side}_centroid": "*u16" if packed else "constexpr",
        f"{side}_centroids": "*fp32" if packed else "constexpr",
        **dict.fromkeys((f"{side}_{name}" for name in ("bits", "most", "apart", "stride")), "i32"),
    }


def absent(types: dict[str, str]) -> dict[str, None]:
    """The constants among `source_types`: what is not there."""
    return {name: None for name, kind in types.items() if kind == "constexpr"}


@triton.jit
def token_values(source, places, real, dims, first):
    """float64 [M, N, 8]: what tokens at ``places`` [M, N, 1] hold from dimension ``first`` on; 0 where nothing is
    ``real``."""
    rows, step, centroid, centroids, bits, most, apart, stride = source
    k = first + tl.arange(0, 8)[None, None, :]
    there = real & (k < dims)
    if rows.dtype.element_ty == tl.int32:
        word = tl.load(rows + places * stride + (first * bits >> 5), mask=real, other=0)
        number = (word >> ((first * bits & 31) + bits * (k - first))) & ((1 << bits) - 1)
        value = (2 * number - most).to(tl.float32) * tl.load(step + places, mask=real, other=0.0)
        row = tl.load(centroid + places * apart, mask=real, other=0).to(tl.int64)
        value = tl.where(there, value + tl.load(centroids + row * dims + k, mask=there, other=0.0), 0.0)
    else:
        value = tl.load(rows + places * stride + k, mask=there, other=0).to(tl.float32)
        if rows.dtype.element_ty == tl.int8:
            value = value * tl.load(step + places, mask=real, other=0.0)
    return value.to(tl.float64)


@triton.jit
def lane_total(lanes):
    """((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7)) over the last axis of [M, N, 8]."""
    for _ in tl.static_range(3):
        pairs = tl.reshape(lanes, [lanes.shape[0], lanes.shape[1], lanes.shape[2] // 2, 2])
        lanes = tl.sum(pairs, axis=3)
    return tl.reshape(lanes, [lanes.shape[0], lanes.shape[1]])


@triton.jit
def exact_products(a, i, a_real, b, j, b_real, dims):
    """float64 [M, N]: the specification's products of tokens i [M] and j [N] of two sources."""
    lanes = tl.zeros([i.shape[0], j.shape[0], 8], tl.float64)
    for first in range(0, dims, 8):
        x = token_values(a, i[:, None, None], a_real[:, None, None], dims, first)
        y = token_values(b, j[None, :, None], b_real[None, :, None], dims, first)
        lanes += x * y
    return lane_total(lanes)


@triton.jit
def exact_partners(a, i, b, j, real, dims):
    """float64 [M]: the specification's products of tokens i [M] with tokens j [M], each with its own."""
    lanes = tl.zeros([i.shape[0], 1, 8], tl.float64)
    for first in range(0, dims, 8):
        x = token_values(a, i[:, None, None], real[:, None, None], dims, first)
        lanes += x * token_values(b, j[:, None, None], real[:, None, None], dims, first)
    return tl.reshape(lane_total(lanes), [i.shape[0]])

"""Codes of document tokens for the scan of `maxsim_topk`: as they are kept, or decoded in registers.

Tokens of 1, 2 or 4 bits a dimension (``BITS``) are decoded as they are multiplied: x' = unit c with c
= float16(centroid / unit + step / unit (2 number - most)), unit a power of two for the corpus, by which the centroids
came as float16. Whatever that leaves out of x is measured, by `decoded`, which rounds alike: products of a step and
such a small integer, and so their sums with a centroid, are rounded once, contracted or not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class PackedTokens(NamedTuple):
    """Tokens of 1, 2 or 4 ``bits`` a dimension as the scan takes them, in units of ``unit``, a power of two.

    ``words`` int32 [T, dims bits / 32], ``steps`` float32 [T], ``centroid`` uint16 [T] or [1], and ``most`` as in
    `token_values.Packed`; ``centroids`` float16 [C, dims] in that unit.
    """

    words: Tensor
    steps: Tensor
    centroid: Tensor
    centroids: Tensor
    unit: float
    most: int
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.words), self.centroids.shape[1]

    def arguments(self) -> tuple[Any, ...]:
        return (*self[:4], 1 / self.unit, self.most, int(len(self.centroid) > 1))

    def decoded(self, part: slice) -> Tensor:
        """float16 [t, dims]: the codes of some tokens, to the bit as the scan has them."""
        shifts = torch.arange(0, 32, self.bits, device=self.words.device, dtype=torch.int32)
        number = (self.words[part, :, None] >> shifts) & ((1 << self.bits) - 1)
        odd = (2 * number - self.most).flatten(1).float()
        row = self.centroid[part].int() if len(self.centroid) > 1 else torch.zeros_like(odd[:, 0], dtype=torch.int32)
        step = self.steps[part] * (1 / self.unit)
        return (self.centroids[row].float() + step[:, None] * odd).half()


@triton.jit
def codes(kept, rows, real, first, dims, BLOCK_K: tl.constexpr):
    """[rows, BLOCK_K] of codes ``kept`` [T, dims], from dimension ``first`` on; 0 where there are none."""
    k = first + tl.arange(0, BLOCK_K)
    return tl.load(kept + rows[:, None] * dims + k[None, :], mask=real[:, None] & (k[None, :] < dims), other=0)


@triton.jit
def _document_codes(source, rows, real, first, dims, BITS: tl.constexpr, BLOCK_K: tl.constexpr):
    """[rows, BLOCK_K] of documents, as they are kept; with ``BITS`` float16, decoded."""
    kept, steps, centroid, centroids, scale, most, apart = source
    if BITS == 0:
        return codes(kept, rows, real, first, dims, BLOCK_K)
    else:  # what follows a return is compiled, too
        PER: tl.constexpr = 32 // BITS
        width = dims // PER
        at = first // PER + tl.arange(0, BLOCK_K // PER)
        word = tl.load(kept + rows[:, None] * width + at[None, :], mask=real[:, None] & (at < width)[None, :], other=0)
        number = (word[:, :, None] >> (BITS * tl.arange(0, PER))[None, None, :]) & ((1 << BITS) - 1)
        odd = tl.reshape(2 * number - most, [rows.shape[0], BLOCK_K]).to(tl.float32)
        step = tl.load(steps + rows, mask=real, other=0.0) * scale
        row = tl.load(centroid + rows * apart, mask=real, other=0).to(tl.int64)
        return (codes(centroids, row, real, first, dims, BLOCK_K).to(tl.float32) + step[:, None] * odd).to(tl.float16)


@triton.jit
def code_products(
    panel, queries, rows, source, places, real, dims, BITS: tl.constexpr, BLOCK_K: tl.constexpr, WHOLE: tl.constexpr
):  # fmt: skip
    """float32 [BLOCK_M, BLOCK_N]: products of the codes of query tokens and of document tokens. With ``WHOLE`` all
    dimensions are in one block, that of the queries being ``panel``."""
    kind: tl.constexpr = tl.int32 if queries.dtype.element_ty == tl.int8 else tl.float32
    if WHOLE:
        whole = _document_codes(source, places, real, 0, dims, BITS, BLOCK_K)
        return tl.dot(panel, tl.trans(whole), out_dtype=kind).to(tl.float32)
    total = tl.zeros([rows.shape[0], places.shape[0]], kind)
    for first in range(0, dims, BLOCK_K):
        part = codes(queries, rows, rows >= 0, first, dims, BLOCK_K)
        theirs = _document_codes(source, places, real, first, dims, BITS, BLOCK_K)
        total = tl.dot(part, tl.trans(theirs), total, out_dtype=kind)
    return total.to(tl.float32)

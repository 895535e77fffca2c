"""Tokens of few bits on the device, `rows.Rows` of bit planes: once, as the scan and the refining both decode them.

A token takes u D / 8 bytes, its step as float32 and the number of its centroid, and for the scan a float32 weight.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine.backends.triton import triton_device
from pyengine.inputs.rows import Rows, bfloat16_values
from pyengine.kernels.maxsim_codes import PackedTokens
from pyengine.kernels.maxsim_plan import BITS, packed_form
from pyengine.kernels.token_values import Packed, TokenSets
from pyengine.problems.problem_maxsim import TokenDocuments

BLOCK = 1 << 16  # tokens packed at a time
SPARE = 14  # codes of the scan are below 2^14: float16 has 2^-14 .. 2^15 for them
FLOOR = 2.0**-120  # a unit whose inverse float32 holds


class Held(NamedTuple):
    """``words`` int32 [T, P bits / 32], ``step`` float32 [T], and how `token_values` decodes them."""

    words: Tensor
    step: Tensor
    packed: Packed


def held(docs: TokenDocuments) -> Held:
    """The tokens of a corpus whose rows are bit planes, kept on the device."""
    rows = docs.tokens.rows
    assert isinstance(rows, Rows)
    return triton_device.mirrored(docs, "packed tokens", lambda device: _held(rows, device))


def _held(rows: Rows, device: torch.device) -> Held:
    bits, wide = BITS[packed_form(rows.planes)], rows.data.shape[1] // rows.planes  # bytes of a plane
    words = torch.empty((len(rows), wide * bits // 4), dtype=torch.int32, device=device)
    for start in range(0, len(rows), BLOCK):
        planes = torch.from_numpy(rows.data[start : start + BLOCK].copy()).to(device)
        words[start : start + BLOCK] = _words(planes.view(len(planes), rows.planes, wide), bits)
    assert rows.step is not None
    if rows.centroid is None or rows.centroids is None:  # the same centroid for all, at the origin
        step, centroid, centroids = rows.step, np.zeros(1, np.uint16), np.zeros((1, rows.dim), np.float32)
    else:
        step, centroid, centroids = bfloat16_values(rows.step), rows.centroid, rows.centroids
    there = [torch.from_numpy(np.array(each)).to(device) for each in (step, centroid, centroids)]
    return Held(words, there[0], Packed(bits, (1 << rows.planes) - 1, *there[1:]))


def _words(planes: Tensor, bits: int) -> Tensor:
    """int32 [t, P bits / 32]: the numbers of planes uint8 [t, u, P / 8], ``bits`` for each, one after another."""
    eight = torch.arange(8, dtype=torch.uint8, device=planes.device)
    number = sum(((planes[:, p, :, None] >> eight) & 1) << p for p in range(planes.shape[1]))
    assert isinstance(number, Tensor)
    per = 8 // bits
    several = number.reshape(len(planes), -1, per) << (bits * eight[:per])
    return several.sum(dim=2, dtype=torch.uint8).view(torch.int32)


def values(own: Held, part: slice) -> Tensor:
    """float32 [t, D]: the vectors of some tokens, each product and each sum rounded on its own."""
    bits, most, centroid, centroids = own.packed
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=own.words.device)
    number = ((own.words[part, :, None] >> shifts) & ((1 << bits) - 1)).flatten(1)[:, : centroids.shape[1]]
    row = centroid[part].int() if own.packed.apart else torch.zeros_like(number[:, 0])
    return (2 * number - most).float() * own.step[part, None] + centroids[row]


def scanned(own: Held, dims: int) -> PackedTokens:
    """The same tokens for the scan, in rows of ``dims``."""
    bits, most, centroid, centroids = own.packed
    largest = float(own.step.max()) * most if len(own.step) else 0.0
    largest += float(centroids.abs().max()) if len(centroids) else 0.0
    unit = max(FLOOR, 2.0 ** (math.frexp(largest)[1] - SPARE))
    near = torch.zeros((len(centroids), dims), dtype=torch.float16, device=centroids.device)
    near[:, : centroids.shape[1]] = (centroids.double() / unit).half()
    return PackedTokens(own.words, own.step, centroid, near, unit, most, bits)


def token_sets(docs: TokenDocuments) -> TokenSets:
    """The same tokens as the refining takes them."""
    own = held(docs)
    offsets = triton_device.upload(docs.offsets, own.words.device)
    longest = int(np.diff(docs.offsets).max(initial=0))
    return TokenSets(own.words, offsets, docs.dim, longest, own.step, packed=own.packed)

"""Tokens of few bits on the GPU, `rows.Rows` of bit planes: once, as the scan and the refining both decode them
(csrc/cuda/maxsim_packed.cuh).

A token takes u D / 8 bytes, a word of its step and the number of its centroid, and for the scan a float32 weight.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine.backends.cuda import cuda_device
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_maxsim_kernels import STEP_DIMS, Packed, measure, pack
from pyengine.backends.shared import token_terms
from pyengine.backends.shared.token_terms import Coded
from pyengine.inputs.rows import Rows, bfloat16_values
from pyengine.kernels.maxsim_plan import BITS, packed_form
from pyengine.problems.problem_maxsim import TokenDocuments
from pyengine.types import F32

BLOCK = 1 << 20  # tokens packed at a time
SPARE = 14  # codes of the scan are below 2^14: float16 has 2^-14 .. 2^15 for them
FLOOR = 2.0**-120  # a unit whose inverse float32 holds
WORD = 32
SLICES = STEP_DIMS // 16, 2, 8  # of the dimensions of a step: by thread, by half of a pair, by pair


def held(docs: TokenDocuments, gpu: Gpu) -> Packed:
    """The tokens of a corpus whose rows are bit planes, kept on the GPU."""
    rows = docs.tokens.rows
    assert isinstance(rows, Rows)
    return cuda_device.mirrored(docs, gpu, "packed tokens", lambda: _held(rows, gpu))


def coded(docs: TokenDocuments, normalize: bool, gpu: Gpu) -> Coded:
    """The same for the scan. What decoding to float16 leaves out is measured on the GPU."""
    codes = held(docs, gpu)
    error, size = cuda_device.mirrored(docs, gpu, "packed errors", lambda: measure(gpu, codes))
    return token_terms.shrunk(codes, np.full_like(error, codes.unit), error, size, normalize)


def _held(rows: Rows, gpu: Gpu) -> Packed:
    bits, padded = BITS[packed_form(rows.planes)], rows.data.shape[1] // rows.planes * 8
    words = gpu.empty((len(rows), padded * bits // WORD), "int32")
    for start in range(0, len(rows), BLOCK):
        planes = gpu.array(rows.data[start : start + BLOCK])
        at = words.pointer + 4 * start * words.stride
        part = Array(words.owner, at, (len(planes), words.stride), words.kind, words.stride)
        pack(gpu, part, planes, bits, rows.planes)
    heads, step_bits, centroids = _heads(rows)
    unit = _unit(rows, centroids)
    near = np.zeros((len(centroids), padded), np.float16)
    near[:, : rows.dim] = centroids.astype(np.float64) / unit
    on_gpu = gpu.array(heads.view(np.int32)), gpu.array(centroids), gpu.array(_paired(near))
    return Packed(words, *on_gpu, unit, bits, step_bits)


def _heads(rows: Rows) -> tuple[NDArray[np.uint32], int, F32]:
    """Steps with numbers of centroids beside them, bits of a step, and centroids: the origin where there are none."""
    assert rows.step is not None
    if rows.centroid is None or rows.centroids is None:
        return rows.step.view(np.uint32), WORD, np.zeros((1, rows.dim), np.float32)
    heads: NDArray[np.uint32] = rows.step.astype(np.uint32) << np.uint32(16) | rows.centroid.astype(np.uint32)
    return heads, 16, rows.centroids


def _unit(rows: Rows, centroids: F32) -> float:
    assert rows.step is not None
    steps = rows.step if rows.centroid is None else bfloat16_values(rows.step)
    largest = float(steps.max(initial=0)) * ((1 << rows.planes) - 1) + float(abs(centroids).max(initial=0))
    return max(FLOOR, 2.0 ** (math.frexp(largest)[1] - SPARE))


def _paired(near: NDArray[Any]) -> NDArray[Any]:
    """Rows [n, P] in the order in which a thread decodes them: dimensions i and i + 8 of its 16 are a pair."""
    count, padded = near.shape
    threads, halves, pairs = SLICES
    apart = near.reshape(count, padded // STEP_DIMS, threads, halves, pairs)
    paired: NDArray[Any] = apart.transpose(0, 1, 2, 4, 3).reshape(count, padded)
    return paired


def operand(codes: NDArray[Any]) -> NDArray[Any]:
    """The same rows as they meet these pairs: those of all threads beside one another, two pairs in each 16 k of
    mma.m16n8k16."""
    count, padded = codes.shape
    threads, halves, pairs = SLICES
    apart = codes.reshape(count, padded // STEP_DIMS, threads, halves, pairs)
    met: NDArray[Any] = apart.transpose(0, 1, 4, 2, 3).reshape(count, padded)
    return met

"""Kernels to test the gates with, right ones and wrong ones."""

import triton
import triton.language as tl

from pyengine.kernels.chips import Chip, Shipped


@triton.jit
def product(a, b, out, size: tl.constexpr):
    at = tl.arange(0, size)[:, None] * size + tl.arange(0, size)[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at)))


@triton.jit
def convert(source, out, size: tl.constexpr):
    at = tl.arange(0, size)
    tl.store(out + at, tl.load(source + at).to(out.dtype.element_ty))


@triton.jit
def twice(source, out, size: tl.constexpr):
    at = tl.arange(0, size)
    loaded = tl.load(source + at)
    tl.store(out + at, loaded + loaded)


@triton.jit
def hoard(source, out, size: tl.constexpr):
    """More values at once than there are registers."""
    at = tl.arange(0, size)
    values = tl.load(source + at)
    tl.store(out + at, values - tl.sum(values, 0))


def shipped(chip: Chip) -> list[Shipped]:
    pointers = dict.fromkeys(("a", "b"), "*fp16")
    whole = {**pointers, "out": "*fp32", "size": "constexpr"}
    line = {"source": "*fp32", "out": "*fp32", "size": "constexpr"}
    return [
        Shipped("triton_kernels:product", whole, {"size": 64}, num_warps=4, num_stages=2),
        Shipped("triton_kernels:product", whole, {"size": 32}, num_warps=4, num_stages=2),
        Shipped("triton_kernels:product", whole, {"size": 256}, num_warps=8, num_stages=2),
        Shipped("triton_kernels:hoard", line, {"size": 8192}, num_warps=1, num_stages=1),
        Shipped("triton_kernels:convert", line, {"size": 100}, num_warps=4, num_stages=1),
    ]

"""Kernels to test the gates with: two right ones, and one that does arithmetic on what it should convert first."""

import triton
import triton.language as tl


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

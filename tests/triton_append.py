"""A kernel that does nothing but append."""

# mypy: ignore-errors

import triton
import triton.language as tl

from pyengine.kernels.triton_parts import append


@triton.jit
def append_kernel(
    rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, x_ptr, keep_ptr,
    BN: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    rows, queries = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BQ)
    at = rows[:, None] * BQ + queries[None, :]
    x = tl.load(x_ptr + at)
    keep = tl.load(keep_ptr + at) != 0
    append(rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, queries, rows, x, x - 1.0, keep)

"""Triton's interpreter, which runs the kernels where there is no GPU, without its known hole: bfloat16.

It keeps bfloat16 as uint16, and left alone it multiplies and adds those integers, and truncates where a GPU rounds.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

VARIABLE = "TRITON_INTERPRET"


def choose() -> bool:
    """Have Triton's kernels interpreted in this process if torch sees no GPU. Returns whether they are.

    The variable, which Triton must see when it is imported, is gone afterwards: child processes, and searches that
    choose a backend themselves, find no GPU, as they do outside the tests. The fixture ``interpreter`` sets it again.
    """
    if not (find_spec("torch") and find_spec("triton")):
        return False
    import torch

    if torch.cuda.is_available():
        return False
    os.environ[VARIABLE] = "1"
    from triton import knobs

    knobs.propagate_env = False
    knobs.runtime.interpret = True
    knobs.propagate_env = True
    del os.environ[VARIABLE]
    return True


def mend_bfloat16(patch: pytest.MonkeyPatch) -> None:
    """Products of bfloat16 matrices are right, conversions round to nearest even, and arithmetic on bfloat16, which
    our kernels do in float32, is an error and not garbage."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def mended_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, *(cast(self, each, tl.float32) if _is_bf16(each) else each for each in (a, b)), *rest)

    def mended_cast(self: Any, src: Any, dst_type: Any) -> Any:
        if src.dtype.scalar == tl.float32 and dst_type.scalar == tl.bfloat16:
            return TensorHandle(_nearest_even(src.data), tl.bfloat16)
        return cast(self, src, dst_type)

    patch.setattr(InterpreterBuilder, "create_dot", mended_dot)
    patch.setattr(InterpreterBuilder, "cast_impl", mended_cast)
    for name in ("unary_op", "binary_op"):
        patch.setattr(InterpreterBuilder, name, _refusing(getattr(InterpreterBuilder, name)))


def _is_bf16(handle: Any) -> bool:
    return bool(handle.dtype.scalar.is_bf16())


def _refusing(operation: Any) -> Any:
    def checked(self: Any, *handles_and_op: Any) -> Any:
        if any(map(_is_bf16, handles_and_op[:-1])):
            raise NotImplementedError("the interpreter has no bfloat16 arithmetic: convert to float32 after the load")
        return operation(self, *handles_and_op)

    return checked


def _nearest_even(values: Any) -> Any:
    """The bits, uint16, of float32 values rounded to bfloat16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)

"""Arrays on a GPU that are not torch's, as searches see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine.inputs.rows import bfloat16_values, half_values
from pyengine.types import F32

VALUES: dict[str, tuple[np.dtype[Any], Callable[[Any], F32]]] = {  # bits, as NumPy has them, and float32 of them
    "float32": (np.dtype(np.float32), np.asarray),
    "float16": (np.dtype(np.float16), half_values),
    "bfloat16": (np.dtype(np.uint16), bfloat16_values),
}


@dataclass(frozen=True)
class Place:
    """A GPU, as torch would name it."""

    type: str
    index: int

    def __str__(self) -> str:
        return f"{self.type}:{self.index}"


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """Rows [N, D] of one of the kinds of `VALUES` at ``pointer``, ``stride`` values apart, for as long as ``owner``
    lives. ``gpu`` is the GPU with the stream on which they may be read (`pyengine.backends.cuda.cuda_device.Gpu`). For
    NumPy they are a float32 copy on the host."""

    owner: Any
    pointer: int
    shape: tuple[int, int]
    kind: str
    stride: int
    gpu: Any

    @property
    def device(self) -> Place:
        return Place("cuda", self.gpu.device.number)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice) -> DeviceArray:
        first, last, _ = which.indices(len(self))
        start = self.pointer + first * self.stride * VALUES[self.kind][0].itemsize
        return replace(self, pointer=start, shape=(max(0, last - first), self.shape[1]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> F32:
        (count, dim), (bits, decoded) = self.shape, VALUES[self.kind]
        values: NDArray[Any] = np.empty((count - 1) * self.stride + dim if count else 0, bits)
        self.gpu.device.copy_out(values, self.pointer, self.gpu.stream)
        rows = np.lib.stride_tricks.as_strided(values, self.shape, (self.stride * bits.itemsize, bits.itemsize))
        return decoded(np.ascontiguousarray(rows))

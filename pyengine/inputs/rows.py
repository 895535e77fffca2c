"""Vectors as a store keeps them, where that is not float32: decoding is part of the specification."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine.types import F32, I64, U8


@dataclass(frozen=True)
class Rows:
    """Typed rows [N, D]. An index along the first axis decodes: float32 [n, D], which are the vectors.

    ========  ==========================================  ==========================================================
    kind      data                                        a vector
    ========  ==========================================  ==========================================================
    float16   float16 [N, D]                              the values
    bfloat16  uint16 [N, D]                               the values, each the upper half of a float32
    codes     uint8 [N, D padded to 64], biased by 128    step * (code - 128), each product rounded to float32
    planes    uint8 [N, u * (D padded to 64) / 8]         step * (2c - (2^u - 1)), each product rounded to float32
    residual  the same                                    the same + its centroid, each sum rounded to float32
    ========  ==========================================  ==========================================================

    c in 0 .. 2^u - 1 is the number whose bits u = ``planes`` planes hold, the lowest first; in a plane, bit i of byte j
    belongs to dimension 8j + i. ``step`` is float32 [N]; of residuals it is a bfloat16, uint16 [N] (so that products
    are exact), and ``centroid`` uint16 [N] are the numbers of their ``centroids`` float32 [C, D].
    """

    kind: str
    data: NDArray[Any]
    dim: int
    step: NDArray[Any] | None = None
    planes: int = 0
    centroid: NDArray[np.uint16] | None = None
    centroids: F32 | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.data), self.dim

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, which: slice | I64) -> F32:
        data = self.data[which]
        if self.step is None:
            return half_values(data) if self.kind == "float16" else bfloat16_values(data)
        odd = data[:, : self.dim].astype(np.float32) - 128 if self.kind == "codes" else self._odd(data)
        if self.centroid is None or self.centroids is None:
            values: F32 = odd * self.step[which][:, None]
            return values
        return odd * bfloat16_values(self.step[which])[:, None] + self.centroids[self.centroid[which]]

    def part(self, which: slice) -> Rows:
        """Some of the rows, as they are kept."""
        step, centroid = (None if each is None else each[which] for each in (self.step, self.centroid))
        return replace(self, data=self.data[which], step=step, centroid=centroid)

    def _odd(self, data: U8) -> F32:
        """The integers [n, D] of bit planes: float32, as which they are exact."""
        planes = np.unpackbits(
            data.reshape(len(data), self.planes, data.shape[1] // self.planes),
            axis=2,
            count=self.dim,
            bitorder="little",
        )
        number = sum(planes[:, p].astype(np.float32) * (1 << p) for p in range(self.planes))
        odd: F32 = 2 * number - np.float32((1 << self.planes) - 1)
        return odd


def half_values(halves: NDArray[np.float16]) -> F32:
    return halves.astype(np.float32)


def bfloat16_values(upper: NDArray[np.uint16]) -> F32:
    return (upper.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(rows: F32) -> NDArray[np.uint16]:
    """The nearest bfloat16 of finite float32 values, ties to even, as the upper halves; too large ones become inf."""
    bits = rows.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)

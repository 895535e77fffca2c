"""The GPUs that the Triton kernels are tuned and compiled for, and the limits that a tile must keep. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEAST = (8, 0)  # compute capability: what is older has no bfloat16 and no asynchronous copies


@dataclass(frozen=True)
class Chip:
    """One generation. ``shared`` bytes for each block of threads at most, ``registers`` a thread, ``l2`` bytes."""

    name: str
    capability: int  # as Triton and nvcc number it
    multiprocessors: int
    shared: int
    l2: int
    registers: int = 255


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("sm_80", 80, multiprocessors=108, shared=166_912, l2=40 << 20),
        Chip("sm_90", 90, multiprocessors=132, shared=232_448, l2=50 << 20),
        Chip("sm_100", 100, multiprocessors=148, shared=232_448, l2=126 << 20),
    )
}


@dataclass(frozen=True)
class Shipped:
    """One compiled form of a kernel that a plan may ask for: what the ahead-of-time check compiles.

    ``kernel`` is "module:function" within ``kernels/``; ``signature`` gives the types of all parameters by name, as
    Triton writes them ("*fp16", "i64", "constexpr"), ``constants`` the values of those that are constexpr.
    """

    kernel: str
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int
    fp_fusion: bool = True  # False for float64 kernels: the specification has no fused multiply-add


def chip_of(capability: tuple[int, int]) -> Chip:
    """The newest generation that is not newer than a device of this compute capability. Raises ValueError for one that
    is older than all."""
    if capability < LEAST:
        raise ValueError(f"the kernels need compute capability 8.0; this GPU has {capability[0]}.{capability[1]}")
    return [chip for chip in CHIPS.values() if chip.capability <= 10 * capability[0] + capability[1]][-1]

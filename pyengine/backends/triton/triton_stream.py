"""Documents that the GPU cannot hold pass through it in parts (`dense_parts`), each copied on a stream of its own."""

from __future__ import annotations

from functools import cache

import torch

from pyengine.backends.shared import dense_parts
from pyengine.backends.triton import triton_dense, triton_device
from pyengine.problems.problem import DenseProblem
from pyengine.types import Candidates


def propose(problem: DenseProblem, width: int, at_once: int) -> Candidates:
    """`dense_parts.propose` by the Triton kernels."""
    device = triton_device.device_of(problem.docs)
    return dense_parts.propose(
        problem, at_once, lambda part: _fetch(part, device), lambda part: triton_dense.propose(part, width)
    )


def _fetch(part: DenseProblem, device: torch.device) -> None:
    """To the device of the caller, whose thread this is not: that has a current device of its own."""
    if device.type == "cpu":  # interpreted, which cannot be done beside another kernel
        return
    with torch.cuda.device(device), torch.cuda.stream(_copying(device)):
        triton_dense.scanned(part)  # waits for what it has built


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    """One for all parts: what torch has allocated for a part that is gone, only the same stream gets again."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

"""Documents that the GPU cannot hold pass through it in parts (`dense_parts`), each copied on a stream of its own."""

from __future__ import annotations

import torch

from pyengine.backends import dense_parts, triton_dense, triton_device
from pyengine.problems.problem import DenseProblem
from pyengine.types import Candidates


def propose(problem: DenseProblem, width: int, at_once: int) -> Candidates:
    """`dense_parts.propose` by the Triton kernels."""
    return dense_parts.propose(problem, at_once, _fetch, lambda part: triton_dense.propose(part, width))


def _fetch(part: DenseProblem) -> None:
    device = triton_device.device_of(part.docs)
    if device.type == "cpu":  # interpreted, which cannot be done beside another kernel
        return
    with torch.cuda.device(device):  # this thread's
        own = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(own):
            triton_dense.scanned(part)
        own.synchronize()

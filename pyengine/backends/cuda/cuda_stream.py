"""Documents that the GPU cannot hold pass through it in parts (`dense_parts`), copied from pinned memory."""

from __future__ import annotations

from pyengine.backends.cuda import cuda_dense, cuda_device
from pyengine.backends.shared import dense_parts
from pyengine.problems.problem import DenseProblem
from pyengine.types import Candidates


def propose(problem: DenseProblem, width: int, at_once: int) -> Candidates:
    """`dense_parts.propose` by the CUDA kernels."""
    gpu = cuda_device.gpu_of(problem.docs)
    feed = cuda_device.feed_of(gpu)
    beside = gpu._replace(stream=feed.stream, feed=feed)

    def fetch(part: DenseProblem) -> None:
        with feed.lock:
            cuda_dense.scanned(part, beside)
            feed.wait()

    return dense_parts.propose(problem, at_once, fetch, lambda part: cuda_dense.propose(part, width))

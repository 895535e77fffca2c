"""What this machine can do at best, measured: the yardstick of every speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from bench.contestants import Unavailable, module
from pyengine import exact

REPEATS = 9
GEMM_SIDE = 2048


@dataclass(frozen=True)
class Ceilings:
    """Per second, with as many threads as the contestants have; None where nothing here can measure it."""

    threads: int
    read_bytes: float
    float32_ops: float
    int8_ops: float | None

    def floor(self, n_bytes: float, n_ops: float, arithmetic: str) -> float | None:
        """The least seconds in which the bytes can be read and the operations done: the larger of the two."""
        rate = self.int8_ops if arithmetic == "int8" else self.float32_ops
        return None if rate is None else max(n_bytes / self.read_bytes, n_ops / rate)

    def describe(self) -> str:
        int8 = "not measured" if self.int8_ops is None else f"{self.int8_ops / 1e9:.0f} Gop/s"
        return (
            f"{self.threads} thread(s): reads {self.read_bytes / 1e9:.1f} GB/s, float32 GEMM "
            f"{self.float32_ops / 1e9:.0f} Gop/s, int8 products {int8}"
        )


def measure(threads: int, n_bytes: int = 1 << 29) -> Ceilings:
    """The ceilings for that many threads; ``n_bytes`` should be well beyond the caches."""
    return Ceilings(threads, _read_bandwidth(threads, n_bytes), _float32_rate(threads), _int8_rate(threads))


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls, after one that warms up."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _read_bandwidth(threads: int, n_bytes: int) -> float:
    """The best of two readers: NumPy's SIMD maximum over a slice per thread, and the extension's own loop."""
    numbers = np.ones(n_bytes // 4, np.int32)
    with ThreadPoolExecutor(threads) as pool:
        slices = np.array_split(numbers, threads)
        best = numbers.nbytes / _fastest(lambda: list(pool.map(np.max, slices)))  # the ufunc releases the GIL
    kernels = exact.native()
    if kernels is not None and hasattr(kernels, "read_bandwidth"):
        best = max(best, *(float(kernels.read_bandwidth(n_bytes, threads)) for _ in range(REPEATS)))
    return best


def _float32_rate(threads: int) -> float:
    """float32 operations per second of the best matrix product here, NumPy's or torch's."""
    a = np.random.default_rng(0).random((GEMM_SIDE, GEMM_SIDE), dtype=np.float32)
    seconds = _fastest(lambda: a @ a)
    try:
        torch = module("torch")
        torch.set_num_threads(threads)
        tensor = torch.from_numpy(a)
        seconds = min(seconds, _fastest(lambda: tensor @ tensor))
    except Unavailable:
        pass
    return 2 * GEMM_SIDE**3 / seconds


def _int8_rate(threads: int) -> float | None:
    kernels = exact.native()
    if kernels is None or not hasattr(kernels, "peak_int8"):
        return None
    return max(float(kernels.peak_int8(threads)) for _ in range(REPEATS))

"""Matrix products of the libraries at hand, by instruction set. Which one a library uses it decides when it is loaded:
sets that are not its best are asked in processes of their own, `python -m bench.limits.products KIND THREADS SIDE`,
which print operations per second."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.limits import machine

SIDE = 1024  # of the matrices of one thread; short calls, so that one of them meets an idle processor
TRIED = 0.3  # seconds of calls, of which the fastest counts
SECONDS = 60  # that a process may take


class Level(NamedTuple):
    """An instruction set: what a processor must have for products of float32 and of bf16 ("" where there are none), and
    the settings that keep libraries to it."""

    isa: str
    float32: str
    bf16: str
    settings: dict[str, str]


AVX2 = {"OPENBLAS_CORETYPE": "Haswell", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
LEVELS = (  # rising
    Level("avx2", "avx2", "", AVX2),
    Level("avx512", "avx512dq", "avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}),
    Level("amx", "", "amx_bf16", {}),
)


def rates(kind: str, threads: int) -> dict[str, float]:
    """Operations per second of that ``kind`` ("float32", "bf16") by instruction set, as far as this machine has them;
    the best is measured in this process, where the libraries are at their best."""
    flags = machine.cpu_flags()
    able = [level for level in LEVELS if getattr(level, kind) in flags]
    best = able[-1].isa if able else {"aarch64": "neon", "arm64": "neon"}.get(platform.machine(), "baseline")
    side = SIDE * round(threads ** (1 / 3))  # as much for each thread, whatever their number
    found = {level.isa: _elsewhere(kind, threads, side, level.settings) for level in able[:-1]}
    found[best] = KINDS[kind](threads, side)
    return {isa: rate for isa, rate in found.items() if rate is not None}


def _elsewhere(kind: str, threads: int, side: int, settings: dict[str, str]) -> float | None:
    """In a process with those settings; None where that fails."""
    command = [sys.executable, "-m", "bench.limits.products", kind, *map(str, (threads, side))]
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, **settings}
    try:
        told = subprocess.check_output(command, cwd=root, env=environment, stderr=subprocess.DEVNULL, timeout=SECONDS)
        return float(told) or None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of the calls that fit into `TRIED` seconds, of three at least, after one that warms up."""
    work()
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < TRIED:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def float32(threads: int, side: int) -> float | None:
    """Of the better of NumPy and torch."""
    a = np.random.default_rng(0).random((side, side), dtype=np.float32)
    seconds = fastest(lambda: a @ a)
    try:
        import torch

        torch.set_num_threads(threads)
        tensor = torch.from_numpy(a)
        seconds = min(seconds, fastest(lambda: tensor @ tensor))
    except ImportError:
        pass
    return 2 * side**3 / seconds


def bf16(threads: int, side: int) -> float | None:
    """Of torch; None where it is not here, or does not multiply it."""
    try:
        import torch

        torch.set_num_threads(threads)
        tensor = torch.rand(side, side).to(torch.bfloat16)
        return 2 * side**3 / fastest(lambda: tensor @ tensor)
    except (ImportError, RuntimeError):
        return None


KINDS: dict[str, Callable[[int, int], float | None]] = {"float32": float32, "bf16": bf16}

if __name__ == "__main__":
    asked, *numbers = sys.argv[1:]
    print(KINDS[asked](*map(int, numbers)) or 0.0)

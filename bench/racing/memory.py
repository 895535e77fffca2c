"""The memory that a call needs beyond what the process holds already, as the Linux kernel counts it, and whether there
is room for it: a process that takes more than there is gets killed, not told."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

from bench.ours.contestants import Unavailable

PROC = Path("/proc/self")
RESERVE = 1 << 30  # left to everybody else


def extra_peak(work: Callable[[], object]) -> int | None:
    """Call ``work`` and return the bytes by which resident memory rose above its level before, at most; None where
    the kernel does not offer it."""
    try:
        _give_back_freed()
        (PROC / "clear_refs").write_text("5")  # the peak counter starts again from the present size
        before = _kilobytes(PROC / "status", "VmRSS")
    except OSError:
        work()
        return None
    work()
    return max(0, _kilobytes(PROC / "status", "VmHWM") - before) * 1024


def kept(work: Callable[[], object]) -> int:
    """Call ``work`` and return the bytes by which resident memory is above its level before; 0 where the kernel does
    not say."""
    try:
        _give_back_freed()
        before = _kilobytes(PROC / "status", "VmRSS")
        work()
        _give_back_freed()
        return max(0, _kilobytes(PROC / "status", "VmRSS") - before) * 1024
    except OSError:
        return 0


def require(n_bytes: float) -> None:
    """Raise `Unavailable` unless about that much memory is free (or the system does not say)."""
    _give_back_freed()
    try:
        free = _kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024
    except OSError:
        return
    if n_bytes and n_bytes + RESERVE > free:
        raise Unavailable(f"needs about {n_bytes / 1e9:.1f} GB of memory and {RESERVE / 1e9:.0f} to spare; "
                          f"{free / 1e9:.1f} GB are free")  # fmt: skip


def _give_back_freed() -> None:
    """Ask the C library to return what it keeps of freed memory, in which the call could hide; glibc alone can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"{file} has no {name}")

"""The memory that a call needs beyond what the process holds already, as the Linux kernel counts it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc/self")


def extra_peak(work: Callable[[], object]) -> int | None:
    """Call ``work`` and return the bytes by which resident memory rose above its level before, at most; None where
    the kernel does not offer it."""
    try:
        _give_back_freed()
        (PROC / "clear_refs").write_text("5")  # the peak counter starts again from the present size
        before = _kilobytes("VmRSS")
    except OSError:
        work()
        return None
    work()
    return max(0, _kilobytes("VmHWM") - before) * 1024


def _give_back_freed() -> None:
    """Ask the C library to return what it keeps of freed memory, in which the call could hide; glibc alone can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(name: str) -> int:
    for line in (PROC / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")

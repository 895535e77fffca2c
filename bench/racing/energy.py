"""Joules that the processor has used, by its own counters (RAPL). Reading them takes a right that most have not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def joules() -> float | None:
    """Of all processor packages together, from some moment on; None where they cannot be read."""
    try:
        counters = _counters(POWERCAP)
        return sum(int(file.read_text()) for file in counters) / 1e6 if counters else None
    except (OSError, ValueError):
        return None


@cache
def _counters(folder: Path) -> list[Path]:
    """Packages are intel-rapl:0, intel-rapl:1; what has another colon is a part of one."""
    return sorted(folder.glob("intel-rapl:?/energy_uj"))

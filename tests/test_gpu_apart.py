"""Work in processes of its own: what it tells, and how it ends. These import little, as the processes do again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from bench.gpus.gpu_apart import Told, apart


def test_what_is_done_apart(capfd: Any) -> None:
    soon = time.monotonic() + 60
    assert apart(soon, _three) == Told(3)
    assert apart(soon, _dying, 5) == Told(5, "its process ended with status 7")
    assert apart(soon, _failing) == Told(None, "its process ended with status 1")
    assert "ZeroDivisionError" in capfd.readouterr().err
    before = time.monotonic()
    assert apart(before + 3, _hanging).failure == "it was stopped: its time was over"
    assert time.monotonic() < before + 20


def _three(tell: Callable[[Any], object]) -> None:
    for number in (1, 2, 3):
        tell(number)


def _dying(tell: Callable[[Any], object], number: int) -> None:
    tell(number)
    os._exit(7)


def _failing(tell: Callable[[Any], object]) -> float:
    return 1 / 0


def _hanging(tell: Callable[[Any], object]) -> None:
    time.sleep(1000)

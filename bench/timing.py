"""Interleaved timing: in every round each contestant is called once, and each round starts with another of them, so
that what the machine does meanwhile falls on all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

MIN_ROUNDS, MAX_ROUNDS = 5, 31


@dataclass
class Samples:
    """Seconds per call, in the order of the rounds: by the clock on the wall, and of all this process's threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def call(self, work: Callable[[], object]) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        del result  # freed outside the time

    def percentile(self, percent: float) -> float:
        """Of the wall time, in seconds."""
        return float(np.percentile(self.wall, percent))

    def cpu_median(self) -> float:
        return float(np.median(self.cpu))

    def speedup_over(self, other: Samples) -> float:
        """How many times faster this is than ``other``: the median over rounds of the ratio within a round."""
        return float(np.median(np.divide(other.wall, self.wall)))


def interleave(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Samples]:
    """``rounds`` samples of each call, which should have been called before (that was the warm-up)."""
    names = list(calls)
    samples = {name: Samples() for name in names}
    with _quiet():
        for start in range(rounds):
            turn = start % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                samples[name].call(calls[name])
    return samples


def rounds_within(seconds: float, one_round: float) -> int:
    """How many rounds of ``one_round`` seconds fit, within sensible limits."""
    return int(min(MAX_ROUNDS, max(MIN_ROUNDS, seconds // max(one_round, 1e-9))))


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection while the clock runs."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

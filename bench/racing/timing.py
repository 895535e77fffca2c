"""Interleaved timing: in every round each contestant is called once, so that what the machine does meanwhile falls on
all alike. Every other round goes backwards, and starts rotate: what a contestant leaves behind (caches, clock rates) is
not always for the same one. Who is slow sits out some of the rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from bench.racing import energy

MIN_ROUNDS, MAX_ROUNDS = 3, 31
Key = TypeVar("Key", bound=Hashable)


@dataclass
class Samples:
    """Seconds per call, in the order of the rounds: by the clock on the wall, and of all this process's threads.
    ``rounds`` says which rounds those were; ``failure`` why it stopped before the last of them. ``energy`` is joules of
    the whole processor, where they can be read."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    failure: str = ""
    energy: list[float] = field(default_factory=list)

    def call(self, work: Callable[[], object], number: int = 0) -> object:
        """Time one call, as part of that round; returns its result."""
        spent = energy.joules()
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        self.rounds.append(number)
        if spent is not None:
            self.energy.append((energy.joules() or 0.0) - spent)
        return result

    def joules(self) -> float | None:
        """The median of a call; None where it cannot be read. A counter that began again in a call is left out."""
        sound = [each for each in self.energy if each >= 0]
        return float(np.median(sound)) if sound else None

    def percentile(self, percent: float) -> float:
        """Of the wall time, in seconds."""
        return float(np.percentile(self.wall, percent))

    def cpu_median(self) -> float:
        return float(np.median(self.cpu))

    def times(self, other: Samples) -> float:
        """How many times as long as ``other`` this takes: the median ratio."""
        return float(np.median(self.ratios(other)))

    def ratios(self, other: Samples) -> list[float]:
        """Of the time of this to that of ``other``, in each of the rounds that both took part in."""
        theirs = dict(zip(other.rounds, other.wall))
        return [wall / theirs[at] for at, wall in zip(self.rounds, self.wall) if at in theirs]


def interleave(
    calls: Mapping[Key, Callable[[], object]], rounds: Mapping[Key, int], clock: Callable[[], Samples] = Samples
) -> dict[Key, Samples]:
    """``rounds[key]`` samples of each call, which should have been called before (that was the warm-up). Fewer rounds
    than others have are spread evenly over theirs; all take part in the first. A call that fails is not repeated."""
    names = list(calls)
    samples = {name: clock() for name in names}
    total = max(rounds.values(), default=0)
    with _quiet():
        for number in range(total):
            turn = number // 2 % max(1, len(names))
            order = names[turn:] + names[:turn]
            for name in reversed(order) if number % 2 else order:
                if number * rounds[name] % total < rounds[name] and not samples[name].failure:
                    _sample(samples[name], calls[name], number)
    return samples


def _sample(samples: Samples, work: Callable[[], object], number: int) -> None:
    try:
        samples.call(work, number)
    except Exception as error:  # a contestant's, whatever it is: the others go on
        samples.failure = f"{type(error).__name__}: {error}"


def rounds_within(seconds: float, one_call: float) -> int:
    """How many calls of that length fit, within sensible limits."""
    return int(min(MAX_ROUNDS, max(MIN_ROUNDS, seconds // max(one_call, 1e-9))))


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

"""What a figure is, before anything draws it: the page (`interactive`) and files (`pictures`) draw the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Okabe and Ito's colours, without black and yellow, which a dark or a white page swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = (  # as plotly and as matplotlib call them; seven, so that 42 families differ in the pair
    ("circle", "o"),
    ("square", "s"),
    ("diamond", "D"),
    ("triangle-up", "^"),
    ("cross", "P"),
    ("star", "*"),
    ("triangle-down", "v"),
)
DASHES = (("solid", "-"), ("dash", "--"), ("dot", ":"), ("dashdot", "-."))  # the same of both
MOST_TICKS = 6  # with labels, on a phone
STEPS: tuple[Sequence[float], ...] = (  # of a power of ten, the finest first
    [step / 50 for step in range(50, 500)],
    [step / 10 for step in range(10, 100)],
    (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 5, 7),
    (1, 2, 5),
    (1, 3),
    (1,),
)
GREY = "#808080"  # of what belongs to no family


class Axis(NamedTuple):
    """``log``: to base 10. ``at`` are its ticks, where they are not left to `ticks`."""

    title: str
    log: bool = True
    at: Sequence[float] = ()


class Series(NamedTuple):
    """Points (x, y) with a text each. ``family`` is what toggles it and what it is coloured by, "" for none; ``style``
    "points", "curve" (joined points), "steps" (a frontier), or "roof" (a line with its name at its end). ``turn`` tells
    curves of one family apart."""

    name: str
    family: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "points"
    hover: Sequence[str] = ()
    turn: int = 0


class Box(NamedTuple):
    """Percentiles of one distribution: whiskers at 5 and 95, the box from 25 to 75, a mark at 99."""

    name: str
    family: str
    at: dict[int, float]
    hover: str


class Figure(NamedTuple):
    """``key`` is its name in the page and as a file. It has series, or boxes that lie along x, the first at the top."""

    key: str
    title: str
    x: Axis
    y: Axis
    note: str
    series: Sequence[Series] = ()
    boxes: Sequence[Box] = ()

    @property
    def families(self) -> list[str]:
        names = [each.family for each in self.series] + [box.family for box in self.boxes]
        return list(dict.fromkeys(filter(None, names)))

    def values(self, axis: str) -> list[float]:
        """All of "x" or "y"."""
        if self.boxes:
            return [value for box in self.boxes for value in box.at.values()] if axis == "x" else []
        return [value for each in self.series for value in getattr(each, axis)]


class Look(NamedTuple):
    colour: str
    shape: str  # of plotly
    marker: str  # of matplotlib


def looks(families: Iterable[str]) -> dict[str, Look]:
    """A colour and a shape for each, no pair twice among 42."""
    names = list(dict.fromkeys(families))
    pairs = {name: (COLOURS[at % len(COLOURS)], SHAPES[at % len(SHAPES)]) for at, name in enumerate(names)}
    return {"": Look(GREY, "circle", "o")} | {name: Look(colour, *shape) for name, (colour, shape) in pairs.items()}


def ticks(axis: Axis, values: Sequence[float]) -> list[float]:
    """Of a logarithmic axis: its own, or multiples of powers of ten, as many as it has room for."""
    positive = [value for value in values if value > 0]
    if axis.at or not positive:
        return list(axis.at)
    low, high = span(positive, log=True)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    for steps in STEPS:
        made = [float(f"{step}e{power}") for power in powers for step in steps]
        made = [value for value in made if low <= value <= high]
        if len(made) <= MOST_TICKS:
            break
    return made


def span(values: Sequence[float], log: bool) -> tuple[float, float]:
    """The ends of an axis, a little beyond the values."""
    if log:
        values = [math.log10(value) for value in values if value > 0] or [0.0]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.3
    low, high = low - margin, high + margin
    return (10**low, 10**high) if log else (low, high)

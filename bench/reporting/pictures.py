"""Figures as files for papers, by matplotlib: the same data as in the page, on white."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.reporting import drawing, words
from bench.reporting.drawing import Axis, Figure, Look, Series

WIDTH, HEIGHT = 6.4, 4.4  # inches
STYLES = {"points": "none", "roof": ":", "steps": "-"}
BROAD = {"linewidth": 5, "alpha": 0.4}  # the frontier of all, under those of the families
SETTINGS = {
    "text.parse_math": False,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "pyengine",
    "svg.fonttype": "none",
    "font.size": 9,
}


def save(figures: Sequence[Figure], looks: Mapping[str, Look], folder: Path) -> list[Path]:
    """A PNG and an SVG of each in ``folder``; their paths. ImportError without matplotlib, OSError where they cannot be
    written."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise ImportError("--figures needs the package matplotlib: pip install matplotlib") from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(SETTINGS):
        for each in figures:
            height = max(HEIGHT, 1.2 + 0.19 * len(each.boxes))
            canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
            _draw(canvas, each, looks)
            for path in (folder / f"{each.key}.png", folder / f"{each.key}.svg"):
                canvas.savefig(path, dpi=200)
                written.append(path)
    return written


def _draw(canvas: Any, figure: Figure, looks: Mapping[str, Look]) -> None:
    axes = canvas.add_subplot()
    axes.set_title(textwrap.fill(figure.title, 80), fontsize=9)
    (_boxes if figure.boxes else _series)(axes, figure, looks)
    _axis(axes, "x", figure.x, figure.values("x"))
    if not figure.boxes:
        _axis(axes, "y", figure.y, figure.values("y"))
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles))
    canvas.legend(named.values(), named.keys(), loc="outside lower center", ncols=max(1, min(4, 88 // _longest(named))))


def _longest(names: Mapping[str, Any]) -> int:
    return 8 + max(map(len, names), default=0)


def _series(axes: Any, figure: Figure, looks: Mapping[str, Look]) -> None:
    for each in figure.series:
        look, points = looks[each.family], each.style in ("points", "curve")
        (line,) = axes.plot(
            each.x, each.y, color=look.colour, linestyle=_dash(each), marker=look.marker if points else "",
            markersize=5, markeredgecolor="black", markeredgewidth=0.4,
            drawstyle="steps-post" if each.style == "steps" else "default",
            label=each.name if points or not (each.family or each.style == "roof") else "_",
        )  # fmt: skip
        if each.style == "steps" and not each.family:
            line.set(**BROAD)
        if each.style == "roof":
            end = each.x[-1], each.y[-1]
            axes.annotate(each.name, end, (0, 2), textcoords="offset points", ha="right", fontsize=7)


def _dash(series: Series) -> str:
    return drawing.DASHES[series.turn % len(drawing.DASHES)][1] if series.style == "curve" else STYLES[series.style]


def _boxes(axes: Any, figure: Figure, looks: Mapping[str, Look]) -> None:
    names = {"whislo": 5, "q1": 25, "med": 50, "q3": 75, "whishi": 95}
    for place, box in enumerate(figure.boxes):
        colour = {"color": looks[box.family].colour}
        stats = {name: box.at[percent] for name, percent in names.items()}
        axes.bxp(
            [stats], positions=[place], orientation="horizontal", widths=0.6, showfliers=False, manage_ticks=False,
            boxprops=colour, medianprops=colour, whiskerprops=colour, capprops=colour,
        )  # fmt: skip
        axes.plot(box.at[99], place, marker=looks[box.family].marker, linestyle="none", **colour, label=box.family)
    axes.set_yticks(range(len(figure.boxes)), [box.name for box in figure.boxes], fontsize=7)
    axes.set_ylim(len(figure.boxes) - 0.4, -0.6)


def _axis(axes: Any, name: str, axis: Axis, values: Sequence[float]) -> None:
    change = getattr(axes, f"set_{name}scale"), getattr(axes, f"set_{name}lim"), getattr(axes, f"set_{name}label")
    scale, limit, label = change
    label(axis.title)
    low, high = drawing.span(values, axis.log)
    limit(low, high)  # before the scale, which has no room for a single value
    if axis.log:
        scale("log")
        at = [value for value in drawing.ticks(axis, values) if low <= value <= high]
        getattr(axes, f"set_{name}ticks")(at, [words.short(value) for value in at])
        getattr(axes, f"set_{name}ticks")([], minor=True)

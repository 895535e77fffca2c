"""Figures as plotly wants them: plain dictionaries, which page.js hands to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bench.reporting import drawing, words
from bench.reporting.drawing import DASHES, Axis, Box, Figure, Look, Series

LINES: dict[str, dict[str, Any]] = {
    "roof": {"dash": "dot", "width": 1.5},
    "curve": {"width": 2},
    "steps": {"shape": "hv", "width": 1.5},
}
BROAD = {"width": 6}  # the frontier of all, which lies under those of the families
ROW = 26  # pixels of a box, with two lines of its name
LINE = 26  # letters in one of them


def figure(what: Figure, looks: Mapping[str, Look]) -> dict[str, Any]:
    """``key``, ``data`` and ``layout``; colours of paper and ink are left to the page, which knows light from dark."""
    data = [_series(each, looks[each.family]) for each in what.series]
    for family in what.families if what.boxes else ():
        own = [(place, box) for place, box in enumerate(what.boxes) if box.family == family]
        data += [_boxes(family, own, looks[family]), _ends(family, own, looks[family])]
    layout: dict[str, Any] = {"xaxis": _axis(what.x, what.values("x")), "yaxis": _axis(what.y, what.values("y"))}
    if what.boxes:
        names = [_label(box.name) for box in what.boxes]
        layout["yaxis"] = {"tickvals": list(range(len(names))), "ticktext": names, "tickfont": {"size": 10}}
        layout["yaxis"] |= {"range": [len(names) - 0.4, -0.6], "automargin": True}
        layout["height"] = 120 + ROW * len(names)
    return {"key": what.key, "data": data, "layout": layout}


def _text(text: str) -> str:
    """plotly takes some HTML, and what is between dollars, for its own, which a name must not be."""
    return escape(text, quote=False).replace("$", "&#36;").replace("\n", "<br>")


def _label(name: str) -> str:
    """Of a box: long names are broken into two lines, and shortened, so that they leave room on a phone."""
    if len(name) <= LINE:
        return _text(name)
    hyphens = [at + 1 for at, sign in enumerate(name) if sign == "-"]
    middle = min(hyphens or [LINE], key=lambda at: max(at, len(name) - at))
    lines = (name[:middle], name[middle:])
    return _text("\n".join(line if len(line) <= LINE else f"{line[: LINE - 1]}…" for line in lines))


def _axis(axis: Axis, values: list[float]) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": _text(axis.title)}, "automargin": True}
    if axis.log:
        at = drawing.ticks(axis, values)
        low, high = drawing.span(values, log=True)
        made |= {"type": "log", "tickvals": at, "ticktext": [words.short(value) for value in at]}
        return made | {"range": [math.log10(low), math.log10(high)]}
    return made | {"range": list(drawing.span(values, log=False))}


def _series(each: Series, look: Look) -> dict[str, Any]:
    points = each.style in ("points", "curve")
    made: dict[str, Any] = {
        "type": "scatter",
        "mode": {"points": "markers", "curve": "lines+markers", "roof": "lines+text"}.get(each.style, "lines"),
        "name": _text(each.name),
        "x": list(each.x),
        "y": list(each.y),
        "meta": each.family,
        "legendgroup": _text(each.name),
        "showlegend": points or not (each.family or each.style == "roof"),
    }
    if points:
        made["marker"] = {"color": look.colour, "symbol": look.shape, "size": 9, "line": {"width": 1}}
        made |= {"text": [_text(text) for text in each.hover], "hovertemplate": "%{text}<extra></extra>"}
    else:
        made["hoverinfo"] = "skip"
    if each.style in LINES:
        made["line"] = {"color": look.colour, **LINES[each.style]}
    if each.style == "curve":
        made["line"] |= {"dash": DASHES[each.turn % len(DASHES)][0]}
    if each.style == "steps" and not each.family:
        made |= {"line": made["line"] | BROAD, "opacity": 0.4}
    if each.style == "roof":
        made |= {"text": [*[""] * (len(each.x) - 1), _text(each.name)], "textposition": "top left"}
    return made


def _boxes(family: str, own: Sequence[tuple[int, Box]], look: Look) -> dict[str, Any]:
    """``own`` are the places and the boxes of the family."""
    names = {"lowerfence": 5, "q1": 25, "median": 50, "q3": 75, "upperfence": 95}
    return {
        "type": "box",
        "orientation": "h",
        "name": _text(family),
        "meta": family,
        "legendgroup": _text(family),
        "y": [place for place, _ in own],
        "width": 0.6,
        **{name: [box.at[percent] for _, box in own] for name, percent in names.items()},
        "line": {"color": look.colour, "width": 1.5},
        "hoverinfo": "skip",
    }


def _ends(family: str, own: Sequence[tuple[int, Box]], look: Look) -> dict[str, Any]:
    """The marks at 99 %, which also have the texts."""
    places, x = [float(place) for place, _ in own], [box.at[99] for _, box in own]
    marks = Series(family, family, x, places, hover=[box.hover for _, box in own])
    return _series(marks, look) | {"showlegend": False}

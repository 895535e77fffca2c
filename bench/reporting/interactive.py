"""Figures as plotly wants them: plain dictionaries, which page.js hands to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from bench.reporting import drawing, words
from bench.reporting.drawing import Axis, Box, Figure, Look, Series

LINES = {"line": {"dash": "dot", "width": 1.5}, "curve": {"width": 2}, "steps": {"shape": "hv", "width": 1.5}}
ROW = 24  # pixels of a box


def figure(what: Figure, looks: Mapping[str, Look]) -> dict[str, Any]:
    """``key``, ``data`` and ``layout``; colours of paper and ink are left to the page, which knows light from dark."""
    data = [_boxes(what, family, looks) for family in what.families] if what.boxes else []
    data += _ends(what, looks) if what.boxes else [_series(each, looks[each.family]) for each in what.series]
    layout: dict[str, Any] = {"xaxis": _axis(what.x, what.values("x")), "yaxis": _axis(what.y, what.values("y"))}
    if what.boxes:
        names = [_label(box.name) for box in what.boxes]
        layout["yaxis"] = {"type": "category", "categoryorder": "array", "categoryarray": names[::-1], "automargin": True}
        layout["yaxis"] |= {"range": [-0.7, len(names) - 0.3], "tickfont": {"size": 10}, "dtick": 1}
        layout["height"] = 120 + ROW * len(names)
    return {"key": what.key, "data": data, "layout": layout}


def _text(words: str) -> str:
    """plotly takes some HTML for its own, which a name must not be."""
    return escape(words, quote=False).replace("\n", "<br>")


def _label(name: str) -> str:
    """Of a box: long names are broken, so that they leave room on a phone."""
    lines = [""]
    for part in name.replace("-", "-\n").split("\n"):
        if len(lines[-1]) + len(part) > 22 and lines[-1]:
            lines.append("")
        lines[-1] += part
    return _text("\n".join(lines))


def _axis(axis: Axis, values: list[float]) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": _text(axis.title)}, "automargin": True}
    if axis.log:
        at = drawing.ticks(values)
        low, high = drawing.span(values, log=True)
        made |= {"type": "log", "tickvals": at, "ticktext": [words.short(value) for value in at]}
        return made | {"range": [math.log10(low), math.log10(high)]}
    return made | {"range": list(drawing.span(values, log=False))}


def _series(each: Series, look: Look) -> dict[str, Any]:
    points = each.style in ("points", "curve")
    made: dict[str, Any] = {
        "type": "scatter",
        "mode": {"points": "markers", "curve": "lines+markers"}.get(each.style, "lines"),
        "name": _text(each.name),
        "x": list(each.x),
        "y": list(each.y),
        "meta": each.family,
        "legendgroup": _text(each.name),
        "showlegend": each.style != "steps" or not each.family,
    }
    if points:
        made["marker"] = {"color": look.colour, "symbol": look.shape, "size": 9, "line": {"width": 1}}
        made |= {"text": [_text(words) for words in each.hover], "hovertemplate": "%{text}<extra></extra>"}
    else:
        made["hoverinfo"] = "skip"
    if each.style in LINES:
        made["line"] = {"color": look.colour, **LINES[each.style]}
    return made


def _boxes(what: Figure, family: str, looks: Mapping[str, Look]) -> dict[str, Any]:
    own = [box for box in what.boxes if box.family == family]
    names = {"lowerfence": 5, "q1": 25, "median": 50, "q3": 75, "upperfence": 95}
    return {
        "type": "box",
        "orientation": "h",
        "name": _text(family),
        "meta": family,
        "legendgroup": _text(family),
        "y": [_label(box.name) for box in own],
        **{name: [box.at[percent] for box in own] for name, percent in names.items()},
        "line": {"color": looks[family].colour, "width": 1.5},
        "hoverinfo": "skip",
    }


def _ends(what: Figure, looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """The marks at 99 %, which also have the texts."""
    made = []
    for family in what.families:
        own: list[Box] = [box for box in what.boxes if box.family == family]
        x = [box.at[99] for box in own]
        marks = Series(family, family, x, [], hover=[box.hover for box in own])
        made.append(_series(marks, looks[family]) | {"y": [_label(box.name) for box in own], "showlegend": False})
    return made

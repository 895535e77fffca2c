"""Lines through points: what is best at every cost, and how time grows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench.registry import TABLES
from bench.reporting.reading import Row

AXES = {  # column of a run -> of a cell, and in words
    "n_docs": ("n_docs", "documents (N)"),
    "n_queries": ("", "queries a batch (Q)"),
    "k": ("k", "results (k)"),
    "dim": ("dims", "dimensions (D)"),
    "threads": ("threads", "threads"),
}
LEAST = {"threads": 2}  # numbers of threads make a series; of anything else three values do
RUN_KEYS = (
    *("n_docs", "dim", "n_queries", "k", "metric", "data", "keep", "letter", "lengths", "query_tokens", "mean"),
    *("query_terms", "touched", "apart", "kind", "contestant", "threads", "cpu"),
)
CELL_KEYS = (
    *("family", "candidates", "store", "originals", "dims", "pool", "lists", "probes", "links", "ef", "code_bytes"),
    *("bits", "project", "depth", "fusion", "normalize", "weight", "backend", "threads", "k", "n_docs"),
)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (cost, quality) that nothing beats: no other is as cheap and better, or cheaper and as good."""
    kept: list[tuple[float, float]] = []
    for cost, quality in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((cost, quality))
    return kept


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent b of y = a x^b, by least squares over logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


class Curve(NamedTuple):
    """Times of one contestant as one number grows; ``fixed`` is all the rest, a word each."""

    axis: str
    op: str
    family: str
    fixed: Sequence[str]
    x: list[float]
    y: list[float]


def of_run(rows: Sequence[Row]) -> list[Curve]:
    """Curves of the searches of a run."""
    searches = [row for row in rows if row["role"] != "yardstick" and row["n_queries"]]
    return [curve for axis in AXES for curve in _run_curves(axis, searches)]


def _run_curves(axis: str, rows: Sequence[Row]) -> list[Curve]:
    found = []
    for line in _series(axis, [key for key in RUN_KEYS if key != axis], rows, "p50_ms"):
        row = line[0][1]
        said = {"n_docs": f"N={row['n_docs']:,}", "dim": f"D={row['dim']}", "n_queries": f"Q={row['n_queries']:,}"}
        said |= {"k": f"k={row['k']:,}", "threads": f"threads={row['threads']}"}
        said |= {key: str(row[key]) for key in ("metric", "data", "letter", "kind") if row.get(key)}
        fixed = [text for key, text in said.items() if key != axis and row[key]]
        x, y = [float(value) for value, _ in line], [float(each["p50_ms"]) for _, each in line]
        found.append(Curve(axis, _op(row), str(row["contestant"]), fixed, x, y))
    return found


def of_cells(rows: Sequence[Row]) -> list[Curve]:
    """Curves of cells that differ in one setting, one query at a time."""
    found = []
    for axis, (column, _) in AXES.items():
        for line in _series(column, [key for key in CELL_KEYS if key != column], rows, "b1_p50_ms") if column else []:
            row = line[0][1]
            parts = [row["store"], row["candidates"] if row["candidates"] != "none" else None, row["fusion"]]
            parts += [f"N={row['n_docs']:,}"] * (axis != "n_docs") + [f"k={row['k']:,}"] * (axis != "k")
            parts += [f"threads={row['threads']}"] * (axis != "threads")
            x, y = [float(value) for value, _ in line], [float(each["b1_p50_ms"]) for _, each in line]
            found.append(Curve(axis, "cells", str(row["family"]), [str(part) for part in parts if part], x, y))
    return found


def _series(column: str, keys: Sequence[str], rows: Sequence[Row], time: str) -> list[list[tuple[float, Row]]]:
    """Rows that differ in ``column`` alone, ascending; where a value comes twice, its fastest row."""
    groups: dict[Hashable, dict[float, Row]] = {}
    for row in rows:
        value, seconds = row.get(column), row[time]
        if value and seconds:
            key = (_op(row), *(row.get(name) for name in keys))
            group = groups.setdefault(key, {})
            if value not in group or seconds < group[value][time]:
                group[value] = row
    return [sorted(group.items()) for group in groups.values() if len(group) >= LEAST.get(column, 3)]


def _op(row: Mapping[str, object]) -> str:
    table = str(row.get("table", ""))
    return TABLES[table].op if table in TABLES else table

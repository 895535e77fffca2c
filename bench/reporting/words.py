"""Figures in words: numbers to read, and what the results come down to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from bench.registry import TABLES
from bench.reporting.reading import Row, Run

BUDGET = 10.0  # milliseconds, unless the reader says otherwise
PERCENTILES = {
    "b1_p50_ms": "half of the queries",
    "b1_p95_ms": "95 % of the queries",
    "b1_p99_ms": "99 % of the queries",
}
USUAL = "b1_p95_ms"
NEAR = 0.99  # of the best quality: as good, to somebody who wants to save memory


def short(value: float) -> str:
    """Three figures, or all those before the point."""
    return (
        f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1e-3 or not value else f"{value:.1e}"
    )


def milliseconds(value: float) -> str:
    return f"{short(value)} ms"


def memory(n_bytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{short(n_bytes / size)} {unit}"
    return f"{short(n_bytes)} B"


def quality_of(rows: Sequence[Row]) -> tuple[str, str]:
    """The column that says how good answers are, and its name: by judgements where all rows have some."""
    if rows and all(row["ndcg_10"] is not None for row in rows):
        return "ndcg_10", "nDCG@10"
    return "recall", "recall of the exact top k"


def settings(row: Row) -> str:
    """What a cell is: "dense, int8, hnsw"."""
    parts = [row["family"], row["store"], row["candidates"] if row["candidates"] != "none" else row["fusion"]]
    return ", ".join(str(part) for part in parts if part)


class Step(NamedTuple):
    """What is best for budgets of ``least`` milliseconds and more, up to the next step."""

    least: float
    words: str


def advice(rows: Sequence[Row], percentile: str = USUAL) -> list[Step]:
    """What to use for every budget there is: the first step is for budgets that nothing meets. The best quality wins,
    to three digits; of equals that which keeps less in memory."""
    timed = sorted((row for row in rows if row[percentile] and row["memory_bytes"]), key=lambda row: row[percentile])
    if not timed:
        return [Step(0.0, "no cell has been timed.")]
    first = timed[0]
    steps = [
        Step(
            0.0,
            f"nothing that was measured is so fast: the fastest, “{first['cell']}”, needs "
            f"{milliseconds(first[percentile])} for {PERCENTILES[percentile]}.",
        )
    ]
    for at, row in enumerate(timed):
        if at + 1 < len(timed) and timed[at + 1][percentile] == row[percentile]:
            continue
        words = _best(timed[: at + 1], percentile, timed)
        if words != steps[-1].words:
            steps.append(Step(float(row[percentile]), words))
    return steps


def _best(rows: Sequence[Row], percentile: str, everything: Sequence[Row]) -> str:
    column, name = quality_of(everything)

    def quality(row: Row) -> float:
        return round(float(row[column] or 0), 3)

    best = min(rows, key=lambda row: (-quality(row), row["memory_bytes"]))
    said = (
        f"use “{best['cell']}” ({settings(best)}): {name} {quality(best):.3f}, {PERCENTILES[percentile]} answered "
        f"within {milliseconds(best[percentile])}, {memory(best['memory_bytes'])} in memory."
    )
    near = [row for row in rows if quality(row) >= NEAR * quality(best)]
    saving = min(near, key=lambda row: row["memory_bytes"])
    if saving["memory_bytes"] < 0.9 * best["memory_bytes"]:
        said += (
            f" With {memory(saving['memory_bytes'])}, “{saving['cell']}” is within 1 % of that: "
            f"{quality(saving):.3f}, {milliseconds(saving[percentile])}."
        )
    return said


def at_budget(steps: Sequence[Step], budget: float) -> str:
    """The words of the last step that the budget reaches."""
    return [step.words for step in steps if step.least <= budget][-1]


def races(run: Run) -> list[str]:
    """A sentence for each table of a run: how often ours was right, and how fast beside the best of the others."""
    tables = dict.fromkeys(str(row["table"]) for row in run.timed if row["role"] == "ours")
    return [
        _race(table, [row for row in run.timed if (row["table"], row["role"]) == (table, "ours")]) for table in tables
    ]


def title(table: str) -> str:
    return TABLES[table].title if table in TABLES else table


def _race(table: str, ours: Sequence[Row]) -> str:
    exact = sum(row["exact"] is True for row in ours)
    said = f"{re.split('[:;]', title(table))[0]}: {exact} of {len(ours)} answers exact to the bit"
    fastest: dict[str, Row] = {}  # of each workload
    for row in sorted(ours, key=lambda row: float(row["p50_ms"])):
        fastest.setdefault(str(row["workload"]), row)
    ratios = sorted(float(row["vs_best_peer"]) for row in fastest.values() if row.get("vs_best_peer"))
    if not ratios:
        return f"{said}."
    between = " to ".join(dict.fromkeys(short(each) for each in (ratios[0], ratios[-1])))
    return f"{said}; our fastest is {between} times as fast as the best peer."

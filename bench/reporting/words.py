"""Figures in words: numbers to read, and what the results come down to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.registry import TABLES
from bench.reporting.reading import Row, Run

BUDGET = 10.0  # milliseconds, unless the reader says otherwise
PERCENTILES = {"b1_p50_ms": "half of the queries", "b1_p95_ms": "95 % of the queries", "b1_p99_ms": "99 % of the queries"}
USUAL = "b1_p95_ms"
NEAR = 0.99  # of the best quality: as good, to somebody who wants to save memory


def short(value: float) -> str:
    """Three figures, or all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1e-3 or not value else f"{value:.1e}"


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
            f"nothing that was measured is so fast: the fastest, {first['cell']}, needs "
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
        f"use {best['cell']} ({settings(best)}): {name} {quality(best):.3f}, {PERCENTILES[percentile]} answered within "
        f"{milliseconds(best[percentile])}, {memory(best['memory_bytes'])} in memory."
    )
    near = [row for row in rows if quality(row) >= NEAR * quality(best)]
    saving = min(near, key=lambda row: row["memory_bytes"])
    if saving["memory_bytes"] < 0.9 * best["memory_bytes"]:
        said += (
            f" With {memory(saving['memory_bytes'])}, {saving['cell']} is within 1 % of that: "
            f"{quality(saving):.3f}, {milliseconds(saving[percentile])}."
        )
    return said


def at_budget(steps: Sequence[Step], budget: float) -> str:
    """The words of the last step that the budget reaches."""
    return [step.words for step in steps if step.least <= budget][-1]


def races(run: Run) -> list[str]:
    """A sentence for each table of a run: how often ours was right, and how fast beside the best of the others."""
    tables = dict.fromkeys(str(row["table"]) for row in run.timed)
    told = [(table, _race([row for row in run.timed if row["table"] == table])) for table in tables]
    return [f"{title(table)}: {words}" for table, words in told if words]


def title(table: str) -> str:
    return TABLES[table].title if table in TABLES else table


def _race(rows: Sequence[Row]) -> str:
    ours = [row for row in rows if row["role"] == "ours"]
    if not ours:
        return ""
    exact = sum(row["exact"] is True for row in ours)
    said = f"{exact} of our {len(ours)} answers were equal to the specification to the bit"
    workloads = dict.fromkeys(row["workload"] for row in ours)
    gains = []
    for workload in workloads:
        fastest = min((row for row in ours if row["workload"] == workload), key=lambda row: row["p50_ms"])
        peers = [row for row in rows if row["workload"] == workload and row["role"] == "peer"]
        if peers:
            gains.append((min(row["p50_ms"] for row in peers) / fastest["p50_ms"], fastest, workload))
    if not gains:
        return f"{said}."
    gains.sort(key=lambda gain: gain[0])
    middle, won = gains[len(gains) // 2], sum(gain[0] > 1 for gain in gains)
    return (
        f"{said}; our fastest beat the best peer in {won} of {len(gains)} workloads. In the middle of them, {middle[2]}, "
        f"{middle[1]['contestant']} took {milliseconds(middle[1]['p50_ms'])}, the best peer {short(middle[0])} times that."
    )

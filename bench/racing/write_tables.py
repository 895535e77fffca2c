"""Results: rows with their provenance as CSV, tables to read, and tables for the README."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.limits.machine import Machine
from bench.racing import files, terminal
from bench.racing.row import Row, Value
from bench.registry import TABLES

SHOWN = {  # column -> heading of the printed table
    "exact": "exact",
    "recall": "recall",
    "p20_ms": "p20 ms",
    "p50_ms": "p50 ms",
    "p80_ms": "p80 ms",
    "cpu_ms": "cpu ms",
    "ms_per_query": "ms/query",
    "vs_best_peer": "x peer",
    "ratio": "ratio",
    "ratio_to": "to",
    "gb_per_s": "GB/s",
    "gop_per_s": "Gop/s",
    "of_ceiling": "ceiling",
    "bound": "bound",
    "joules": "J",
    "extra_mb": "+MB",
    "bytes_per_vector": "B/vector",
}
SPARED = (  # headings, the first to go first where a terminal is narrow
    *("J", "cpu ms", "bound", "p20 ms", "p80 ms", "GB/s", "Gop/s", "+MB", "to", "ceiling", "ms/query", "recall"),
    *("ratio", "x peer", "B/vector", "exact"),
)
NARROW = 140  # columns of a terminal; in fewer, workloads have lines of their own


def by_table(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each table, in the order in which the tables are known."""
    found = {name: [row for row in rows if row.table == name] for name in TABLES}
    return {name: part for name, part in found.items() if part}


def table(rows: Sequence[Row], title: str, screen: Console) -> Table:
    """What was timed or is wrong, to be printed; columns in which nothing is are left out, and those of least interest
    that the screen has no room for."""
    told = [(row, row.columns()) for row in rows if row.samples or row.wrong]
    shown = [head for key, head in SHOWN.items() if any(columns[key] is not None for _, columns in told)]
    narrow = screen.width < NARROW
    return terminal.fitted(lambda headings: _table(told, title, headings, narrow), shown, SPARED, screen)


def _table(told: Sequence[tuple[Row, dict[str, Value]]], title: str, headings: Sequence[str], narrow: bool) -> Table:
    """With these columns; a workload is in the first one, or, if ``narrow``, in a line above."""
    made = Table(title=title, caption="how to read it: bench/NOTES.md")
    terminal.names(made, *["workload"] * (not narrow), "contestant")
    terminal.figures(made, *headings)
    shown = [key for key, heading in SHOWN.items() if heading in headings]
    last = ""
    for row, columns in told:
        name, first = row.workload.name, row.workload.name != last
        if first and last:
            made.add_section()
        if first and narrow:
            made.add_row(name, style="bold")
        places = [row.contestant] if narrow else [name if first else "", row.contestant]
        made.add_row(*places, *(_cell(columns[key]) for key in shown), style="bold red" if row.wrong else "")
        last = name
    return made


def remarks(rows: Sequence[Row]) -> list[str]:
    """Who did not take part, where and why; whose answers were wrong."""
    absent: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.samples is None and not row.wrong:
            absent.setdefault((row.contestant, row.note), []).append(f"{row.table} {row.workload.name}")
    return [
        *(f"not raced: {name}: {why} ({_some(places)})" for (name, why), places in absent.items()),
        *(f"WRONG, not timed: {row.contestant} at {row.workload.name}: {row.note}" for row in rows if row.wrong),
    ]


def _some(places: Sequence[str]) -> str:
    return places[0] if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"


def progress(rows: Sequence[Row]) -> str:
    """One line about a workload that is done: ours, and the best of the others."""
    first = rows[0]
    ours = [row for row in rows if row.role == "ours" and row.samples]
    others = [row for row in rows if row.role != "ours" and row.samples]
    told = [f"{row.contestant} {short(_median(row) * 1e3)} ms" for row in (*ours[:1], *sorted(others, key=_median)[:1])]
    return f"{first.table} {first.workload.name}: {', '.join(told) or 'nothing timed'}"


def _cell(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else short(value) if isinstance(value, float) else str(value)


def short(value: float) -> str:
    """Three figures, or all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def markdown(rows: Sequence[Row], machine: Machine, ceilings: str) -> str:
    """A section for each table: median milliseconds per workload and contestant, the fastest in bold; a tick marks
    answers that were the specification's to the bit."""
    legend = "Median ms. ✓: the specification's ids and scores, to the bit. x: the ratio that the heading names."
    sections = [
        _section(TABLES[name].title, part) for name, part in by_table(rows).items() if any(r.samples for r in part)
    ]
    return "\n".join([*sections, f"{legend} {machine.where}. {ceilings}.", ""])


def _section(title: str, rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row.contestant for row in rows if row.samples))
    lines = [f"## {title}", "", "| N x D, Q, k | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for workload in dict.fromkeys(row.workload for row in rows if row.samples):
        timed = {row.contestant: row for row in rows if row.workload == workload and row.samples}
        fastest = min((row for row in timed.values() if row.role != "yardstick"), key=_median, default=None)
        cells = [_markdown_cell(timed.get(name), fastest) for name in names]
        lines.append(f"| {workload.title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _median(row: Row) -> float:
    return float("inf") if row.samples is None else row.samples.percentile(50)


def _markdown_cell(row: Row | None, fastest: Row | None) -> str:
    if row is None:
        return ""
    text = short(_median(row) * 1e3)
    facts = [f"{row.ratio:.2f}x"] if row.ratio is not None else []
    facts += [f"+{row.extra_bytes / 1e6:,.0f} MB"] if row.table == "memory" and row.extra_bytes is not None else []
    if row.bytes_per_vector is not None:
        facts.append(f"{row.bytes_per_vector:,.0f} B")
        facts += [f"recall {row.verdict.recall:.3f}"] if row.verdict else []
    tick = " ✓" if row.verdict and row.verdict.exact else ""
    return (f"**{text}**" if row is fastest else text) + tick + (f" ({', '.join(facts)})" if facts else "")


def save(rows: Sequence[Row], machine: Machine, limits: Sequence[Any], directory: Path, label: str) -> list[Path]:
    """Write <date>-<machine>-<label>.csv, .md, and .json, which has every round and the ceilings as numbers; returns
    their paths. ``limits`` are the `bench.limits.ceilings.Ceilings` of each number of threads."""
    ceilings = "; ".join(each.describe() for each in limits)
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{machine.date}-{machine.slug}-{label}"
    sheet, page = directory / f"{stem}.csv", directory / f"{stem}.md"
    provenance = {**dataclasses.asdict(machine), "ceilings": ceilings}
    records = [{**row.columns(), **provenance} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for record in records for name in record)))
    writer.writeheader()
    writer.writerows(records)
    files.write(sheet, text.getvalue().encode())
    files.write(page, markdown(rows, machine, ceilings).encode())
    everything = {
        "machine": dataclasses.asdict(machine),
        "ceilings": [dataclasses.asdict(each) for each in limits],
        "rows": [{**row.columns(), "all_ms": row.all_ms()} for row in rows],
    }
    path = directory / f"{stem}.json"
    files.write(path, (json.dumps(everything, indent=1) + "\n").encode())
    return [sheet, page, path]

"""Results: rows with their provenance as CSV, a table to read, and a table for the README."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from bench.gate import Verdict
from bench.machine import Machine
from bench.shapes import Workload
from bench.timing import Samples

Value = str | int | float | bool | None
SPEEDS = ("rounds", "p20_ms", "p50_ms", "p80_ms", "cpu_ms", "vs_best_peer", "gb_per_s", "gop_per_s", "of_ceiling")
SHOWN = {  # column -> heading of the printed table
    "exact": "exact",
    "recall": "recall",
    "p20_ms": "p20 ms",
    "p50_ms": "p50 ms",
    "p80_ms": "p80 ms",
    "cpu_ms": "cpu ms",
    "vs_best_peer": "x peer",
    "gb_per_s": "GB/s",
    "gop_per_s": "Gop/s",
    "of_ceiling": "ceiling",
    "extra_mb": "+MB",
}


@dataclass(frozen=True)
class Row:
    """One contestant at one workload. Without ``samples`` it was not timed, and ``note`` says why."""

    workload: Workload
    contestant: str
    threads: int
    verdict: Verdict | None = None
    samples: Samples | None = None
    speedup: float | None = None  # over the fastest peer
    n_bytes: int = 0  # that must be read
    floor: float | None = None  # seconds, by the ceilings of the machine
    extra_bytes: int | None = None
    note: str = ""

    def columns(self) -> dict[str, Value]:
        """Every figure by name, None where there is none."""
        return {
            "workload": self.workload.name,
            **dataclasses.asdict(self.workload),
            "contestant": self.contestant,
            "threads": self.threads,
            "exact": None if self.verdict is None else self.verdict.exact,
            "recall": None if self.verdict is None else round(self.verdict.recall, 4),
            **self._speeds(),
            "extra_mb": _scaled(self.extra_bytes, 1e-6),
            "note": self.note,
        }

    def _speeds(self) -> dict[str, Value]:
        if self.samples is None:
            return dict.fromkeys(SPEEDS)
        p20, p50, p80 = (self.samples.percentile(percent) for percent in (20, 50, 80))
        return {
            "rounds": len(self.samples.wall),
            "p20_ms": _scaled(p20, 1e3),
            "p50_ms": _scaled(p50, 1e3),
            "p80_ms": _scaled(p80, 1e3),
            "cpu_ms": _scaled(self.samples.cpu_median(), 1e3),
            "vs_best_peer": _scaled(self.speedup, 1),
            "gb_per_s": _scaled(self.n_bytes, 1e-9 / p50),
            "gop_per_s": _scaled(self.workload.operations, 1e-9 / p50),
            "of_ceiling": _scaled(self.floor, 1 / p50),
        }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 3)


def table(rows: Sequence[Row], title: str) -> Table:
    """What was timed or failed, to be printed."""
    made = Table(title=title, caption="how to read it: bench/NOTES.md")
    for name in ("workload", "contestant"):
        made.add_column(name, no_wrap=True)
    for heading in SHOWN.values():
        made.add_column(heading, justify="right")
    last = ""
    for row in rows:
        if row.verdict is None:
            continue
        columns, name = row.columns(), row.workload.name
        if last and name != last:
            made.add_section()
        style = "" if row.samples else "bold red"
        made.add_row(name if name != last else "", row.contestant, *(_cell(columns[key]) for key in SHOWN), style=style)
        last = name
    return made


def remarks(rows: Sequence[Row]) -> list[str]:
    """Who did not take part, and why; whose answers were wrong, and where."""
    absent = {row.contestant: row.note for row in rows if row.verdict is None}
    wrong = [row for row in rows if row.verdict and not row.samples]
    return [
        *(f"not raced: {name}: {why}" for name, why in absent.items()),
        *(f"WRONG, not timed: {row.contestant} at {row.workload.name}: {row.note}" for row in wrong),
    ]


def _cell(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else _short(value) if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    """Three figures, or all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def markdown(rows: Sequence[Row], machine: Machine, ceilings: str) -> str:
    """Median milliseconds per workload and contestant, the fastest in bold; a tick marks answers that were the
    specification's to the bit."""
    names = list(dict.fromkeys(row.contestant for row in rows if row.samples))
    lines = ["| N x D, Q, k | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for workload in dict.fromkeys(row.workload for row in rows if row.samples):
        timed = {row.contestant: row for row in rows if row.workload == workload and row.samples}
        fastest = min(timed.values(), key=_median)
        cells = [_markdown_cell(timed.get(name), fastest) for name in names]
        lines.append(f"| {_title(workload)} | " + " | ".join(cells) + " |")
    where = f"{machine.date}, {machine.cpu}, {machine.cores} cores, {machine.isa}; {machine.versions}; {machine.commit}"
    legend = "Median ms. ✓: the specification's ids and scores, to the bit."
    return "\n".join([*lines, "", f"{legend} {where}. {ceilings}.", ""])


def _title(workload: Workload) -> str:
    extras = "".join(f", {word}" for word in workload.name.split("-")[4:])
    return f"{workload.n_docs:,} x {workload.dim}, {workload.n_queries}, {workload.k}{extras}"


def _median(row: Row) -> float:
    return float("inf") if row.samples is None else row.samples.percentile(50)


def _markdown_cell(row: Row | None, fastest: Row) -> str:
    if row is None:
        return ""
    text = _short(_median(row) * 1e3)
    tick = " ✓" if row.verdict and row.verdict.exact else ""
    return (f"**{text}**" if row is fastest else text) + tick


def save(rows: Sequence[Row], machine: Machine, ceilings: str, directory: Path, label: str = "dense") -> list[Path]:
    """Write <date>-<machine>-<label>.csv and .md; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{machine.date}-{machine.slug}-{label}"
    sheet, page = directory / f"{stem}.csv", directory / f"{stem}.md"
    with sheet.open("w", newline="") as file:
        provenance = {**dataclasses.asdict(machine), "ceilings": ceilings}
        records = [{**row.columns(), **provenance} for row in rows]
        writer = csv.DictWriter(file, list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)
    page.write_text(markdown(rows, machine, ceilings))
    return [sheet, page]

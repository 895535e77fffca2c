"""Every figure of the report, from results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bench.reporting import curves, words
from bench.reporting.curves import Curve
from bench.reporting.drawing import Axis, Box, Figure, Series
from bench.reporting.reading import Ablation, Row, Run

PERCENTILES = (5, 25, 50, 75, 95, 99)
PEAKS = {  # kind -> where `bench.limits.ceilings.Ceilings.describe` says it
    "float32": r"float32 GEMM (?P<best>[\d,.]*\d)(?: Gop/s \((?P<each>[^)]*)\))?",
    "bf16": r"bf16 (?P<best>[\d,.]*\d)(?: \((?P<each>[^)]*)\))?",
    "int8": r"int8 products in Gop/s: (?P<best>)(?P<each>.*)",
}
ALIKE = 1.5  # roofs that differ by less have one label: at their height two would lie on each other
MOST_CURVES, MOST_TICKS = 12, 8  # in one figure; the rest are in the table


def of_ablation(results: Ablation, at: int) -> Iterator[Figure]:
    """``at`` is the place of these results, which keeps keys apart."""
    for number, (name, rows) in enumerate(results.collections.items()):
        yield from paretos(name, rows, f"{at}-{number}")
        timed = {str(row["cell"]): row for row in rows if str(row["cell"]) in results.latencies}
        if timed:
            yield latencies(name, results, timed, f"latency-{at}-{number}")


def paretos(name: str, rows: Sequence[Row], key: str) -> Iterator[Figure]:
    """Quality against time, and against memory."""
    column, quality = words.quality_of(rows)
    of = f"{name}, {rows[0]['n_docs']:,} documents"
    costs = {
        "b1_p50_ms": ("Time", Axis("median ms, one query a call"), 1.0),
        "memory_bytes": ("Memory", Axis("MB kept in memory"), 1e-6),
    }
    for cost, (word, axis, scale) in costs.items():
        shown = [row for row in rows if row[cost] and row[column] is not None]
        if shown:
            series = _pareto(shown, cost, column, scale)
            note = "Up and left is better. Lines are frontiers, of a family and (grey) of all: nothing beats them."
            title = f"{word} against quality: {of}"
            yield Figure(f"pareto-{word.lower()}-{key}", title, axis, Axis(quality, log=False), note, series)


def _pareto(rows: Sequence[Row], cost: str, column: str, scale: float) -> list[Series]:
    points = {id(row): (float(row[cost]) * scale, float(row[column])) for row in rows}
    best = curves.frontier(list(points.values()))
    made = [Series("best of all", "", *_columns(best), style="steps")]
    for family in dict.fromkeys(str(row["family"]) for row in rows):
        own = [row for row in rows if row["family"] == family]
        found = [points[id(row)] for row in own]
        made.append(Series(family, family, *_columns(curves.frontier(found)), style="steps"))
        made.append(Series(family, family, *_columns(found), hover=[_cell_words(row) for row in own]))
    return made


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _cell_words(row: Row) -> str:
    lines = [str(row["cell"]), f"{words.settings(row)}; k={row['k']}; {row['exactness']}"]
    told = {"nDCG@10": "ndcg_10", "recall": "recall"}
    lines.append(", ".join(f"{name} {row[column]:.3f}" for name, column in told.items() if row[column] is not None))
    times = [row[f"b1_{name}_ms"] for name in ("p50", "p95", "p99")]
    if all(times):
        lines.append(f"p50 / p95 / p99: {' / '.join(words.short(value) for value in times)} ms")
    if row["memory_bytes"]:
        lines.append(f"{words.memory(row['memory_bytes'])} in memory")
    return "\n".join(lines)


def latencies(name: str, results: Ablation, rows: dict[str, Row], key: str) -> Figure:
    """A box for each cell, the fastest at the top."""
    boxes = []
    for cell, row in rows.items():
        milliseconds = np.percentile(1e3 * results.latencies[cell], PERCENTILES)
        at = dict(zip(PERCENTILES, milliseconds.tolist()))
        said = ", ".join(f"p{percent} {words.short(value)}" for percent, value in at.items())
        calls = f"{len(results.latencies[cell]):,} calls"
        boxes.append(Box(cell, str(row["family"]), at, f"{cell}\nms: {said}\n{calls}"))
    boxes.sort(key=lambda box: box.at[50])
    note = "Box: the middle half of the calls; whiskers: 5 to 95 %; mark: 99 %, point at it for figures."
    title = f"Latency of single queries: {name}"
    return Figure(key, title, Axis("ms a call of one query"), Axis("", log=False), note, boxes=boxes)


def of_run(run: Run, at: int) -> Iterator[Figure]:
    yield from rooflines(run, at)
    yield from scaling(curves.of_run(run.timed), f"{at}")


def rooflines(run: Run, at: int) -> Iterator[Figure]:
    """One for each number of threads whose ceilings were measured: work per byte against work done per second."""
    for threads, roof in ceilings(str(run.machine["ceilings"] or "")).items():
        rows = [row for row in run.timed if row["threads"] == threads and row["gb_per_s"] and row["gop_per_s"]]
        if rows and roof["reads"]:
            yield _roofline(rows, roof, threads, f"roofline-{at}-t{threads}")


def ceilings(text: str) -> dict[int, dict[str, dict[str, float]]]:
    """Of each number of threads "reads" in GB/s by working set and "peaks" in Gop/s by kind, from the words of
    `bench.limits.ceilings.Ceilings.describe`."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for part in re.split(r";\s*(?=\d+ thread)", text):
        threads = re.match(r"(\d+) thread", part)
        if threads is not None:
            reads = re.search(r"reads (.*?)(?: \(|,? float32)", part)
            sizes = re.findall(r"([\d.,]+) GB/s of (\d+) MiB", reads[1] if reads else "")
            peaks = {name: rate for kind, pattern in PEAKS.items() for name, rate in _peaks(kind, pattern, part)}
            found[int(threads[1])] = {"reads": {size: _number(rate) for rate, size in sizes}, "peaks": peaks}
    return found


def _peaks(kind: str, pattern: str, text: str) -> list[tuple[str, float]]:
    """By instruction set, "int8 amx"; by kind alone where only the best of all was measured."""
    told = re.search(pattern, text)
    if told is None:
        return []
    best, each = told["best"], told["each"]
    by_isa = [(f"{kind} {isa}", _number(rate)) for isa, rate in re.findall(r"([a-z]\w*) ([\d,.]*\d)", each or "")]
    return by_isa or ([(kind, _number(best))] if best else [])


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _roofline(rows: Sequence[Row], roof: dict[str, dict[str, float]], threads: int, key: str) -> Figure:
    where = [float(row["gop_per_s"]) / float(row["gb_per_s"]) for row in rows]
    low, high = min(where) / 3, max(where) * 3
    size, rate = max(roof["reads"].items(), key=lambda item: float(item[0]))
    series = []
    for name, peak in _labelled(roof["peaks"]):
        ridge = peak / rate  # where reading and computing take as long
        x = [low, ridge, high] if low < ridge < high else [low, high]
        series.append(Series(name, "", x, [min(peak, rate * value) for value in x], style="roof"))
    for name in dict.fromkeys(str(row["contestant"]) for row in rows):
        own = [(x, row) for x, row in zip(where, rows) if row["contestant"] == name]
        hover = [_race_words(row) for _, row in own]
        y = [float(row["gop_per_s"]) for _, row in own]
        series.append(Series(name, name, [x for x, _ in own], y, hover=hover))
    note = (
        f"Grey: what this machine can do, measured in the same run: reading {words.short(rate)} GB/s of {size} MiB "
        "(the slope), and products. Work that stays in a cache, or that is skipped, can lie above."
    )
    title = f"Roofline, {threads} thread(s)"
    return Figure(key, title, Axis("operations per byte that must be read"), Axis("Gop/s"), note, series)


def _labelled(peaks: Mapping[str, float]) -> list[tuple[str, float]]:
    """Roofs, rising. Of those whose names would lie on each other the highest has all names, the others have none."""
    groups: list[list[tuple[str, float]]] = []
    for name, peak in sorted(peaks.items(), key=lambda item: item[1]):
        if groups and peak < ALIKE * groups[-1][-1][1]:
            groups[-1].append((name, peak))
        else:
            groups.append([(name, peak)])
    return [(_names(group) if each is group[-1] else "", each[1]) for group in groups for each in group]


def _names(group: Sequence[tuple[str, float]]) -> str:
    """ "int8 avx2 679, avx512 826, bf16 amx 971": a kind once, until another comes."""
    told, last = [], ""
    for name, peak in group:
        kind, _, isa = name.partition(" ")
        told.append(f"{isa if isa and kind == last else name} {words.short(peak)}")
        last = kind
    return ", ".join(told)


def _race_words(row: Row) -> str:
    exact = {True: "exact", False: "not exact", None: "not checked"}[row["exact"]]
    lines = [str(row["contestant"]), f"{words.title(str(row['table']))}: {row['workload']}"]
    lines.append(f"{words.milliseconds(row['p50_ms'])}, {exact}")
    lines.append(f"{words.short(row['gop_per_s'])} Gop/s, {words.short(row['gb_per_s'])} GB/s")
    return "\n".join(lines + ([f"{row['of_ceiling']:.0%} of the ceiling"] if row.get("of_ceiling") else []))


def scaling(found: Sequence[Curve], key: str) -> Iterator[Figure]:
    """A figure for each operation and number that grows."""
    for op, axis in dict.fromkeys((curve.op, curve.axis) for curve in found):
        part = [curve for curve in found if (curve.op, curve.axis) == (op, axis)]
        part = sorted(part, key=lambda curve: -len(curve.x))[:MOST_CURVES]
        common = [word for word in part[0].fixed if all(word in curve.fixed for curve in part)]
        grows = curves.AXES[axis][1]
        title = f"Time against {grows}: {', '.join([op, *common])}"
        at = sorted({value for curve in part for value in curve.x})
        x = Axis(grows, at=at if len(at) <= MOST_TICKS else ())
        note = "Slopes are exponents, fitted: at 1 twice as much takes twice as long, at 0 as long."
        own = [[each for each in part if each.family == curve.family] for curve in part]
        series = [_curve(curve, common)._replace(turn=among.index(curve)) for curve, among in zip(part, own)]
        yield Figure(f"scaling-{key}-{op}-{axis}", title, x, Axis("median ms"), note, series)


def _curve(curve: Curve, common: Sequence[str]) -> Series:
    """Named by what not all curves have in common."""
    fitted = round(curves.slope(curve.x, curve.y), 2) + 0.0  # never -0.00
    name = ", ".join([curve.family, *(word for word in curve.fixed if word not in common), f"slope {fitted:.2f}"])
    hover = [f"{name}\n{words.short(x)}: {words.milliseconds(y)}" for x, y in zip(curve.x, curve.y)]
    return Series(name, curve.family, curve.x, curve.y, style="curve", hover=hover)

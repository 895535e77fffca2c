"""`python -m bench.readme [RESULTS.csv] [--check]`: the speed tables of README.md, from results.

A table lies between ``<!-- bench:NAME FILE.csv .. -->`` and ``<!-- /bench -->``; its figures are from these files of
bench/results, each from the first that has its workload. RESULTS.csv, in that folder, takes their place where it
has workloads of the table: `python -m bench.run --preset readme` calls this with what it has measured. Where a library
was not installed, README.md stays as it is and the exit code is 1, unless --partial leaves that column out. With
--check nothing is written, and the exit code is 1 if README.md is not what the results say.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results"
BLOCK = re.compile(r"<!-- bench:([^>]*) -->\n((?:(?!<!-- bench:).)*?)<!-- /bench -->", re.DOTALL)

WANTED = re.compile(r"pip install (.*?) \(")  # the note of `contestants.module`

Record = dict[str, str]


class Line(NamedTuple):
    """A line of a table: of which workload, which column of the results, how it is written ("" : three figures), and
    what is added to the names of the contestants."""

    label: str
    workload: str
    figure: str = "p50_ms"
    form: str = ""
    variant: str = ""


class Layout(NamedTuple):
    """``columns`` are headings by contestant; of the results' ``tables``, the first that has a workload counts."""

    about: str
    tables: tuple[str, ...]
    columns: dict[str, str]
    lines: tuple[Line, ...]


def _per_query(label: str, workload: str) -> Line:
    return Line(label, workload, "ms_per_query", ".2f")


LAYOUTS = {
    "dense": Layout(
        "queries, k",
        ("search", "k", "batches"),
        {
            "pyengine-int8": "`DenseIndex` int8",
            "pyengine-float32": "`DenseIndex` float32",
            "pyengine-topk": "`pe.topk`, one-off",
            "faiss": "faiss Flat",
            "torch": "torch",
            "numpy": "numpy",
            "sentence-transformers": "sentence-transformers",
            "usearch": "usearch exact",
            "svs": "SVS Flat",
            "scann": "ScaNN",
        },
        (
            Line("1, 100", "n200k-d768-q1-k100"),
            Line("1, 100 of 1,000,000", "n1m-d768-q1-k100"),
            Line("32, 10", "n200k-d768-q32-k10"),
            Line("32, 100", "n200k-d768-q32-k100"),
            Line("32, 1,000", "n200k-d768-q32-k1000"),
            Line("512, 100", "n200k-d768-q512-k100"),
            Line("1,024, 100", "n200k-d768-q1024-k100"),
        ),
    ),
    "maxsim": Layout(
        "",
        ("maxsim",),
        {
            "pyengine-int8": "`MultiVectorIndex` int8",
            "pyengine-topk": "`pe.maxsim_topk`, one-off",
            "colbert-ai": "colbert-ai",
            "maxsim-cpu": "maxsim-cpu",
            "pylate": "PyLate",
            "torch-einsum": "torch einsum",
        },
        (
            Line("32 queries, 1,000 texts of 20 to 300 tokens", "C-n1k-ld123-d128-q32-lq32-k10"),
            Line("1 query, 1,000 pages of 1,001 tokens", "B-n1k-ld1001-d128-q1-lq32-k10"),
            Line("31 queries, 20,000 passages of 60 tokens", "E-n20k-ld60-d128-q31-lq32-k10"),
            Line("80 claims, 165 abstracts of 244 tokens (SciFact)", "R-n165-ld244-d128-q80-lq21-k10-scifact"),
        ),
    ),
    "sparse": Layout(
        "",
        ("sparse", "postings"),
        {"pyengine-float32": "`SparseIndex`", "sindi": "SINDI (pyvsag)", "splade-index": "splade-index"},
        (
            _per_query("29 terms, one by one", "light-n1m-lq29-32x1-k10"),
            _per_query("29 terms, 256 at once", "light-n1m-lq29-q256-k10"),
            _per_query("44 terms, one by one", "heavy-n1m-lq44-32x1-k10"),
            _per_query("44 terms, 256 at once", "heavy-n1m-lq44-q256-k10"),
            _per_query("29 terms, one by one, k = 1,000", "light-n1m-lq29-32x1-k1000"),
            Line("bytes a posting in memory", "light-n1m-lq29-q32-k10", "bytes_per_vector", ".1f"),
            Line("the same with rows on disk", "light-n1m-lq29-q32-k10", "bytes_per_vector", ".1f", "+disk"),
        ),
    ),
}


def read(path: Path) -> list[Record]:
    """The rows of a results file.

    Raises:
        ValueError: it is not there, or not such a file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            records = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"results must be a CSV of bench.run; {path} cannot be read: {error}") from None
    missing = {"table", "workload", "contestant", "exact", "p50_ms"} - set(records[0] if records else ())
    if missing:
        raise ValueError(f"results must be a CSV of bench.run; {path} has no {', '.join(sorted(missing))}")
    return records


def contestants() -> set[str]:
    """Of all tables."""
    return {name for layout in LAYOUTS.values() for name in layout.columns}


def uninstalled(records: Sequence[Record]) -> dict[str, str]:
    """Who is in a table, and has no figure, for want of a package: what to install."""
    there = {each["contestant"] for each in records if each["p50_ms"]}
    lacking = {each["contestant"]: WANTED.match(each.get("note", "")) for each in records}
    return {name: found[1] for name, found in lacking.items() if found and name in contestants() - there}


def remedy(missing: Mapping[str, str]) -> str:
    """Who is missing, and what to do."""
    packages = " ".join(dict.fromkeys(missing.values()))
    return f"{', '.join(missing)} missing: pip install {packages}, or --partial to write the tables without"


def render(layout: Layout, files: Sequence[list[Record]]) -> list[str]:
    """The lines of a table; those of which no file has the workload are left out, and columns of who was missing."""
    missing = {name for records in files for name in uninstalled(records)}
    there = {each["contestant"] for records in files for each in records if each["p50_ms"]}
    layout = layout._replace(columns={k: v for k, v in layout.columns.items() if k not in missing - there})
    heads = [layout.about, *layout.columns.values()]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for line in layout.lines:
        found = next((found for records in files if (found := _records(layout, line, records))), None)
        if found is not None:
            cells = [line.label, *_cells(layout, line, found)]
            lines.append("| " + " | ".join(cells) + " |")
    return [re.sub(r" +\|", " |", text) for text in lines]


def _used(layout: Layout, sources: Sequence[str], files: Sequence[list[Record]]) -> list[str]:
    """Those sources that a line of the table is from."""
    first = [[bool(_records(layout, line, records)) for records in files] for line in layout.lines]
    return [source for at, source in enumerate(sources) if any(there[at] and not any(there[:at]) for there in first)]


def _told(source: str, run: Record) -> str:
    return f"[{source}](bench/results/{source}): {run['cpu']}, {run['isa']}, commit {run['commit']}"


def _records(layout: Layout, line: Line, records: list[Record]) -> dict[str, Record]:
    """By contestant, of the first table that has that workload."""
    there = [each for each in records if each["workload"] == line.workload and each["table"] in layout.tables]
    first = min((layout.tables.index(each["table"]) for each in there), default=0)
    return {each["contestant"]: each for each in there if each["table"] == layout.tables[first]}


def _cells(layout: Layout, line: Line, found: dict[str, Record]) -> list[str]:
    """Nothing for who was not asked, a dash for who could not; the fastest in bold, the specification's bits ticked."""
    picked = [found.get(name + line.variant) for name in layout.columns]
    timed = [float(each[line.figure]) for each in picked if each and each[line.figure]]
    is_time = line.figure.startswith(("p50", "ms_"))
    return [_cell(each, line, is_time, min(timed, default=0.0)) for each in picked]


def _cell(record: Record | None, line: Line, is_time: bool, least: float) -> str:
    if record is None:
        return ""
    if not record[line.figure]:
        return "-"
    value = float(record[line.figure])
    text = format(value, line.form) if line.form else figures(value)
    if not is_time:
        return text
    return (f"**{text}**" if value == least else text) + " ✓" * (record["exact"] == "True")


def figures(value: float) -> str:
    """Three figures, or all those before the point."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")


def rewritten(text: str, folder: Path = RESULTS, newest: str | None = None) -> str:
    """That README with every table made again.

    Raises:
        ValueError: a marker that names no table or no file, or has no end; a results file that is none.
    """

    def block(found: re.Match[str]) -> str:
        name, *sources = found[1].split() or [""]
        if name not in LAYOUTS or not sources:
            raise ValueError(f"README: a marker is bench:{'|'.join(LAYOUTS)} FILE.csv; got {found[1]!r}")
        if newest is not None and len(render(LAYOUTS[name], [read(folder / newest)])) > 2:
            sources = [newest]
        files = [read(folder / source) for source in sources]
        told = "; ".join(_told(source, read(folder / source)[0]) for source in _used(LAYOUTS[name], sources, files))
        lines = [
            f"<!-- bench:{name} {' '.join(sources)} -->",
            *render(LAYOUTS[name], files),
            "",
            f"<sub>{told}</sub>",
            "<!-- /bench -->",
        ]
        return "\n".join(lines)

    made, count = BLOCK.subn(block, text)
    if count != text.count("<!-- bench:") or count != text.count("<!-- /bench -->"):
        raise ValueError("README: every <!-- bench:.. --> must have its <!-- /bench -->")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.readme", description="README's speed tables, from results.")
    parser.add_argument("results", nargs="?", metavar="RESULTS.csv", help="in bench/results: take the figures from it")
    parser.add_argument("--partial", action="store_true", help="also where a library was missing, without its column")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if README.md disagrees")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    try:
        missing = uninstalled(read(RESULTS / options.results)) if options.results and not options.partial else {}
        made = rewritten(text, RESULTS, options.results)
    except ValueError as error:
        print(f"bench.readme: {error}", file=sys.stderr)
        return 2
    if options.check:
        if made != text:
            print("bench.readme: README.md is not what bench/results says: run python -m bench.readme", file=sys.stderr)
        return int(made != text)
    if missing:
        print(f"bench.readme: README.md stays as it is: {remedy(missing)}", file=sys.stderr)
        return 1
    README.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

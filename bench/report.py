"""`python -m bench.report RESULTS [RESULTS ...] -o report.html`: results as a page for people.

    python -m bench.ablate --data scifact --out results && python -m bench.report results
    python -m bench.report results bench/results/*-dense.csv -o report.html --figures figures --markdown table.md

RESULTS are folders of `bench.ablate` and CSV files of `bench.run --save`. The page is one file that asks the network
for nothing: what to use for a budget of time, machines, speed and exactness, rooflines, quality against time and
memory, growth with N, Q, k, D and threads, latencies. ``--figures`` writes every figure as PNG and SVG too,
``--markdown`` the tables. Exit status: 0; 2 with one sentence for bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.reporting import page, pictures, reading, tables
from bench.reporting.reading import Ablation, Results, Run


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.report", description="Results as a page for people.")
    add = made.add_argument
    add(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="folders of bench.ablate, CSV files of bench.run --save",
    )
    add("-o", "--output", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    add("--figures", type=Path, metavar="DIR", help="also every figure as PNG and SVG, by matplotlib")
    add("--markdown", type=Path, metavar="FILE", help="also the tables as Markdown")
    return made


def run(options: argparse.Namespace) -> None:
    """The whole command. Everything is read before anything is written."""
    everything: list[Results] = [reading.read(path) for path in options.results]
    for each in everything:
        if isinstance(each, Ablation) and each.warning:
            print(f"bench.report: {each.warning}", file=sys.stderr)
    groups = page.drawn(everything)
    write(options.output, page.html(everything, groups, page.plotly()))
    if options.figures:
        pictures.save([each for group in groups for each in group], page.looks_of(groups), options.figures)
        print(f"wrote {options.figures}")
    if options.markdown:
        of = [tables.of_run(each) if isinstance(each, Run) else tables.of_ablation(each) for each in everything]
        write(options.markdown, tables.markdown([table for each in of for table in each]))


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    if path.exists() and not path.is_file():
        raise ValueError(f"the output must be a file; {path} is something else")
    if not path.parent.is_dir():
        raise ValueError(f"the output must be in a folder that exists; {path.parent} is missing")
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    print(f"wrote {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"bench.report: {_said(error)}", file=sys.stderr)
        return 2
    return 0


def _said(error: Exception) -> str:
    """In one line; of the system's errors, the words and the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or 'while writing'}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())

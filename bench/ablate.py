"""`python -m bench.ablate --data DIR|FILE|scifact --grid FILE [--out DIR]`: which index for these data.

Every cell of the grid is a way to search: it is built, compared with the exact answer and with judgements, timed at
batches of 1 and 32 beside the cell that it is compared with, and kept in DIR (by default ablation-<data>-<grid>) before
the next begins. The same command continues a run that was stopped, be it by kill -9, and tries those cells again that
failed, or for which something was missing. ``--claims`` runs published claims
instead, on SciFact by default, and gives a verdict on each.

`bench.datasets.opening` says what ``--data`` may be, `bench.ablation.grid` what a grid is, `bench.ablation.journal`
what the results are. Exit status: 0; 1 if a cell failed; 2 with one sentence for bad input; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from bench.ablation import claims, journal, running
from bench.ablation import grid as grids
from bench.ablation.claims import Verdict
from bench.ablation.grid import Grid
from bench.ablation.journal import Journal, Value
from bench.datasets import opening
from bench.datasets.collection import Collection
from bench.datasets.opening import Source
from bench.limits import machine
from bench.racing import terminal
from pyengine import evaluate

DEFAULT, CLAIMS = "scifact", "claims"
SHOWN = {
    "cell": "cell", "exactness": "exactness", "recall": "recall", "ndcg_10": "nDCG@10", "p_value": "p",
    "b1_calls": "calls", "b1_p50_ms": "p50 ms", "b1_p99_ms": "p99 ms", "b1_cpu_ratio": "x other",
    "b32_p50_ms": "p50 ms of 32", "queries_per_s": "queries/s", "build_s": "build s", "memory_bytes": "bytes",
    "disk_bytes": "on disk",
}  # fmt: skip
SPARED = (  # headings, the first to go first where a terminal is narrow
    *("on disk", "p99 ms", "calls", "build s", "p50 ms of 32", "queries/s", "x other", "p", "bytes", "exactness"),
    "nDCG@10",
)
CLAIMED = ("claim", "verdict", "figure", "published", "of", "source")
VERDICTS = ("claim", "verdict", "figure", "published", "measure", "cell", "against", "says", "source", "note", "reason")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.ablate", description="Which index for these data.")
    add = made.add_argument
    add("--data", default=DEFAULT, help="a folder (BEIR, vectors, ...), a file of vectors, scifact, or like-scifact:N")
    add("--queries", type=Path, help="query vectors, where --data is a file of document vectors")
    add("--grid", type=Path, help="a TOML file, or the name of a bundled grid (default: scifact)")
    add("--claims", action="store_true", help="the bundled grid of published claims, with verdicts")
    add("--out", type=Path, help="where results go, and are continued (default: ablation-DATA-GRID)")
    add("--metric", choices=("cosine", "dot", "l2"), default="cosine", help="of vectors without one (default: cosine)")
    add("--split", default="test", help="of a BEIR folder's judgements (default: test)")
    add("--encoder", metavar="MODULE:FUNCTION", help="encode(texts) -> array [n, D], for a folder with texts")
    add("--model", type=Path, help="a folder with a model of sentence-transformers, for a folder with texts")
    return made


def run(options: argparse.Namespace, console: Console) -> int:
    """The whole command; 1 if a cell failed."""
    if options.claims and options.grid:
        raise ValueError("--claims is a grid of its own: give it without --grid")
    if options.encoder and options.model:
        raise ValueError("--encoder and --model both make vectors: give one of them")
    grid = grids.load(options.grid or Path(CLAIMS if options.claims else DEFAULT))
    source = Source(options.data, options.queries, options.split, options.encoder, options.model, options.metric)
    collection = opening.opened(source)
    out = options.out or Path(f"ablation-{_slug(collection.name)}-{_slug(grid.title)}")
    with journal.opened(out, manifest(grid, collection)) as kept:
        return measured(grid, collection, kept, console)


def measured(grid: Grid, collection: Collection, kept: Journal, console: Console) -> int:
    """Every cell that has not run yet, then all of them shown; 1 if one failed."""
    counts = f"{len(collection.docs):,} documents, {len(collection.queries):,} queries"
    console.print(f"{collection.name}: {counts}; {kept.out}")
    if kept.again:
        console.print(f"again, since they could not run before: {', '.join(kept.again)}", markup=False)
    if collection.qrels and (missing := _unjudged()):
        console.print(f"without nDCG, MRR, mAP and R@k: {missing}", markup=False)
    measure(grid, collection, kept)
    order = {cell.name: place for place, cell in enumerate(grid.cells)}
    rows = sorted(kept.rows, key=lambda row: order[str(row["cell"])])
    show(console, rows)
    if grid.claims:
        show_claims(console, kept, claims.judge(grid.claims, rows))
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def measure(grid: Grid, collection: Collection, kept: Journal) -> None:
    """The cells that are not there yet, with progress and the time that is left."""
    with tqdm(total=len(grid.cells), initial=len(kept.rows), unit="cell", disable=None) as bar:

        def done(row: dict[str, Value]) -> None:
            bar.set_postfix_str(str(row["cell"]))
            bar.update()

        running.run(grid, collection, kept, done)


def _unjudged() -> str:
    """Why answers cannot be held against judgements here; "" if they can."""
    try:
        evaluate.require()
    except ImportError as error:
        return str(error)
    return ""


def manifest(grid: Grid, collection: Collection) -> dict[str, Any]:
    """What the results are of."""
    where = asdict(machine.here())
    return {
        "format": 1,
        "title": grid.title,
        "data": collection.name,
        "metric": collection.metric,
        "documents": len(collection.docs),
        "queries": len(collection.queries),
        "judged_queries": len(collection.qrels or {}),
        "grid_hash": grid.digest(),
        "data_hash": collection.digest(),
        "seconds": grid.seconds,
        "seed": grid.seed,
        **where,
        "cells": [{k: v for k, v in asdict(cell).items() if v is not None} for cell in grid.cells],
    }


def show(console: Console, rows: Sequence[dict[str, Value]]) -> None:
    ran = [row for row in rows if row["status"] == "ok"]

    def made(headings: list[str]) -> Table:
        table = Table()
        terminal.names(table, headings[0])
        terminal.figures(table, *headings[1:])
        shown = [name for name, heading in SHOWN.items() if heading in headings]
        for row in ran:
            table.add_row(*(_figure(row.get(name)) for name in shown))
        return table

    if ran:
        told = [heading for name, heading in SHOWN.items() if any(row.get(name) is not None for row in ran)]
        console.print(terminal.fitted(made, told, SPARED, console))
    without = [row for row in rows if row["status"] != "ok"]
    for row in without:
        console.print(f"{row['cell']} ({row['status']}): {row['reason']}", markup=False)
    if without:
        console.print(f"the same command tries {len(without)} again: those above, and no others")


def show_claims(console: Console, kept: Journal, verdicts: Sequence[Verdict]) -> None:
    """Print them, and write claims.csv."""
    told, lines = [], []
    for claim, word, figure, reason in verdicts:
        bound = f">= {claim.at_least:g}" if claim.at_least is not None else f"<= {claim.at_most:g}"
        of = f"{claim.figure} of {claim.measure}"
        told.append((claim.says, word, _figure(figure) or reason, bound, of, claim.source))
        lines.append(
            (claim.name, word, figure, bound, f"{claim.figure}: {claim.measure}", claim.cell, claim.against, claim.says,
             claim.source, claim.note, reason)
        )  # fmt: skip

    def made(headings: list[str]) -> Table:
        table = Table()
        terminal.sentences(table, *headings)
        for words in told:
            table.add_row(*(word for heading, word in zip(CLAIMED, words) if heading in headings))
        return table

    console.print(terminal.fitted(made, CLAIMED, ("source", "of", "published"), console))
    console.print(f"wrote {kept.write_table('claims.csv', VERDICTS, lines)}")


def _figure(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else value


def _slug(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = terminal.console()
    try:
        return run(options, console)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"bench.ablate: {_said(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench.ablate: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _said(error: Exception) -> str:
    """In one line; of the system's errors, the words and the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or 'while writing results'}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    machine.rerun_fairly(1)
    sys.exit(main())

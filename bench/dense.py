"""`python -m bench.dense`: exact dense top-k against its peers and against the machine's own ceilings.

Run it from the root of the repository. First every answer is compared with the specification; one of ours that is
not equal to it to the bit is not timed, and the command then exits with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import ceilings, machine, report, shapes
from bench.contestants import FORCED, OURS, Contestant
from bench.peers import PEERS
from bench.race import Settings, measure
from bench.shapes import Workload

WIDTH = 150  # columns that the table needs
RESULTS = Path(__file__).parent / "results"
SECONDS, QUICK_SECONDS = 30.0, 10.0  # what the rounds of one workload may take, where --rounds does not say


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.dense", description="Exact dense top-k, checked and raced.")
    add = parser.add_argument
    add("--quick", action="store_true", help="the first three workloads, in fewer rounds")
    add("--threads", type=int, default=1, help="of every contestant (default: 1)")
    add("--rounds", type=int, help="samples of each contestant (default: as many as fit a time)")
    add("--only", nargs="+", default=[], metavar="NAME", help="contestants, and parts of workloads: faiss d768-q32")
    add("--save", action="store_true", help="write CSV and Markdown under bench/results")
    options = parser.parse_args(arguments)
    if options.threads < 1 or (options.rounds is not None and options.rounds < 1):
        parser.error("--threads and --rounds must be at least 1")
    return options


def select(words: Sequence[str], workloads: Sequence[Workload]) -> tuple[list[Workload], list[Contestant]]:
    """What ``--only`` names. A word is a contestant's name, or parts of a workload's ("d768-q32"); where no word is
    of one of the two kinds, all of that kind take part, but an instruction set is forced only where it is named."""
    everybody = {who.name: who for who in (*OURS, *PEERS, *FORCED)}
    racing = [everybody[word] for word in words if word in everybody] or [*OURS, *PEERS]
    shapely = {word: set(word.split("-")) for word in words if word not in everybody}
    for word, parts in shapely.items():
        if not any(parts <= each.parts for each in workloads):
            known = ", ".join([*(each.name for each in workloads), *everybody])
            raise SystemExit(f"--only: nothing is called {word!r}; there are {known}")
    chosen = [each for each in workloads if not shapely or any(parts <= each.parts for parts in shapely.values())]
    return chosen, racing


def run(options: argparse.Namespace) -> int:
    """The whole command; 1 if an answer of ours was not the specification's."""
    workloads, contestants = select(options.only, shapes.QUICK if options.quick else shapes.DENSE)
    console, where = Console(width=max(WIDTH, Console().width), highlight=False), machine.here()
    console.print(where.describe())
    limits = ceilings.measure(options.threads)
    console.print(limits.describe())
    settings = Settings(limits, options.rounds, QUICK_SECONDS if options.quick else SECONDS)
    rows = measure(workloads, contestants, settings)
    console.print(report.table(rows, f"dense top-k, {options.threads} thread(s), {where.date}"))
    failed = [row for row in rows if row.verdict and not row.samples]
    for line in report.remarks(rows):
        console.print(line, markup=False)
    if options.save:
        for path in report.save(rows, where, limits.describe(), RESULTS, _label(options)):
            console.print(f"wrote {path}")
    return 1 if failed else 0


def _label(options: argparse.Namespace) -> str:
    """What tells the files of this run from those of another on the same day: "dense" is the whole first table."""
    marks = {"quick": options.quick, f"t{options.threads}": options.threads != 1, "part": bool(options.only)}
    return "-".join(["dense", *(mark for mark, present in marks.items() if present)])


if __name__ == "__main__":
    chosen_options = parse()
    machine.rerun_fairly(chosen_options.threads)
    sys.exit(run(chosen_options))

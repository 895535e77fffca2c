"""The commands `python -m bench.dense`, `bench.maxsim` and `bench.sparse`: choose, race, print and save."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from bench import ceilings, machine, tables, write_tables
from bench.race import Settings
from bench.row import Row
from bench.shapes import Heat

WIDTH = 180  # columns that the widest table needs
RESULTS = Path(__file__).parent / "results"
SECONDS, QUICK_SECONDS = 10.0, 0.2


class Family(NamedTuple):
    """A command, ``python -m bench.<name>``, and its heats; ``quick`` are those of ``--quick``."""

    name: str
    about: str
    heats: tuple[Heat, ...]
    quick: tuple[Heat, ...]


def parse(family: Family, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{family.name}", description=family.about)
    add = parser.add_argument
    add("--quick", action="store_true", help="few documents and few rounds: does everything work?")
    add("--threads", type=int, default=1, help="of every contestant (default: 1)")
    add("--seconds", type=float, help=f"for the rounds of a workload (default: {SECONDS:g}; quick: {QUICK_SECONDS:g})")
    add("--rounds", type=int, help="of each contestant, however long they take")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="tables, contestants, parts of workloads: search faiss d768-q32",
    )
    add("--save", action="store_true", help="write CSV and Markdown under bench/results, after every workload")
    options = parser.parse_args(arguments)
    if options.threads < 1 or (options.rounds is not None and options.rounds < 1):
        parser.error("--threads and --rounds must be at least 1")
    if options.seconds is not None and not options.seconds > 0:
        parser.error("--seconds must be more than 0")
    return options


def select(words: Sequence[str], heats: Sequence[Heat]) -> tuple[list[Heat], set[str]]:
    """What ``--only`` names: heats, and contestants (none: nobody in particular). A word is the name of a table or of a
    contestant, or parts of a workload's ("d768-q32"); where no word is of one of these kinds, all of that kind are."""
    there = list(dict.fromkeys(heat.table for heat in heats))
    chosen_tables = {word for word in words if word in there}
    wanted = {word for word in words if word in tables.names(there)} - chosen_tables
    shapely = {word: set(word.split("-")) for word in words if word not in chosen_tables | wanted}
    for word, parts in shapely.items():
        if not any(parts <= each.parts for heat in heats for each in heat.workloads):
            workloads = dict.fromkeys(each.name for heat in heats for each in heat.workloads)
            known = ", ".join([*there, *workloads, *tables.names(there)])
            raise SystemExit(f"--only: nothing is called {word!r}; there are {known}")
    heats = [heat for heat in heats if not chosen_tables or heat.table in chosen_tables]
    chosen = [_narrowed(heat, list(shapely.values())) for heat in heats]
    return [heat for heat in chosen if heat.workloads], wanted


def _narrowed(heat: Heat, words: list[set[str]]) -> Heat:
    """With those of its workloads of which one of the words holds parts; a heat that compares workloads stays whole."""
    kept = tuple(each for each in heat.workloads if not words or any(parts <= each.parts for parts in words))
    return heat if kept and heat.relative else heat._replace(workloads=kept)


def run(family: Family, options: argparse.Namespace) -> int:
    """The whole command; 1 if an answer of ours was not the specification's."""
    heats, wanted = select(options.only, family.quick if options.quick else family.heats)
    console, where = Console(width=max(WIDTH, Console().width), highlight=False), machine.here()
    console.print(where.describe())
    sizes = ceilings.READ_SIZES[:1] if options.quick else ceilings.READ_SIZES
    wanted_threads = {each.threads for heat in heats for each in heat.workloads} - {0, options.threads}
    limits, *others = (ceilings.measure(threads, sizes) for threads in [options.threads, *sorted(wanted_threads)])
    described = "; ".join(each.describe() for each in (limits, *others))
    console.print(described)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    settings = Settings(limits, options.rounds, seconds, tuple(others))

    def save(rows: list[Row]) -> list[Path]:
        return write_tables.save(rows, where, described, RESULTS, _label(family, options)) if options.save else []

    rows = tables.measure(heats, settings, wanted, save)
    for name, part in write_tables.by_table(rows).items():
        if any(row.samples or row.wrong for row in part):
            console.print(
                write_tables.table(part, f"{write_tables.TITLES[name]}, {options.threads} thread(s), {where.date}")
            )
    for line in write_tables.remarks(rows):
        console.print(line, markup=False)
    for path in save(rows):
        console.print(f"wrote {path}")
    return 1 if any(row.wrong for row in rows) else 0


def _label(family: Family, options: argparse.Namespace) -> str:
    """What tells the files of this run from those of another on the same day: "dense" is all of that family."""
    marks = {"quick": options.quick, f"t{options.threads}": options.threads != 1, "part": bool(options.only)}
    return "-".join([family.name, *(mark for mark, given in marks.items() if given)])


def main(family: Family) -> int:
    options = parse(family)
    machine.rerun_fairly(options.threads)
    return run(family, options)

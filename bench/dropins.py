"""`python -m bench.dropins`: the faces of other libraries, each raced against its original on the same arguments.

Every answer is checked before anything is timed (see `bench.ours.dropins_faces`); the command exits with 1 where one of
ours is wrong, and says which targets of the project are met. Both sides get as many threads.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.limits import machine
from bench.limits.machine import Machine
from bench.ours.contestants import Unavailable, version_of
from bench.ours.dropins_faces import ENGINE, Duel, duels
from bench.racing import terminal, timing
from bench.racing.row import Value
from bench.racing.timing import Samples
from bench.racing.write_tables import short
from bench.readme import RESULTS

SECONDS = 10.0
HEADINGS = ("face", "beside", "work", "face ms", "original ms", "times", "target", "met")
SPARED = ("target", "beside", "work", "original ms")  # the first to go first where a terminal is narrow


@dataclass(frozen=True)
class Result:
    """A duel, and the samples of both sides; without them ``note`` says why, ``wrong`` whether we are at fault."""

    duel: Duel
    face: Samples | None = None
    original: Samples | None = None
    note: str = ""
    wrong: bool = False

    @property
    def times(self) -> float | None:
        """How many times as long as the face the original takes."""
        return self.original.times(self.face) if self.face and self.original else None

    def columns(self) -> dict[str, Value]:
        times, target = self.times, self.duel.target
        medians = [None if each is None else each.percentile(50) * 1e3 for each in (self.face, self.original)]
        cpu = [None if each is None else each.cpu_median() * 1e3 for each in (self.face, self.original)]
        return {
            "face": self.duel.face,
            "beside": self.duel.library,
            "release": "" if self.duel.library == ENGINE else version_of(self.duel.library),
            "work": self.duel.work,
            "rounds": 0 if self.face is None else len(self.face.wall),
            "face_ms": medians[0],
            "original_ms": medians[1],
            "face_cpu_ms": cpu[0],
            "original_cpu_ms": cpu[1],
            "times": times,
            "target": target,
            "met": None if times is None or target is None else times >= target,
            "note": self.note,
        }


def fight(duel: Duel, seconds: float) -> Result:
    """Prepare, check, and time in interleaved rounds."""
    try:
        calls = duel.prepare()
        first, other = Samples(), Samples()
        note = calls.check(first.call(calls.face), other.call(calls.original))
    except Unavailable as error:
        return Result(duel, note=str(error))
    except Exception as error:  # whatever it is: the other duels go on
        return Result(duel, note=" ".join(f"{type(error).__name__}: {error}".split()), wrong=True)
    if note:
        return Result(duel, note=note, wrong=True)
    rounds = timing.rounds_within(seconds, first.wall[0] + other.wall[0])
    sides = {"face": calls.face, "original": calls.original}
    samples = timing.interleave(sides, dict.fromkeys(sides, rounds))
    failure = samples["face"].failure or samples["original"].failure
    return Result(duel, samples["face"], samples["original"], failure, bool(samples["face"].failure))


def target_of(duel: Duel) -> str:
    if duel.target is None:
        return ""
    return f"at least {duel.target:g} times" if duel.target >= 1 else f"within {1 / duel.target:.2f}x"


def table(results: Sequence[Result], title: str, screen: Console) -> Table:
    """To be printed, with as many columns as the screen has room for."""

    def made(headings: list[str]) -> Table:
        table = Table(title=title)
        for heading in headings:
            (terminal.figures if heading.endswith("ms") or heading == "times" else terminal.names)(table, heading)
        for result in results:
            shown = [cell for heading, cell in zip(HEADINGS, _cells(result)) if heading in headings]
            table.add_row(*shown, style="bold red" if result.wrong else "")
        return table

    return terminal.fitted(made, HEADINGS, SPARED, screen)


def markdown(results: Sequence[Result], where: Machine, threads: int) -> str:
    lines = [
        "## Faces of other libraries",
        "",
        "| face | beside | work | face ms | original ms | times | target | met |",
    ]
    lines += ["|---" * 8 + "|", *(f"| {' | '.join(_cells(result))} |" for result in results if result.times)]
    notes = [f"Not raced: {each.duel.face}, {each.duel.library}: {each.note}." for each in results if not each.times]
    return "\n".join([*lines, "", f"Medians, {threads} thread(s). {where.where}", *notes, ""])


def _cells(result: Result) -> list[str]:
    duel, columns = result.duel, result.columns()
    figures = [columns[name] for name in ("face_ms", "original_ms", "times")]
    told = [short(value) if isinstance(value, float) else "" for value in figures]
    met = result.note if columns["met"] is None else "yes" if columns["met"] else "no"
    beside = f"{duel.library} {columns['release']}".strip()
    return [duel.face, beside, duel.work, *told, target_of(duel), met]


def save(results: Sequence[Result], where: Machine, threads: int, directory: Path) -> list[Path]:
    """Write <date>-<machine>-dropins.csv and .md."""
    stem = f"{where.date}-{where.slug}-dropins" + (f"-t{threads}" if threads != 1 else "")
    sheet, page = directory / f"{stem}.csv", directory / f"{stem}.md"
    records = [{**each.columns(), "threads": threads, **dataclasses.asdict(where)} for each in results]
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    page.write_text(markdown(results, where, threads))
    return [sheet, page]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.dropins", description="Faces beside their originals.")
    parser.add_argument("--threads", type=int, default=1, help="of both sides (default: 1)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for a duel (default: {SECONDS:g})")
    parser.add_argument("--only", nargs="+", default=[], metavar="LIBRARY", help="distributions, like langchain-core")
    parser.add_argument("--save", action="store_true", help="write CSV and Markdown under bench/results")
    options = parser.parse_args(arguments)
    if options.threads < 1 or not options.seconds > 0:
        parser.error("--threads must be at least 1, and --seconds more than 0")
    known = {duel.library for duel in duels()}
    if not set(options.only) <= known:
        parser.error(f"--only takes {', '.join(sorted(known))}; got {' '.join(options.only)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    machine.rerun_fairly(options.threads)
    console, where = terminal.console(), machine.here()
    console.print(where.describe())
    results = []
    for duel in duels():
        if not options.only or duel.library in options.only:
            results.append(fight(duel, options.seconds))
            console.print(" ".join(_cells(results[-1])))
    console.print(table(results, f"Faces of other libraries, {options.threads} thread(s), {where.date}", console))
    if options.save:
        for path in save(results, where, options.threads, RESULTS):
            console.print(f"wrote {path}")
    return 1 if any(result.wrong for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

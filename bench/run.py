"""`python -m bench.run`: exact searches, checked, then raced against their peers and the machine's own ceilings.

    python -m bench.run                                        does everything work? (the preset "quick": a minute)
    python -m bench.run --preset readme                        the tables of README.md, written there
    python -m bench.run --preset paper --save                  everything; also dense, maxsim, sparse
    python -m bench.run --op dense_topk --shapes n200k-d768-q32-k100 --backends all --peers faiss torch
    python -m bench.run --op maxsim --preset quick --only A    a part of a preset
    python -m bench.run --op maxsim --preset maxsim --base HEAD~3    ours now against ours then

Run it from the root of the repository, or as ``pyengine bench``. First every answer is compared with the specification;
one of ours that is not equal to it to the bit is not timed, and the command then exits with 1. bench/NOTES.md says
how to read the tables.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from bench import readme, registry
from bench.limits import ceilings, machine
from bench.ours import contestants
from bench.ours.contestants import BACKENDS
from bench.racing import base, measure, terminal, write_tables
from bench.racing.race import Settings
from bench.racing.row import Row
from bench.registry import OPS, TABLES, Choice
from bench.workloads import presets, shapes
from bench.workloads.shapes import Heat

RESULTS = readme.RESULTS
SECONDS = 10.0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run", description="Exact searches, checked and raced.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--preset", help=f"a list of workloads: {', '.join(presets.PRESETS)} (default: quick)")
    add("--op", nargs="+", default=[], metavar="NAME", help="operations: dense_topk, maxsim, sparse_topk, ...")
    add("--shapes", nargs="+", default=[], metavar="SHAPE", help="of one --op, like n200k-d768-q32-k100 or 64x1-lq29")
    add("--backends", nargs="+", default=["cpu"], metavar="NAME", help="that ours run on, or all (default: cpu)")
    add("--peers", nargs="+", default=["all"], metavar="NAME", help="the others: names, all (default) or none")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of a preset: tables, contestants, parts of workloads: search faiss d768-q32",
    )
    add("--threads", type=int, default=1, help="of every contestant (default: 1)")
    add("--seconds", type=float, help=f"for the rounds of a workload (default: {SECONDS:g}; some presets: less)")
    add("--rounds", type=int, help="of each contestant, however long they take")
    add("--base", metavar="REV", help="compare ours with those of an earlier commit, which is built in a worktree")
    add("--save", action="store_true", help="write CSV and Markdown under bench/results, after every workload")
    add("--partial", action="store_true", help="of the preset readme: write README.md without peers that are missing")
    options = parser.parse_args(arguments)
    if options.threads < 1 or (options.rounds is not None and options.rounds < 1):
        parser.error("--threads and --rounds must be at least 1")
    if options.threads > machine.cores():
        parser.error(f"--threads must be at most the {machine.cores()} cores there are; got {options.threads}")
    if options.seconds is not None and not (options.seconds > 0 and math.isfinite(options.seconds)):
        parser.error(f"--seconds must be a number above 0; got {options.seconds}")
    if options.base and options.save:
        parser.error("--save does not go with --base, which prints its verdicts")
    if options.partial and options.preset != "readme":
        parser.error("--partial says something about --preset readme only: leave it out")
    options.save = options.save or (options.preset == "readme" and not options.base)
    try:
        options.heats, options.choice = chosen(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def chosen(options: argparse.Namespace) -> tuple[list[Heat], Choice]:
    """The heats that were asked for, and who takes part.

    Raises:
        ValueError: a sentence about a name that is not known, or names that do not go together.
    """
    _known("--preset", [options.preset or "quick"], presets.PRESETS)
    _known("--op", options.op, OPS)
    heats = _shaped(options) if options.shapes else list(presets.PRESETS[options.preset or "quick"])
    heats = [heat for heat in heats if not options.op or TABLES[heat.table].op in options.op]
    if not heats:
        raise ValueError(f"--op: the preset {options.preset or 'quick'!r} has nothing of {', '.join(options.op)}")
    heats, wanted = select(options.only, heats)
    there = {who.name for heat in heats for who in registry.op_of(heat).contestants if not who.ours}
    return heats, Choice(
        frozenset(wanted), _set("--backends", options.backends, BACKENDS), _set("--peers", options.peers, sorted(there))
    )


def _shaped(options: argparse.Namespace) -> list[Heat]:
    """Those of ``--shapes``."""
    if len(options.op) != 1 or options.preset or options.only:
        raise ValueError("--shapes goes with one --op, and without --preset and --only")
    (op,) = options.op
    workloads = dict.fromkeys(shapes.named(shape, OPS[op].base) for shape in options.shapes)
    kept = next((each.name for each in workloads if each.keep and not OPS[op].filters), None)
    if kept is not None:
        able = ", ".join(name for name, each in OPS.items() if each.filters)
        raise ValueError(f"--shapes: {kept!r} filters, which {op} does not: --op {able} does")
    return list(shapes.heats(registry.table_of(op), *workloads))


def _known(option: str, given: Sequence[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{option}: nothing is called {name!r}; there are {', '.join(known)}")


def _set(option: str, given: Sequence[str], known: Sequence[str]) -> frozenset[str] | None:
    """The names given, None for "all"."""
    if list(given) in (["all"], ["none"]):
        return None if given[0] == "all" else frozenset()
    _known(option, given, known)
    return frozenset(given)


def select(words: Sequence[str], heats: Sequence[Heat]) -> tuple[list[Heat], set[str]]:
    """What ``--only`` names: heats, and contestants (none: nobody in particular). A word is the name of a table or of a
    contestant, or parts of a workload's ("d768-q32"); where no word is of one of these kinds, all of that kind are."""
    there = list(dict.fromkeys(heat.table for heat in heats))
    chosen_tables = {word for word in words if word in there}
    wanted = {word for word in words if word in registry.names(there)} - chosen_tables
    shapely = {word: set(word.split("-")) for word in words if word not in chosen_tables | wanted}
    for word, parts in shapely.items():
        if not any(parts <= each.parts for heat in heats for each in heat.workloads):
            workloads = dict.fromkeys(each.name for heat in heats for each in heat.workloads)
            _known("--only", [word], [*there, *workloads, *registry.names(there)])
    heats = [heat for heat in heats if not chosen_tables or heat.table in chosen_tables]
    narrowed = [_narrowed(heat, list(shapely.values())) for heat in heats]
    return [heat for heat in narrowed if heat.workloads], wanted


def _narrowed(heat: Heat, words: list[set[str]]) -> Heat:
    """With those of its workloads of which one of the words holds parts; a heat that compares workloads stays whole."""
    kept = tuple(each for each in heat.workloads if not words or any(parts <= each.parts for parts in words))
    return heat if kept and heat.relative else heat._replace(workloads=kept)


def run(options: argparse.Namespace) -> int:
    """The whole command; 1 if an answer of ours was not the specification's."""
    console, where = terminal.console(), machine.here()
    console.print(where.describe())
    if _label(options) == "readme" and not options.partial and (missing := _not_installed(options)):
        console.print(f"README.md will stay as it is: {readme.remedy(missing)}", markup=False)
    console.print("first, what this machine can do at best ...")
    settings = _settings(options)
    limits = (settings.ceilings, *settings.others)
    for each in limits:
        console.print(each.describe())

    def save(rows: list[Row]) -> list[Path]:
        return write_tables.save(rows, where, limits, RESULTS, _label(options)) if options.save else []

    rows = measure.measure(options.heats, settings, options.choice, save)
    for name, part in write_tables.by_table(rows).items():
        if any(row.samples or row.wrong for row in part):
            title = f"{TABLES[name].title}, {options.threads} thread(s), {where.date}"
            console.print(write_tables.table(part, title, console))
    for line in write_tables.remarks(rows):
        console.print(line, markup=False)
    written = save(rows)
    for path in written:
        console.print(f"wrote {path}")
    wrong = any(row.wrong for row in rows)
    if written and not wrong and _label(options) == "readme":
        return readme.main([written[0].name, *["--partial"] * options.partial])
    return int(wrong)


def _settings(options: argparse.Namespace) -> Settings:
    """How to race; the ceilings of every number of threads that a workload has are measured now."""
    largest = max(heat.corpus.n_bytes for heat in options.heats)  # a larger working set would be read for nothing
    sizes = ceilings.READ_SIZES[: 1 + sum(size < largest for size in ceilings.READ_SIZES)]
    threads = {each.threads for heat in options.heats for each in heat.workloads} - {0, options.threads}
    limits, *others = (ceilings.measure(count, sizes) for count in [options.threads, *sorted(threads)])
    preset = "own" if options.shapes else options.preset or "quick"
    seconds = options.seconds or presets.SECONDS.get(preset, SECONDS)
    return Settings(limits, options.rounds, seconds, tuple(others))


def _not_installed(options: argparse.Namespace) -> dict[str, str]:
    """Peers who are to take part, and what each of them is installed as."""
    racing = [who for heat in options.heats for who in registry.racing(heat, options.choice)]
    packages = {who.name: who.package for who in racing if who.name in readme.contestants() and not who.ours}
    return {name: package for name, package in packages.items() if package and not contestants.version_of(package)}


def _label(options: argparse.Namespace) -> str:
    """What tells the files of this run from those of another on the same day: "dense" is all of that preset."""
    name = "-".join(options.op) if options.shapes else options.preset or "quick"
    part = bool(options.shapes or options.only or options.op or options.backends != ["cpu"] or options.peers != ["all"])
    return "-".join([name, *[f"t{options.threads}"] * (options.threads != 1), *["part"] * part])


def against(options: argparse.Namespace, words: list[str]) -> int:
    """With ``--base``: a verdict for each of ours at each workload; 1 if one of ours is wrong now."""
    seconds = options.seconds or presets.SECONDS.get(options.preset or "quick", SECONDS)
    lines = list(base.compare(options.base, [*words, "--peers", "none"], seconds, options.rounds))
    console = terminal.console()
    console.print(base.table(lines, options.base, console))
    return int(any(line.wrong for line in lines))


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(words)
    machine.rerun_fairly(options.threads)
    faults: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError) if options.base else (OSError,)
    try:
        return against(options, words) if options.base else run(options)
    except faults as error:
        print(f"bench.run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench.run: stopped; --save keeps the workloads that were done", file=sys.stderr)
        return 130


def short(preset: str) -> int:
    """``python -m bench.<preset>``: that preset, or with ``--quick`` its operations over few documents."""
    ops = sorted({TABLES[heat.table].op for heat in presets.PRESETS[preset]})
    words, quick = sys.argv[1:], ["--preset", "quick", "--op", *ops]
    named = quick if "--quick" in words else ["--preset", preset]
    return main([*named, *(word for word in words if word != "--quick")])


if __name__ == "__main__":
    sys.exit(main())

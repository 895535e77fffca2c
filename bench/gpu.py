"""`python -m bench.gpu [--quick] [--family dense|maxsim|sparse] [--backend triton|cuda|both] [--out DIR]`: our Triton
and CUDA kernels on this machine's GPU.

Run it from the root of the repository. It measures the ceilings (a copy, matrix products); for each family it runs the
conformance suite of each backend, compares every answer with that of the backend "cpu", and times what is right, in the
same heats as its peers. Every step is a process of its own, and what fails there, or never ends, costs the others
nothing. JSON and Markdown go to DIR, by default bench/results. It takes 8 minutes at most, with --quick 3: what does
not fit is skipped, and said to be.

--sanitize runs a small search of each family under compute-sanitizer first, beyond that time. --save-table writes who
was faster to kernels/measured.csv, by which backend="auto" chooses.

The exit status is 1 if something of ours was wrong, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gpus import gpu_machine, gpu_report, gpu_sanitizer, gpu_table, gpu_work
from bench.gpus.gpu_apart import apart
from bench.gpus.gpu_contestants import BACKENDS, backends_of
from bench.gpus.gpu_machine import Gpu, GpuCeilings
from bench.gpus.gpu_report import Gate, Run
from bench.gpus.gpu_shapes import FAMILIES, GpuFamily
from bench.run import RESULTS
from pyengine.backends import registry

BUDGET, QUICK_BUDGET = 480, 180  # seconds
SECONDS, QUICK_SECONDS = 3.0, 0.5  # for the rounds of a workload
GATE_SHARE = 0.3  # of the time of a family, at most


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Kernels for GPUs, checked and raced.")
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and smaller workloads, in 3 minutes")
    add("--family", choices=FAMILIES, help="one alone (default: all, one after the other)")
    add("--backend", choices=(*BACKENDS, "both"), default="both", help="ours (default: both, where both are there)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results (default: bench/results)")
    add("--budget", type=float, metavar="SECONDS", help=f"for everything (default: {BUDGET}; quick: {QUICK_BUDGET})")
    add("--sanitize", action="store_true", help="a small search of each family under compute-sanitizer first")
    add("--save-table", action="store_true", help=f"write who was faster to {gpu_table.TABLE.name}")
    options = parser.parse_args(arguments)
    options.budget = options.budget or (QUICK_BUDGET if options.quick else BUDGET)
    if options.budget <= 0:
        parser.error("--budget must be more than 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    reason = gpu_machine.missing()
    if reason:
        print(reason, file=sys.stderr)
        return 2
    families = [FAMILIES[options.family]] if options.family else list(FAMILIES.values())
    wrong = options.sanitize and not _sanitized(families, options)
    end = time.monotonic() + options.budget
    seen, failure = apart(end, gpu_work.look)
    if seen is None:
        print(f"the machine could not be measured: {failure}", file=sys.stderr)
        return 1
    machine, ceilings = seen
    print(machine.describe(), ceilings.describe(), sep="\n")
    runs = []
    for done, family in enumerate(families):
        share = (end - time.monotonic()) / (len(families) - done)
        runs.append(_measured(family, options, machine, ceilings, max(1.0, share)))
        print(gpu_report.page(runs[-1]))
        for path in gpu_report.save(runs[-1], options.out, options.quick):
            print(f"wrote {path}")
    if options.save_table:
        gpu_table.save(runs)
        print(f"wrote {gpu_table.TABLE}")
    return 1 if wrong or any(run.wrong for run in runs) else 0


def _measured(
    family: GpuFamily, options: argparse.Namespace, machine: Gpu, ceilings: GpuCeilings, budget: float
) -> Run:
    """The gates of a family, then its races."""
    start = time.monotonic()
    absent = {name: _absent(name, family.name) for name in _asked(options)}
    gates = {name: Gate(absent=reason) for name, reason in absent.items() if reason}
    there = [name for name, reason in absent.items() if not reason]
    for name in there:
        gates[name] = gpu_work.gate(family.name, name, GATE_SHARE * budget / len(there))
        print(f"{name}, {gates[name].describe()}")
    passed = [name for name in there if not gates[name].failure]
    heats = family.quick if options.quick else family.heats
    seconds = QUICK_SECONDS if options.quick else SECONDS
    rows = gpu_work.figures(family.name, passed, heats, ceilings, seconds, start + budget) if passed else []
    return Run(family.name, machine, ceilings, gates, rows, time.monotonic() - start)


def _asked(options: argparse.Namespace) -> tuple[str, ...]:
    return BACKENDS if options.backend == "both" else (options.backend,)


def _absent(name: str, family: str) -> str:
    """Why a backend takes no part, "" where it does."""
    if name not in backends_of(family):
        return f"it has nothing for {family}"
    return registry.of_family(name, family).missing() or ""


def _sanitized(families: Sequence[GpuFamily], options: argparse.Namespace) -> bool:
    """Whether nothing was found, or nothing could be looked for."""
    pairs = [(family.name, name) for family in families for name in _asked(options) if not _absent(name, family.name)]
    said, clean = gpu_sanitizer.check(pairs, options.out)
    print(*said, sep="\n")
    return clean


if __name__ == "__main__":
    sys.exit(main())

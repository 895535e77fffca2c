"""`python -m bench.gpu [--quick] [--family dense|maxsim|sparse] [--out DIR]`: our Triton kernels on this machine's GPU.

Run it from the root of the repository. Each family is a process of its own: it measures the ceilings (a copy, matrix
products), runs the conformance suite of the backend "triton", compares every answer with that of the backend "cpu", and
times what is right beside its peers. JSON and Markdown go to DIR, by default bench/results. It takes 8 minutes at most,
with --quick 3: what does not fit is skipped, and said to be.

The exit status is 1 if something of ours was wrong, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import gpu_machine, gpu_report
from bench.gpu_report import Gate, Run
from bench.gpu_shapes import FAMILIES, GpuFamily
from bench.measure import grouped
from bench.measure import measure as race_heats
from bench.race import Settings
from bench.registry import Choice
from bench.row import Row
from bench.run import RESULTS
from bench.shapes import Heat
from pyengine import conformance

BUDGET, QUICK_BUDGET = 480, 180  # seconds
SECONDS, QUICK_SECONDS = 3.0, 0.5  # for the rounds of a workload
OURS_AND_PEERS = Choice(backends=None)
GATE_SHARE = 0.3  # of the budget, at most
CASES: dict[str, Callable[[], Iterable[Any]]] = {
    "dense": conformance.cases,
    "maxsim": conformance.maxsim_cases,
    "sparse": conformance.sparse_cases,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Triton kernels, checked and raced.")
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and smaller workloads, in 3 minutes")
    add("--family", choices=FAMILIES, help="one alone (default: all, one after the other)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results (default: bench/results)")
    add("--budget", type=float, metavar="SECONDS", help=f"for everything (default: {BUDGET}; quick: {QUICK_BUDGET})")
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
    return _all(options) if options.family is None else _one(options)


def _all(options: argparse.Namespace) -> int:
    """A process for each family: a kernel that breaks the device's context breaks no other's."""
    end, worst = time.monotonic() + options.budget, 0
    for done, family in enumerate(FAMILIES):
        share = (end - time.monotonic()) / (len(FAMILIES) - done)
        command = [sys.executable, "-m", "bench.gpu", "--family", family, "--out", str(options.out)]
        command += ["--budget", f"{max(1.0, share):.0f}"] + ["--quick"] * options.quick
        worst = max(worst, abs(subprocess.run(command).returncode))
    return min(worst, 1)


def _one(options: argparse.Namespace) -> int:
    from bench.gpu_timing import GpuSamples, extra_peak

    start = time.monotonic()
    family, where = FAMILIES[options.family], gpu_machine.here()
    print(where.describe())
    ceilings = gpu_machine.measure()
    print(ceilings.describe())
    gate = conformant(family.name, GATE_SHARE * options.budget)
    print(gate.describe())
    seconds = QUICK_SECONDS if options.quick else SECONDS
    settings = Settings(ceilings, None, seconds, (), GpuSamples, extra_peak)
    heats = family.quick if options.quick else family.heats
    rows = [] if gate.failure else measure(family, heats, settings, start + options.budget)
    run = Run(family.name, where, ceilings, gate, rows, time.monotonic() - start)
    print(gpu_report.page(run))
    for path in gpu_report.save(run, options.out, options.quick):
        print(f"wrote {path}")
    return 1 if run.wrong else 0


def conformant(family: str, seconds: float) -> Gate:
    """The conformance suite of our backend, in an order that leaves no kind of case to the end, for so many seconds."""
    cases = list(CASES[family]())
    end, passed, refused = time.monotonic() + seconds, 0, 0
    for at in np.random.default_rng(0).permutation(len(cases)):
        if time.monotonic() > end:
            break
        try:
            reasons = conformance.run(cases[at], "triton")
        except Exception as error:  # a kernel's, whatever it is: nothing of this family is to be believed
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return Gate(passed, refused, len(cases), text)
        passed, refused = passed + (not reasons), refused + bool(reasons)
    return Gate(passed, refused, len(cases), "" if passed else "no case was passed")


def measure(family: GpuFamily, heats: Sequence[Heat], settings: Settings, end: float) -> list[Row]:
    """Corpus by corpus, those that can be made before the end."""
    rows: list[Row] = []
    for corpus, same in grouped(heats):
        needed, left = corpus.n_bytes / family.rate + settings.seconds * len(same), end - time.monotonic()
        if needed > left:
            why = f"skipped: it would take about {needed:.0f} s, and {max(0.0, left):.0f} are left"
            rows += [Row(heat.table, each, "everybody", 1, note=why) for heat in same for each in heat.workloads]
        else:
            rows += race_heats(same, settings, OURS_AND_PEERS)
    return rows


if __name__ == "__main__":
    sys.exit(main())

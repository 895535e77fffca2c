"""Drives the public API with hostile arrays and files, and compares what it answers with the specification.

    python -m tests.fuzz --seconds 60 --seed 0     many cases, each of a seed of its own, from this one on
    python -m tests.fuzz --only 123                one case, in this process: for a debugger

A call either gives the bits of the specification, or is refused in one sentence; the drawn arguments say which. The
cases run in a child process, so that a crash or a hang is reported with the seed of its case, and the rest goes on.
"""

from __future__ import annotations

import argparse
import faulthandler
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from tests.fuzz.indexes import Life, live
from tests.fuzz.searches import Tally, Wrong, search_once
from tests.fuzz.sparse import SparseLife, sparse_once
from tests.fuzz.tokens import TokenLife, maxsim_once

ROOT = Path(__file__).parents[2]
HANG = 120  # seconds that no case takes, even under sanitizers
ENOUGH = 20  # failures after which nobody reads on


def run_case(seed: int) -> Tally:
    """One case, the same for the same seed. Raises `Wrong`."""
    rng, tally = np.random.default_rng(seed), Tally()
    cases = (
        lambda: live(Life(rng, tally)), lambda: search_once(rng, tally), lambda: live(TokenLife(rng, tally)),
        lambda: maxsim_once(rng, tally), lambda: live(SparseLife(rng, tally)), lambda: sparse_once(rng, tally),
    )  # fmt: skip
    cases[seed % len(cases)]()
    return tally


def child(seed: int, cases: int, deadline: float) -> None:
    """Cases from ``seed`` on. Prints each seed before it runs, and then what came of it."""
    warnings.simplefilter("error")
    for each in range(seed, seed + cases):
        if time.time() > deadline:
            break
        print("start", each, flush=True)
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            tally = run_case(each)
            print("ok", each, tally.answered, tally.refused, flush=True)
        except Wrong as error:
            print("wrong", each, str(error).replace("\n", " | "), flush=True)
        except Exception as error:
            print("wrong", each, f"the fuzzer itself: {type(error).__name__}: {error}".replace("\n", " | "), flush=True)
        faulthandler.cancel_dump_traceback_later()


def drive(seed: int, cases: int, seconds: float) -> int:
    """Run children until the cases or the seconds are spent; the number of failures."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    first, last, deadline = seed, seed + cases, time.time() + seconds
    while seed < last and time.time() < deadline and len(failures) < ENOUGH:
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", "--child", str(deadline)]
        command += ["--seed", str(seed), "--cases", str(last - seed)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            finished = True
            for line in running.stdout:
                seed, finished = _record(line, counts, failures)
                if len(failures) >= ENOUGH:
                    running.kill()
                    break
        if len(failures) < ENOUGH and (not finished or running.returncode):
            failures.append(f"seed {seed}: the process ended with {running.returncode} (its last words are above)")
            print(failures[-1], flush=True)
        seed += 1
    print(
        f"{counts['ok'] + len(failures)} cases (seeds {first} to {seed - 1}): {counts['answered']} calls answered, "
        f"{counts['refused']} refused, {len(failures)} failures"
    )
    return len(failures)


def _record(line: str, counts: Counter[str], failures: list[str]) -> tuple[int, bool]:
    """Take one line of a child: the seed, and whether its case is over."""
    word, seed, *rest = line.rstrip("\n").split(" ", 2)
    if word == "ok":
        answered, refused = rest[0].split()
        counts.update(ok=1, answered=int(answered), refused=int(refused))
    elif word == "wrong":
        failures.append(f"seed {seed}: {rest[0]}")
        print(failures[-1], flush=True)
    return int(seed), word != "start"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the public API of pyengine.")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this long (default: when the cases end)")
    parser.add_argument("--cases", type=int, default=1 << 40, help="how many cases at most")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the next has the next")
    parser.add_argument("--only", type=int, help="run the case of this seed alone, in this process")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only is not None:
        print(run_case(asked.only))
        return 0
    if asked.child is not None:
        child(asked.seed, asked.cases, asked.child)
        return 0
    return min(1, drive(asked.seed, asked.cases, asked.seconds))


if __name__ == "__main__":
    sys.exit(main())

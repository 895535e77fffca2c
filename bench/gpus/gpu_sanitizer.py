"""`python -m bench.gpus.gpu_sanitizer FAMILY BACKEND`: a few searches of the conformance suite, for a tool that watches
every access to memory, and takes a hundred times as long. `check` runs it under NVIDIA's compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.gpus.gpu_work import CASES
from pyengine import conformance
from pyengine.backends import registry
from pyengine.searches.search import exact_search

TOOLS = ("memcheck", "racecheck", "initcheck")
CHECKED = 4  # searches of a family
SECONDS = 40  # for one tool and one family
FOUND = 86  # the status by which the tool tells of errors from a search that fails
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")


def search(family: str, backend: str) -> int:
    """Search for a few cases, drawn from all kinds, and compare with the specification; returns how many those were."""
    cases, chosen, taken = list(CASES[family]()), registry.of_family(backend, family), 0
    for at in np.random.default_rng(1).permutation(len(cases)):
        problem = cases[at].problem()
        if taken < CHECKED and not chosen.refusals(problem):
            conformance.same(exact_search(problem, chosen), conformance.specified(problem), str(cases[at]))
            taken += 1
    return taken


def check(pairs: Sequence[tuple[str, str]], out: Path) -> tuple[list[str], bool]:
    """Each (family, backend) under each tool, their reports in ``out``/sanitizer.txt: a sentence for each, and whether
    all were clean. Where the tool is not installed, that is the sentence."""
    tool = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if tool is None:
        return ["compute-sanitizer: not installed, so that nothing was looked for"], True
    out.mkdir(parents=True, exist_ok=True)
    said, clean = [], True
    with open(out / "sanitizer.txt", "w", encoding="utf-8") as report:
        for family, backend in pairs:
            for name in TOOLS:
                command = [tool, f"--tool={name}", f"--error-exitcode={FOUND}"]
                command += [sys.executable, "-m", "bench.gpus.gpu_sanitizer", family, backend]
                sentence, text = _run(command)
                said.append(f"compute-sanitizer {name}, {family} by {backend}: {sentence}")
                report.write(f"== {said[-1]}\n{text}\n")
                clean = clean and sentence == "clean"
    return said, clean


def _run(command: Sequence[str]) -> tuple[str, str]:
    """What came of it, and all that it printed."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired as stopped:
        so_far = stopped.stdout or b""
        return f"not done within {SECONDS} s", so_far if isinstance(so_far, str) else so_far.decode(errors="replace")
    if done.returncode == FOUND:
        return "errors were found: see sanitizer.txt", done.stdout
    return "clean" if done.returncode == 0 else f"the search failed with status {done.returncode}", done.stdout


if __name__ == "__main__":
    print(f"{search(*sys.argv[1:])} cases")

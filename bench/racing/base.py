"""``--base REV``: this checkout against an earlier commit, which is built in a throw-away worktree.

Each side is a process of its own (`bench.racing.side`) with the same benchmark, this one, and another pyengine. Both
make the same calls in the same rounds, now the one first and now the other. The verdict is on the ratio of their times
within a round: its median, and the bounds that hold 95 % of the medians of rounds drawn again, with replacement (the
bootstrap).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.racing import files, terminal, timing
from bench.racing.timing import Samples
from bench.racing.write_tables import short

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("csrc", "CMakeLists.txt", "setup.py")  # of the extension
MIN_ROUNDS = 11
TREES = "pyengine-base-"  # folders of worktrees
REMOVE = ("worktree", "remove", "--force", "--force")  # twice: also one that git had not finished
ASKED_TO_END = (signal.SIGTERM, signal.SIGHUP)  # ctrl-C is an exception anyway
DRAWS, CONFIDENCE, SEED = 4000, 0.95, 0


class Difference(NamedTuple):
    """How many times as long as now the base takes: the median over rounds, and its interval."""

    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """ "faster by 1.08 [1.05, 1.11]", "slower by ..", or "no difference shown"."""
        if self.low > 1:
            return f"faster by {self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"
        if self.high < 1:
            return f"slower by {1 / self.ratio:.2f} [{1 / self.high:.2f}, {1 / self.low:.2f}]"
        return f"no difference shown: {self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"


def difference(ratios: Sequence[float]) -> Difference:
    """Of the base's time to that of now, round by round."""
    found = np.asarray(ratios, np.float64)
    drawn = np.random.default_rng(SEED).choice(found, (DRAWS, len(found)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(np.median(found)), float(low), float(high))


class Line(NamedTuple):
    """A contestant at a workload: milliseconds, the difference, and why there is none; ``wrong`` is a fault of now."""

    workload: str
    contestant: str
    now_ms: float | None = None
    base_ms: float | None = None
    found: Difference | None = None
    note: str = ""
    wrong: bool = False


def compare(revision: str, words: Sequence[str], seconds: float, rounds: int | None) -> Iterator[Line]:
    """A line for each of ours at each workload that ``words`` name.

    Raises:
        ValueError: git knows no such commit.
        RuntimeError: it cannot be built, or cannot run this benchmark.
    """
    without = _without_base(words)
    with (
        checked_out(revision) as tree,
        _started(ROOT, without, "this checkout") as now,
        _started(tree, without, revision) as base,
    ):
        for at in range(now.n_heats):
            yield from _heat(now.ask(enter=at), base.ask(enter=at), now, base, seconds, rounds)


def _without_base(words: Sequence[str]) -> list[str]:
    """The words of a command without ``--base REV`` or ``--base=REV``."""
    before = ("", *words)
    return [word for last, word in zip(before, words) if last != "--base" and word.partition("=")[0] != "--base"]


def _heat(
    ours: dict[str, Any], theirs: dict[str, Any], now: Process, base: Process, seconds: float, rounds: int | None
) -> Iterator[Line]:
    """Of the heat that both have entered."""
    there = {(each["workload"], each["contestant"]): (at, each) for at, each in enumerate(theirs["entries"])}
    pairs = {}
    for at, each in enumerate(ours["entries"]):
        key = each["workload"], each["contestant"]
        other_at, other = there.get(key, (0, {"ready": False, "note": theirs.get("error", "the base has none")}))
        if each["ready"] and other["ready"]:
            pairs[key] = at, other_at, max(each["seconds"], other["seconds"])
        else:
            note = each["note"] if not each["ready"] else f"base: {other['note']}"
            yield Line(*key, note=note, wrong=each["wrong"])
    # In pairs, so that every call comes after one of the other process.
    calls: dict[tuple[tuple[str, str], int], Callable[[], float]] = {}
    for key, (at, other_at, _) in pairs.items():
        calls[key, 0], calls[key, 1] = partial(now.call, at), partial(base.call, other_at)
    share = seconds / max(1, len(calls))
    counts = {(key, side): rounds or max(MIN_ROUNDS, timing.rounds_within(share, pairs[key][2])) for key, side in calls}
    samples = timing.interleave(calls, counts, Told)
    for key in pairs:
        yield _line(key, samples[key, 0], samples[key, 1])


def _line(key: tuple[str, str], now: Samples, base: Samples) -> Line:
    if now.failure or base.failure:
        return Line(*key, note=now.failure or f"base: {base.failure}", wrong=bool(now.failure))
    return Line(*key, now.percentile(50) * 1e3, base.percentile(50) * 1e3, difference(base.ratios(now)))


def table(lines: Sequence[Line], revision: str, screen: Console) -> Table:
    """The verdicts, to be printed."""
    times = ["now ms", f"{revision} ms"]

    def made(headings: list[str]) -> Table:
        table = Table(title="Now and then, in the same rounds")
        terminal.names(table, "workload", "contestant")
        terminal.figures(table, *headings)
        terminal.sentences(table, "now is")
        for line in lines:
            figures = dict(zip(times, ("" if each is None else short(each) for each in (line.now_ms, line.base_ms))))
            told = line.found.verdict if line.found else ("WRONG: " if line.wrong else "not compared: ") + line.note
            table.add_row(line.workload, line.contestant, *(figures[name] for name in headings), told)
        return table

    return terminal.fitted(made, times, times[::-1], screen)


class Told(Samples):
    """Samples of calls that say themselves how long they took: they are made in another process."""

    def call(self, work: Any, number: int = 0) -> object:
        self.wall.append(work())
        self.cpu.append(0.0)
        self.rounds.append(number)
        return None


class Process:
    """`bench.racing.side`, running."""

    def __init__(self, running: subprocess.Popen[str], errors: Path, name: str) -> None:
        self._running, self._errors, self._name = running, errors, name
        self.n_heats = int(self._reply()["heats"])

    def ask(self, **request: int) -> dict[str, Any]:
        assert self._running.stdin is not None
        self._running.stdin.write(json.dumps(request) + "\n")
        self._running.stdin.flush()
        return self._reply()

    def call(self, at: int) -> float:
        """Seconds of a call of that entry."""
        found = self.ask(call=at)
        if "error" in found:
            raise RuntimeError(found["error"])
        return float(found["seconds"])

    def _reply(self) -> dict[str, Any]:
        assert self._running.stdout is not None
        line = self._running.stdout.readline()
        if not line:
            raise RuntimeError(f"--base: {self._name} cannot run this benchmark: {_last(self._errors.read_text())}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def _started(tree: Path, words: Sequence[str], name: str) -> Iterator[Process]:
    with tempfile.TemporaryDirectory(prefix="pyengine-side-") as folder:
        errors = Path(folder) / "stderr"
        with errors.open("w") as file:
            command = [sys.executable, "-m", "bench.racing.side", *words]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": file}
            running = subprocess.Popen(command, cwd=tree, text=True, **pipes)  # type: ignore[call-overload]
        try:
            yield Process(running, errors, name)
        finally:
            running.kill()
            running.communicate()


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """That commit in a folder of its own, with this benchmark, and built. It is gone afterwards, also where a signal
    ends this; what a kill -9 leaves is gone after the next time."""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        raise ValueError(f"--base must be a commit of this repository; git finds none for {revision!r}")
    remove_left()
    with (
        _ended_in_order(),
        tempfile.TemporaryDirectory(prefix=TREES, ignore_cleanup_errors=True) as folder,
        files.alone(Path(folder) / "lock"),
    ):
        tree, commit = Path(folder).resolve() / "tree", found.stdout.strip()
        try:
            made = _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
            if made.returncode:
                raise RuntimeError(f"--base: git cannot check out {revision}: {_last(made.stderr)}")
            shutil.rmtree(tree / "bench", ignore_errors=True)
            shutil.copytree(ROOT / "bench", tree / "bench", ignore=shutil.ignore_patterns("__pycache__", "results"))
            _provide_extension(tree, commit, revision)
            yield tree
        finally:
            _git(*REMOVE, str(tree))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """What asks this process to end is an exception meanwhile, after which everything is put away."""

    def end(number: int, frame: object) -> None:
        for each in ASKED_TO_END:
            signal.signal(each, signal.SIG_IGN)  # once is enough
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # which alone may say what signals do
        yield
        return
    before = {each: signal.signal(each, end) for each in ASKED_TO_END}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def remove_left() -> None:
    """Take away the worktrees of runs that are no more."""
    for line in _git("worktree", "list", "--porcelain").stdout.splitlines():
        tree = Path(line.removeprefix("worktree "))
        if line.startswith("worktree ") and tree.parent.name.startswith(TREES) and _left(tree.parent):
            _git(*REMOVE, str(tree))
            shutil.rmtree(tree.parent, ignore_errors=True)


def _left(folder: Path) -> bool:
    """Whether no run has that folder of a worktree."""
    if not folder.exists():
        return True
    try:
        with files.alone(folder / "lock") as alone:
            return alone
    except OSError:  # somebody else's
        return False


def _provide_extension(tree: Path, commit: str, revision: str) -> None:
    """A copy of ours where its sources are the same: the compiler and its options then are, too. Else it is built."""
    if _git("diff", "--quiet", commit, "--", *SOURCES).returncode == 0:
        for extension in (ROOT / "pyengine").glob("_native*.so"):
            shutil.copy(extension, tree / "pyengine")
        return
    build(tree, revision)


def build(tree: Path, revision: str) -> None:
    """The extension of that tree, in place, by CMake.

    Raises:
        RuntimeError: it does not build.
    """
    pybind11 = [sys.executable, "-m", "pybind11", "--cmakedir"]
    configure = ["cmake", "-S", ".", "-B", "build/base", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={tree / 'pyengine'}", f"-DPython_EXECUTABLE={sys.executable}"]
    try:
        found = subprocess.run(pybind11, cwd=tree, capture_output=True, text=True, check=True).stdout.strip()
        for command in ([*configure, f"-Dpybind11_DIR={found}"], ["cmake", "--build", "build/base"]):
            _run_whole(command, tree)
    except FileNotFoundError:
        raise RuntimeError("--base builds an extension, and needs cmake: pip install cmake ninja pybind11") from None
    except subprocess.CalledProcessError as error:
        why = _last(error.stderr or error.stdout)
        raise RuntimeError(f"--base: the extension of {revision} does not build: {why}") from None


def _run_whole(command: Sequence[str], folder: Path) -> None:
    """That command, which ends with all that it started where this is interrupted. CalledProcessError if it fails."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes) as running:  # type: ignore[call-overload]
        try:
            out, errors = running.communicate()
        except BaseException:
            os.killpg(running.pid, signal.SIGKILL)
            raise
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command, out, errors)


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError("--base needs git, which is not installed") from None


def _last(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")

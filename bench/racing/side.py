"""One side of a comparison: ``python -m bench.racing.side WORDS..`` sets up what the same words of `bench.run` name,
with the pyengine of the folder that it runs in, and makes calls when it is told to.

It reads a JSON object a line, and answers each with one. {"enter": i} sets up the i-th heat: {"entries": [{"workload",
"contestant", "ready", "wrong", "note", "seconds"}, ..]}. {"call": j} calls the j-th of them: {"seconds": s}, or
{"error": why}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyengine
from bench import registry, run
from bench.operations.arena import Arena
from bench.ours.contestants import Unavailable
from bench.racing.race import Entry, Settings
from bench.workloads.shapes import Heat


class Unmeasured(NamedTuple):
    """No ceilings: two commits on one machine have the same."""

    threads: int

    def floor(self, n_bytes: float, n_ops: float, arithmetic: str, isa: str = "") -> float | None:
        return None

    def describe(self) -> str:
        return ""


class Side:
    """The heats of a command; the arena of the last one is kept."""

    def __init__(self, words: Sequence[str]) -> None:
        options = run.parse(words)
        self.heats, self.choice = options.heats, options.choice
        self.settings = Settings(Unmeasured(options.threads))
        self.entries: list[Entry] = []
        self._arena: Arena | None = None
        self._open = ExitStack()

    def enter(self, at: int) -> dict[str, Any]:
        heat = self.heats[at]
        try:
            self.entries = registry.op_of(heat).entries(heat, self._over(heat), registry.racing(heat, self.choice))
        except (FileNotFoundError, Unavailable, MemoryError, ArithmeticError) as error:
            return {"entries": [], "error": str(error) or "out of memory"}
        return {"entries": [_told(entry) for entry in self.entries if entry.row.role == "ours"]}

    def call(self, at: int) -> dict[str, Any]:
        work = self.entries[at].call
        assert work is not None
        try:
            samples = self.settings.clock()
            samples.call(work)
        except Exception as error:  # whatever it is, the other side goes on
            return {"error": f"{type(error).__name__}: {error}"}
        return {"seconds": samples.wall[0]}

    def _over(self, heat: Heat) -> Arena:
        if self._arena is None or self._arena.corpus != heat.corpus:
            self._open.close()
            same = [each for other in self.heats if other.corpus == heat.corpus for each in other.workloads]
            made = registry.op_of(heat).arena(heat.corpus, max(each.n_queries for each in same), self.settings)
            self._arena = self._open.enter_context(made)
        return self._arena


def _told(entry: Entry) -> dict[str, Any]:
    row, first = entry.row, entry.first
    ready = entry.call is not None and first is not None and not row.wrong
    return {
        "workload": row.workload.name,
        "contestant": row.contestant,
        "ready": ready,
        "wrong": row.wrong,
        "note": row.note,
        "seconds": first.wall[0] if ready and first else None,
    }


def main(words: Sequence[str]) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    found = Path(pyengine.__file__).parent.parent
    if found != Path.cwd():
        raise SystemExit(f"Python finds the pyengine of {found}, not that of {Path.cwd()}")
    side = Side(words)
    print(json.dumps({"heats": len(side.heats)}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        reply = side.enter(request["enter"]) if "enter" in request else side.call(request["call"])
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

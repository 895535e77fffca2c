"""Work in a process of its own: a kernel that never ends, or breaks the device's context, takes nothing with it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class Told(NamedTuple):
    """What some work told last (None: nothing), and why it did not come to its end, "" where it did."""

    last: Any
    failure: str = ""


def apart(end: float, work: Callable[..., object], *arguments: Any) -> Told:
    """``work(tell, *arguments)`` in a new process, until ``end`` (`time.monotonic`) at the latest. What it tells, the
    arguments and the work can be pickled."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, work, *arguments), daemon=True)
    process.start()
    theirs.close()
    last = None
    try:
        while ours.poll(max(0.0, end - time.monotonic())):
            last = ours.recv()
    except EOFError:  # it has ended
        process.join()
        return Told(last, f"its process ended with status {process.exitcode}" if process.exitcode else "")
    finally:
        process.kill()
        process.join()
    return Told(last, "it was stopped: its time was over")


def _run(connection: Connection, work: Callable[..., object], *arguments: Any) -> None:
    work(connection.send, *arguments)

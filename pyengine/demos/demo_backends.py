"""What both parts of the demo end with: the same search on every backend, timed, its bits compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pyengine as pe
from pyengine import checks

RUNS = 5
PATIENCE = 1.0  # seconds of timed runs after which no further one starts


def compare(
    console: Console,
    search: Callable[..., pe.TopK],
    specification: Callable[[], pe.TopK],
    backends: Mapping[str, str | None],
    what: str,
) -> bool:
    """Time ``search(backend=)`` and compare it with the specification, which is computed once. ``backends`` has the
    reason why one cannot run, None where it can. Whether all were equal to the bit."""
    console.rule("The same search on every backend")
    table = Table("backend", "time", "ids", "scores")
    with console.status("the specification, in float64 NumPy"):
        started = perf_counter()
        expected = specification()
        table.add_row("specification", milliseconds(perf_counter() - started), "", "")
    all_equal = True
    for name in (name for name, reason in backends.items() if reason is None):
        with console.status(name):
            found, seconds = timed(partial(search, backend=name))
        same_ids = np.array_equal(found.ids, expected.ids)
        same_scores = np.array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))
        all_equal &= same_ids and same_scores
        table.add_row(name, milliseconds(seconds), verdict(same_ids), verdict(same_scores))
    missing = [Text(f"{name}: {reason}") for name, reason in backends.items() if reason is not None]
    console.print(table, *missing, sep="\n")
    if missing:
        console.print(Text(f"pip of this environment: {Path(sys.executable).parent / 'pip'}"), soft_wrap=True)
    console.print(f"{what}, {checks.thread_count(None)} threads; the median of a few runs.")
    return all_equal


def timed(search: Callable[[], pe.TopK]) -> tuple[pe.TopK, float]:
    """The result, and the median time of a few runs after this first one, which imports and warms up."""
    result = search()
    seconds: list[float] = []
    while len(seconds) < RUNS and sum(seconds) < PATIENCE:
        started = perf_counter()
        search()
        seconds.append(perf_counter() - started)
    return result, median(seconds)


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms"


def verdict(equal: bool) -> str:
    return "[green]same bits[/green]" if equal else "[red]DIFFERENT[/red]"

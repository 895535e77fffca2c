"""Tables as wide as the terminal: the least important columns go where there is no room, and nothing is torn apart."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

WIDE = 10_000  # columns, more than any line has


def console() -> Console:
    """As wide as the terminal; for a file, or another program, as wide as what is written."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def names(table: Table, *headings: str) -> None:
    """Columns of names, which are cut short where even the least does not fit."""
    for heading in headings:
        table.add_column(heading, overflow="ellipsis")


def sentences(table: Table, *headings: str) -> None:
    """Columns of words, which may take several lines."""
    for heading in headings:
        table.add_column(heading, overflow="fold")


def figures(table: Table, *headings: str) -> None:
    """Columns of figures, of which each has all its digits."""
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))


def fitted(make: Callable[[list[str]], Table], columns: Sequence[str], spared: Sequence[str], screen: Console) -> Table:
    """``make(columns)``, without as many of the ``spared`` ones, from the first, as the screen has no room for."""
    kept, left_out = list(columns), []
    table = make(kept)
    for name in spared:
        if _least_width(table, screen) <= screen.width:
            break
        if name in kept:
            kept.remove(name)
            left_out.append(name)
            table = make(kept)
    fits = _least_width(table, screen) <= screen.width
    for column in table.columns:
        column.no_wrap = column.no_wrap or (fits and column.overflow == "ellipsis")  # what has words gives way
    if left_out:
        table.caption = f"{table.caption or ''}\nno room for: {', '.join(left_out)}".strip()
    return table


def _least_width(table: Table, screen: Console) -> int:
    """That breaks no word."""
    return screen.measure(table, options=screen.options.update(width=WIDE)).minimum

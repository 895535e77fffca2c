"""Segments of a sparse index: the inverted forms (`Postings`) of consecutive ranges of its rows.

They only make searches fast: rows that none covers are found by the rows themselves, and no answer depends on where a
segment ends. Each is at least `RATIO` times as long as the next, so that n rows have about log4(n / 256) of them, and a
row is inverted anew a few times for each of these sizes while the index grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from pyengine.problems.problem_sparse import Postings, TermRows
from pyengine.refining import exact_sparse

LEAST = 256  # rows that make a segment; fewer are as fast without
RATIO = 4


def covered(segments: tuple[Postings, ...]) -> int:
    """How many rows they cover, from the first on."""
    return segments[-1].first + segments[-1].count if segments else 0


def grown(segments: tuple[Postings, ...], rows: TermRows) -> tuple[Postings, ...]:
    """These segments, and with them as many of the other rows as make one; of similar neighbours one is made."""
    start = covered(segments)
    if len(rows) - start < LEAST or not available():
        return segments
    while segments and segments[-1].count < RATIO * (len(rows) - start):
        start, segments = segments[-1].first, segments[:-1]
    return (*segments, exact_sparse.build(rows, start, len(rows)))


def single(segments: tuple[Postings, ...], rows: TermRows) -> tuple[Postings, ...]:
    """One segment of all rows, or none of a few."""
    if len(rows) < LEAST or not available():
        return ()
    whole = segments and segments[0].count == len(rows)
    return segments if whole else (exact_sparse.build(rows, 0, len(rows)),)


def available() -> bool:
    """Whether segments can be made and read here: with the compiled extension."""
    return exact_sparse.native() is not None


def flaw(arrays: Mapping[str, NDArray[Any]], n_rows: int) -> str | None:
    """What is wrong with arrays that are said to be one segment of all rows, by looking at a few bytes for each term:
    what lists hold, the kernels check as they read. None where nothing is, or nobody can tell."""
    kernels = exact_sparse.native()
    if kernels is None or not arrays:
        return None
    try:
        kernels.Postings(0, n_rows, **arrays)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        return f"postings of its {n_rows} rows ({reason})"
    return None

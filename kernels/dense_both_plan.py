"""The planner of the dense scan in both directions: of rows for columns and of columns for rows. Pure Python.

The tiles of the matrix are taken in an order in which rows and columns see more and more of each other at one pace, so
that the thresholds of both can rise. ``group`` x ``group`` tiles are a block; ``short`` is the number of blocks along
the side that has fewer, and the other has up to ``laps`` times as many. A lap takes one block of every part of the
short side, each with another part of the long side; laps make a diagonal, ``short`` diagonals the matrix. The first
diagonal is scanned one tile of each block at a time, by the diagonals within the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyengine.kernels.chips import Chip
from pyengine.kernels.dense_plan import (
    FEWEST_PLACES,
    PLACE_BYTES,
    RISE,
    SURVIVORS,
    Tile,
    _power,
    _step,
)

GROUP = 8  # tiles of a block on each side: eight times less is read than by tiles alone
POOL_BYTES = 8 << 30  # of both sides: where they take more, two searches go through them a part at a time
PLACES_PER_K = 8


@dataclass(frozen=True)
class DenseBoth:
    """How both directions are scanned for. ``places`` of a pool of a row and of a column, ``ends`` numbers of tiles
    between which thresholds tighten."""

    tile: Tile
    k: tuple[int, int]
    dims: int
    places: tuple[int, int]
    group: int
    short: int
    laps: int
    rows_long: bool
    ends: tuple[int, ...]
    lap_step: int
    diagonal_step: int
    rejected: dict[str, str] = field(default_factory=dict)


def pool_places(k: int, n_others: int) -> int:
    """How many places a pool has, for the k best of so many."""
    return min(_power(max(PLACES_PER_K * k, FEWEST_PLACES)), max(FEWEST_PLACES, _power(n_others)))


def why_two(n_rows: int, n_columns: int, k: int) -> str | None:
    """Why two searches are better than one pass; None where they are not."""
    if n_rows == 0 or n_columns == 0:
        return "there is nothing to find"
    needed = PLACE_BYTES * (n_rows * pool_places(k, n_columns) + n_columns * pool_places(k, n_rows))
    if needed > POOL_BYTES:
        return f"the pools of both sides take {needed >> 20} MB at once, and {POOL_BYTES >> 20} are for them"
    return None


def tile_for(chip: Chip) -> Tile:
    """The one form that is compiled for a chip: a second part of the columns would be the same products once more."""
    stages = 4 if chip.shared > 200_000 else 3
    return Tile(docs=128, queries=64, depth=128, warps=8, stages=stages, parts=1, splits=3)


def plan_dense_both(chip: Chip, n_rows: int, n_columns: int, dims: int, k: int) -> DenseBoth:
    """Plan the scan of rows [N, D] by columns [Q, D], of int8 codes, for the k best of each."""
    tile = tile_for(chip)
    n_tiles = -(-n_rows // tile.docs), -(-n_columns // tile.queries)
    group = min(GROUP, *n_tiles)
    blocks = [-(-each // group) for each in n_tiles]
    short, laps = min(blocks), -(-max(blocks) // min(blocks))
    rows_long = blocks[0] >= blocks[1]
    places = pool_places(k, n_columns), pool_places(k, n_rows)
    least = min(k, n_columns), min(k, n_rows)
    rise = min(min(RISE[1], max(1, each // (2 * SURVIVORS * own))) for each, own in zip(places, least))
    few = places[1] // 2 // tile.docs if rows_long else places[0] // 2 // tile.queries
    return DenseBoth(
        tile=tile,
        k=least,
        dims=dims,
        places=places,
        group=group,
        short=short,
        laps=laps,
        rows_long=rows_long,
        ends=_ends(short, laps, group, max(1, few), rise),
        lap_step=_step(laps),
        diagonal_step=_step(short),
        rejected={"two searches": "they make each product twice"},
    )


def _ends(short: int, laps: int, group: int, few: int, rise: int) -> tuple[int, ...]:
    """First so many laps that half a pool of the short side holds what they show; to the end of the first diagonal
    within the blocks; then whole such diagonals, and whole blocks once they are ``group``."""
    lap, ends = short * group, [0, min(few, laps)]
    while ends[-1] < laps:
        ends.append(min(laps, ends[-1] * (rise + 1)))
    seen, whole = [1], short * group
    while seen[-1] < whole:
        following = min(whole, seen[-1] * (rise + 1))
        if following > group:
            following = following // group * group
        seen.append(following)
    return tuple(lap * each for each in ends) + tuple(lap * laps * each for each in seen[1:])

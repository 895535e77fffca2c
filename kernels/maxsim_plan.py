"""The planner of late interaction on a GPU: which tile of those that are compiled a scan takes, and why no other. Pure
Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pyengine.kernels.chips import Chip

ELEMENT = {"int8": 1, "float16": 2}  # bytes of a code
SLOTS = 16  # queries that share a panel at most
STEP = 16  # dimensions that rows are padded to: 16 bytes of int8, so that a load may take as much
STREAM = 32  # what reading a document once more costs, in rows of query tokens: a guess, never measured
WARP = 32
RESERVED = 64  # registers of a thread, beyond sums and operands: addresses, bounds, what the compiler holds ahead
ACCUMULATORS = 128  # registers of a thread that may hold sums


@dataclass(frozen=True)
class Tile:
    """One compiled form: ``block_m`` query tokens by ``block_n`` document tokens, ``block_k`` dimensions at a time;
    with ``whole`` these are all dimensions, and the query tokens are loaded once for each document."""

    block_m: int
    block_n: int
    block_k: int
    whole: bool
    num_warps: int
    num_stages: int

    def shared(self, form: str) -> int:
        """Bytes of shared memory at most: the tiles of the documents in flight, and a block of the queries (for each of
        them, where it is streamed too)."""
        stages = max(1, self.num_stages)
        queries = self.block_m * (1 if self.whole else stages)
        return (queries + stages * self.block_n) * self.block_k * ELEMENT[form] + 4 * self.num_warps * self.block_m

    def sums(self) -> int:
        """Registers of a thread for products."""
        return self.block_m * self.block_n // (self.num_warps * WARP)

    def __str__(self) -> str:
        depth = f"{self.block_k} dimensions" + ("" if self.whole else " at a time")
        return f"{self.block_m} x {self.block_n}, {depth}"


WHOLE = (64, 128)  # dimensions that one block holds
TILES = tuple(  # as many stages, and as few warps, as compile without spills on every chip
    Tile(block_m, 64, block_k, whole, num_warps, num_stages)
    for block_m, block_k, whole, num_warps, num_stages in (
        (16, 64, True, 4, 3),
        (16, 128, True, 4, 3),
        (16, 64, False, 8, 2),
        (32, 64, True, 4, 3),
        (32, 128, True, 4, 3),
        (32, 64, False, 4, 3),
        (64, 64, True, 4, 3),
        (64, 128, True, 4, 3),
        (64, 64, False, 4, 3),
        (128, 64, True, 8, 3),
        (128, 128, True, 8, 3),
        (128, 64, False, 8, 3),
    )
)
# Maxima of both sides of a tile take more registers than larger ones have.
SYMMETRIC_TILES = tuple(
    Tile(32, 64, block_k, whole, num_warps=8, num_stages=3) for block_k, whole in ((64, True), (128, True), (64, False))
)


@dataclass(frozen=True)
class ScanPlan:
    """How a scan runs, and what it costs."""

    form: str
    tile: Tile
    bytes_read: int
    operations: int
    rejected: dict[str, str] = field(default_factory=dict)


def padded(dim: int) -> int:
    """Dimensions of a coded row."""
    return -(-dim // STEP) * STEP


def legal(tile: Tile, form: str, chip: Chip) -> str | None:
    """Why this chip cannot run a tile, None where it can."""
    if tile.shared(form) > chip.shared:
        return f"{tile.shared(form):,} bytes of shared memory exceed the {chip.shared:,} of {chip.name}"
    if tile.sums() > min(ACCUMULATORS, chip.registers - RESERVED):
        return f"{tile.sums()} registers of products a thread exceed {ACCUMULATORS}"
    return None


def tiles(form: str, chip: Chip, symmetric: bool) -> list[Tile]:
    """Those that are shipped for a chip."""
    return [tile for tile in (SYMMETRIC_TILES if symmetric else TILES) if legal(tile, form, chip) is None]


def plan_scan(
    lengths: Sequence[int], doc_tokens: int, dim: int, form: str, chip: Chip, symmetric: bool = False
) -> ScanPlan:
    """Plan the scan of documents of ``doc_tokens`` in all for queries of these ``lengths``."""
    rejected: dict[str, str] = {}
    fits = []
    for tile in SYMMETRIC_TILES if symmetric else TILES:
        reason = legal(tile, form, chip) or _unfit(tile, padded(dim))
        if reason is None:
            fits.append(tile)
        else:
            rejected[str(tile)] = reason
    if not fits:
        raise ValueError(f"no tile fits {chip.name}: {'; '.join(rejected.values())}")
    panels = {tile: lay(lengths, tile.block_m, symmetric).count for tile in fits}
    cost = {tile: panels[tile] * (tile.block_m + STREAM) for tile in fits}
    chosen = min(fits, key=cost.__getitem__)
    rejected |= {
        str(tile): f"{panels[tile]} panels of {tile.block_m} tokens cost more than {panels[chosen]} of {chosen.block_m}"
        for tile in fits
        if tile != chosen
    }
    return ScanPlan(
        form,
        chosen,
        bytes_read=doc_tokens * (padded(dim) * ELEMENT[form] + 4),
        operations=2 * doc_tokens * padded(dim) * panels[chosen] * chosen.block_m * (1 + symmetric),
        rejected=rejected,
    )


def _unfit(tile: Tile, dims: int) -> str | None:
    needed = next((depth for depth in WHOLE if dims <= depth), None)
    if tile.whole and needed != tile.block_k:
        return f"{dims} dimensions are not for a block of {tile.block_k}"
    if not tile.whole and needed is not None:
        return f"{dims} dimensions are taken in one block"
    return None


@dataclass(frozen=True)
class Panels:
    """Where query tokens lie in panels: ``places`` of the tokens in their order, ``firsts`` [groups + 1] the panels and
    ``queries`` [groups + 1] the queries at which groups begin."""

    count: int
    places: list[range]  # of each query
    firsts: list[int]
    queries: list[int]


def lay(lengths: Sequence[int], block_m: int, alone: bool = False) -> Panels:
    """Lay queries out in panels of ``block_m`` tokens, in their order: up to `SLOTS` whole ones in each, and one that
    is longer in several of its own. With ``alone`` no two share one."""
    places: list[range] = []
    firsts: list[int] = []
    queries: list[int] = []
    panel, used, slots = 0, 0, 0  # of the group that is being filled
    for query, length in enumerate(lengths):
        if not firsts or alone or slots == SLOTS or used + length > block_m:
            panel = _end(panel, used, block_m) if firsts else 0
            firsts.append(panel)
            queries.append(query)
            used, slots = 0, 0
        places.append(range(panel * block_m + used, panel * block_m + used + length))
        used, slots = used + length, slots + 1
    count = _end(panel, used, block_m) if firsts else 0
    return Panels(count, places, [*firsts, count], [*queries, len(lengths)])


def _end(panel: int, used: int, block_m: int) -> int:
    """The panel after those that a group fills, one at least."""
    return panel + max(1, -(-used // block_m))

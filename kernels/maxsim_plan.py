"""The planner of late interaction on a GPU: which tile of those that are compiled a scan takes, and why no other. No
torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pyengine.kernels.chips import Chip

Numbers = NDArray[np.int64]

ELEMENT = {"int8": 1, "float16": 2, "packed1": 2, "packed2": 2, "packed4": 2}  # bytes of a code, decoded
BITS = {"packed1": 1, "packed2": 2, "packed4": 4}  # of a dimension, where it is decoded in registers
BESIDE = 10  # bytes beside a packed token: its weight, its step and the number of its centroid
SLOTS = 16  # queries that share a panel at most
STEP = 16  # dimensions that rows are padded to: 16 bytes of int8, so that a load may take as much
PACKED_STEP = 64  # and packed ones: whole words, and as stores pad them
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
# Decoding takes registers, and is done again for each panel: more warps, and panels that are small or large.
PACKED_TILES = tuple(
    Tile(block_m, 64, block_k, whole, num_warps, num_stages)
    for block_m, block_k, whole, num_warps, num_stages in (
        (32, 64, True, 8, 2),
        (32, 128, True, 8, 2),
        (32, 64, False, 4, 1),
        (128, 64, True, 8, 2),
        (128, 128, True, 8, 2),
        (128, 64, False, 8, 2),
    )
)
PACKED_SYMMETRIC_TILES = tuple(
    Tile(32, 32, block_k, whole, num_warps, num_stages=2)
    for block_k, whole, num_warps in ((64, True, 8), (128, True, 8), (64, False, 16))
)
# Those of csrc/cuda: 16 to 64 query tokens in the registers of each warp, or 32 where both sides come step by step.
CUDA_TILES = tuple(
    Tile(block_m, 64 if whole and num_warps > 1 else 32, block_k, whole, num_warps, 3)
    for block_m, block_k, whole, num_warps in (
        *((block_m, block_k, True, max(1, block_m // 64)) for block_k in WHOLE for block_m in (16, 32, 64, 128, 256)),
        (32, 128, False, 1),
        (128, 128, False, 4),
    )
)
CUDA_SYMMETRIC_TILES = tuple(tile for tile in CUDA_TILES if not tile.whole)
# Tokens of few bits are multiplied as float16, which takes twice the registers: fewer forms.
CUDA_PACKED_TILES = tuple(
    Tile(block_m, 64 if whole and num_warps > 1 else 32, block_k, whole, num_warps, 3)
    for block_m, block_k, whole, num_warps in (
        *((block_m, block_k, True, max(1, block_m // 64)) for block_k in WHOLE for block_m in (32, 64, 256)),
        (32, 64, False, 1),
        (128, 64, False, 4),
    )
)
CUDA_PACKED_SYMMETRIC_TILES = tuple(tile for tile in CUDA_PACKED_TILES if not tile.whole)


@dataclass(frozen=True)
class ScanPlan:
    """How a scan runs, and what it costs."""

    form: str
    tile: Tile
    bytes_read: int
    operations: int
    rejected: dict[str, str] = field(default_factory=dict)


def padded(dim: int, form: str = "float16") -> int:
    """Dimensions of a coded row."""
    step = PACKED_STEP if form in BITS else STEP
    return -(-dim // step) * step


def packed_form(planes: int) -> str:
    """How tokens of so many bit planes are kept: three bits take four, so that none lies across two words."""
    return f"packed{1 << (planes - 1).bit_length()}"


def token_bytes(dim: int, form: str) -> int:
    """What the scan reads of a token."""
    dims = padded(dim, form)
    return dims * BITS[form] // 8 + BESIDE if form in BITS else dims * ELEMENT[form] + 4


def _table(form: str, symmetric: bool) -> tuple[Tile, ...]:
    if form in BITS:
        return PACKED_SYMMETRIC_TILES if symmetric else PACKED_TILES
    return SYMMETRIC_TILES if symmetric else TILES


CUDA_FORMS = ("int8", *BITS)


def cuda_tiles(form: str, symmetric: bool) -> tuple[Tile, ...]:
    """Those of csrc/cuda."""
    if form in BITS:
        return CUDA_PACKED_SYMMETRIC_TILES if symmetric else CUDA_PACKED_TILES
    return CUDA_SYMMETRIC_TILES if symmetric else CUDA_TILES


def legal(tile: Tile, form: str, chip: Chip) -> str | None:
    """Why this chip cannot run a tile, None where it can."""
    if tile.shared(form) > chip.shared:
        return f"{tile.shared(form):,} bytes of shared memory exceed the {chip.shared:,} of {chip.name}"
    if tile.sums() > min(ACCUMULATORS, chip.registers - RESERVED):
        return f"{tile.sums()} registers of products a thread exceed {ACCUMULATORS}"
    return None


def tiles(form: str, chip: Chip, symmetric: bool) -> list[Tile]:
    """Those that are shipped for a chip."""
    return [tile for tile in _table(form, symmetric) if legal(tile, form, chip) is None]


def plan_scan(
    lengths: Sequence[int] | Numbers,
    doc_tokens: int,
    dim: int,
    form: str,
    chip: Chip,
    symmetric: bool = False,
    table: tuple[Tile, ...] | None = None,
) -> ScanPlan:
    """Plan the scan of documents of ``doc_tokens`` in all for queries of these ``lengths``, by the tiles of a ``table``
    (None: Triton's)."""
    rejected: dict[str, str] = {}
    fits = []
    table = _table(form, symmetric) if table is None else table
    for tile in table:
        reason = legal(tile, form, chip) or _unfit(tile, padded(dim, form), table)
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
        bytes_read=doc_tokens * token_bytes(dim, form),
        operations=2 * doc_tokens * padded(dim, form) * panels[chosen] * chosen.block_m * (1 + symmetric),
        rejected=rejected,
    )


def _unfit(tile: Tile, dims: int, table: Sequence[Tile]) -> str | None:
    needed = next((each.block_k for each in table if each.whole and dims <= each.block_k), None)
    if tile.whole and needed != tile.block_k:
        return f"{dims} dimensions are not for a block of {tile.block_k}"
    if not tile.whole and needed is not None:
        return f"{dims} dimensions are taken in one block"
    return None


@dataclass(frozen=True)
class Panels:
    """Where query tokens lie in panels: ``starts`` int64 [Q] the rows of the first token of each query, ``firsts`` and
    ``queries`` int64 [groups + 1] the panels and the queries at which groups begin."""

    count: int
    starts: Numbers
    firsts: Numbers
    queries: Numbers


def lay(lengths: Sequence[int] | Numbers, block_m: int, alone: bool = False) -> Panels:
    """Lay queries out in panels of ``block_m`` tokens, in their order: up to `SLOTS` whole ones in each, and one that
    is longer in several of its own. With ``alone`` no two share one."""
    n_queries, number = len(lengths), np.arange(len(lengths))
    begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)  # of tokens, [Q + 1]
    following = number + 1  # where the next group begins, if one begins here
    if not alone:
        fitting = np.searchsorted(begins, begins[:-1] + block_m, side="right") - 1
        following = np.minimum(np.clip(fitting, following, number + SLOTS), n_queries)
    queries = _chain(following)
    panels = np.maximum(1, -(-np.diff(begins[queries]) // block_m))
    firsts = np.concatenate([[0], np.cumsum(panels)])
    group = np.searchsorted(queries, number, side="right") - 1
    starts = firsts[group] * block_m + begins[:-1] - begins[queries[group]]
    return Panels(int(firsts[-1]), starts, firsts, queries)


def _chain(following: Numbers) -> Numbers:
    """0, following[0], following of that, to the end: each round twice as many, by steps twice as long."""
    end = len(following)
    found, jump = np.zeros(1, np.int64), np.append(following, end)
    while found[-1] < end:
        found, jump = np.append(found, jump[found]), jump[jump]
    return np.append(found[found < end], end)

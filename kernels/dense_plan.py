"""The planner of the dense scan on a GPU: from a problem to a compiled form and the parts of its scan. Pure Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import gcd

from pyengine.kernels.chips import Chip

KINDS = {"i8": 1, "fp16": 2, "bf16": 2, "fp32": 4}  # what is scanned, as Triton names it, and its bytes
MOST_DIMS = 8192  # a row is coded in registers
CODE_BLOCKS = 128, 512, 1024, 2048, MOST_DIMS  # values of a row that is coded
PLACE_BYTES = 16  # of a pool: a row, two bounds, a refined score
POOL_BYTES = 1 << 30  # pools of a block of queries: more queries take another pass
LEAST_PLACES, PLACES_PER_K = 4096, 16
FEWEST_PLACES = 256  # even where the lists asked for are shorter
RISE = 4, 64  # each part of a scan is so many times what came before, at least and at most
SURVIVORS = 4  # for each of the k best, that reach a threshold which the documents before have set, about
BALANCE = 200  # operations for each byte: where a scan is bound by memory, the second part of a query costs nothing
CUDA_QUERY_BYTES, CUDA_ALIGN = 36, 128  # of static shared memory: what csrc/cuda keeps of a query of a tile, filled up
CUDA_LEAST_STAGES = 2  # of its ring: one step is multiplied while the next one comes
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Tile:
    """One compiled form: ``docs`` by ``queries`` products at a time, ``depth`` dimensions in a step."""

    docs: int
    queries: int
    depth: int
    warps: int
    stages: int
    parts: int  # of a query: with two its own rounding is gone
    splits: int  # how often the products are halved before they are looked at: until no register spills

    def __str__(self) -> str:
        return f"{self.docs} x {self.queries} x {self.depth}, {self.parts} part{'s'[: self.parts > 1]}"

    def shared_bytes(self, kind: str) -> int:
        """Of the operands that are on their way, at least."""
        return KINDS[kind] * self.depth * (self.docs + self.parts * self.queries) * self.stages

    def cuda_bytes(self, kind: str) -> int:
        """All that a block of `csrc/cuda` takes: the ring, which is asked for, and what it has of its own."""
        return self.shared_bytes(kind) + -(-CUDA_QUERY_BYTES * self.queries // CUDA_ALIGN) * CUDA_ALIGN


@dataclass(frozen=True)
class DenseScan:
    """How a block of queries is scanned for: a tile, how many places a pool has, and the numbers of tiles ``parts``
    between which thresholds tighten. The i-th tile is i * ``step`` mod ``n_tiles``."""

    tile: Tile
    k: int
    dims: int
    capacity: int
    query_block: int
    n_tiles: int
    step: int
    parts: tuple[int, ...]
    bytes_read: int
    operations: int
    rejected: dict[str, str] = field(default_factory=dict)


def tiles(chip: Chip, kind: str) -> Iterator[Tile]:
    """The forms that are compiled for a chip, for few queries first."""
    depth = 128 // KINDS[kind]  # a line of memory
    stages = 4 if chip.shared > 200_000 else 3
    parts = 1 if kind == "fp32" else 2  # tf32 cuts more off the documents than a second part would restore
    yield Tile(128, 16, depth, 4, stages + 1, parts, 1)
    yield Tile(128, 64, depth, 8, stages, parts, 2)
    yield Tile(128, 128, depth, 8, stages, 1, 4)


def limited_tile(chip: Chip, kind: str) -> Tile:
    """The one form of the scan between two limits: with two parts of a query, whose bounds leave less undecided."""
    return next(tile for tile in tiles(chip, kind) if tile.queries == 64)


def cuda_tiles(chip: Chip, kind: str) -> Iterator[Tile]:
    """The same for `csrc/cuda`, where stages are an argument: fewer of them where there is no room for all."""
    for tile in tiles(chip, kind):
        while tile.stages > CUDA_LEAST_STAGES and tile.cuda_bytes(kind) > chip.shared:
            tile = replace(tile, stages=tile.stages - 1)
        yield tile


def first_places(k: int) -> int:
    """How many places a pool has at first."""
    return max(LEAST_PLACES, PLACES_PER_K * k)


@lru_cache(maxsize=256)
def plan_dense_scan(
    chip: Chip, kind: str, n_queries: int, n_docs: int, dims: int, k: int, row_bytes: int, width: int,
    cuda: bool = False,
) -> DenseScan:  # fmt: skip
    """Plan the scan of [N, D] documents of that kind, in rows of ``row_bytes``, for Q queries, with pools of at least
    ``width`` places: `first_places`, or more where a certificate has failed. By Triton, or by ``cuda`` C++."""
    tile, rejected = _tile(chip, kind, n_queries, dims, cuda)
    return scan_with(tile, rejected, n_queries, n_docs, dims, k, row_bytes, width)


def scan_with(
    tile: Tile, rejected: dict[str, str], n_queries: int, n_docs: int, dims: int, k: int, row_bytes: int, width: int
) -> DenseScan:
    """The same with a tile that has been chosen, and reasons why others were not."""
    k = min(k, n_docs)
    places = _power(max(width, 2 * k, FEWEST_PLACES))
    capacity = min(places, max(FEWEST_PLACES, _power(n_docs)))
    if capacity < places:
        rejected[f"{places} places"] = f"{capacity} hold all {n_docs} documents"
    block = max(tile.queries, POOL_BYTES // (PLACE_BYTES * capacity) // tile.queries * tile.queries)
    n_tiles = -(-n_docs // tile.docs)
    return DenseScan(
        tile=tile,
        k=k,
        dims=dims,
        capacity=capacity,
        query_block=min(block, n_queries),
        n_tiles=n_tiles,
        step=_step(n_tiles),
        parts=_parts(n_tiles, tile.docs, capacity, k),
        bytes_read=-(-n_queries // block) * n_docs * row_bytes,
        operations=2 * n_docs * dims * tile.parts * -(-n_queries // tile.queries) * tile.queries,
        rejected=rejected,
    )


def _tile(chip: Chip, kind: str, n_queries: int, dims: int, cuda: bool) -> tuple[Tile, dict[str, str]]:
    """The form that wastes least, and why the others are not taken."""
    if kind not in KINDS or not 0 < dims <= MOST_DIMS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, of 1 to {MOST_DIMS} dimensions; got {kind}, {dims}")
    rejected, chosen, least = {}, None, 0.0
    for tile in (cuda_tiles if cuda else tiles)(chip, kind):
        cost = _cost(tile, kind, n_queries)
        taken = tile.cuda_bytes(kind) if cuda else tile.shared_bytes(kind)
        if taken > chip.shared:
            rejected[str(tile)] = f"{taken} bytes of shared memory exceed the {chip.shared} of a block"
        elif chosen is not None and cost >= least:
            rejected[str(tile)] = f"{chosen} costs no more for {n_queries} queries"
        else:
            if chosen is not None:
                rejected[str(chosen)] = f"{tile} costs less for {n_queries} queries"
            chosen, least = tile, cost
    assert chosen is not None, f"no form for {kind} fits {chip.name}"
    return chosen, rejected


def _cost(tile: Tile, kind: str, n_queries: int) -> float:
    """Of a document, in bytes that could be read meanwhile: the larger of reading and multiplying, beside what is read
    again for each block of queries, from a cache four times as fast. One part leaves more to be refined."""
    blocks = -(-n_queries // tile.queries)
    reading = KINDS[kind] * (1 + (blocks - 1) / 4)
    balance = BALANCE * 2 / KINDS[kind]  # int8 takes half the time of 16 bits
    multiplying = 2 * tile.parts * blocks * tile.queries / balance
    return max(reading, multiplying) * (1.0 if tile.parts > 1 else 1.25)


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << max(0, count - 1).bit_length()


def _step(n_tiles: int) -> int:
    """A number without a factor in common with ``n_tiles``, whose multiples are spread evenly."""
    step = max(1, round(n_tiles * GOLDEN))
    while gcd(step, n_tiles) > 1:
        step += 1
    return step


def _parts(n_tiles: int, tile_docs: int, capacity: int, k: int) -> tuple[int, ...]:
    """The first part fits in half a pool, or sets a threshold at least; what of the next ones passes does, too."""
    rise = min(RISE[1], max(RISE[0], capacity // (2 * SURVIVORS * k)))
    ends = [0, max(1, min(capacity, max(capacity // 2, 2 * k)) // tile_docs)]
    while ends[-1] < n_tiles:
        ends.append(ends[-1] * (rise + 1))
    return (*ends[:-1], n_tiles) if n_tiles else (0,)


def code_block(width: int) -> int:
    """How many values a row of that width is coded as."""
    return next(block for block in CODE_BLOCKS if block >= width)


def code_warps(block: int) -> int:
    """How many warps code such a row."""
    return 4 if block <= 2048 else 8


def forms(chip: Chip) -> Iterator[tuple[str, Tile]]:
    """Every kind with every form that fits the chip."""
    for kind in KINDS:
        for tile in tiles(chip, kind):
            if tile.shared_bytes(kind) <= chip.shared:
                yield kind, tile

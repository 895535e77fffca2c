"""The planner of the dense scan's form for Hopper (`csrc/cuda/dense_topk_sm90.cu`): what its shared memory holds, how
many blocks there are, what a tensor map may describe; and where it is chosen. Pure Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from pyengine.kernels.chips import Chip
from pyengine.kernels.dense_plan import Tile

DEPTH = 128  # bytes of a row in a step: a line of memory, and of the swizzle
BARRIERS = 1024  # bytes
ALIGNMENT = 1024  # of what is swizzled: so much more is asked for, and the begin rounded up
WARPGROUPS = 2  # that multiply
QUERY_BYTES = 36  # of what each of them knows of a query, and keeps: static shared memory
MOST_STAGES = 8
RESIDENT_STAGES = 4  # where queries stay: 64 KiB on the way at least
GROUPS = 4  # rounds of blocks at most
LEAST_TILES = 8  # of a block, which loads its queries first
MAP_ALIGN = 16  # bytes, of the address and of the stride of a tensor map

FORMS = ("sm_80", "sm_90")
# Which form was faster, by chip, kind and queries of a tile. Where nothing has been measured, it is that for all chips.
MEASURED: Mapping[tuple[str, str, int], str] = {}
_forced: ContextVar[str | None] = ContextVar("forced", default=None)


@dataclass(frozen=True)
class HopperScan:
    """``blocks`` of threads, whose shared memory has queries, if they are ``resident``, and a ring of ``stages``; rows
    are multiplied in ``steps`` of 128 bytes."""

    steps: int
    stages: int
    resident: bool
    blocks: int
    shared: int  # bytes


@contextmanager
def forced(form: str) -> Iterator[None]:
    """Within the block, scans take that form wherever the GPU has it: one of `FORMS`. For measuring."""
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form}")
    token = _forced.set(form)
    try:
        yield
    finally:
        _forced.reset(token)


def asked() -> str | None:
    """The form that is `forced`, None where none is."""
    return _forced.get()


def form(capability: int, chip: Chip, kind: str, tile: Tile, address: int, stride: int) -> tuple[str, str]:
    """The form that scans documents in rows ``stride`` bytes apart on a GPU of that compute capability (90 is 9.0), and
    why."""
    if capability != 90:
        return "sm_80", "wgmma is of compute capability 9.0 alone"
    if address % MAP_ALIGN or stride % MAP_ALIGN:
        return "sm_80", f"a tensor map describes rows that begin at multiples of {MAP_ALIGN} bytes"
    wanted = asked()
    if wanted is not None:
        return wanted, "asked for"
    found = MEASURED.get((chip.name, kind, tile.queries))
    return (found, "measured") if found else ("sm_80", "not measured")


def plan_hopper(chip: Chip, tile: Tile, row_bytes: int, n_queries: int, n_tiles: int) -> HopperScan:
    """Plan a part of ``n_tiles`` tiles, for rows of ``row_bytes`` that are scored."""
    steps = -(-row_bytes // DEPTH)
    docs, queries = tile.docs * DEPTH, tile.parts * tile.queries * DEPTH
    room = chip.shared - BARRIERS - ALIGNMENT - WARPGROUPS * QUERY_BYTES * tile.queries
    beside = (room - steps * queries) // docs
    resident = beside >= RESIDENT_STAGES
    stages = min(MOST_STAGES, beside if resident else room // (docs + queries))
    ring = steps * queries + stages * docs if resident else stages * (docs + queries)
    query_blocks = -(-n_queries // tile.queries)
    return HopperScan(
        steps=steps,
        stages=stages,
        resident=resident,
        blocks=query_blocks * _groups(query_blocks, n_tiles, chip.multiprocessors),
        shared=ALIGNMENT + BARRIERS + ring,
    )


def _groups(query_blocks: int, n_tiles: int, multiprocessors: int) -> int:
    """Into how many groups tiles are dealt, each for all blocks of queries: as leaves the fewest multiprocessors
    without work, of which each has one block at a time."""
    most = max(1, n_tiles // LEAST_TILES, min(n_tiles, multiprocessors // query_blocks))
    few = min(most, max(1, GROUPS * multiprocessors // query_blocks))

    def idle(groups: int) -> float:
        blocks = groups * query_blocks
        rounds = -(-blocks // multiprocessors)
        return rounds * multiprocessors / blocks

    return min(range(1, few + 1), key=lambda groups: (idle(groups), groups))

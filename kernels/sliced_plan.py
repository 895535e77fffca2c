"""The planner of the Triton kernel for sliced vectors, in pure Python.

A product counts where two indices of a byte agree, which no tensor core does: each position of a document and a query
takes a comparison, a product and a sum on the other units, about 3 operations. A program owns ``TILE`` documents and a
block of B queries, whose sums stay in registers; documents lie tile by tile with the positions outermost, so that 64 of
them are read at a time, 3 bytes each (a weight in half precision, and an index).

For 8.8 million documents of 768 positions and 500 queries: 20 GB, which a group of tiles in the L2 cache makes one pass
over, 5 ms at 4.3 TB/s; and 1.0e13 operations, 3.2e11 of a warp, on 528 schedulers of 1.7 GHz 350 ms. So operations are
the floor, 0.7 ms a query, from 8 queries on; for one alone it is memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyengine.kernels.chips import Chip

TILE = 64  # documents of a program, and of the layout
UNROLL = 4  # positions in flight; documents are padded to it
BLOCKS = (16, 64)  # queries of a program
WARPS = {16: 4, 64: 8}
MOST_DIMS = 1 << 16  # sums of more have no useful bound
READ = 3  # bytes of a position
OPERATIONS = 3  # of a position of a document and a query


@dataclass(frozen=True)
class SlicedPlan:
    """How one scan is launched, and what it is expected to cost."""

    block: int  # queries of a program
    group: int  # tiles that stay in the L2 cache while all blocks of queries go over them
    num_warps: int
    bytes_read: int
    operations: int
    rejected: dict[str, str] = field(default_factory=dict)


def plan_sliced(n_queries: int, n_docs: int, dim: int, chip: Chip) -> SlicedPlan:
    """Plan the scan of N documents of D positions."""
    block = next((each for each in BLOCKS if each >= n_queries), BLOCKS[-1])
    rejected = {}
    for other in BLOCKS:
        if other < block:
            rejected[f"block {other}"] = f"{n_queries} queries would read the documents {-(-n_queries // other)} times"
        elif other > block:
            rejected[f"block {other}"] = f"there are only {n_queries} queries, which {block} hold"
    depth = -(-dim // UNROLL) * UNROLL
    n_tiles, blocks = max(1, -(-n_docs // TILE)), -(-n_queries // block)
    return SlicedPlan(
        block=block,
        group=min(n_tiles, max(chip.multiprocessors, chip.l2 // 2 // (TILE * depth * READ))),
        num_warps=WARPS[block],
        bytes_read=n_tiles * TILE * depth * READ,
        operations=OPERATIONS * n_docs * depth * blocks * block,
        rejected=rejected,
    )

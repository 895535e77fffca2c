"""The planner of the Triton kernels for sparse rows, in pure Python: the terms that become columns, and a scan's tiles.

Triton cannot scatter into shared memory, so that a program owns ``TILE`` documents and a block of B queries, keeps
their TILE x B sums in registers, and reads the documents' postings: for each, the B weights of its term are gathered
from a table [slots, B] in half precision, of the terms that the block's queries have. A map from terms to slots tells
the others, of which no weight is read.

Operations and bytes, for 8.8 million documents of 120 terms, 500 queries in blocks of 64, one H200 (4.3 TB/s):

- Of the 1.06e9 postings about half are in a hundred terms. As columns of a matrix these are 2 bytes a document and term
  and a product on tensor cores: 2.2 GB and 1.1e12 operations, 3 ms at the most.
- The others are 4.8e8 postings of 6 bytes, 2.9 GB. A group of tiles stays in the L2 cache while the 8 blocks of queries
  go over it, so that a batch reads it once: 1 ms.
- Each is visited once a block, 3.8e9 times, by some 6 instructions of a warp (4 documents x 64 queries at 8 a thread):
  2.3e10 of them on 528 schedulers of 1.7 GHz, 26 ms. At worst, where every term is in some query, it gathers 128 bytes
  from L2: 4.9e11 bytes, some 90 ms.

So the gathers are the floor, 0.05 to 0.2 ms a query, and not memory: float32 weights of the documents cost nothing,
and what a column saves is gathers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pyengine.kernels.chips import Chip

TILE = 64  # documents of a program: a tile's rows are interleaved, so this is the layout's, too
UNROLL = 4  # postings of a document in flight; tiles are padded to it
CHUNK = 64  # columns of a product
HEADS = (0, 64, 128, 256)  # columns that a corpus may have
BLOCKS = (16, 64)  # queries of a program
WARPS = {16: 4, 64: 8}
ACCUMULATORS = 128  # registers a thread that sums may take, of 255
SPILLING = ("sm_80", "sm_100")  # where the compiler was seen to spill registers for both sums of large blocks
MOST_TERMS = 1 << 16  # of a query: sums of more have no useful bound
SHORT = (1 << 16) - 1  # terms that 16 bits number, with one number left for places without a posting
POSTING_TIME, COLUMN_TIME = 6.5, 0.65  # picoseconds, of one posting and of one document's place in a column; see above


@dataclass(frozen=True)
class SparsePlan:
    """How one scan is launched, and what it is expected to cost."""

    block: int  # queries of a program
    group: int  # tiles that stay in the L2 cache while all blocks of queries go over them
    num_warps: int
    bytes_read: int
    gathers: int  # visits of postings, each of `block` queries
    rejected: dict[str, str] = field(default_factory=dict)


def plan_sparse(
    n_queries: int, n_docs: int, postings: int, columns: int, posting_bytes: int, signed: bool, chip: Chip
) -> SparsePlan:
    """Plan the scan of N documents of ``postings`` places in tiles, of so many bytes each, and of ``columns``."""
    rejected = {f"block {each}": illegal(each, bool(columns), signed, chip) for each in BLOCKS}
    rejected = {name: reason for name, reason in rejected.items() if reason}
    legal = [block for block in BLOCKS if f"block {block}" not in rejected]
    block = next((each for each in legal if each >= n_queries), legal[-1])
    for other in legal:
        if other < block:
            rejected[f"block {other}"] = f"{n_queries} queries would visit each posting {-(-n_queries // other)} times"
        elif other > block:
            rejected[f"block {other}"] = f"there are only {n_queries} queries, which {block} hold"
    n_tiles, blocks = max(1, -(-n_docs // TILE)), -(-n_queries // block)
    total = postings * posting_bytes + n_tiles * TILE * 2 * columns
    return SparsePlan(
        block=block,
        group=min(n_tiles, max(chip.multiprocessors, chip.l2 // 2 * n_tiles // max(1, total))),
        num_warps=WARPS[block],
        bytes_read=total,
        gathers=blocks * postings,
        rejected=rejected,
    )


def illegal(block: int, columns: bool, signed: bool, chip: Chip) -> str:
    """Why a program cannot have such a block of queries: registers or shared memory; "" where it can."""
    sums = (1 + columns) * (1 + signed) * TILE * block // (32 * WARPS[block])
    shared = stages(columns, signed) * CHUNK * (TILE + block) * 2 if columns else 0
    if sums > ACCUMULATORS:
        return f"{sums} registers a thread of sums exceed {ACCUMULATORS}"
    if shared > chip.shared:
        return f"{shared} bytes of operands exceed the {chip.shared} of {chip.name}"
    if columns and signed and block > BLOCKS[0] and chip.name in SPILLING:
        return f"sums of columns and of magnitudes, with the operands, spill on {chip.name}"
    return ""


def stages(columns: bool, signed: bool) -> int:
    """How many chunks of columns are on their way. With two, sm_100 spills registers for both sums of small blocks."""
    return 3 if columns and signed else 2


def levels(n_tiles: int, capacity: int) -> list[tuple[int, int, int]]:
    """The parts of a scan, (stride, skip, count): part i < count is the tile stride * (i + skip * (i // 3 + 1)). The
    first has no more documents than a pool has places, or is one tile; each of the others three times as many as all
    before it: none of the multiples of four times its stride, which these were. So each is a fair sample, of which
    about 3 k documents pass the threshold before it."""
    stride = 1
    while stride < n_tiles and -(-n_tiles // stride) * TILE > capacity:
        stride *= 4
    found = [(stride, 0, -(-n_tiles // stride))]
    while stride > 1:
        stride //= 4
        found.append((stride, 1, -(-n_tiles // stride) - -(-n_tiles // (4 * stride))))
    return [each for each in found if each[2]]


def plan_columns(frequencies: Sequence[int], n_docs: int) -> tuple[int, dict[str, str]]:
    """How many terms become columns, of ``HEADS``, given the document frequencies of the terms that may, falling; and
    why not the other numbers."""
    before = list(accumulate(frequencies, initial=0))
    saved, rejected = {0: 0.0}, dict[str, str]()
    for count in HEADS[1:]:
        held = before[min(count, len(frequencies))]
        saved[count] = POSTING_TIME * held - COLUMN_TIME * count * n_docs
    best = max(HEADS, key=lambda count: saved[count])
    for count in HEADS:
        if count != best:
            rejected[f"{count} columns"] = (
                f"they save {saved[count] * 1e-6:.3g} us a block of queries, {best} columns {saved[best] * 1e-6:.3g}"
            )
    return best, rejected

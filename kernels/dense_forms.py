"""The planner of the CUDA dense scans that have no counterpart in Triton, of bits (`csrc/cuda/dense_bits.cu`) and of
float32 without tf32 (`dense_float32.cu`): their tiles, and where float32 takes the place of int8 codes. Pure Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

from pyengine.kernels.chips import Chip
from pyengine.kernels.dense_plan import DenseScan, Tile, cuda_tiles, scan_with

STEP = 128  # bytes of a row
PLANES = 8  # of a query: one part of int8
# By popc, the others by tensor cores; a part of a query is a plane of it.
FEW_SIGNS = Tile(128, 4, 8 * STEP, 4, 3, 1, 1)
SIGNS = Tile(128, 64, 8 * STEP, 8, 3, 2, 1)
FEW = Tile(128, 8, 8 * STEP, 4, 3, PLANES, 1)
MANY = Tile(128, 16, 8 * STEP, 8, 3, PLANES, 1)

# Float32 operations for each byte that is read, without tensor cores: 10 on sm_80, 20 on sm_90.
BALANCE = 15
# The mean residual of int8 codes, in lengths of the documents, beyond which they leave so many candidates that reading
# four times as much is less. Embeddings have 0.005 to 0.013, rows of one large value and D small ones up to D^.5 / 440.
LOOSE = 2.0**-5
_forced: ContextVar[bool] = ContextVar("forced", default=False)


@contextmanager
def float32_forced() -> Iterator[None]:
    """Within the block, float32 documents are scanned as they are wherever they can be. For measuring."""
    token = _forced.set(True)
    try:
        yield
    finally:
        _forced.reset(token)


def forced() -> bool:
    """Whether `float32_forced` is in force."""
    return _forced.get()


def loose(residual: float) -> str | None:
    """Why int8 codes with that mean residual are not scanned; None where they are."""
    if residual <= LOOSE:
        return None
    return f"int8 codes are off by {residual:.3f} of a document's length on average, and {LOOSE:.3f} is the most"


def bit_tiles() -> tuple[Tile, ...]:
    """The forms that scan bits."""
    return FEW_SIGNS, SIGNS, FEW, MANY


@lru_cache(maxsize=256)
def plan_bits(signs: bool, n_queries: int, n_docs: int, dims: int, k: int, row_bytes: int, width: int) -> DenseScan:
    """Plan the scan of documents of one bit a dimension, as `plan_dense_scan`; ``signs`` says that queries are."""
    rejected = {}
    if signs:
        few, many, why = FEW_SIGNS, SIGNS, "counting without tensor cores takes longer than reading beyond 4 queries"
    else:
        few, many, why = FEW, MANY, "documents are read again for each 8 queries"
        rejected["popc"] = f"queries are not signs, and have {PLANES} planes of bits"
    chosen, other = (few, many) if n_queries <= few.queries else (many, few)
    rejected[str(other)] = f"{n_queries} queries would leave most of it empty" if chosen is few else why
    return scan_with(chosen, rejected, n_queries, n_docs, dims, k, row_bytes, width)


def bit_kernel(tile: Tile) -> str:
    """Its name."""
    return f"dense_{'bits' if tile.parts == PLANES else 'signs'}_{tile.queries}"


def bit_shared(tile: Tile, row_bytes: int) -> int:
    """Bytes of shared memory: a ring no longer than the steps of a row; or, without tensor cores, the queries."""
    if tile.parts == 1:
        return tile.queries * row_bytes
    return STEP * (tile.docs + tile.parts * tile.queries) * min(tile.stages, -(-row_bytes // STEP))


@lru_cache(maxsize=256)
def plan_float32(chip: Chip, n_queries: int, n_docs: int, dims: int, k: int, row_bytes: int, width: int) -> DenseScan:
    """Plan the scan of float32 documents without tensor cores, as `plan_dense_scan`: the tile that wastes least."""
    ranked = sorted(cuda_tiles(chip, "fp32"), key=lambda tile: (_cost(tile, n_queries), -tile.queries))
    chosen, *others = ranked
    rejected = {str(tile): f"{chosen} costs no more for {n_queries} queries" for tile in others}
    return scan_with(chosen, rejected, n_queries, n_docs, dims, k, row_bytes, width)


def _cost(tile: Tile, n_queries: int) -> float:
    """Of a dimension of a document, in bytes that could be read meanwhile: the larger of reading, from a cache four
    times as fast for all but the first block of queries, and multiplying."""
    blocks = -(-n_queries // tile.queries)
    return max(4 * (1 + (blocks - 1) / 4), 2 * blocks * tile.queries / BALANCE)

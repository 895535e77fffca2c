"""Launches of the MaxSim kernels of `csrc/cuda`, arrays on the GPU in and out."""

from __future__ import annotations

from typing import NamedTuple

from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_kernels import Pools
from pyengine.kernels.chips import Chip
from pyengine.kernels.maxsim_plan import WARP, Tile

DEPTH = 128  # bytes of a row in a step, where not all are in registers
RUN = 16  # documents of a block at most
WAVES = 32  # blocks of threads for each multiprocessor, about, before a block takes more than one document
SCORE_THREADS, CHOOSERS = 128, 8
MAXIMA_BYTES = 64 << 20  # of maxima held between the kernels


class TokenQueries(NamedTuple):
    """Queries as the scan takes them (`Scan` in csrc/cuda/maxsim_run.cuh), in panels of a tile's query tokens:
    ``codes`` int8 [P, W], ``coefficients`` and ``factors`` float32 [P], ``begins`` and ``lengths`` int32 [Q],
    ``panels`` and ``group_queries`` int32 [groups + 1], ``terms`` float64 [Q, 7]. A group has ``longest`` places."""

    longest: int
    codes: Array
    coefficients: Array
    factors: Array
    begins: Array
    lengths: Array
    panels: Array
    group_queries: Array
    terms: Array


class TokenDocs(NamedTuple):
    """Documents as the scan takes them: ``codes`` int8 [T, W], ``weights`` and ``shares`` float32 [T], ``offsets``
    int64 [N + 1], ``terms`` float64 [N, 2], or [N, 4] for sums over both sides, ``bias`` float64 [N]."""

    codes: Array
    weights: Array
    shares: Array
    offsets: Array
    terms: Array
    bias: Array | None


def kernel_of(tile: Tile, symmetric: bool) -> str:
    """The kernel that is a tile."""
    return f"maxsim_{tile.block_m}_{'both' if symmetric else tile.block_k if tile.whole else 'steps'}"


def shared_bytes(tile: Tile, longest: int) -> int:
    """Of the ring, and of what is kept of each query token, for groups of ``longest`` places."""
    if tile.whole:
        return tile.num_stages * tile.block_n * (tile.block_k + 4) + 4 * RUN * (tile.block_m + 1)
    return tile.num_stages * (tile.block_n + tile.block_m) * DEPTH + 4 * longest


def documents_of_a_block(count: int, chip: Chip) -> int:
    """So few, of ``count`` in all, that every multiprocessor has blocks."""
    return min(RUN, max(1, count // (WAVES * chip.multiprocessors)))


def scan(
    gpu: Gpu, found: Pools, queries: TokenQueries, docs: TokenDocs, mask: Array | None, first: int, count: int,
    stride: int, tile: Tile, symmetric: bool,
) -> None:  # fmt: skip
    """Append to the pools what of the ``count`` documents from the ``first`` on may reach their thresholds: one of
    ``stride`` documents is seen before the others. ``mask`` uint8 [1 or Q, ceil(N / 8)] are bitmaps."""
    groups = len(queries.panels) - 1
    run = documents_of_a_block(count * groups, gpu.chip)
    gpu.launch(
        kernel_of(tile, symmetric), (groups * -(-count // run), 1), WARP * tile.num_warps,
        found.rows, found.upper, found.lower, found.counts, found.lost, found.threshold, *queries[1:],
        docs.codes, docs.weights, docs.shares, docs.offsets, docs.terms, docs.bias, mask, found.capacity,
        0 if mask is None or len(mask) == 1 else mask.stride, len(docs.offsets) - 1, groups, first, count, stride, run,
        docs.codes.stride, shared=shared_bytes(tile, queries.longest),
    )  # fmt: skip


class TokenSets(NamedTuple):
    """Sets of tokens as they define the scores: set n is rows offsets[n] : offsets[n + 1] of ``values`` [T, D] of
    floats, or int8 with a ``step`` float32 [T] to multiply by; ``norms`` float64 [T] where tokens are compared by their
    cosine; ``longest`` tokens in a set."""

    values: Array
    step: Array | None
    offsets: Array
    norms: Array | None
    dims: int
    longest: int


class Scoring(NamedTuple):
    """How maxima become a score: ``mean`` divides sums by numbers of tokens, ``symmetric`` takes both sides; weights
    float32 [Tq] and [Td], ``bias`` float64 [N]."""

    mean: bool
    symmetric: bool
    query_weights: Array | None
    doc_weights: Array | None
    bias: Array | None


class Pairs(NamedTuple):
    """What is scored: pair p is the query ``owners[p]``, int32 [P], with the document ``rows[places[p]]``, int64 [P] of
    int32, and its score goes to the same place."""

    owners: Array
    places: Array
    rows: Array


def score_pairs(gpu: Gpu, queries: TokenSets, docs: TokenSets, pairs: Pairs, how: Scoring, scores: Array) -> None:
    """Write the specification's scores, float32 of the shape of the rows."""
    widths = max(1, queries.longest), max(1, docs.longest)
    step = max(1, MAXIMA_BYTES // (8 * (widths[0] + how.symmetric * widths[1])))
    for first in range(0, len(pairs.owners), step):
        count = min(step, len(pairs.owners) - first)
        forth = _maxima(gpu, queries, docs, pairs, first, count, widths[0], False)
        back = _maxima(gpu, queries, docs, pairs, first, count, widths[1], True) if how.symmetric else None
        warps = SCORE_THREADS // WARP
        gpu.launch(
            "maxsim_sum", (-(-count // warps), 1), SCORE_THREADS, scores, forth, back, how.query_weights,
            how.doc_weights, how.bias, queries.offsets, docs.offsets, *pairs, first, count, *widths, how.mean,
        )  # fmt: skip


def _maxima(
    gpu: Gpu, queries: TokenSets, docs: TokenSets, pairs: Pairs, first: int, count: int, width: int, exchanged: bool
) -> Array:
    """float64 [count, width]: the largest products of each pair's query tokens; of the document's if ``exchanged``."""
    found = gpu.empty((count, width), "float64")
    gpu.launch(
        f"maxsim_maxima_{docs.values.kind}", (count * -(-width // CHOOSERS), 1), SCORE_THREADS,
        found, queries.values, queries.offsets, queries.norms, docs.values, docs.step, docs.offsets, docs.norms,
        *pairs, first, width, queries.values.stride, docs.values.stride, docs.dims, exchanged,
    )  # fmt: skip
    return found


def token_norms(gpu: Gpu, sets: TokenSets) -> Array:
    """float64 [T]: the norms of tokens, by the specification."""
    count = len(sets.values)
    norms = gpu.empty((count,), "float64")
    if count:
        gpu.launch(
            f"token_norms_{sets.values.kind}", (-(-count // (SCORE_THREADS // 8)), 1), SCORE_THREADS, sets.values,
            sets.step, norms, count, sets.dims, sets.values.stride,
        )  # fmt: skip
    return norms

"""Launches of the MaxSim kernels of `csrc/cuda`, arrays on the GPU in and out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda.cuda_device import KINDS, Argument, Array, Gpu
from pyengine.backends.cuda.cuda_kernels import SM90_THREADS, Pools
from pyengine.kernels import maxsim_sm90_plan
from pyengine.kernels.chips import Chip
from pyengine.kernels.maxsim_plan import BITS, WARP, ScanPlan, Tile
from pyengine.kernels.maxsim_sm90_plan import PageScan
from pyengine.types import F64

DEPTH = 128  # bytes of a query's row in a step, where not all are in registers
STEP_DIMS = 64  # of a token of few bits, which are as many bytes as float16
RUN = 16  # documents of a block at most
WAVES = 32  # blocks of threads for each multiprocessor, about, before a block takes more than one document
PAGE_ROWS = 64  # query tokens of a box, where they stay in shared memory
SCORE_THREADS, CHOOSERS, MEASURE_THREADS = 128, 8, 128
OWN_SHARED = 2 << 10  # bytes that a kernel has beside those that a launch asks for, at most
MAXIMA_BYTES = 64 << 20  # of maxima held between the kernels


class TokenQueries(NamedTuple):
    """Queries as the scan takes them (`Scan` in csrc/cuda/maxsim_run.cuh), in panels of a tile's query tokens:
    ``codes`` int8 or float16 [P, W], ``coefficients`` and ``factors`` float32 [P], ``begins`` and ``lengths`` int32
    [Q], ``panels`` and ``group_queries`` int32 [groups + 1], ``terms`` float64 [Q, 7]. A group has ``longest`` places.
    """

    longest: int
    codes: Array
    coefficients: Array
    factors: Array
    begins: Array
    lengths: Array
    panels: Array
    group_queries: Array
    terms: Array


class Packed(NamedTuple):
    """Tokens of 1, 2 or 4 ``bits`` a dimension, as csrc/cuda/maxsim_packed.cuh decodes them: ``words`` int32
    [T, P bits / 32], ``heads`` int32 [T], of whose bits the upper ``step_bits`` are the step, ``centroids`` float32
    [C, D]; and for the scan ``near`` float16 [C, P], in units of ``unit``, a power of two, and its order."""

    words: Array
    heads: Array
    centroids: Array
    near: Array
    unit: float
    bits: int
    step_bits: int

    @property
    def scale(self) -> int:
        """1 / unit, a float32 as a word."""
        return int(np.float32(1 / self.unit).view(np.int32))


class TokenDocs(NamedTuple):
    """Documents as the scan takes them: ``codes`` int8 [T, W], or of few bits; ``weights`` and ``shares`` float32 [T],
    ``offsets`` int64 [N + 1], ``terms`` float64 [N, 2], or [N, 4] for sums over both sides, ``bias`` float64 [N]."""

    codes: Array | Packed
    weights: Array
    shares: Array
    offsets: Array
    terms: Array
    bias: Array | None


def kernel_of(tile: Tile, symmetric: bool, form: str) -> str:
    """The kernel that is a tile of documents of that form."""
    stem = f"maxsim_{form}" if form in BITS else "maxsim"
    return f"{stem}_{tile.block_m}_{'both' if symmetric else tile.block_k if tile.whole else 'steps'}"


def shared_bytes(tile: Tile, longest: int, form: str) -> int:
    """Of the ring, and of what is kept of each query token, for groups of ``longest`` places."""
    bits, known = (BITS[form], 8) if form in BITS else (8, 4)  # bytes beside a token
    if tile.whole:
        return tile.num_stages * tile.block_n * (tile.block_k * bits // 8 + known) + 4 * RUN * (tile.block_m + 1)
    docs = STEP_DIMS * bits // 8 if form in BITS else DEPTH
    return tile.num_stages * (tile.block_n * docs + tile.block_m * DEPTH) + 4 * longest


def documents_of_a_block(count: int, chip: Chip) -> int:
    """So few, of ``count`` in all, that every multiprocessor has blocks."""
    return min(RUN, max(1, count // (WAVES * chip.multiprocessors)))


def scan(
    gpu: Gpu, found: Pools, queries: TokenQueries, docs: TokenDocs, mask: Array | None, first: int, count: int,
    stride: int, plan: ScanPlan | PageScan, symmetric: bool,
) -> None:  # fmt: skip
    """Append to the pools what of the ``count`` documents from the ``first`` on may reach their thresholds: one of
    ``stride`` documents is seen before the others. ``mask`` uint8 [1 or Q, ceil(N / 8)] are bitmaps."""
    groups, codes = len(queries.panels) - 1, docs.codes
    heads, near, step_bits, scale = None, None, 0, 0
    if isinstance(codes, Packed):
        heads, near, step_bits, scale, codes = codes.heads, codes.near, codes.step_bits, codes.scale, codes.words
    form = _form(gpu, plan, queries, codes, count, symmetric)
    gpu.launch(
        form.kernel, (groups * -(-count // form.run), 1), form.threads, *form.arguments,
        found.rows, found.upper, found.lower, found.counts, found.lost, found.threshold, *queries[1:],
        codes, docs.weights, docs.shares, docs.offsets, docs.terms, docs.bias, mask, heads, near, found.capacity,
        0 if mask is None or len(mask) == 1 else mask.stride, len(docs.offsets) - 1, groups, first, count, stride,
        form.run, codes.stride * KINDS[codes.kind], step_bits, scale, shared=form.shared,
    )  # fmt: skip


class Form(NamedTuple):
    """A kernel of the scan, by blocks that take ``run`` documents each; its first arguments are its own."""

    kernel: str
    run: int
    threads: int
    shared: int
    arguments: tuple[Argument, ...] = ()


def _form(
    gpu: Gpu, plan: ScanPlan | PageScan, queries: TokenQueries, codes: Array, count: int, symmetric: bool
) -> Form:
    groups = len(queries.panels) - 1
    if isinstance(plan, ScanPlan):
        kernel, shared = kernel_of(plan.tile, symmetric, plan.form), shared_bytes(plan.tile, queries.longest, plan.form)
        return Form(kernel, documents_of_a_block(count * groups, gpu.chip), WARP * plan.tile.num_warps, shared)
    run = maxsim_sm90_plan.documents_of_a_block(count, groups, gpu.chip.multiprocessors)
    maps = (
        gpu.tensor_map(codes, codes.stride, maxsim_sm90_plan.BOX),
        gpu.tensor_map(queries.codes, queries.codes.stride, PAGE_ROWS),
    )
    return Form("maxsim_sm90", run, SM90_THREADS, plan.shared, (*maps, plan.stages, plan.tokens))


class TokenSets(NamedTuple):
    """Sets of tokens as they define the scores: set n is rows offsets[n] : offsets[n + 1] of ``values`` [T, D] of
    floats, or int8 with a ``step`` float32 [T] to multiply by, or of few bits; ``norms`` float64 [T] where tokens are
    compared by their cosine; ``longest`` tokens in a set."""

    values: Array | Packed
    step: Array | None
    offsets: Array
    norms: Array | None
    dims: int
    longest: int

    @property
    def rows(self) -> Array:
        return self.values.words if isinstance(self.values, Packed) else self.values

    @property
    def kind(self) -> str:
        return "packed" if isinstance(self.values, Packed) else self.values.kind

    @property
    def decoding(self) -> tuple[Array | None, Array | None]:
        """What the kernels call heads and centroids."""
        packed = self.values
        return (packed.heads, packed.centroids) if isinstance(packed, Packed) else (self.step, None)

    @property
    def bits(self) -> tuple[int, int]:
        """Of a dimension, and of a step, where they are few."""
        return (self.values.bits, self.values.step_bits) if isinstance(self.values, Packed) else (0, 0)


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
        f"maxsim_maxima_{docs.kind}", (count * -(-width // CHOOSERS), 1), SCORE_THREADS,
        found, queries.rows, queries.offsets, queries.norms, docs.rows, *docs.decoding, docs.offsets, docs.norms,
        *pairs, first, width, queries.rows.stride, docs.rows.stride, docs.dims, *docs.bits, exchanged,
    )  # fmt: skip
    return found


def token_norms(gpu: Gpu, sets: TokenSets) -> Array:
    """float64 [T]: the norms of tokens, by the specification."""
    count = len(sets.rows)
    norms = gpu.empty((count,), "float64")
    if count:
        gpu.launch(
            f"token_norms_{sets.kind}", (-(-count // (SCORE_THREADS // 8)), 1), SCORE_THREADS, sets.rows,
            *sets.decoding, norms, count, sets.rows.stride, sets.dims, *sets.bits,
        )  # fmt: skip
    return norms


def pack(gpu: Gpu, words: Array, planes: Array, bits: int, n_planes: int) -> None:
    """Write words int32 [T, W] of planes uint8 [T, n_planes W 4 / bits]."""
    total = len(words) * words.stride
    if total:
        gpu.launch(
            "maxsim_pack", (-(-total // MEASURE_THREADS), 1), MEASURE_THREADS, words, planes, bits, n_planes,
            words.stride, total,
        )  # fmt: skip


def measure(gpu: Gpu, packed: Packed) -> tuple[F64, F64]:
    """float64 [T], on the host: how far the scan's codes are from the tokens, and the tokens' lengths."""
    count, words = len(packed.words), packed.words
    found = gpu.empty((2, count), "float64")
    if count:
        gpu.launch(
            f"maxsim_measure_packed{packed.bits}", (-(-count // (MEASURE_THREADS // 8)), 1), MEASURE_THREADS, found,
            words, packed.heads, packed.near, packed.centroids, packed.step_bits, packed.scale, count,
            packed.centroids.shape[1], words.stride * KINDS[words.kind],
        )  # fmt: skip
    error, size = gpu.host(found)
    return error, size

"""Launches of the kernels of `csrc/cuda`, arrays on the GPU in and out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pyengine.backends.cuda_device import Array, Gpu
from pyengine.kernels.dense_plan import DenseScan, Tile
from pyengine.types import F32, F64, I64

METRICS = ("cosine", "dot", "l2")
ALIGN = 16  # bytes of a row that are read at a time
QUERY_ALIGN = 128  # to which queries are filled up with zeros: the depth of a step
DOC_ALIGN = 64
FEW = 4  # queries that are multiplied without tensor cores
CODE_THREADS, SELECT_THREADS, REFINE_THREADS, FEW_THREADS = 128, 512, 256, 128
PAIRS = REFINE_THREADS // 8  # of a step, eight lanes each
WAVES = 8  # blocks of threads for each multiprocessor, about
LEAST, PAD = -(2**31), -(2**63)  # the least ordered key; the key of a place that no document fills


class Coded(NamedTuple):
    """Queries as `code_queries` makes them, P being Q padded to the tile: ``parts`` two int8 [P, W]; ``terms`` float32
    [5, P]; ``scaling`` float64 [P, 2] and ``centre`` float32 [P]."""

    parts: tuple[Array, Array]
    terms: Array
    scaling: Array
    centre: Array


class Pools(NamedTuple):
    """Survivors of Q queries, as `pyengine.kernels.selection` describes them."""

    rows: Array
    upper: Array
    lower: Array
    counts: Array
    threshold: Array
    lost: Array

    @property
    def capacity(self) -> int:
        return self.rows.shape[1]

    def dropped(self, gpu: Gpu) -> F32:
        """float32 [Q]: a bound on everything that a pool does not hold; -inf where it holds all."""
        lost = gpu.host(self.lost)
        bound = np.where(lost == LEAST, np.float32(-np.inf), _unordered(lost))
        found: F32 = np.maximum(gpu.host(self.threshold), bound)
        return found


def pools(gpu: Gpu, n_queries: int, capacity: int, floor: F32 | None = None) -> Pools:
    """Empty pools of ``capacity`` places each, with thresholds at the ``floor`` float32 [Q]."""
    shape = (n_queries, capacity)
    return Pools(
        gpu.empty(shape, "int32"),
        gpu.empty(shape, "float32"),
        gpu.empty(shape, "float32"),
        gpu.array(np.zeros(n_queries, np.int32)),
        gpu.array(np.full(n_queries, -np.inf, np.float32) if floor is None else floor),
        gpu.array(np.full(n_queries, LEAST, np.int32)),
    )


def code_docs(gpu: Gpu, rows: Array, dims: int) -> tuple[Array, F32, F32, F64]:
    """Of rows [N, D] of floats, their first ``dims``: int8 codes [N, W] of the unit vectors, padded with zeros; and on
    the host scale and residual float32 [N], and norms float64 [N], which are not finite where a row is not."""
    count, width = len(rows), -(-dims // DOC_ALIGN) * DOC_ALIGN
    codes = gpu.empty((count, width), "int8")
    scale, residual, norms = (gpu.empty((count,), kind) for kind in ("float32", "float32", "float64"))
    gpu.launch(
        f"code_{rows.kind}", (count, 1), CODE_THREADS, rows, codes, scale, residual, norms, dims, rows.stride, width
    )
    return codes, gpu.host(scale), gpu.host(residual), gpu.host(norms)


def code_queries(gpu: Gpu, queries: Array, units: Array, metric: str, dims: int, tile: Tile) -> Coded:
    """Queries float32 [Q, D] for a scan with that tile. ``units`` float64 [2] as `DocumentTerms.units`."""
    padded, width = -(-len(queries) // tile.queries) * tile.queries, -(-dims // QUERY_ALIGN) * QUERY_ALIGN
    first = gpu.empty((padded, width), "int8")
    second = gpu.empty((padded, width), "int8") if tile.parts == 2 else first
    terms, scaling = gpu.empty((5, padded), "float32"), gpu.empty((padded, 2), "float64")
    centre = gpu.empty((padded,), "float32")
    gpu.launch(
        "code_queries", (padded, 1), CODE_THREADS, queries, first, second, terms, scaling, centre, units,
        len(queries), dims, queries.stride, width, METRICS.index(metric), tile.parts,
    )  # fmt: skip
    return Coded((first, second), terms, scaling, centre)


def scan(
    gpu: Gpu, codes: Array, columns: Array, queries: Coded, mask: Array | None, found: Pools, plan: DenseScan
) -> None:
    """Fill the pools with all that may be among the k best. ``columns`` are those of `DocumentTerms`, ``mask`` uint8
    [1 or Q, ceil(N / 8)] bitmaps."""
    tile, n_queries, n_docs = plan.tile, len(found.rows), len(codes)
    dims = min(-(-plan.dims // ALIGN) * ALIGN, codes.stride)  # what is beyond meets zeros of the queries
    kernel, blocks = f"dense_{tile.queries}", -(-n_queries // tile.queries)
    threads, shared = 32 * tile.warps, tile.shared_bytes("i8")
    if n_queries <= FEW and threads == FEW_THREADS and tile.parts == 2:
        kernel, shared = "dense_few", 2 * n_queries * dims
    for first, last in pairwise(plan.parts):
        gpu.launch(
            kernel, ((last - first) * blocks, 1), threads,
            codes, *queries.parts, columns, queries.terms, mask, found.threshold,
            found.rows, found.upper, found.lower, found.counts, found.lost, found.capacity,
            n_docs, n_queries, dims, codes.stride, queries.parts[0].stride, queries.terms.stride,
            0 if mask is None or len(mask) == 1 else mask.stride,
            first, plan.step, plan.n_tiles, tile.stages, len(columns) > 3, shared=shared,
        )  # fmt: skip
        gpu.launch(
            "tighten", (n_queries, 1), SELECT_THREADS, found.rows, found.upper, found.lower, found.counts,
            found.threshold, queries.centre, found.capacity, plan.k,
        )  # fmt: skip


def refine_pairs(
    gpu: Gpu, queries: Array, docs: Array, step: Array | None, bias: Array | None, rows: Array, starts: Array,
    counts: Array, scores: Array, longest: int, metric: str, dims: int,
) -> None:  # fmt: skip
    """Write the scores of each query q against its documents ``rows[starts[q] : starts[q] + counts[q]]``, ``longest``
    at most. ``docs`` [N, D] are floats, or int8 with a ``step`` float32 [N] to multiply by; ``bias`` float64 [N];
    ``rows`` int32 and ``scores`` float32 have one shape, whose entries ``starts`` int64 and ``counts`` int32 [Q] count.
    """
    if len(queries) and longest:
        splits = min(-(-longest // PAIRS), max(1, WAVES * gpu.chip.multiprocessors // len(queries)))
        gpu.launch(
            f"refine_{docs.kind}", (len(queries), splits), REFINE_THREADS, queries, docs, step, bias, rows, starts,
            counts, scores, queries.stride, docs.stride, dims, METRICS.index(metric),
        )  # fmt: skip


def select(gpu: Gpu, scores: Array, found: Pools, k: int, order: Array | None, negate: bool) -> I64:
    """int64 [Q, k], on the host: the keys of the k best of each query, best first, by score (falling; rising where
    ``negate``), then by the place of the row in ``order`` int32 [N] (None: the row itself). `PAD` fills up."""
    best = gpu.empty((len(found.rows), k), "int64")
    gpu.launch(
        "select_best", (len(found.rows), 1), SELECT_THREADS, scores, found.rows, found.counts, best, order,
        found.capacity, k, negate,
    )  # fmt: skip
    return np.sort(gpu.host(best), axis=1)[:, ::-1]


def decode(keys: I64) -> tuple[F32, I64]:
    """Of the keys of `select`: rank scores float32, and places in the order int64. Those of `PAD` mean nothing."""
    return _unordered((keys >> 32).astype(np.int32)), 0x7FFFFFFF - (keys & 0x7FFFFFFF)


def _unordered(keys: Any) -> F32:
    """The float32 of ordered keys, int32."""
    values: F32 = (keys ^ ((keys >> 31) & 0x7FFFFFFF)).view(np.float32)
    return values

"""Launches of the kernels of `csrc/cuda`, arrays on the GPU in and out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pyengine.backends.cuda.cuda_device import KINDS, Argument, Array, Gpu
from pyengine.kernels import dense_forms, dense_sm90_plan
from pyengine.kernels.dense_plan import DenseScan, Tile
from pyengine.types import F32, F64, I64

METRICS = ("cosine", "dot", "l2")
ALIGN = 16  # bytes of a row that are read at a time
QUERY_ALIGN = 128  # values to which queries are filled up with zeros: the depth of a step, or two
DOC_ALIGN = 64
PLANNED = {"int8": "i8", "float16": "fp16", "bfloat16": "bf16"}  # what tensor cores multiply, and what plans call it
PLANE_BYTES = 128  # to which planes of queries are filled up
FEW = 4  # queries that are multiplied without tensor cores
CODE_THREADS, SELECT_THREADS, REFINE_THREADS, FEW_THREADS, SM90_THREADS = 128, 512, 256, 128, 384
PAIRS = REFINE_THREADS // 8  # of a step, eight lanes each
WAVES = 8  # blocks of threads for each multiprocessor, about
MOST_BLOCKS = (1 << 31) - 1  # of a launch
LEAST, PAD = -(2**31), -(2**63)  # the least ordered key; the key of a place that no document fills


class Coded(NamedTuple):
    """Queries as `code_queries` makes them, P being Q padded to the tile: ``parts`` [P or 2 P, W], one below the other,
    of the documents' kind; ``terms`` float32 [5, P]; ``scaling`` float64 [P, 2] and ``centre`` float32 [P]."""

    parts: Array
    terms: Array
    scaling: Array
    centre: Array

    @property
    def second(self) -> int:
        """The address of the second part, or of the only one."""
        padded = self.terms.shape[1]
        return self.parts.pointer + (len(self.parts) - padded) * self.parts.stride * KINDS[self.parts.kind]


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

    def arguments(self) -> tuple[Argument, ...]:
        """What kernels take that append."""
        return self.threshold, self.rows, self.upper, self.lower, self.counts, self.lost, self.capacity

    def listed(self, gpu: Gpu) -> tuple[I64, I64, F32, F32]:
        """On the host: of each query how many it holds, int64 [Q], and one query's after another's their rows int64
        [M], upper and lower bounds float32 [M]."""
        counts = gpu.host(self.counts).astype(np.int64)
        ends = np.cumsum(counts)
        packed = [gpu.empty((int(ends[-1]),), each.kind) for each in (self.rows, self.upper, self.lower)]
        gpu.launch(
            "pack_pools", (len(counts), 1), SELECT_THREADS, self.rows, self.upper, self.lower, self.counts,
            gpu.array(ends - counts), *packed, self.capacity,
        )  # fmt: skip
        rows, upper, lower = (gpu.host(each) for each in packed)
        return counts, rows.astype(np.int64), upper, lower

    def bounds(self, gpu: Gpu) -> tuple[F32, F32]:
        """float32 [Q]: the thresholds, and the largest bound of what found no room; -inf where all did."""
        lost = gpu.host(self.lost)
        return gpu.host(self.threshold), np.where(lost == LEAST, np.float32(-np.inf), _unordered(lost))

    def dropped(self, gpu: Gpu) -> F32:
        """float32 [Q]: a bound on everything that a pool does not hold; -inf where it holds all."""
        found: F32 = np.maximum(*self.bounds(gpu))
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
    if count:
        gpu.launch(
            f"code_{rows.kind}", (count, 1), CODE_THREADS, rows, codes, scale, residual, norms, dims, rows.stride, width
        )
    return codes, gpu.host(scale), gpu.host(residual), gpu.host(norms)


def norms(gpu: Gpu, rows: Array, dims: int) -> F64:
    """float64 [N], on the host: the norms of the first ``dims`` of rows [N, D] of floats, not finite where a row is
    not."""
    found = gpu.empty((len(rows),), "float64")
    gpu.launch(f"norms_{rows.kind}", (len(rows), 1), CODE_THREADS, rows, found, dims, rows.stride)
    host: F64 = gpu.host(found)
    return host


def suffix(kind: str) -> str:
    """What ends the names of kernels for documents of that kind."""
    return "" if kind == "int8" else f"_{kind}"


def code_queries(gpu: Gpu, queries: Array, units: Array, metric: str, dims: int, tile: Tile, kind: str) -> Coded:
    """Queries float32 [Q, D] for a scan of documents of that kind with that tile. ``units`` float64 [2] as
    `DocumentTerms.units`."""
    if kind == "bits":
        codes = code_queries(gpu, queries, units, metric, dims, replace(tile, parts=1), "int8")
        return _split(gpu, codes, tile)
    padded, width = -(-len(queries) // tile.queries) * tile.queries, -(-dims // QUERY_ALIGN) * QUERY_ALIGN
    terms, scaling = gpu.empty((5, padded), "float32"), gpu.empty((padded, 2), "float64")
    made = Coded(gpu.empty((tile.parts * padded, width), kind), terms, scaling, gpu.empty((padded,), "float32"))
    gpu.launch(
        f"code_queries{suffix(kind)}", (padded, 1), CODE_THREADS, queries, made.parts, made.second, terms, scaling,
        made.centre, units, len(queries), dims, queries.stride, width, METRICS.index(metric), tile.parts,
    )  # fmt: skip
    return made


def _split(gpu: Gpu, codes: Coded, tile: Tile) -> Coded:
    """Queries of int8 codes as planes of bits: ``parts`` has one row for each, in an order of the kernels' own."""
    padded, width = codes.parts.shape
    row_bytes = -(-width // (8 * PLANE_BYTES)) * PLANE_BYTES
    bits = gpu.empty((tile.parts * padded, row_bytes), "bits")
    gpu.launch("split_queries", (padded, 1), CODE_THREADS, codes.parts, bits, codes.terms, width, row_bytes, tile.parts)
    return codes._replace(parts=bits)


def scan(
    gpu: Gpu, docs: Array, columns: Array, queries: Coded, mask: Array | None, found: Pools, plan: DenseScan
) -> None:
    """Fill the pools with all that may be among the k best of ``docs`` [N, W], of one of the kinds that are scanned.
    ``columns`` are those of `DocumentTerms`, ``mask`` uint8 [1 or Q, ceil(N / 8)] bitmaps."""
    stride = docs.stride * KINDS[docs.kind]
    part = _scan_sm80
    if docs.kind in PLANNED:
        form, _ = dense_sm90_plan.form(
            gpu.device.capability, gpu.chip, PLANNED[docs.kind], plan.tile, docs.pointer, stride
        )
        part = _scan_sm90 if form == "sm_90" else _scan_sm80
    for first, last in pairwise(plan.parts):
        scanned = scan_arguments(docs, columns, queries, mask, found, plan, first)
        part(gpu, docs, queries, plan, len(found.rows), last - first, scanned)
        tighten(gpu, found, queries.centre, plan.k)


def scan_arguments(
    docs: Array, columns: Array, queries: Coded, mask: Array | None, found: Pools, plan: DenseScan, first: int
) -> tuple[Argument, ...]:
    """The last arguments of a scan that begins with the tile ``first``: `SCAN_PARAMETERS`."""
    return (
        columns, queries.terms, mask, *found.arguments(),
        len(docs), len(found.rows), queries.terms.stride, 0 if mask is None or len(mask) == 1 else mask.stride,
        first, plan.step, plan.n_tiles, len(columns) > 3,
    )  # fmt: skip


def operand_arguments(docs: Array, queries: Coded, dims: int, stages: int) -> tuple[Argument, ...]:
    """The first arguments of a kernel that multiplies tiles: `OPERAND_PARAMETERS`."""
    size = KINDS[docs.kind]
    return (
        docs, queries.parts, queries.second,
        _length(docs, dims), docs.stride * size, queries.parts.stride * size, stages,
    )  # fmt: skip


def _length(docs: Array, dims: int) -> int:
    """The bytes of a row that are read: what is beyond meets zeros of the queries."""
    size = KINDS[docs.kind]
    row_bytes = -(-dims // 8) if docs.kind == "bits" else dims * size
    return min(-(-row_bytes // ALIGN) * ALIGN, docs.stride * size)


def shared_bytes(docs: Array, plan: DenseScan) -> int:
    """What a kernel that multiplies tiles asks for, without a form for Hopper."""
    if docs.kind == "bits":
        return dense_forms.bit_shared(plan.tile, _length(docs, plan.dims))
    return plan.tile.shared_bytes(PLANNED.get(docs.kind, "fp32"))


def tighten(gpu: Gpu, found: Pools, centre: Array, k: int) -> None:
    """Raise each threshold to the k-th largest lower bound, and keep only what may reach it. ``centre`` float32 [Q], at
    least, makes scores of the numbers that are bounded, up to a factor."""
    gpu.launch(
        "tighten", (len(found.rows), 1), SELECT_THREADS, found.rows, found.upper, found.lower, found.counts,
        found.threshold, centre, found.capacity, k,
    )  # fmt: skip


def _scan_sm80(
    gpu: Gpu, docs: Array, queries: Coded, plan: DenseScan, n_queries: int, n_tiles: int, scanned: tuple[Argument, ...]
) -> None:
    """A part of ``n_tiles`` tiles: ``scanned`` are the last arguments of the kernel."""
    tile, operands = plan.tile, operand_arguments(docs, queries, plan.dims, plan.tile.stages)
    kernel, blocks = f"dense_{tile.queries}{suffix(docs.kind)}", -(-n_queries // tile.queries)
    threads, shared = 32 * tile.warps, shared_bytes(docs, plan)
    if docs.kind == "bits":
        kernel = dense_forms.bit_kernel(tile)
    if n_queries <= FEW and docs.kind == "int8" and tile.parts == 2:
        kernel, threads, shared = "dense_few", FEW_THREADS, 2 * n_queries * _length(docs, plan.dims)
    gpu.launch(kernel, (n_tiles * blocks, 1), threads, *operands, *scanned, shared=shared)


def _scan_sm90(
    gpu: Gpu, docs: Array, queries: Coded, plan: DenseScan, n_queries: int, n_tiles: int, scanned: tuple[Argument, ...]
) -> None:
    """The same."""
    tile, size = plan.tile, KINDS[docs.kind]
    chosen = dense_sm90_plan.plan_hopper(gpu.chip, tile, plan.dims * size, n_queries, n_tiles)
    gpu.launch(
        f"dense_{tile.queries}{suffix(docs.kind)}_sm90", (chosen.blocks, 1), SM90_THREADS,
        gpu.tensor_map(docs, plan.dims, tile.docs),
        gpu.tensor_map(queries.parts, queries.parts.stride, tile.queries),
        chosen.steps, chosen.stages, chosen.resident, n_tiles, *scanned, shared=chosen.shared,
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

"""Dense top-k: normalise, multiply, compare with a threshold and append what may pass, in one kernel.

The unit vectors of a query and a document are multiplied as they are coded (int8, float16, bfloat16, tf32); what a
product P means for a score, and how far it may be off, are terms of the document and of the query:

    s    = factor_d (scale_q P + second_q P2)               + lift_q offset_d
    s is off by at most  error_d spread_q + weight_d miss_q + what `high` and `low` add to the offset

`pyengine/backends/triton/triton_dense.py` derives them. Documents are the rows of a tile, since tensor cores take 64
rows at least and 8 columns: few queries cost little. Tiles come in the order i * step mod n_tiles, so that each part of
a scan is a sample of all documents, however they are sorted.
"""

from __future__ import annotations

from itertools import product as every
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.dense_plan import CODE_BLOCKS, KINDS, DenseScan, Tile, code_block, code_warps, forms
from pyengine.kernels.selection import Pools, tighten
from pyengine.kernels.triton_parts import LEAST, allowed, append, float64_loss

METRICS = ("cosine", "dot", "l2")
ALIGN = 16  # dimensions: in loads of so many, lines of memory are read whole
QUERY_ALIGN = 128  # to which queries are filled up with zeros: the deepest step
LEVELS = tl.constexpr(127.0)  # of an int8 code
NEAREST = tl.constexpr(6755399441055744.0)  # 1.5 * 2^52: adding it leaves the nearest integer


class ScanDocuments(NamedTuple):
    """What is scanned: ``values`` [N, D] int8 codes, float16, bfloat16 or float32; ``terms`` float32 [5, N] are factor,
    error, weight, high and low, the last two missing [3, N] where there are no offsets."""

    values: Tensor
    terms: Tensor


class ScanQueries(NamedTuple):
    """Queries as `code_queries` makes them, P being Q padded to the tile: ``parts`` one or two [P, W] of the
    documents' dtype, W a multiple of 128, zero beyond the dimensions that are scored; ``terms`` float32 [6, P] scale,
    second, spread, miss, lift and base / unit; ``scaling`` float64 [P, 2] these two: a rank score is unit s + base."""

    parts: tuple[Tensor, ...]
    terms: Tensor
    scaling: Tensor


def scan(
    docs: ScanDocuments, queries: ScanQueries, mask: Tensor | None, found: Pools, plan: DenseScan
) -> None:  # fmt: skip
    """Fill the pools of Q queries with all that may be among their k best. ``mask`` uint8 [1 or Q, ceil(N / 8)] are
    bitmaps."""
    tile, n_queries = plan.tile, len(found.rows)
    mask_stride = 0 if mask is None or len(mask) == 1 else mask.stride(0)
    stride = max(docs.values.stride(0), plan.dims)  # of a single row it may be anything
    dims = min(-(-plan.dims // ALIGN) * ALIGN, stride)  # what is beyond meets zeros of the queries
    for first, last in zip(plan.parts, plan.parts[1:]):
        dense_scan_kernel[((last - first) * -(-n_queries // tile.queries),)](
            docs.values, queries.parts[0], queries.parts[-1], docs.terms, queries.terms,
            docs.values if mask is None else mask, found.threshold, *found.arguments(),
            len(docs.values), n_queries, dims, stride, queries.parts[0].stride(0),
            queries.terms.stride(0), mask_stride, first, plan.step, plan.n_tiles,
            len(queries.parts), len(docs.terms) > 3, mask is not None,
            tile.docs, tile.queries, tile.depth, tile.splits, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        tighten(found, plan.k, queries.terms[5, :n_queries])


RUNTIME = ["capacity", "n_docs", "n_queries", "mask_stride", "first", "step", "n_tiles"]


@triton.jit(do_not_specialize=RUNTIME)
def dense_scan_kernel(
    docs_ptr, queries_ptr, second_ptr, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr,
    rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity,
    n_docs, n_queries, dims, doc_stride, query_stride, terms_stride, mask_stride, first, step, n_tiles,
    PARTS: tl.constexpr, HAS_OFFSET: tl.constexpr, HAS_MASK: tl.constexpr,
    BN: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(n_queries, BQ)
    tile = ((first + tl.program_id(0) // blocks).to(tl.int64) * step % n_tiles).to(tl.int32)
    query = tl.program_id(0) % blocks * BQ + tl.arange(0, BQ)
    row = tile * BN + tl.arange(0, BN)
    stop = dims
    if HAS_MASK:  # a tile that nobody may get is not read
        bytes = tile * (BN // 8) + tl.arange(0, BN // 8)
        within = (bytes < tl.cdiv(n_docs, 8))[:, None] & (query < n_queries)[None, :]
        bits = tl.load(mask_ptr + query[None, :].to(tl.int64) * mask_stride + bytes[:, None], mask=within, other=0)
        stop = tl.where(tl.max(tl.max(bits.to(tl.int32), axis=1), axis=0) > 0, dims, 0)

    at = tl.minimum(row, n_docs - 1).to(tl.int64)  # what is beyond the end is not kept
    depth = tl.arange(0, BK)
    docs = docs_ptr + at[:, None] * doc_stride + depth[None, :]
    queries = queries_ptr + query[None, :].to(tl.int64) * query_stride + depth[:, None]
    seconds = second_ptr + query[None, :].to(tl.int64) * query_stride + depth[:, None]
    kind: tl.constexpr = tl.int32 if docs_ptr.dtype.element_ty == tl.int8 else tl.float32
    products, others = tl.zeros([BN, BQ], kind), tl.zeros([BN, BQ], kind)
    for start in range(0, stop, BK):
        values = tl.load(docs + start, mask=(start + depth < dims)[None, :], other=0)
        products = tl.dot(values, tl.load(queries + start), products, input_precision="tf32", out_dtype=kind)
        if PARTS == 2:
            others = tl.dot(values, tl.load(seconds + start), others, input_precision="tf32", out_dtype=kind)

    terms = query_terms_ptr + query
    product = tl.load(terms)[None, :] * products.to(tl.float32)
    if PARTS == 2:
        product += tl.load(terms + terms_stride)[None, :] * others.to(tl.float32)
    filter_tile(
        product, tl.program_id(0) % blocks * BQ, row, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr,
        rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, n_docs, n_queries, terms_stride,
        mask_stride, HAS_OFFSET, HAS_MASK, SPLITS,
    )  # fmt: skip


@triton.jit
def filter_tile(
    product, first_query, row, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr,
    rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, n_docs, n_queries, terms_stride, mask_stride,
    HAS_OFFSET: tl.constexpr, HAS_MASK: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Append what may pass of a tile [BN, BQ], in 2^SPLITS parts one after another, for which registers suffice."""
    width: tl.constexpr = product.shape[1]
    if SPLITS > 0:
        left, right = halves(product)
        filter_tile(
            left, first_query, row, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr,
            rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, n_docs, n_queries, terms_stride,
            mask_stride, HAS_OFFSET, HAS_MASK, SPLITS - 1,
        )  # fmt: skip
        filter_tile(
            right, first_query + width // 2, row, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr,
            rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, n_docs, n_queries, terms_stride,
            mask_stride, HAS_OFFSET, HAS_MASK, SPLITS - 1,
        )  # fmt: skip
    else:
        query = first_query + tl.arange(0, width)
        terms, last = query_terms_ptr + query, n_docs.to(tl.int64)
        at = doc_terms_ptr + tl.minimum(row, n_docs - 1)
        estimate = tl.load(at)[:, None] * product
        radius = tl.load(at + last)[:, None] * tl.load(terms + 2 * terms_stride)[None, :]
        radius += tl.load(at + 2 * last)[:, None] * tl.load(terms + 3 * terms_stride)[None, :]
        upper = estimate + radius
        if HAS_OFFSET:
            lift = tl.load(terms + 4 * terms_stride)[None, :]
            upper += lift * tl.load(at + 3 * last)[:, None]
        threshold = tl.load(threshold_ptr + query, mask=query < n_queries, other=float("inf"))[None, :]
        keep = (row < n_docs)[:, None] & (query < n_queries)[None, :]
        keep &= (upper >= threshold) | (upper != upper)  # what cannot be bounded must pass
        if HAS_MASK:
            keep &= allowed(mask_ptr, mask_stride, query, row, keep)
        if tl.max(tl.max(keep.to(tl.int32), axis=1), axis=0) > 0:
            lower = estimate - radius
            if HAS_OFFSET:
                lower += lift * tl.load(at + 4 * last)[:, None]
            append(rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, query, row, upper, lower, keep)


@triton.jit
def halves(x):
    """The left and the right half of the columns of [M, N]."""
    return tl.split(tl.permute(tl.reshape(x, [x.shape[0], 2, x.shape[1] // 2]), (0, 2, 1)))


def code_docs(rows: Tensor, dims: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of rows float32 [N, D], their first ``dims``: int8 codes [N, W] of the unit vectors, padded with zeros; scale and
    residual float32 [N], as `problem.Codes`; norms float64 [N], which are not finite where a row is not."""
    count, width = len(rows), -(-dims // 64) * 64
    codes = torch.empty((count, width), dtype=torch.int8, device=rows.device)
    scale, residual = (torch.empty(count, dtype=torch.float32, device=rows.device) for _ in range(2))
    norms, block = torch.empty(count, dtype=torch.float64, device=rows.device), code_block(width)
    if count:
        code_docs_kernel[(count,)](
            rows, codes, scale, residual, norms, dims, rows.stride(0), width, block, num_warps=code_warps(block),
            enable_fp_fusion=False,
        )  # fmt: skip
    return codes, scale, residual, norms


def query_room(kind: torch.dtype, dims: int, parts: int, padded: int, device: torch.device) -> ScanQueries:
    """Room for so many queries, to be scanned as that kind in one part or two."""
    width = -(-dims // QUERY_ALIGN) * QUERY_ALIGN
    return ScanQueries(
        tuple(torch.empty((padded, width), dtype=kind, device=device) for _ in range(parts)),
        torch.empty((6, padded), dtype=torch.float32, device=device),
        torch.empty((padded, 2), dtype=torch.float64, device=device),
    )


def code_queries(
    queries: Tensor, units: Tensor, floor: Tensor, metric: str, dims: int, into: ScanQueries, found: Pools
) -> None:
    """Code queries float32 [Q, D], of which the first ``dims`` are scored, and empty their pools. ``units`` float64 [2]
    are the largest of the weights and of the offsets of documents; of rank scores below the ``floor`` float64 [Q]
    nothing is kept."""
    padded, width = into.parts[0].shape
    block = code_block(width)
    code_queries_kernel[(padded,)](
        queries, into.parts[0], into.parts[-1], into.terms, into.scaling, units, floor, found.counts, found.threshold,
        found.lost, len(queries), padded, dims, queries.stride(0), width, METRICS.index(metric), len(into.parts), block,
        num_warps=code_warps(block), enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def nearest(x):
    """The nearest integer of float64 values below 2^50."""
    return (x + NEAREST) - NEAREST


@triton.jit
def length_of(rest):
    """float64: an upper bound on the Euclidean norm [D], far above what its own arithmetic rounds."""
    return tl.sqrt(tl.sum(rest * rest, axis=0)) * (1 + 1e-9) + 1e-12


@triton.jit
def int8_part(u):
    """The codes of float64 values [D], integers of at most 127, and their scale."""
    scale = tl.max(tl.abs(u), axis=0) / LEVELS
    return nearest(u / tl.where(scale > 0, scale, 1.0)), scale


@triton.jit
def tf32(x):
    """float32 values, rounded so that a product in tf32 has nothing to cut off."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["dims", "stride", "width"])
def code_docs_kernel(rows_ptr, codes_ptr, scale_ptr, residual_ptr, norms_ptr, dims, stride, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    x = tl.load(rows_ptr + row * stride + place, mask=place < dims, other=0).to(tl.float32).to(tl.float64)
    norm = tl.sqrt(tl.sum(x * x, axis=0))
    u = x / tl.where(norm > 0, norm, 1.0)
    code, scale = int8_part(u)
    residual = tl.where(norm > 0, length_of(u - scale * code), 0.0)
    tl.store(codes_ptr + row * width + place, code.to(tl.int8), mask=place < width)
    tl.store(scale_ptr + row, scale.to(tl.float32))
    tl.store(residual_ptr + row, (residual * (1 + 2.384185791015625e-07)).to(tl.float32))
    tl.store(norms_ptr + row, norm)


@triton.jit(do_not_specialize=["n_queries", "padded", "dims", "stride", "width", "metric"])
def code_queries_kernel(
    queries_ptr, first_ptr, second_ptr, terms_ptr, scaling_ptr, units_ptr, floor_ptr, counts_ptr, threshold_ptr,
    lost_ptr, n_queries, padded, dims, stride, width, metric, PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    held = tl.where(query < n_queries, dims, 0)
    x = tl.load(queries_ptr + query * stride + place, mask=place < held, other=0.0).to(tl.float64)
    norm = tl.sqrt(tl.sum(x * x, axis=0))
    rest = x / tl.where(norm > 0, norm, 1.0)
    kind: tl.constexpr = first_ptr.dtype.element_ty
    for part in tl.static_range(PARTS):
        to = (first_ptr if part == 0 else second_ptr) + query * width + place
        if kind == tl.int8:
            code, scale = int8_part(rest)
            tl.store(to, code.to(tl.int8), mask=place < width)
        else:
            scale = tl.full([], 1.0 if part == 0 else 0.00048828125, tl.float64)  # 2^-11: what a part leaves is small
            value = (rest / scale).to(tl.float32)
            value = tf32(value) if kind == tl.float32 else value.to(kind)
            tl.store(to, value, mask=place < width)
            code = value.to(tl.float32).to(tl.float64)
        rest -= scale * code
        if part == 0:
            scale_1 = scale
    miss = tl.where(norm > 0, length_of(rest), 0.0)

    weight_unit, offset_unit = tl.load(units_ptr), tl.load(units_ptr + 1)
    gain = weight_unit * tl.where(metric == 0, 1.0, tl.where(metric == 1, norm, 2.0 * norm))
    gain = tl.where(norm > 0, gain, 0.0)
    unit = tl.maximum(gain, offset_unit)
    unit = tl.where(unit > 0, unit, 1.0)
    alpha = gain / unit
    up = 1.00000095367431640625  # 2^-20: the rounding of these, and of the bounds that they make
    tl.store(terms_ptr + query, (alpha * scale_1).to(tl.float32))
    tl.store(terms_ptr + padded + query, (alpha * scale if PARTS == 2 else 0.0 * alpha).to(tl.float32))
    tl.store(terms_ptr + 2 * padded + query, (alpha * (1 + miss) * up).to(tl.float32))
    tl.store(terms_ptr + 3 * padded + query, (alpha * miss * up).to(tl.float32))
    tl.store(terms_ptr + 4 * padded + query, (offset_unit / unit).to(tl.float32))
    base = tl.where(metric == 2, -norm * norm, 0.0 * norm)  # not finite where the query is not
    tl.store(terms_ptr + 5 * padded + query, (base / unit).to(tl.float32))
    tl.store(scaling_ptr + 2 * query, unit)
    tl.store(scaling_ptr + 2 * query + 1, base)

    there = query < n_queries
    floor = tl.load(floor_ptr + query, mask=there, other=0.0) - base - 2 * float64_loss(base, dims)
    floor = tl.minimum(floor / unit, 1e38)
    floor = floor - 9.5367431640625e-07 * tl.abs(floor) - 6.018531076210112e-36  # 2^-20, 8 selection.STEP
    tl.store(threshold_ptr + query, floor.to(tl.float32), mask=there)
    tl.store(counts_ptr + query, 0, mask=there)
    tl.store(lost_ptr + query, LEAST, mask=there)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    floats = dict.fromkeys(("doc_terms_ptr", "query_terms_ptr", "threshold_ptr", "upper_ptr", "lower_ptr"), "*fp32")
    types = floats | {"mask_ptr": "*u8", "rows_ptr": "*i32", "counts_ptr": "*i32", "lost_ptr": "*i32"}
    types |= dict.fromkeys((*RUNTIME, "dims", "doc_stride", "query_stride", "terms_stride"), "i32")

    def scan_form(kind: str, tile: Tile, offset: bool, mask: bool) -> Shipped:
        values = {
            "PARTS": tile.parts, "HAS_OFFSET": offset, "HAS_MASK": mask,
            "BN": tile.docs, "BQ": tile.queries, "BK": tile.depth, "SPLITS": tile.splits,
        }  # fmt: skip
        operands = dict.fromkeys(("docs_ptr", "queries_ptr", "second_ptr"), f"*{kind}")
        signature = types | operands | dict.fromkeys(values, "constexpr")
        return Shipped("dense_topk:dense_scan_kernel", signature, values, tile.warps, tile.stages)

    both = (False, True)
    found = [scan_form(kind, tile, *each) for kind, tile in forms(chip) for each in every(both, both)]
    return found + _coding_forms()


def _coding_forms() -> list[Shipped]:
    numbers = ("n_queries", "padded", "dims", "stride", "width")
    query_types = {"queries_ptr": "*fp32", "terms_ptr": "*fp32", "scaling_ptr": "*fp64", "units_ptr": "*fp64"}
    query_types |= {"floor_ptr": "*fp64", "threshold_ptr": "*fp32", "counts_ptr": "*i32", "lost_ptr": "*i32"}
    doc_types = {"codes_ptr": "*i8", "scale_ptr": "*fp32", "residual_ptr": "*fp32", "norms_ptr": "*fp64"}
    docs = doc_types | {"rows_ptr": "*fp32", "BLOCK": "constexpr"} | dict.fromkeys(numbers[2:], "i32")
    found = [
        Shipped("dense_topk:code_docs_kernel", docs, {"BLOCK": each}, code_warps(each), 1, fp_fusion=False)
        for each in CODE_BLOCKS
    ]
    for block, kind, parts in every(CODE_BLOCKS, KINDS, (1, 2)):
        if (kind, parts) == ("fp32", 2):
            continue
        values = {"PARTS": parts, "BLOCK": block}
        signature = query_types | dict.fromkeys(("first_ptr", "second_ptr"), f"*{kind}")
        signature = signature | dict.fromkeys((*numbers, "metric"), "i32") | dict.fromkeys(values, "constexpr")
        found.append(
            Shipped("dense_topk:code_queries_kernel", signature, values, code_warps(block), 1, fp_fusion=False)
        )
    return found

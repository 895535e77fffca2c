"""Sliced vectors on the GPU: bounds on the gated inner products of all documents, of each query those that may be among
its k best, and the specification's scores of these (`pyengine.specification.reference_sliced`).

Weights are scaled by powers of two, d = D d' for all documents and q = U q' for each query, so that the largest lies
between 2^14 and 2^15, and rounded to half precision: within 2^-11 of themselves, or within 2^-25 where they are below
2^-14. Let g = (1 + 2^-11)^2 - 1. What the indices let count of a vector is no longer than the whole, so that by
Cauchy-Schwarz, the sum of D products of rounded weights is off by at most

    g |q'| |d'| + 2^-24.9 sqrt(D) (|q'| + |d'|) + D 2^-50

and its float32 sum, in any order, by another gamma_{D + 2} (1 + g) |q'| |d'| or less. The score in these units lies
within |d'| w + a of the sum: w is ``widen`` of the query, a its ``slack``. Biases and their errors are those of
`pyengine.kernels.sparse_topk`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.selection import Pools, tighten
from pyengine.kernels.sliced_plan import BLOCKS, TILE, UNROLL, WARPS, SlicedPlan
from pyengine.kernels.sparse_plan import levels
from pyengine.kernels.sparse_refine import round_score
from pyengine.kernels.sparse_topk import append_few, bounds
from pyengine.kernels.triton_parts import allowed

LANES = 128  # pairs of a program that refines
REFINE_WARPS = 4


class SlicedTiles(NamedTuple):
    """Documents or queries in tiles, [tiles, D padded, TILE or B]: ``weights`` float16, ``slices`` uint8. ``sizes``
    float32 [N] are upper bounds on the norms of the documents."""

    weights: Any
    slices: Any
    sizes: Any


class SlicedErrors(NamedTuple):
    """Float32 [Q]: by how much scores may be off, and 1 / (U D), for a bias; ``nothing`` [1] is the bias 0."""

    widen: Any
    slack: Any
    inverse: Any
    nothing: Any


SIZES = ("capacity", "depth", "n_docs", "n_queries", "bias_stride", "mask_stride")
PLACES = ("stride", "skip", "count", "group", "n_blocks")


@triton.jit
def gated_sums(weights, slices, asked, gates, depth, TILE: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr):
    """float32 [TILE, BLOCK]: the sums over ``depth`` positions of the products whose indices agree."""
    lanes, columns = tl.arange(0, TILE), tl.arange(0, BLOCK)
    sums = tl.zeros((TILE, BLOCK), tl.float32)
    for at in range(0, depth, UNROLL):
        for step in tl.static_range(UNROLL):
            doc, query = (at + step) * TILE + lanes, (at + step) * BLOCK + columns
            agree = tl.load(slices + doc)[:, None] == tl.load(gates + query)[None, :]
            weight, value = tl.load(weights + doc).to(tl.float32), tl.load(asked + query).to(tl.float32)
            sums = tl.where(agree, sums + weight[:, None] * value[None, :], sums)
    return sums


@triton.jit(do_not_specialize=SIZES + PLACES)
def sliced_topk_kernel(
    pool_rows, pool_upper, pool_lower, pool_counts, pool_lost, capacity, threshold,
    weights, slices, sizes, asked_weights, asked_slices, depth, n_docs, n_queries,
    widen, slack, inverse, bias, bias_stride, mask, mask_stride, stride, skip, count, group, n_blocks,
    TILE: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    # A group of tiles after another, which all blocks of queries go over.
    member, before = tl.program_id(0) % (group * n_blocks), tl.program_id(0) // (group * n_blocks) * group
    size = tl.minimum(group, count - before)
    part, block = before + member % size, (member // size).to(tl.int64)
    tile = (stride * (part + skip * (part // 3 + 1))).to(tl.int64)
    queries = (block * BLOCK).to(tl.int32) + tl.arange(0, BLOCK)
    rows = (tile * TILE).to(tl.int32) + tl.arange(0, TILE)
    exists, asked = rows < n_docs, queries < n_queries
    keep = exists[:, None] & asked[None, :]
    wanted = depth
    if MASKED:
        keep &= allowed(mask, mask_stride, queries, rows, keep)
        wanted = depth * tl.max(tl.max(keep.to(tl.int32), axis=1), axis=0)
    sums = gated_sums(
        weights + tile * depth * TILE, slices + tile * depth * TILE,
        asked_weights + block * depth * BLOCK, asked_slices + block * depth * BLOCK, wanted, TILE, BLOCK, UNROLL,
    )  # fmt: skip
    added = tl.load(bias + rows * bias_stride, mask=exists, other=0.0)
    upper, lower = bounds(
        sums, tl.load(sizes + rows, mask=exists, other=0.0)[:, None],
        tl.load(widen + queries, mask=asked, other=0.0), tl.load(slack + queries, mask=asked, other=0.0),
        added[:, None] * tl.load(inverse + queries, mask=asked, other=0.0)[None, :],
    )  # fmt: skip
    keep &= ~(upper < tl.load(threshold + queries, mask=asked, other=0.0)[None, :])  # nor where it is NaN
    if tl.max(tl.max(keep.to(tl.int32), axis=1), axis=0) > 0:
        append_few(
            pool_rows, pool_upper, pool_lower, pool_counts, pool_lost, capacity, queries, rows, upper, lower, keep
        )


@triton.jit(do_not_specialize=["dim", "row_slices", "blocks"])
def sliced_refine_kernel(
    rows, starts, counts, scores, queries, query_slices, docs, doc_slices, bias, dim, row_slices, blocks,
    LANES: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """scores[starts[q] + i] of query q and document rows[starts[q] + i], for i < counts[q]."""
    query = (tl.program_id(0) // blocks).to(tl.int64)
    before, count = tl.program_id(0) % blocks * LANES, tl.load(counts + query)
    number = before + tl.arange(0, LANES)
    valid = number < count
    places = tl.load(starts + query) + number
    row = tl.load(rows + places, mask=valid, other=0).to(tl.int64)
    total = tl.zeros((LANES,), tl.float64)
    for at in range(0, tl.where(before < count, dim, 0)):
        gate = tl.load(doc_slices + row * row_slices + at, mask=valid, other=0)
        agree = valid & (gate == tl.load(query_slices + query * row_slices + at))
        weight = tl.load(docs + row * dim + at, mask=agree, other=0.0).to(tl.float64)
        product = tl.load(queries + query * dim + at).to(tl.float64) * weight
        total = tl.where(agree, total + product, total)
    if BIASED:
        total += tl.load(bias + row, mask=valid, other=0.0)
    tl.store(scores + places, round_score(total), mask=valid)


def scan(
    found: Pools, docs: SlicedTiles, asked: SlicedTiles, errors: SlicedErrors, k: int, plan: SlicedPlan,
    bias: Any, mask: Any,
) -> None:  # fmt: skip
    """Fill the pools with all documents that may be among the k best of each query, and more. ``bias`` float32 [N] or
    None; ``mask`` a bitmap uint8 [1 or Q, ceil(N / 8)] or None."""
    n_queries, n_docs, n_blocks = len(errors.widen), len(docs.sizes), len(asked.weights)
    if not n_queries:
        return
    for stride, skip, count in levels(len(docs.weights), found.capacity):
        sliced_topk_kernel[(count * n_blocks,)](
            *found.arguments(), found.threshold, *docs, asked.weights, asked.slices, docs.weights.shape[1],
            n_docs, n_queries, errors.widen, errors.slack, errors.inverse,
            errors.nothing if bias is None else bias, int(bias is not None),
            docs.slices if mask is None else mask, 0 if mask is None or len(mask) == 1 else mask.shape[1],
            stride, skip, count, min(plan.group, count), n_blocks,
            TILE=TILE, BLOCK=plan.block, UNROLL=UNROLL, MASKED=mask is not None,
            num_warps=plan.num_warps, num_stages=1,
        )  # fmt: skip
        tighten(found, k)


def sliced_refine(
    rows: Any, starts: Any, counts: Any, longest: int, scores: Any, queries: Any, query_slices: Any, docs: Any,
    doc_slices: Any, bias: Any,
) -> None:  # fmt: skip
    """Write the scores, float32 [M], of documents ``rows`` int32 [M], of which query q has ``counts[q]`` (at most
    ``longest``) from ``starts[q]`` int64 on. Weights are float32 [Q, D] and [N, D], slices uint8 [.., D padded];
    ``bias`` is float64 [N] or None."""
    if len(queries) and longest and len(docs):
        blocks = triton.cdiv(longest, LANES)
        sliced_refine_kernel[(len(queries) * blocks,)](
            rows, starts, counts, scores, queries, query_slices, docs, doc_slices, scores if bias is None else bias,
            docs.shape[1], doc_slices.shape[1], blocks,
            LANES=LANES, BIASED=bias is not None, num_warps=REFINE_WARPS, enable_fp_fusion=False,
        )  # fmt: skip


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    both = (False, True)
    return [_scan_form(block, masked) for block in BLOCKS for masked in both] + [_refine_form(each) for each in both]


def _scan_form(block: int, masked: bool) -> Shipped:
    types = dict.fromkeys(("pool_rows", "pool_counts", "pool_lost"), "*i32")
    types |= dict.fromkeys(
        ("pool_upper", "pool_lower", "threshold", "sizes", "widen", "slack", "inverse", "bias"), "*fp32"
    )
    types |= {"weights": "*fp16", "asked_weights": "*fp16", "slices": "*u8", "asked_slices": "*u8", "mask": "*u8"}
    values = {"TILE": TILE, "BLOCK": block, "UNROLL": UNROLL, "MASKED": masked}
    types |= dict.fromkeys(SIZES + PLACES, "i32") | dict.fromkeys(values, "constexpr")
    return Shipped("sliced_topk:sliced_topk_kernel", types, values, WARPS[block], 1)


def _refine_form(biased: bool) -> Shipped:
    types = {
        "rows": "*i32",
        "starts": "*i64",
        "counts": "*i32",
        "scores": "*fp32",
        "bias": "*fp64" if biased else "*fp32",
    }
    types |= {"queries": "*fp32", "docs": "*fp32", "query_slices": "*u8", "doc_slices": "*u8"}
    values = {"LANES": LANES, "BIASED": biased}
    types |= {**dict.fromkeys(("dim", "row_slices", "blocks"), "i32"), **dict.fromkeys(values, "constexpr")}
    return Shipped("sliced_topk:sliced_refine_kernel", types, values, REFINE_WARPS, 3, fp_fusion=False)

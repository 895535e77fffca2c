"""Dense scan between two limits: list what may lie from a threshold up to a ceiling, and count what is certainly above.

For ranks of given documents, whose score is both; for ranges; and for the pages of a search, which begin below a
ceiling. Codes, terms, tiles and bounds are those of `dense_topk`; a document whose lower bound exceeds the ceiling is
counted for its query and takes no place in its pool.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.dense_parts import any_of, tile_products
from pyengine.kernels.dense_plan import DenseScan, limited_tile
from pyengine.kernels.dense_topk import ALIGN, ScanDocuments, ScanQueries, halves
from pyengine.kernels.selection import Pools, tighten
from pyengine.kernels.triton_parts import allowed, append

KINDS = ("i8", "fp16", "bf16")  # what documents that outlive a search are scanned as


class Ceiling(NamedTuple):
    """Of each query, in the units of its bounds: ``limit`` float32 [Q], and ``above`` int32 [Q], how many allowed
    documents are certainly higher."""

    limit: Tensor
    above: Tensor


def ceiling(limit: Tensor) -> Ceiling:
    """Nothing counted yet."""
    return Ceiling(limit, torch.zeros(len(limit), dtype=torch.int32, device=limit.device))


def scan(
    docs: ScanDocuments, queries: ScanQueries, mask: Tensor, found: Pools, over: Ceiling, plan: DenseScan, rising: bool
) -> None:
    """Fill the pools of Q queries with what may be among their k best of those not above the ceiling; or, where
    thresholds are not ``rising``, with all that may reach them. ``docs.terms`` float32 [5, N], ``mask`` uint8
    [1 or Q, ceil(N / 8)] are bitmaps."""
    tile, n_queries = plan.tile, len(found.rows)
    stride = max(docs.values.stride(0), plan.dims)  # of a single row it may be anything
    dims = min(-(-plan.dims // ALIGN) * ALIGN, stride)  # what is beyond meets zeros of the queries
    parts = plan.parts if rising else (0, plan.n_tiles)
    for first, last in pairwise(parts):
        dense_between_kernel[((last - first) * -(-n_queries // tile.queries),)](
            docs.values, queries.parts[0], queries.parts[-1], docs.terms, queries.terms, mask,
            found.threshold, over.limit, over.above, *found.arguments(),
            len(docs.values), n_queries, dims, stride, queries.parts[0].stride(0), queries.terms.stride(0),
            0 if len(mask) == 1 else mask.stride(0), first, plan.step, plan.n_tiles, len(queries.parts),
            tile.docs, tile.queries, tile.depth, tile.splits, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        if rising:
            tighten(found, plan.k, queries.terms[5, :n_queries])


RUNTIME = ["capacity", "n_docs", "n_queries", "mask_stride", "first", "step", "n_tiles"]


@triton.jit(do_not_specialize=RUNTIME)
def dense_between_kernel(
    docs_ptr, queries_ptr, second_ptr, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr, ceiling_ptr, above_ptr,
    rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity,
    n_docs, n_queries, dims, doc_stride, query_stride, terms_stride, mask_stride, first, step, n_tiles,
    PARTS: tl.constexpr, BN: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(n_queries, BQ)
    tile = ((first + tl.program_id(0) // blocks).to(tl.int64) * step % n_tiles).to(tl.int32)
    query = tl.program_id(0) % blocks * BQ + tl.arange(0, BQ)
    bytes = tile * (BN // 8) + tl.arange(0, BN // 8)
    within = (bytes < tl.cdiv(n_docs, 8))[:, None] & (query < n_queries)[None, :]
    bits = tl.load(mask_ptr + query[None, :].to(tl.int64) * mask_stride + bytes[:, None], mask=within, other=0)
    if any_of(bits != 0):  # a tile that nobody may get is not read
        row = tile * BN + tl.arange(0, BN)
        product = tile_products(
            docs_ptr, queries_ptr, second_ptr, query_terms_ptr, row, query, n_docs, dims, doc_stride, query_stride,
            terms_stride, PARTS, BK,
        )  # fmt: skip
        between_tile(
            product, tl.program_id(0) % blocks * BQ, row, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr,
            ceiling_ptr, above_ptr, rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity,
            n_docs, n_queries, terms_stride, mask_stride, SPLITS,
        )  # fmt: skip


@triton.jit
def between_tile(
    product, first_query, row, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr, ceiling_ptr, above_ptr,
    rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, n_docs, n_queries, terms_stride, mask_stride,
    SPLITS: tl.constexpr,
):  # fmt: skip
    """Count and append what a tile [BN, BQ] holds, in 2^SPLITS parts one after another, for which registers suffice."""
    width: tl.constexpr = product.shape[1]
    if SPLITS > 0:
        left, right = halves(product)
        between_tile(
            left, first_query, row, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr, ceiling_ptr, above_ptr,
            rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, n_docs, n_queries, terms_stride,
            mask_stride, SPLITS - 1,
        )  # fmt: skip
        between_tile(
            right, first_query + width // 2, row, doc_terms_ptr, query_terms_ptr, mask_ptr, threshold_ptr,
            ceiling_ptr, above_ptr, rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, n_docs, n_queries,
            terms_stride, mask_stride, SPLITS - 1,
        )  # fmt: skip
    else:
        query = first_query + tl.arange(0, width)
        terms, last = query_terms_ptr + query, n_docs.to(tl.int64)
        at = doc_terms_ptr + tl.minimum(row, n_docs - 1)
        estimate = tl.load(at)[:, None] * product
        radius = tl.load(at + last)[:, None] * tl.load(terms + 2 * terms_stride)[None, :]
        radius += tl.load(at + 2 * last)[:, None] * tl.load(terms + 3 * terms_stride)[None, :]
        lift = tl.load(terms + 4 * terms_stride)[None, :]
        upper = estimate + radius + lift * tl.load(at + 3 * last)[:, None]
        lower = estimate - radius + lift * tl.load(at + 4 * last)[:, None]
        threshold = tl.load(threshold_ptr + query, mask=query < n_queries, other=float("inf"))[None, :]
        limit = tl.load(ceiling_ptr + query, mask=query < n_queries, other=float("inf"))[None, :]
        may = (row < n_docs)[:, None] & (query < n_queries)[None, :]
        may &= (upper >= threshold) | (upper != upper)  # what cannot be bounded must pass
        if any_of(may):
            may &= allowed(mask_ptr, mask_stride, query, row, may)
            higher = may & (lower > limit)  # not so where a bound is NaN
            number = tl.sum(higher.to(tl.int32), axis=0)
            tl.atomic_add(above_ptr + query, number, mask=number > 0, sem="relaxed")
            keep = may & (higher == 0)
            lower = tl.where(upper > limit, float("-inf"), lower)  # perhaps it does not count: no threshold rises by it
            if any_of(keep):
                append(rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, query, row, upper, lower, keep)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    floats = ("doc_terms_ptr", "query_terms_ptr", "threshold_ptr", "ceiling_ptr", "upper_ptr", "lower_ptr")
    whole = ("rows_ptr", "counts_ptr", "lost_ptr", "above_ptr")
    types = dict.fromkeys(floats, "*fp32") | dict.fromkeys(whole, "*i32") | {"mask_ptr": "*u8"}
    types |= dict.fromkeys((*RUNTIME, "dims", "doc_stride", "query_stride", "terms_stride"), "i32")
    found = []
    for kind in KINDS:
        tile = limited_tile(chip, kind)
        values = {
            "PARTS": tile.parts, "BN": tile.docs, "BQ": tile.queries, "BK": tile.depth, "SPLITS": tile.splits
        }  # fmt: skip
        operands = dict.fromkeys(("docs_ptr", "queries_ptr", "second_ptr"), f"*{kind}")
        signature = types | operands | dict.fromkeys(values, "constexpr")
        found.append(Shipped("dense_between:dense_between_kernel", signature, values, tile.warps, tile.stages))
    return found

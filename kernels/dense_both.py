"""Dense top-k in both directions by one pass: each tile of products feeds the pools of its columns and of its rows.

Rows and columns are unit vectors, coded as the documents and the queries of `dense_topk`: their product c, off by at
most r, bounds the cosine of a pair, which is the same from both sides. In the units of an owner's scores

    s = weight gain c + lift offset,     s is off by at most  weight gain r + what `high` and `low` add to the offset

where gain and lift are of the owner, weight and offset of what it may get (`pyengine/backends/triton/triton_both.py`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.dense_both_plan import DenseBoth, tile_for
from pyengine.kernels.dense_parts import any_of, tile_products
from pyengine.kernels.dense_topk import ALIGN, ScanDocuments, ScanQueries, halves
from pyengine.kernels.selection import Pools, tighten
from pyengine.kernels.triton_parts import append


class Sides(NamedTuple):
    """Rows or columns: ``terms`` float32 [5, N] are weight and gain, high, low and lift; their ``pools``, and the
    ``centre`` float32 [N] of their bounds, as `tighten` takes it."""

    terms: Tensor
    pools: Pools
    centre: Tensor


def scan(docs: ScanDocuments, queries: ScanQueries, rows: Sides, columns: Sides, plan: DenseBoth) -> None:
    """Fill the pools of N rows and of Q columns with all that may be among the k best of each. ``docs`` and ``queries``
    are as for `dense_topk.scan`, with the terms of cosine."""
    tile = plan.tile
    stride = max(docs.values.stride(0), plan.dims)  # of a single row it may be anything
    dims = min(-(-plan.dims // ALIGN) * ALIGN, stride)  # what is beyond meets zeros of the queries
    for first, last in pairwise(plan.ends):
        dense_both_kernel[(last - first,)](
            docs.values, queries.parts[0], queries.parts[-1], docs.terms, queries.terms, rows.terms, columns.terms,
            rows.pools.threshold, *rows.pools.arguments(), columns.pools.threshold, *columns.pools.arguments(),
            len(docs.values), len(columns.centre), dims, stride, queries.parts[0].stride(0), queries.terms.stride(0),
            first, plan.short, plan.laps, plan.lap_step, plan.diagonal_step, plan.group, int(plan.rows_long),
            len(queries.parts), tile.docs, tile.queries, tile.depth, tile.splits,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        tighten(rows.pools, plan.k[0], rows.centre)
        tighten(columns.pools, plan.k[1], columns.centre)


RUNTIME = [
    "row_capacity", "column_capacity", "n_rows", "n_columns", "first", "short", "laps", "lap_step", "diagonal_step",
    "group", "rows_long",
]  # fmt: skip


@triton.jit
def tile_at(number, short, laps, lap_step, diagonal_step, group, rows_long):
    """The row and the column of tiles that the number means, in the order of `dense_both_plan`. Some are beyond the
    last."""
    of_block = group * group
    diagonal = number // (laps * short * of_block)
    rest = number % (laps * short * of_block)
    if diagonal == 0:
        within = rest // (laps * short * group)
        at = rest // group % (laps * short)
    else:
        within = rest // group % group
        at = rest // of_block
    row = rest % group
    one = (at % short + diagonal * diagonal_step) % short
    other = at % short + short * (at // short * lap_step % laps)
    row_block = tl.where(rows_long != 0, other, one)
    column_block = tl.where(rows_long != 0, one, other)
    return row_block * group + row, column_block * group + (row + within) % group


@triton.jit(do_not_specialize=RUNTIME)
def dense_both_kernel(
    docs_ptr, queries_ptr, second_ptr, doc_terms_ptr, query_terms_ptr, row_terms_ptr, column_terms_ptr,
    row_threshold_ptr, row_items_ptr, row_upper_ptr, row_lower_ptr, row_counts_ptr, row_lost_ptr, row_capacity,
    column_threshold_ptr, column_items_ptr, column_upper_ptr, column_lower_ptr, column_counts_ptr, column_lost_ptr,
    column_capacity, n_rows, n_columns, dims, doc_stride, query_stride, terms_stride,
    first, short, laps, lap_step, diagonal_step, group, rows_long,
    PARTS: tl.constexpr, BN: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    row_tile, column_tile = tile_at(first + tl.program_id(0), short, laps, lap_step, diagonal_step, group, rows_long)
    if (row_tile * BN < n_rows) & (column_tile * BQ < n_columns):
        row = row_tile * BN + tl.arange(0, BN)
        column = column_tile * BQ + tl.arange(0, BQ)
        product = tile_products(
            docs_ptr, queries_ptr, second_ptr, query_terms_ptr, row, column, n_rows, dims, doc_stride, query_stride,
            terms_stride, PARTS, BK,
        )  # fmt: skip
        both_tile(
            product, column_tile * BQ, row, doc_terms_ptr, query_terms_ptr, row_terms_ptr, column_terms_ptr,
            row_threshold_ptr, row_items_ptr, row_upper_ptr, row_lower_ptr, row_counts_ptr, row_lost_ptr, row_capacity,
            column_threshold_ptr, column_items_ptr, column_upper_ptr, column_lower_ptr, column_counts_ptr,
            column_lost_ptr, column_capacity, n_rows, n_columns, terms_stride, SPLITS,
        )  # fmt: skip


@triton.jit
def both_tile(
    product, first_column, row, doc_terms_ptr, query_terms_ptr, row_terms_ptr, column_terms_ptr,
    row_threshold_ptr, row_items_ptr, row_upper_ptr, row_lower_ptr, row_counts_ptr, row_lost_ptr, row_capacity,
    column_threshold_ptr, column_items_ptr, column_upper_ptr, column_lower_ptr, column_counts_ptr, column_lost_ptr,
    column_capacity, n_rows, n_columns, terms_stride, SPLITS: tl.constexpr,
):  # fmt: skip
    """Append what may pass of a tile [BN, BQ], in 2^SPLITS parts one after another, for which registers suffice."""
    width: tl.constexpr = product.shape[1]
    if SPLITS > 0:
        left, right = halves(product)
        both_tile(
            left, first_column, row, doc_terms_ptr, query_terms_ptr, row_terms_ptr, column_terms_ptr,
            row_threshold_ptr, row_items_ptr, row_upper_ptr, row_lower_ptr, row_counts_ptr, row_lost_ptr, row_capacity,
            column_threshold_ptr, column_items_ptr, column_upper_ptr, column_lower_ptr, column_counts_ptr,
            column_lost_ptr, column_capacity, n_rows, n_columns, terms_stride, SPLITS - 1,
        )  # fmt: skip
        both_tile(
            right, first_column + width // 2, row, doc_terms_ptr, query_terms_ptr, row_terms_ptr, column_terms_ptr,
            row_threshold_ptr, row_items_ptr, row_upper_ptr, row_lower_ptr, row_counts_ptr, row_lost_ptr, row_capacity,
            column_threshold_ptr, column_items_ptr, column_upper_ptr, column_lower_ptr, column_counts_ptr,
            column_lost_ptr, column_capacity, n_rows, n_columns, terms_stride, SPLITS - 1,
        )  # fmt: skip
    else:
        column = first_column + tl.arange(0, width)
        at, some = tl.minimum(row, n_rows - 1), tl.minimum(column, n_columns - 1)
        terms = query_terms_ptr + column
        cosine = tl.load(doc_terms_ptr + at)[:, None] * product
        radius = tl.load(doc_terms_ptr + n_rows.to(tl.int64) + at)[:, None] * tl.load(terms + 2 * terms_stride)[None, :]
        radius += tl.load(terms + 3 * terms_stride)[None, :]
        upper, lower = cosine + radius, cosine - radius
        there = (row < n_rows)[:, None] & (column < n_columns)[None, :]
        offer(
            upper, lower, there, row, column, row_terms_ptr, at, n_rows, column_terms_ptr, some, n_columns,
            column_threshold_ptr, column_items_ptr, column_upper_ptr, column_lower_ptr, column_counts_ptr,
            column_lost_ptr, column_capacity,
        )  # fmt: skip
        offer(
            tl.trans(upper), tl.trans(lower), tl.trans(there), column, row, column_terms_ptr, some, n_columns,
            row_terms_ptr, at, n_rows, row_threshold_ptr, row_items_ptr, row_upper_ptr, row_lower_ptr, row_counts_ptr,
            row_lost_ptr, row_capacity,
        )  # fmt: skip


@triton.jit
def offer(
    upper, lower, there, item, owner, item_terms_ptr, at, n_items, owner_terms_ptr, some, n_owners, threshold_ptr,
    items_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity,
):  # fmt: skip
    """Append to the pools of the owners [B] what they may get of the items [A], by bounds on cosines [A, B]; terms are
    read ``at`` and at ``some``, which are within."""
    items, owners = item_terms_ptr + at, owner_terms_ptr + some
    last, beyond = n_items.to(tl.int64), n_owners.to(tl.int64)
    by = tl.load(items)[:, None] * tl.load(owners + beyond)[None, :]
    lift = tl.load(owners + 4 * beyond)[None, :]
    upper = by * upper + lift * tl.load(items + 2 * last)[:, None]
    lower = by * lower + lift * tl.load(items + 3 * last)[:, None]
    threshold = tl.load(threshold_ptr + owner, mask=owner < n_owners, other=float("inf"))[None, :]
    keep = there & ((upper >= threshold) | (upper != upper))  # what cannot be bounded must pass
    if any_of(keep):
        append(items_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, owner, item, upper, lower, keep)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    each = ("threshold_ptr", "upper_ptr", "lower_ptr")
    floats = ["doc_terms_ptr", "query_terms_ptr", *(f"{side}_{name}" for side in ("row", "column") for name in each)]
    floats += ["row_terms_ptr", "column_terms_ptr"]
    whole = [f"{side}_{name}_ptr" for side in ("row", "column") for name in ("items", "counts", "lost")]
    types = dict.fromkeys(floats, "*fp32") | dict.fromkeys(whole, "*i32")
    types |= dict.fromkeys((*RUNTIME, "dims", "doc_stride", "query_stride", "terms_stride"), "i32")
    tile = tile_for(chip)
    values = {
        "PARTS": tile.parts, "BN": tile.docs, "BQ": tile.queries, "BK": tile.depth, "SPLITS": tile.splits
    }  # fmt: skip
    signature = types | dict.fromkeys(("docs_ptr", "queries_ptr", "second_ptr"), "*i8")
    signature = signature | dict.fromkeys(values, "constexpr")
    return [Shipped("dense_both:dense_both_kernel", signature, values, tile.warps, tile.stages)]

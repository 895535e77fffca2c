"""Sparse rows on the GPU: bounds on the scores of all documents, and of each query those that may be among its k best.

`pyengine.kernels.sparse_plan` says how documents and queries are laid out. Numbers are scaled: a document's weight is
d = D d', |d'| < 2^15, and a query's is q = U q', |q'| < 2^15 (exactly: U is a power of two), which half precision makes
Q' = q' (1 + v), |v| <= h = 2^-11, or within 2^-25 where it is below 2^-14. With n terms in the query, s' the score in
these units, m' the sum of the magnitudes |q' d'|, and S and M the float32 sums that the kernel makes of them:

- a column's weight is rounded likewise, always as a normal number; so each product is off by at most g of itself, where
  1 + g = (1 + h)^2, and what is lost of small q' by at most 2^-25 max |d'|;
- float32 sums, in any order, with or without fused multiply-add, are off by gamma = 4 (n + 16) 2^-24 / (1 - ..) of the
  magnitudes; the factor 4 is for tensor cores, which align and truncate what they add (Higham, "Accuracy and Stability
  of Numerical Algorithms", 3.1). That covers the specification's n roundings in float64, too;
- a product that is too small for a normal float32 number loses 2^-109 at most, and that only where weights are deep
  (`QueryTables`).

So |S - s'| <= e M + a with e = E / (1 - E), E = (1 + g) (1 + gamma) - 1, and a as the first and third say, mostly 0.
Where all weights are small integers, every partial sum is one below 2^24, and e = a = 0. Where nothing is negative
M = S; else the magnitudes are summed beside.

The pools hold bounds in these units, S +- (e M + a), which float32 rounds by less than 2^-20 M, that e contains, too. A
bias b is added as B = b / (U D), of which 2^-20 |B| covers four roundings, and a has 2^-60 for numbers that are not
normal (4 where U D is above 2^90); |b| above the largest float32 number is NaN: nothing is known. A document without
shared terms has the bound 0 where a = 0 and there is no bias, so that a threshold of 2^-149 leaves out these alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.selection import Pools, tighten
from pyengine.kernels.sparse_plan import BLOCKS, CHUNK, TILE, UNROLL, WARPS, SparsePlan, illegal, levels, stages
from pyengine.kernels.triton_parts import allowed, ordered


class DocumentTiles(NamedTuple):
    """The documents of a scan. Tile t has the places ``offsets[t]:offsets[t + 1]`` of ``terms`` uint16 or int32 (the
    number of terms where there is none) and of ``weights`` float32 or float16 (None: all are 1), ``TILE`` documents
    interleaved; its rows are ``order[t TILE:(t + 1) TILE]`` int32, -1 beyond the last. ``columns`` float16
    [N padded, H], or None."""

    terms: Any
    weights: Any
    offsets: Any
    order: Any
    columns: Any


class QueryTables(NamedTuple):
    """Q queries in blocks of B. ``slots`` uint16 or int32 [blocks, terms + 1] says where the weights of a term are, in
    the block's part of ``table`` float16 [S, B], which begins at ``starts`` int64 [blocks]; 0 is nowhere. ``columns``
    float16 [blocks, H, B], or None. Float32 [Q]: ``widen`` and ``slack`` are e and a, and ``inverse`` 1 / (U D), for a
    bias; ``nothing`` [1] is 0, the bias where there is none. ``signed``: some products may be negative."""

    slots: Any
    table: Any
    starts: Any
    columns: Any
    widen: Any
    slack: Any
    inverse: Any
    nothing: Any
    signed: bool


@triton.jit
def posting_sums(
    terms, weights, slots, table, start, stop,
    TILE: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, WEIGHTED: tl.constexpr, SIGNED: tl.constexpr,
):  # fmt: skip
    """[TILE, BLOCK]: sums over the postings of a tile, at start .. stop - 1, and of their magnitudes."""
    lanes, columns = tl.arange(0, TILE), tl.arange(0, BLOCK)
    sums = tl.zeros((TILE, BLOCK), tl.float32)
    magnitudes = tl.zeros((TILE, BLOCK), tl.float32)
    for at in range(start, stop, TILE * UNROLL):
        for step in tl.static_range(UNROLL):
            places = at + step * TILE + lanes
            slot = tl.load(slots + tl.load(terms + places).to(tl.int32)).to(tl.int32)
            values = table + slot[:, None] * BLOCK + columns[None, :]
            products = tl.load(values, mask=slot[:, None] > 0, other=0.0).to(tl.float32)
            if WEIGHTED:
                products *= tl.load(weights + places).to(tl.float32)[:, None]
            sums += products
            if SIGNED:
                magnitudes += tl.abs(products)
    return sums, magnitudes


@triton.jit
def column_sums(
    columns, table, n_columns, width,
    TILE: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr, SIGNED: tl.constexpr,
):  # fmt: skip
    """[TILE, BLOCK]: sums over the first ``width`` of so many columns, and of their magnitudes."""
    lanes, numbers, asked = tl.arange(0, TILE), tl.arange(0, CHUNK), tl.arange(0, BLOCK)
    sums = tl.zeros((TILE, BLOCK), tl.float32)
    magnitudes = tl.zeros((TILE, BLOCK), tl.float32)
    for at in range(0, width, CHUNK):
        docs = tl.load(columns + lanes[:, None] * n_columns + (at + numbers)[None, :])
        queries = tl.load(table + (at + numbers)[:, None] * BLOCK + asked[None, :])
        sums = tl.dot(docs, queries, sums)
        if SIGNED:
            magnitudes = tl.dot(tl.abs(docs), tl.abs(queries), magnitudes)
    return sums, magnitudes


@triton.jit
def bounds(sums, magnitudes, widen, slack, bias):
    """float32 [TILE, BLOCK]: what scores are at most and at least; ``bias`` [TILE, BLOCK], the others [BLOCK]."""
    middle = sums + bias
    gap = magnitudes * widen[None, :] + slack[None, :] + 9.5367431640625e-07 * tl.abs(bias)  # 2^-20
    return middle + gap, middle - gap


@triton.jit
def append_few(rows_ptr, upper_ptr, lower_ptr, counts_ptr, lost_ptr, capacity, queries, rows, upper, lower, keep):
    """As `triton_parts.append`, with an atomic for each pair: where few are kept, and registers are what counts. All
    pools together have fewer than 2^31 places."""
    upper, lower = tl.where(upper == upper, upper, float("inf")), tl.where(lower == lower, lower, float("-inf"))
    nothing = tl.zeros_like(keep).to(tl.int32)
    place = tl.atomic_add(counts_ptr + queries[None, :] + nothing, 1, mask=keep, sem="relaxed")
    fits = keep & (place < capacity)
    at = queries[None, :] * capacity + place
    tl.store(rows_ptr + at, rows[:, None] + nothing, mask=fits)
    tl.store(upper_ptr + at, upper, mask=fits)
    tl.store(lower_ptr + at, lower, mask=fits)
    tl.atomic_max(lost_ptr + queries[None, :] + nothing, ordered(upper), mask=keep & ~fits, sem="relaxed")


SIZES = ("capacity", "n_chunks", "n_slots", "bias_stride", "mask_stride", "n_queries")
PLACES = ("stride", "skip", "count", "group", "n_blocks")


@triton.jit(do_not_specialize=SIZES + PLACES)
def sparse_topk_kernel(
    pool_rows, pool_upper, pool_lower, pool_counts, pool_lost, capacity, threshold,
    terms, weights, offsets, order, columns, n_chunks, slots, n_slots, table, starts, column_table,
    widen, slack, inverse, bias, bias_stride, mask, mask_stride, n_queries, stride, skip, count, group, n_blocks,
    TILE: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, CHUNK: tl.constexpr, WEIGHTED: tl.constexpr,
    COLUMNS: tl.constexpr, SIGNED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    # A group of tiles after another, which all blocks of queries go over.
    member, before = tl.program_id(0) % (group * n_blocks), tl.program_id(0) // (group * n_blocks) * group
    size = tl.minimum(group, count - before)
    part, block = before + member % size, (member // size).to(tl.int64)
    tile = (stride * (part + skip * (part // 3 + 1))).to(tl.int64)
    queries = (block * BLOCK).to(tl.int32) + tl.arange(0, BLOCK)
    asked = queries < n_queries
    rows = tl.load(order + tile * TILE + tl.arange(0, TILE))
    keep = (rows >= 0)[:, None] & asked[None, :]
    start, stop = tl.load(offsets + tile), tl.load(offsets + tile + 1)
    n_columns = n_chunks * CHUNK  # so that the compiler knows how rows of columns are aligned
    width = n_columns
    if MASKED:
        keep &= allowed(mask, mask_stride, queries, rows, keep)
        wanted = tl.max(tl.max(keep.to(tl.int32), axis=1), axis=0)
        stop, width = start + (stop - start) * wanted, n_columns * wanted
    sums, magnitudes = posting_sums(
        terms, weights, slots + block * n_slots, table + tl.load(starts + block) * BLOCK, start, stop,
        TILE, BLOCK, UNROLL, WEIGHTED, SIGNED,
    )  # fmt: skip
    if COLUMNS:
        more, larger = column_sums(
            columns + tile * TILE * n_columns, column_table + block * n_columns * BLOCK, n_columns, width,
            TILE, BLOCK, CHUNK, SIGNED,
        )  # fmt: skip
        sums += more
        magnitudes += larger
    added = tl.load(bias + rows * bias_stride, mask=rows >= 0, other=0.0)
    upper, lower = bounds(
        sums, magnitudes if SIGNED else sums,
        tl.load(widen + queries, mask=asked, other=0.0), tl.load(slack + queries, mask=asked, other=0.0),
        added[:, None] * tl.load(inverse + queries, mask=asked, other=0.0)[None, :],
    )  # fmt: skip
    keep &= ~(upper < tl.load(threshold + queries, mask=asked, other=0.0)[None, :])  # nor where it is NaN
    if tl.max(tl.max(keep.to(tl.int32), axis=1), axis=0) > 0:
        append_few(
            pool_rows, pool_upper, pool_lower, pool_counts, pool_lost, capacity, queries, rows, upper, lower, keep
        )


def scan(found: Pools, docs: DocumentTiles, asked: QueryTables, k: int, plan: SparsePlan, bias: Any, mask: Any) -> None:
    """Fill the pools with all documents that may be among the k best of each query, and more. ``bias`` float32 [N] or
    None; ``mask`` a bitmap uint8 [1 or Q, ceil(N / 8)] or None."""
    n_queries, n_blocks = len(asked.widen), len(asked.starts)
    if not n_queries:
        return
    for stride, skip, count in levels(len(docs.offsets) - 1, found.capacity):
        sparse_topk_kernel[(count * n_blocks,)](
            *found.arguments(), found.threshold,
            docs.terms, docs.terms if docs.weights is None else docs.weights, docs.offsets, docs.order,
            docs.terms if docs.columns is None else docs.columns,
            0 if docs.columns is None else docs.columns.shape[1] // CHUNK,
            asked.slots, asked.slots.shape[1], asked.table, asked.starts,
            asked.table if asked.columns is None else asked.columns, asked.widen, asked.slack, asked.inverse,
            asked.nothing if bias is None else bias, int(bias is not None),
            asked.slots if mask is None else mask, 0 if mask is None or len(mask) == 1 else mask.shape[1],
            n_queries, stride, skip, count, min(plan.group, count), n_blocks,
            **constants(plan.block, docs.weights is not None, docs.columns is not None, asked.signed, mask is not None),
            num_warps=plan.num_warps, num_stages=stages(docs.columns is not None, asked.signed),
        )  # fmt: skip
        tighten(found, k)


def constants(block: int, weighted: bool, columns: bool, signed: bool, masked: bool) -> dict[str, int | bool]:
    """The constants of a compiled form."""
    tile = {"TILE": TILE, "BLOCK": block, "UNROLL": UNROLL, "CHUNK": CHUNK}
    return tile | {"WEIGHTED": weighted, "COLUMNS": columns, "SIGNED": signed, "MASKED": masked}


def shipped(chip: Chip) -> list[Shipped]:
    """A form for each kind of documents and queries, masked or not."""
    both = (False, True)
    kinds = [(terms, weights) for terms in ("*u16", "*i32") for weights in ("*fp32", "*fp16", "")]
    return [
        _form(*kind, block, columns, signed, masked)
        for kind in kinds for block in BLOCKS for columns in both for signed in both for masked in both
        if not illegal(block, columns, signed, chip)
    ]  # fmt: skip


def _form(terms: str, weights: str, block: int, columns: bool, signed: bool, masked: bool) -> Shipped:
    pools = {"pool_rows": "*i32", "pool_upper": "*fp32", "pool_lower": "*fp32", "pool_counts": "*i32"}
    pools |= {"pool_lost": "*i32", "threshold": "*fp32", "order": "*i32", "offsets": "*i64", "starts": "*i64"}
    halves = {"columns": "*fp16", "table": "*fp16", "column_table": "*fp16"}
    floats = dict.fromkeys(("widen", "slack", "inverse", "bias"), "*fp32")
    lists = {"terms": terms, "weights": weights or terms, "slots": terms, "mask": "*u8"}
    values = constants(block, bool(weights), columns, signed, masked)
    if not columns:
        halves["columns"] = terms
    if not masked:
        lists["mask"] = terms
    types = {**pools, **halves, **floats, **lists, **dict.fromkeys(SIZES + PLACES, "i32")}
    types |= dict.fromkeys(values, "constexpr")
    return Shipped("sparse_topk:sparse_topk_kernel", types, values, WARPS[block], stages(columns, signed))

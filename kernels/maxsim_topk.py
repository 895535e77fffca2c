"""MaxSim of coded tokens in Triton: bounds on the scores of every query with every document of a list.

A token x is coded as x' = factor c, with c int8 or float16, and |x - x'| <= e is known. One program takes a document
and a group of queries: the panels of BLOCK_M query tokens that they fill. It streams the document's tokens in tiles of
BLOCK_N, keeps max_j w_j <c_i, c_j> of each query token in registers (w_j >= 0 undoes the coding of token j, and a query
token's own factor f_i >= 0 cannot change where its maximum is), and adds up a_i f_i max_j w_j <c_i, c_j> by query. With
A = max_j (|d_j| + r_j) and B = max_j r_j of the document, r_j = |d_j - d'_j|,

    |<q_i, d_j> - <q'_i, d'_j>|  <=  e_i (|d_j| + r_j) + |q_i| r_j  <=  e_i A + |q_i| B,

so a maximum is off by that at most, and sum_i a_i M_i by  A sum_i |a_i| e_i + B sum_i |a_i| |q_i|. The sums made here
are float32: what they round, `rounding` of (|q_i| + e_i) A, is part of the e_i that the caller gives. So is the float64
rounding of the specification, which is smaller. For "symmetric" sum_j b_j C_j, C_j = max_i f_i w_j <c_i, c_j>, comes in
a second pass over the tiles, with the same bound the other way round.

Everything in float32 is relative to one `unit` for each query and corpus, so that nothing overflows; the bounds are
made of it in float64, and rounded outwards.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels import maxsim_plan as plan
from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.maxsim_codes import PackedTokens, code_products, codes
from pyengine.kernels.maxsim_plan import SLOTS, Tile, tiles
from pyengine.kernels.selection import Pools
from pyengine.kernels.triton_parts import append

UNIT = 2.0**-24
STEP = tl.constexpr(plan.STEP)


def rounding(dims: int, tokens: int, form: str) -> float:
    """How far a float32 sum of ``tokens`` maxima of coded products may be off, in units of sum_i |a_i| |q'_i| |d'|.

    Products of int8 are exact, but for one rounding of their sum; sums of D float16 products on tensor cores, which
    align and truncate, lose 4 D u. Each of at most n maxima is multiplied twice, and n sums lose n u; twice that covers
    terms of second order, and the factors' own rounding to float32."""
    dot = 1 if form == "int8" else 4 * (dims + 12)
    return 2 * (dot + tokens + 8) * UNIT


@triton.jit
def _forth(
    queries, coefficients, slots, source, weights, start, stop, first_panel, last_panel, dims, SLOTS: tl.constexpr,
    BITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """float32 [SLOTS]: of each query of the panels, sum_i a_i f_i max_j w_j <c_i, c_j> over tokens start .. stop."""
    total = tl.zeros([SLOTS], tl.float32)
    for number in range(first_panel, last_panel):
        rows = (number * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
        panel = codes(queries, rows, rows >= 0, 0, dims, BLOCK_K)
        best = tl.full([BLOCK_M], float("-inf"), tl.float32)
        for first in range(start, stop, BLOCK_N):
            places = first + tl.arange(0, BLOCK_N)
            real = places < stop
            product = code_products(panel, queries, rows, source, places, real, dims, BITS, BLOCK_K, WHOLE)
            product *= tl.load(weights + places, mask=real, other=0.0)[None, :]
            best = tl.maximum(best, tl.max(tl.where(real[None, :], product, float("-inf")), axis=1))
        term = tl.load(coefficients + rows) * tl.where(stop > start, best, 0.0)
        own = tl.load(slots + rows)[:, None] == tl.arange(0, SLOTS)[None, :]  # what fills up a panel has no slot
        total += tl.sum(tl.where(own, term[:, None], 0.0), axis=0)
    return total


@triton.jit
def _back(
    queries, factors, slots, source, shares, start, stop, first_panel, last_panel, dims, SLOTS: tl.constexpr,
    BITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """float32 scalar: sum_j b_j w_j max_i f_i <c_i, c_j> of the one query of the panels."""
    total = 0.0
    for first in range(start, stop, BLOCK_N):
        places = first + tl.arange(0, BLOCK_N)
        real = places < stop
        best = tl.full([BLOCK_N], float("-inf"), tl.float32)
        for number in range(first_panel, last_panel):
            rows = (number * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
            panel = codes(queries, rows, rows >= 0, 0, dims, BLOCK_K)
            product = code_products(panel, queries, rows, source, places, real, dims, BITS, BLOCK_K, WHOLE)
            product *= tl.load(factors + rows)[:, None]
            filled = tl.load(slots + rows) < SLOTS
            best = tl.maximum(best, tl.max(tl.where(filled[:, None], product, float("-inf")), axis=0))
        share = tl.load(shares + places, mask=real, other=0.0)
        total += tl.sum(share * tl.where(best > float("-inf"), best, 0.0))
    return total


@triton.jit
def outwards(value, AWAY: tl.constexpr):
    """The float64 values as float32 that are no smaller (AWAY = 1), or no larger (-1)."""
    return (value + AWAY * (tl.abs(value) * 2.0**-23 + 2.0**-149)).to(tl.float32)


@triton.jit(
    do_not_specialize=[
        *("capacity", "scale", "most", "apart"),
        *("mask_query", "mask_byte", "groups", "first", "steps"),
    ]
)
def maxsim_scan_kernel(
    pool_rows, pool_upper, pool_lower, pool_counts, pool_lost, capacity, threshold,  # `selection.Pools`
    queries,  # int8 or float16 [panels * BLOCK_M, dims]
    coefficients, factors,  # float32 [panels * BLOCK_M]: a_i f_i and f_i, in units of the query
    slots,  # int32 [panels * BLOCK_M]: which query of its group a token is of; SLOTS for none
    panels, group_queries,  # int32 [groups + 1]: where the panels and the queries of each group begin
    lengths,  # int32 [Q]
    query_terms,  # float64 [Q, 7]: units of the two sums, sum |a| e, sum |a| |q|, max e, max |q|, what underflows
    docs,  # int8 or float16 [T, dims], or int32 [T, dims BITS / 32]: `PackedTokens` and what follows
    doc_steps, centroid, centroids, scale, most, apart,
    weights, shares,  # float32 [T]: w_j and b_j w_j, in units of the corpus
    offsets,  # int64 [N + 1]
    rows,  # int64 [n]: the documents to be scored
    doc_terms,  # float64 [N, 4]: A, B, sum_j |b_j| (|d_j| + r_j), sum_j |b_j| r_j
    biases,  # float64 [N]
    mask, mask_query, mask_byte,  # uint8 bitmap, with its strides by query and by eight documents
    groups, first,
    steps,  # dims / 16: so the compiler knows that rows are aligned
    SLOTS: tl.constexpr, BITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    WHOLE: tl.constexpr, SYMMETRIC: tl.constexpr,
):  # fmt: skip
    """Append one of the documents from ``rows[first]`` on to the pools of a group of queries, where it may matter."""
    dims = steps * STEP
    group = tl.program_id(0) % groups
    row = tl.load(rows + first + tl.program_id(0) // groups)
    start, stop = tl.load(offsets + row), tl.load(offsets + row + 1)
    first_panel, last_panel = tl.load(panels + group), tl.load(panels + group + 1)
    source = (docs, doc_steps, centroid, centroids, scale, most, apart)
    forth = _forth(
        queries, coefficients, slots, source, weights, start, stop, first_panel, last_panel, dims,
        SLOTS, BITS, BLOCK_M, BLOCK_N, BLOCK_K, WHOLE,
    )  # fmt: skip
    query = tl.load(group_queries + group) + tl.arange(0, SLOTS)
    own = query < tl.load(group_queries + group + 1)
    terms = query_terms + 7 * query
    score = forth.to(tl.float64) * tl.load(terms, mask=own, other=0.0)
    theirs = doc_terms + 4 * row
    error = tl.load(terms + 2, mask=own, other=0.0) * tl.load(theirs)
    error += tl.load(terms + 3, mask=own, other=0.0) * tl.load(theirs + 1) + tl.load(terms + 6, mask=own, other=0.0)
    if SYMMETRIC:
        back = _back(
            queries, factors, slots, source, shares, start, stop, first_panel, last_panel, dims,
            SLOTS, BITS, BLOCK_M, BLOCK_N, BLOCK_K, WHOLE,
        )  # fmt: skip
        score += back.to(tl.float64) * tl.load(terms + 1, mask=own, other=0.0)
        error += tl.load(terms + 4, mask=own, other=0.0) * tl.load(theirs + 2)
        error += tl.load(terms + 5, mask=own, other=0.0) * tl.load(theirs + 3)
    length = tl.load(lengths + query, mask=own, other=0)
    score = tl.where(length > 0, score, 0.0)
    error = tl.where(length > 0, error, 0.0)
    bias = tl.load(biases + row)
    error += error * 2.0**-40 + (tl.abs(bias) + tl.abs(score)) * 2.0**-48
    bits = tl.load(mask + query.to(tl.int64) * mask_query + (row >> 3) * mask_byte, mask=own, other=0)
    may = ((bits >> (row & 7).to(tl.uint8)) & 1) != 0
    may = may & (tl.where(length > 0, stop - start, 1) > 0)
    upper = outwards(score + bias + error, 1)
    lower = tl.minimum(outwards(score + bias - error, -1), 3.4028234663852886e38)  # as scores are clamped
    keep = own & may & (upper >= tl.load(threshold + query, mask=own, other=float("inf")))
    number = tl.full([1], 0, tl.int32) + row.to(tl.int32)
    append(
        pool_rows, pool_upper, pool_lower, pool_counts, pool_lost, capacity, query, number, upper[None, :],
        lower[None, :], keep[None, :],
    )  # fmt: skip


class QueryPanels(NamedTuple):
    """Queries as the scan takes them: see the parameters of `maxsim_scan_kernel`."""

    codes: Tensor
    coefficients: Tensor
    factors: Tensor
    slots: Tensor
    panels: Tensor
    group_queries: Tensor
    lengths: Tensor
    terms: Tensor


class CodedTokens(NamedTuple):
    """Documents as the scan takes them; ``everything`` uint8 [1, 1] is a mask of 255."""

    codes: Tensor | PackedTokens
    weights: Tensor
    shares: Tensor
    offsets: Tensor
    terms: Tensor
    biases: Tensor
    everything: Tensor


def scan(
    found: Pools,
    queries: QueryPanels,
    docs: CodedTokens,
    rows: Tensor,
    mask: Tensor | None,
    first: int,
    count: int,
    tile: Tile,
    symmetric: bool,
) -> None:
    """Append to the pools what of the documents rows[first : first + count] may reach their thresholds: documents with
    tokens (for queries with tokens) that ``mask``, uint8 [1 or Q, ceil(N / 8)], allows."""
    groups = len(queries.panels) - 1
    if not groups or not count:
        return
    allowed = docs.everything if mask is None else mask
    theirs = docs.codes
    source, bits = (theirs, None, None, None, 1.0, 0, 0), 0
    if isinstance(theirs, PackedTokens):
        source, bits = theirs.arguments(), theirs.bits
    maxsim_scan_kernel[(groups * count,)](
        *found.arguments(), found.threshold, *queries, *source, docs.weights, docs.shares, docs.offsets, rows,
        docs.terms, docs.biases, allowed, 0 if len(allowed) == 1 else allowed.stride(0), 0 if mask is None else 1,
        groups, first, theirs.shape[1] // plan.STEP, **constants(tile, symmetric, bits), num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )  # fmt: skip


def constants(tile: Tile, symmetric: bool, bits: int) -> dict[str, Any]:
    return {
        "SLOTS": SLOTS,
        "BITS": bits,
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "WHOLE": tile.whole,
        "SYMMETRIC": symmetric,
    }


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form of the scan that a plan may ask for."""
    return [
        _form(form, tile, symmetric)
        for form in plan.ELEMENT
        for symmetric in (False, True)
        for tile in tiles(form, chip, symmetric)
    ]


def _form(form: str, tile: Tile, symmetric: bool) -> Shipped:
    bits = plan.BITS.get(form, 0)
    source = {"docs": "*i32", "doc_steps": "*fp32", "centroid": "*u16", "centroids": "*fp16"}
    missing = {} if bits else {"doc_steps": None, "centroid": None, "centroids": None}
    queries = "*i8" if form == "int8" else "*fp16"
    types = {**source, **dict.fromkeys(missing, "constexpr"), "queries": queries}
    types |= {} if bits else {"docs": queries}
    name, values = "maxsim_topk:maxsim_scan_kernel", constants(tile, symmetric, bits) | missing
    return Shipped(name, {**SIGNATURE, **types}, values, tile.num_warps, tile.num_stages)


SIGNATURE = {
    "pool_rows": "*i32",
    **dict.fromkeys(("pool_upper", "pool_lower"), "*fp32"),
    **dict.fromkeys(("pool_counts", "pool_lost"), "*i32"),
    "capacity": "i32",
    "threshold": "*fp32",
    "queries": "*i8",
    **dict.fromkeys(("coefficients", "factors"), "*fp32"),
    **dict.fromkeys(("slots", "panels", "group_queries", "lengths"), "*i32"),
    "query_terms": "*fp64",
    **dict.fromkeys(("docs", "doc_steps", "centroid", "centroids"), ""),
    "scale": "fp32",
    **dict.fromkeys(("most", "apart"), "i32"),
    **dict.fromkeys(("weights", "shares"), "*fp32"),
    **dict.fromkeys(("offsets", "rows"), "*i64"),
    **dict.fromkeys(("doc_terms", "biases"), "*fp64"),
    "mask": "*u8",
    **dict.fromkeys(("mask_query", "mask_byte", "groups", "first", "steps"), "i32"),
    **dict.fromkeys(("SLOTS", "BITS", "BLOCK_M", "BLOCK_N", "BLOCK_K", "WHOLE", "SYMMETRIC"), "constexpr"),
}

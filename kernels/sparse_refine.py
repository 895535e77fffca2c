"""The specification's scores of listed documents, for sparse rows, to the bit (`reference_sparse`).

A program takes one query and ``LANES`` of its documents, a lane each. The query's terms go by in ascending order; each
lane finds the term among those of its document, by bisection from where it found the last, and adds the product of the
weights to its running sum. A product of two float32 weights is exact in float64, so that a fused multiply-add rounds as
a product and a sum do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from pyengine.kernels.chips import Chip, Shipped

LANES = 128
WARPS = 4


class DeviceRows(NamedTuple):
    """Sparse rows on a device: ``offsets`` int64 [N+1], ``terms`` uint16 or int32 [P] rising in each row, ``values``
    [P] float32, float16, or uint8 codes of ``step`` * code + ``low``, float32 [N], each operation rounded.
    ``longest``: the most terms of a row."""

    offsets: Any
    terms: Any
    values: Any
    low: Any
    step: Any
    longest: int


@triton.jit
def round_score(score):
    """float32: rounded once, finite values outside its range clamped, and zero +0.0."""
    largest: tl.constexpr = 3.4028234663852886e38
    clamped = tl.minimum(tl.maximum(score, -largest), largest).to(tl.float32)
    return tl.where(clamped == 0.0, 0.0, clamped)


@triton.jit(do_not_specialize=["depth", "blocks"])
def sparse_refine_kernel(
    rows, starts, counts, scores,
    query_offsets, query_terms, query_values, offsets, terms, values, low, step, bias, depth, blocks,
    LANES: tl.constexpr, CODED: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """scores[starts[q] + i] of query q and document rows[starts[q] + i], for i < counts[q]."""
    query = tl.program_id(0) // blocks
    before, count = tl.program_id(0) % blocks * LANES, tl.load(counts + query)
    number = before + tl.arange(0, LANES)
    valid = number < count
    places = tl.load(starts + query) + number
    row = tl.load(rows + places, mask=valid, other=0).to(tl.int64)
    start = tl.load(offsets + row, mask=valid, other=0)
    length = (tl.load(offsets + row + 1, mask=valid, other=0) - start).to(tl.int32)
    if CODED:
        least, unit = tl.load(low + row, mask=valid, other=0.0), tl.load(step + row, mask=valid, other=0.0)
    at = tl.zeros((LANES,), tl.int32)
    total = tl.zeros((LANES,), tl.float64)
    first, last = tl.load(query_offsets + query), tl.load(query_offsets + query + 1)
    for asked in range(first, tl.where(before < count, last, first)):
        term = tl.load(query_terms + asked)
        end = length
        for _ in range(depth):
            middle = (at + end) // 2
            open = at < end
            below = tl.load(terms + start + middle, mask=open, other=0).to(tl.int32) < term
            at = tl.where(open & below, middle + 1, at)
            end = tl.where(open & ~below, middle, end)
        inside = at < length
        shared = inside & (tl.load(terms + start + at, mask=inside, other=0).to(tl.int32) == term)
        weight = tl.load(values + start + at, mask=shared, other=0).to(tl.float32)
        if CODED:
            weight = unit * weight + least
        product = tl.load(query_values + asked).to(tl.float64) * weight.to(tl.float64)
        total = tl.where(shared, total + product, total)
    if BIASED:
        total += tl.load(bias + row, mask=valid, other=0.0)
    tl.store(scores + places, round_score(total), mask=valid)


def sparse_refine(
    rows: Any, starts: Any, counts: Any, longest: int, scores: Any, queries: DeviceRows, docs: DeviceRows, bias: Any
) -> None:
    """Write the scores, float32 [M], of documents ``rows`` [M], of which query q has ``counts[q]`` (at most
    ``longest``) from ``starts[q]`` int64 on. ``queries`` are not coded; ``bias`` is float64 [N] or None."""
    n_queries = len(queries.offsets) - 1
    if not n_queries or not longest or not len(docs.offsets) - 1:
        return
    coded, blocks = docs.low is not None, triton.cdiv(longest, LANES)
    sparse_refine_kernel[(n_queries * blocks,)](
        rows, starts, counts, scores,
        queries.offsets, queries.terms, queries.values, docs.offsets, docs.terms, docs.values,
        docs.low if coded else docs.values, docs.step if coded else docs.values,
        scores if bias is None else bias, docs.longest.bit_length(), blocks,
        LANES=LANES, CODED=coded, BIASED=bias is not None, num_warps=WARPS, enable_fp_fusion=False,
    )  # fmt: skip


def shipped(chip: Chip) -> list[Shipped]:
    """A form for each dtype of the documents' terms and weights."""
    fixed = dict.fromkeys(("starts", "query_offsets", "offsets"), "*i64") | {"counts": "*i32"}
    fixed |= {"query_terms": "*i32", "query_values": "*fp32", "scores": "*fp32", "rows": "*i32", "bias": "*fp64"}
    fixed |= {"depth": "i32", "blocks": "i32", "LANES": "constexpr", "CODED": "constexpr", "BIASED": "constexpr"}
    return [
        Shipped(
            "sparse_refine:sparse_refine_kernel",
            fixed | {"terms": terms, "values": values, "low": "*fp32", "step": "*fp32"},
            {"LANES": LANES, "CODED": values == "*u8", "BIASED": biased},
            WARPS,
            1,
            fp_fusion=False,
        )
        for terms in ("*u16", "*i32")
        for values in ("*fp32", "*fp16", "*u8")
        for biased in (False, True)
    ]

"""MaxSim by the specification in Triton: float64 products in eight lanes, their maxima, and sums in token order.

One program takes a pair of sets and a few tokens of the choosing one, and streams the tokens of the other: for queries
that choose among a document's tokens, and with the sides exchanged for "symmetric", whose products are the same
numbers. A second kernel sums up the maxima of a pair in their order. Every product and sum is rounded on its own:
launches have ``enable_fp_fusion=False``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.token_values import (
    PACKED,
    TYPES,
    TokenSets,
    absent,
    exact_products,
    lane_total,
    source_types,
    token_values,
)

CHOOSERS, CHOSEN = 4, 32  # tokens of a tile: 1,024 lanes of float64
PAIRS = 128  # of one program of sums
MAXIMA_BYTES = 16 << 20  # of maxima held between the kernels
REDUCTIONS = ("sum", "mean", "symmetric")
Find = Callable[[TokenSets, TokenSets, Tensor, Tensor, bool, "Tensor | None"], Tensor]


@triton.jit
def span(offsets, number, there):
    """Where sets begin and end; nothing of set -1, or of those that are not ``there``."""
    real = there & (number >= 0)
    return tl.load(offsets + number, mask=real, other=0), tl.load(offsets + number + 1, mask=real, other=0)


@triton.jit(
    do_not_specialize=[
        *("a_bits", "a_most", "a_apart", "a_stride", "b_bits", "b_most", "b_apart", "b_stride"),
        *("dims", "pairs", "blocks", "width"),
    ]
)
def maxsim_maxima_kernel(
    maxima,  # float64 [width, pairs]
    a, a_step, a_centroid, a_centroids, a_bits, a_most, a_apart, a_stride,  # the choosing sets, as `TokenSets.source`
    a_offsets, a_norms, a_of,  # and int64 [pairs] which of them, -1 for none
    b, b_step, b_centroid, b_centroids, b_bits, b_most, b_apart, b_stride, b_offsets, b_norms, b_of,  # the chosen ones
    dims, pairs, blocks, width,
    NORMALIZE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The largest product of each of BLOCK_M tokens of a set with the tokens of another."""
    choosers = (a, a_step, a_centroid, a_centroids, a_bits, a_most, a_apart, a_stride)
    chosen = (b, b_step, b_centroid, b_centroids, b_bits, b_most, b_apart, b_stride)
    pair = tl.program_id(0) // blocks
    token = tl.program_id(0) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    first, last = span(a_offsets, tl.load(a_of + pair), True)
    begin, end = span(b_offsets, tl.load(b_of + pair), True)
    i = first + token
    asked = i < last
    best = tl.full([BLOCK_M], float("-inf"), tl.float64)
    for at in range(begin, end, BLOCK_N):
        j = at + tl.arange(0, BLOCK_N)
        real = j < end
        product = exact_products(choosers, i, asked, chosen, j, real, dims)
        if NORMALIZE:
            norm = tl.load(a_norms + i, mask=asked, other=0.0)[:, None]
            norm = norm * tl.load(b_norms + j, mask=real, other=0.0)[None, :]
            product = tl.where(norm > 0, product / tl.where(norm > 0, norm, 1.0), 0.0)
        best = tl.maximum(best, tl.max(tl.where(real[None, :], product, float("-inf")), axis=1))
    tl.store(maxima + token.to(tl.int64) * pairs + pair, best, mask=token < width)


@triton.jit
def _ordered_sum(maxima, weights, offsets, mask, of, pair, own, pairs, width, WEIGHTED, MASKED):
    """float64 [n]: of each pair the sum of the maxima of a set's tokens, in their order."""
    begin, end = span(offsets, tl.load(of + pair, mask=own, other=-1), own)
    total = tl.zeros(pair.shape, tl.float64)
    for token in range(0, width):
        real = begin + token < end
        if MASKED:
            real = real & (tl.load(mask + begin + token, mask=real, other=0) != 0)
        value = tl.load(maxima + tl.cast(token, tl.int64) * pairs + pair, mask=real, other=0.0)
        if WEIGHTED:
            value = tl.load(weights + begin + token, mask=real, other=0.0).to(tl.float64) * value
        total += value
    return total


@triton.jit(do_not_specialize=["pairs", "query_width", "doc_width"])
def maxsim_sum_kernel(
    scores,  # float32 [pairs]
    forth, back,  # float64 [query_width, pairs] and [doc_width, pairs]
    query_weights, query_offsets, query_mask, query_counts, query_of,  # counts: int32, tokens of each set
    doc_weights, doc_offsets, doc_mask, doc_counts, doc_of,
    biases,  # float64 [N]
    pairs, query_width, doc_width,
    MEAN: tl.constexpr, SYMMETRIC: tl.constexpr, WEIGHTED: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The scores of BLOCK pairs from their maxima. MEAN divides sums by numbers of tokens."""
    pair = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    own = pair < pairs
    query, doc = (tl.load(query_of + pair, mask=own, other=-1), tl.load(doc_of + pair, mask=own, other=-1))
    asked = tl.load(query_counts + query, mask=query >= 0, other=0)
    offered = tl.load(doc_counts + doc, mask=doc >= 0, other=0)
    total = _ordered_sum(
        forth, query_weights, query_offsets, query_mask, query_of, pair, own, pairs, query_width, WEIGHTED, MASKED
    )
    if MEAN:
        total = total / tl.maximum(asked, 1).to(tl.float64)
    if SYMMETRIC:
        other = _ordered_sum(
            back, doc_weights, doc_offsets, doc_mask, doc_of, pair, own, pairs, doc_width, WEIGHTED, MASKED
        )
        if MEAN:
            other = other / tl.maximum(offered, 1).to(tl.float64)
        total = (total + other) / 2
    total = tl.where(asked == 0, 0.0, tl.where(offered == 0, float("-inf"), total))
    if BIASED:
        total += tl.load(biases + doc, mask=doc >= 0, other=0.0)
    largest = 3.4028234663852886e38
    score = tl.minimum(tl.maximum(total, -largest), largest).to(tl.float32)
    score = tl.where(score == 0, 0.0, score)  # -0.0 is 0.0
    tl.store(scores + pair, tl.where(total == float("-inf"), float("-inf"), score), mask=own)


@triton.jit(do_not_specialize=["rows_bits", "rows_most", "rows_apart", "rows_stride", "dims", "count"])
def token_norms_kernel(
    norms,  # float64 [count]
    rows, rows_step, rows_centroid, rows_centroids, rows_bits, rows_most, rows_apart, rows_stride,
    dims, count,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The norms of tokens."""
    source = (rows, rows_step, rows_centroid, rows_centroids, rows_bits, rows_most, rows_apart, rows_stride)
    place = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    real = place < count
    lanes = tl.zeros([1, BLOCK, 8], tl.float64)
    for first in range(0, dims, 8):
        value = token_values(source, place[None, :, None], real[None, :, None], dims, first)
        lanes += value * value
    tl.store(norms + place, tl.sqrt(tl.reshape(lane_total(lanes), [BLOCK])), mask=real)


class Scoring(NamedTuple):
    """How maxima become a score: ``reduce`` is one of `REDUCTIONS`; weights float32, one for each token; ``biases``
    float64, one for each document."""

    reduce: str = "sum"
    normalize: bool = False
    query_weights: Tensor | None = None
    doc_weights: Tensor | None = None
    biases: Tensor | None = None


class Maxima(NamedTuple):
    """What `scores` finds: float32 [P], and where they were asked for, winners [P, Lq] and, for "symmetric", doc
    winners [P, Ld]."""

    scores: Tensor
    winners: Tensor
    doc_winners: Tensor


def norms(sets: TokenSets, found: Tensor | None = None) -> Tensor:
    """float64 [T]: the norms of tokens, by the specification; written to ``found``, where that is given."""
    if found is None:
        found = torch.empty(len(sets.rows), dtype=torch.float64, device=sets.rows.device)
    if len(found):
        token_norms_kernel[(triton.cdiv(len(found), CHOSEN),)](
            found, *sets.source(), sets.dims, len(found), BLOCK=CHOSEN, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return found


def maxima(
    choosers: TokenSets, chosen: TokenSets, chooser_of: Tensor, chosen_of: Tensor, normalize: bool,
    winners: Tensor | None = None, found: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """float64 [L, P]: the maximum of each token of the choosers of each pair, written to ``found``, where that is
    given. No ``winners`` (`maxsim_winners`)."""
    pairs, width = len(chooser_of), choosers.longest
    if found is None:
        found = torch.empty((width, pairs), dtype=torch.float64, device=chooser_of.device)
    blocks = triton.cdiv(width, CHOOSERS)
    if pairs * blocks:
        maxsim_maxima_kernel[(pairs * blocks,)](
            found, *_fields(choosers), chooser_of, *_fields(chosen), chosen_of, choosers.dims, pairs, blocks, width,
            **_constants(normalize), num_warps=4, num_stages=2, enable_fp_fusion=False,
        )  # fmt: skip
    return found


def scores(
    queries: TokenSets, docs: TokenSets, query_of: Tensor, doc_of: Tensor, how: Scoring, find: Find = maxima,
    winners: tuple[torch.dtype, torch.dtype] | None = None,
) -> Maxima:  # fmt: skip
    """The specification's scores of pairs, by their numbers int64 [P] of a query and of a document, or -1: no pair,
    whose score means nothing. ``find`` finds maxima and ``winners`` of these types."""
    count, device, symmetric = len(query_of), query_of.device, how.reduce == "symmetric"
    types = winners or (torch.int32, torch.int32)
    shapes = [(count, queries.longest if winners else 0), (count, docs.longest if winners and symmetric else 0)]
    found = Maxima(
        torch.empty(count, dtype=torch.float32, device=device),
        *(torch.empty(shape, dtype=dtype, device=device) for shape, dtype in zip(shapes, types)),
    )
    write_scores(found, queries, docs, query_of, doc_of, how, (_counts(queries), _counts(docs)), find)
    return found


def write_scores(
    found: Maxima, queries: TokenSets, docs: TokenSets, query_of: Tensor, doc_of: Tensor, how: Scoring,
    counts: tuple[Tensor, Tensor], find: Find,
) -> None:  # fmt: skip
    """`scores`, written to ``found``; winners where it has room for them. ``counts`` int32 are the numbers of tokens of
    queries and of documents."""
    symmetric = how.reduce == "symmetric"
    widest = max(1, queries.longest + symmetric * docs.longest)
    step = max(16, MAXIMA_BYTES // (8 * widest) // 16 * 16)  # or parts are not aligned alike, and compiled again
    for start in range(0, len(query_of), step):
        part = slice(start, start + step)
        pairs = query_of[part], doc_of[part]
        forth = find(queries, docs, *pairs, how.normalize, found.winners[part] if found.winners.shape[1] else None)
        back = forth
        if symmetric:
            own = found.doc_winners[part] if found.doc_winners.shape[1] else None
            back = find(docs, queries, *pairs[::-1], how.normalize, own)
        _sum(found.scores[part], forth, back, (queries, docs), counts, pairs, how)


def _constants(normalize: bool) -> dict[str, int]:
    return {"NORMALIZE": normalize, "BLOCK_M": CHOOSERS, "BLOCK_N": CHOSEN}


def _fields(sets: TokenSets) -> tuple[Any, ...]:
    """As the kernel takes them: what is not there is not read."""
    return *sets.source(), sets.offsets, sets.norms


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    return stand_in if tensor is None else tensor


def _counts(sets: TokenSets) -> Tensor:
    if sets.mask is None:
        return sets.offsets.diff().int()
    ends = torch.nn.functional.pad(sets.mask.cumsum(0, dtype=torch.int64), (1, 0))
    return ends[sets.offsets].diff().int()


def _sum(
    out: Tensor, forth: Tensor, back: Tensor, sets: tuple[TokenSets, TokenSets], counts: tuple[Tensor, Tensor],
    pairs: tuple[Tensor, Tensor], how: Scoring,
) -> None:  # fmt: skip
    weights = how.query_weights, how.doc_weights
    sides = (
        (_or(weight, out), side.offsets, _or(side.mask, out), count, of)
        for weight, side, count, of in zip(weights, sets, counts, pairs)
    )
    if len(out):
        maxsim_sum_kernel[(triton.cdiv(len(out), PAIRS),)](
            out, forth, back, *next(sides), *next(sides), _or(how.biases, out), len(out), len(forth), len(back),
            MEAN=how.reduce != "sum" and how.query_weights is None, SYMMETRIC=how.reduce == "symmetric",
            WEIGHTED=how.query_weights is not None, MASKED=sets[0].mask is not None, BIASED=how.biases is not None,
            BLOCK=PAIRS, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form: float32 queries choose among documents of any type, and these among them. They fit every
    chip."""
    stored = (*TYPES.values(), PACKED)
    sides = [("*fp32", rows) for rows in stored] + [(rows, "*fp32") for rows in stored[1:]]
    maxima_forms = [_maxima_form(*each, normalize) for each in sides for normalize in (False, True)]
    sums = [(*form, False, biased) for form in SUMS for biased in (False, True)]
    sums += [(*form, True, False) for form in SUMS if not form[2]]
    sum_forms = [
        Shipped("maxsim_refine:maxsim_sum_kernel", SUM_SIGNATURE, dict(zip(SUM_CONSTANTS, (*form, PAIRS))), 4, 3, False)
        for form in sums
    ]
    return maxima_forms + sum_forms + [_norms_form(rows) for rows in stored]


def _maxima_form(a: str, b: str, normalize: bool) -> Shipped:
    sides = {"a": source_types("a", a), "b": source_types("b", b)}
    constants = _constants(normalize)
    signature = {"maxima": "*fp64"}
    for side, types in sides.items():
        types[f"{side}_norms"] = "*fp64" if normalize else "constexpr"
        signature |= types | {f"{side}_offsets": "*i64", f"{side}_of": "*i64"}
    signature |= dict.fromkeys(("dims", "pairs", "blocks", "width"), "i32") | dict.fromkeys(constants, "constexpr")
    missing = absent(sides["a"]) | absent(sides["b"])
    return Shipped("maxsim_refine:maxsim_maxima_kernel", signature, constants | missing, 4, 2, fp_fusion=False)


def _norms_form(rows: str) -> Shipped:
    types = source_types("rows", rows)
    signature = {"norms": "*fp64", **types, "dims": "i32", "count": "i32", "BLOCK": "constexpr"}
    constants = {"BLOCK": CHOSEN} | absent(types)
    return Shipped("maxsim_refine:token_norms_kernel", signature, constants, 4, 3, fp_fusion=False)


SUM_CONSTANTS = ("MEAN", "SYMMETRIC", "WEIGHTED", "MASKED", "BIASED", "BLOCK")
SUMS = [  # mean, symmetric, weighted
    (False, False, False),
    (False, False, True),
    (True, False, False),
    (True, True, False),
    (False, True, True),
]
SIDES = ("{}_weights", "{}_offsets", "{}_mask", "{}_counts", "{}_of")
SUM_SIGNATURE = {
    "scores": "*fp32",
    **dict.fromkeys(("forth", "back", "biases"), "*fp64"),
    **{
        name.format(side): kind
        for side in ("query", "doc")
        for name, kind in zip(SIDES, ("*fp32", "*i64", "*i8", "*i32", "*i64"))
    },
    **dict.fromkeys(("pairs", "query_width", "doc_width"), "i32"),
    **dict.fromkeys(SUM_CONSTANTS, "constexpr"),
}

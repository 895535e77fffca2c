"""MaxSim by the specification in Triton: float64 products in eight lanes, their maxima, and sums in token order.

One program takes a pair of sets and a few tokens of the choosing one, and streams the tokens of the other: for queries
that choose among a document's tokens, and with the sides exchanged for "symmetric", whose products are the same
numbers. A second kernel sums up the maxima of a pair in their order. Every product and sum is rounded on its own:
launches have ``enable_fp_fusion=False``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped

CHOOSERS, CHOSEN = 4, 32  # tokens of a tile: 1,024 lanes of float64
CHOSEN_MASKED = 16  # masks and winners take registers, too
PAIRS = 128  # of one program of sums
MAXIMA_BYTES = 64 << 20  # of maxima held between the kernels
REDUCTIONS = ("sum", "mean", "symmetric")
TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int8: "*i8"}


class TokenSets(NamedTuple):
    """Sets of tokens: set n is rows offsets[n] : offsets[n + 1], without those whose ``mask`` is 0.

    ``rows`` [T, stride] of float32, float16, bfloat16, or int8 with a ``step`` float32 [T] that they are multiplied by;
    ``offsets`` int64 [n + 1], ``mask`` int8 [T], ``norms`` float64 [T] where tokens are compared by their cosine.
    """

    rows: Tensor
    offsets: Tensor
    dims: int
    longest: int  # tokens of a set
    step: Tensor | None = None
    mask: Tensor | None = None
    norms: Tensor | None = None


@triton.jit
def _values(rows, step, places, real, stride, dims, first):
    """float64 [M, N, 8]: what tokens at ``places`` [M, N, 1] hold from dimension ``first`` on; 0 where nothing is
    ``real``."""
    k = first + tl.arange(0, 8)[None, None, :]
    value = tl.load(rows + places * stride + k, mask=real & (k < dims), other=0).to(tl.float32)
    if rows.dtype.element_ty == tl.int8:
        value = value * tl.load(step + places, mask=real, other=0.0)
    return value.to(tl.float64)


@triton.jit
def lane_total(lanes):
    """((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7)) over the last axis of [M, N, 8]."""
    for _ in tl.static_range(3):
        pairs = tl.reshape(lanes, [lanes.shape[0], lanes.shape[1], lanes.shape[2] // 2, 2])
        lanes = tl.sum(pairs, axis=3)
    return tl.reshape(lanes, [lanes.shape[0], lanes.shape[1]])


@triton.jit
def exact_products(a, a_step, i, a_real, a_stride, b, b_step, j, b_real, b_stride, dims):
    """float64 [M, N]: the specification's products of tokens i [M] and j [N]."""
    lanes = tl.zeros([i.shape[0], j.shape[0], 8], tl.float64)
    for first in range(0, dims, 8):
        x = _values(a, a_step, i[:, None, None], a_real[:, None, None], a_stride, dims, first)
        y = _values(b, b_step, j[None, :, None], b_real[None, :, None], b_stride, dims, first)
        lanes += x * y
    return lane_total(lanes)


@triton.jit(do_not_specialize=["a_stride", "b_stride", "dims", "pairs", "blocks", "width"])
def maxsim_maxima_kernel(
    maxima,  # float64 [width, pairs]
    winners,  # int32 [pairs, width]: which token of the chosen set, -1 for none
    a, a_step, a_offsets, a_mask, a_norms, a_of,  # the choosing sets, and int64 [pairs] which of them
    b, b_step, b_offsets, b_mask, b_norms, b_of,  # and the chosen ones
    a_stride, b_stride, dims, pairs, blocks, width,
    NORMALIZE: tl.constexpr, MASKED: tl.constexpr, WINNERS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The largest product of each of BLOCK_M tokens of a set with the tokens of another, and the first that has it."""
    pair = tl.program_id(0) // blocks
    token = tl.program_id(0) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    own, other = tl.load(a_of + pair), tl.load(b_of + pair)
    i = tl.load(a_offsets + own) + token
    asked = i < tl.load(a_offsets + own + 1)
    if MASKED:
        asked = asked & (tl.load(a_mask + i, mask=asked, other=0) != 0)
    begin, end = tl.load(b_offsets + other), tl.load(b_offsets + other + 1)
    best = tl.full([BLOCK_M], float("-inf"), tl.float64)
    winner = tl.full([BLOCK_M], -1, tl.int32)
    for first in range(begin, end, BLOCK_N):
        j = first + tl.arange(0, BLOCK_N)
        real = j < end
        if MASKED:
            real = real & (tl.load(b_mask + j, mask=real, other=0) != 0)
        product = exact_products(a, a_step, i, asked, a_stride, b, b_step, j, real, b_stride, dims)
        if NORMALIZE:
            norm = tl.load(a_norms + i, mask=asked, other=0.0)[:, None]
            norm = norm * tl.load(b_norms + j, mask=real, other=0.0)[None, :]
            product = tl.where(norm > 0, product / tl.where(norm > 0, norm, 1.0), 0.0)
        product = tl.where(real[None, :], product, float("-inf"))
        here = tl.max(product, axis=1)
        if WINNERS:
            place = (j - begin).to(tl.int32)
            at = tl.min(tl.where(product == here[:, None], place[None, :], 2147483647), axis=1)
            winner = tl.where(here > best, at, winner)
        best = tl.maximum(best, here)
    filled = token < width
    tl.store(maxima + token.to(tl.int64) * pairs + pair, best, mask=filled)
    if WINNERS:
        tl.store(winners + pair.to(tl.int64) * width + token, tl.where(asked, winner, -1), mask=filled)


@triton.jit
def _ordered_sum(maxima, weights, offsets, mask, of, pair, own, pairs, width, WEIGHTED, MASKED):
    """float64 [n]: of each pair the sum of the maxima of a set's tokens, in their order."""
    set_of = tl.load(of + pair, mask=own, other=0)
    begin = tl.load(offsets + set_of, mask=own, other=0)
    end = tl.load(offsets + set_of + 1, mask=own, other=0)
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
    doc = tl.load(doc_of + pair, mask=own, other=0)
    asked = tl.load(query_counts + tl.load(query_of + pair, mask=own, other=0), mask=own, other=0)
    offered = tl.load(doc_counts + doc, mask=own, other=0)
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
        total += tl.load(biases + doc, mask=own, other=0.0)
    largest = 3.4028234663852886e38
    score = tl.minimum(tl.maximum(total, -largest), largest).to(tl.float32)
    score = tl.where(score == 0, 0.0, score)  # -0.0 is 0.0
    tl.store(scores + pair, tl.where(total == float("-inf"), float("-inf"), score), mask=own)


@triton.jit(do_not_specialize=["stride", "dims", "count"])
def token_norms_kernel(norms, rows, step, stride, dims, count, BLOCK: tl.constexpr):
    """float64 [T]: the squares of the norms of tokens."""
    place = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    real = place < count
    lanes = tl.zeros([1, BLOCK, 8], tl.float64)
    for first in range(0, dims, 8):
        value = _values(rows, step, place[None, :, None], real[None, :, None], stride, dims, first)
        lanes += value * value
    tl.store(norms + place, tl.reshape(lane_total(lanes), [BLOCK]), mask=real)


class Scoring(NamedTuple):
    """How maxima become a score: ``reduce`` is one of `REDUCTIONS`; weights float32, one for each token; ``biases``
    float64, one for each document."""

    reduce: str = "sum"
    normalize: bool = False
    query_weights: Tensor | None = None
    doc_weights: Tensor | None = None
    biases: Tensor | None = None


class Maxima(NamedTuple):
    """What `scores` finds: float32 [P], and where they were asked for, winners int32 [P, Lq] and, for "symmetric", doc
    winners [P, Ld]."""

    scores: Tensor
    winners: Tensor
    doc_winners: Tensor


def norms(sets: TokenSets) -> Tensor:
    """float64 [T]: the norms of tokens, by the specification."""
    squares = torch.empty(len(sets.rows), dtype=torch.float64, device=sets.rows.device)
    if len(squares):
        token_norms_kernel[(triton.cdiv(len(squares), CHOSEN),)](
            squares, sets.rows, _or(sets.step, squares), sets.rows.stride(0), sets.dims, len(squares), BLOCK=CHOSEN,
            num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return squares.sqrt_()


def scores(
    queries: TokenSets, docs: TokenSets, query_of: Tensor, doc_of: Tensor, how: Scoring, winners: bool = False
) -> Maxima:
    """The specification's scores of pairs, by their numbers int64 [P] of a query and of a document."""
    count, device, symmetric = len(query_of), query_of.device, how.reduce == "symmetric"
    shapes = [(count, queries.longest if winners else 0), (count, docs.longest if winners and symmetric else 0)]
    found = Maxima(
        torch.empty(count, dtype=torch.float32, device=device),
        *(torch.empty(shape, dtype=torch.int32, device=device) for shape in shapes),
    )
    widest = max(1, queries.longest + symmetric * docs.longest)
    step = max(16, MAXIMA_BYTES // (8 * widest) // 16 * 16)  # or parts are not aligned alike, and compiled again
    counts = [_counts(each) for each in (queries, docs)]
    for start in range(0, count, step):
        part = slice(start, start + step)
        pairs = query_of[part], doc_of[part]
        forth = maxima(queries, docs, *pairs, how.normalize, found.winners[part] if winners else None)
        back = forth
        if symmetric:
            back = maxima(docs, queries, *pairs[::-1], how.normalize, found.doc_winners[part] if winners else None)
        _sum(found.scores[part], forth, back, (queries, docs), counts, pairs, how)
    return found


def maxima(
    choosers: TokenSets, chosen: TokenSets, chooser_of: Tensor, chosen_of: Tensor, normalize: bool,
    winners: Tensor | None,
) -> Tensor:  # fmt: skip
    """float64 [L, P]: the maximum of each token of the choosers of each pair; and write its ``winners`` [P, L]."""
    pairs, width = len(chooser_of), choosers.longest
    found = torch.empty((width, pairs), dtype=torch.float64, device=chooser_of.device)
    blocks = triton.cdiv(width, CHOOSERS)
    if pairs * blocks:
        maxsim_maxima_kernel[(pairs * blocks,)](
            found, _or(winners, found), *_fields(choosers), chooser_of, *_fields(chosen), chosen_of,
            choosers.rows.stride(0), chosen.rows.stride(0), choosers.dims, pairs, blocks, width,
            **_constants(normalize, choosers.mask is not None, winners is not None),
            num_warps=4, num_stages=2, enable_fp_fusion=False,
        )  # fmt: skip
    return found


def _constants(normalize: bool, masked: bool, winners: bool) -> dict[str, int]:
    block_n = CHOSEN_MASKED if masked else CHOSEN
    return {"NORMALIZE": normalize, "MASKED": masked, "WINNERS": winners, "BLOCK_M": CHOOSERS, "BLOCK_N": block_n}


def _fields(sets: TokenSets) -> tuple[Tensor, ...]:
    """As the kernels take them: what is not there is not read."""
    others = (_or(each, sets.rows) for each in (sets.mask, sets.norms))
    return sets.rows, _or(sets.step, sets.rows), sets.offsets, *others


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    return stand_in if tensor is None else tensor


def _counts(sets: TokenSets) -> Tensor:
    if sets.mask is None:
        return sets.offsets.diff().int()
    ends = torch.nn.functional.pad(sets.mask.cumsum(0, dtype=torch.int64), (1, 0))
    return ends[sets.offsets].diff().int()


def _sum(
    out: Tensor, forth: Tensor, back: Tensor, sets: tuple[TokenSets, TokenSets], counts: list[Tensor],
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
    """Every compiled form: in searches float32 queries choose among documents of any type, and these among them; in
    training both are of one type, with masks, and winners are kept. They fit every chip."""
    searches = [(TYPES[torch.float32], other, False) for other in TYPES.values()]
    searches += [(b, a, False) for a, b, _ in searches[1:]]
    training = [(TYPES[dtype], TYPES[dtype], True) for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    maxima_forms = [
        Shipped(
            "maxsim_refine:maxsim_maxima_kernel",
            MAXIMA_SIGNATURE | {"a": a, "b": b},
            _constants(normalize, trains, trains),
            num_warps=4,
            num_stages=2,
            fp_fusion=False,
        )
        for a, b, trains in (*searches, *training)
        for normalize in (False, True)
    ]
    sums = [(*form, False, biased) for form in SUMS for biased in (False, True)]
    sums += [(*form, True, False) for form in SUMS if not form[2]]
    sum_forms = [
        Shipped("maxsim_refine:maxsim_sum_kernel", SUM_SIGNATURE, dict(zip(SUM_CONSTANTS, (*form, PAIRS))), 4, 3, False)
        for form in sums
    ]
    norm_forms = [
        Shipped("maxsim_refine:token_norms_kernel", NORMS_SIGNATURE | {"rows": rows}, {"BLOCK": CHOSEN}, 4, 3, False)
        for rows in TYPES.values()
    ]
    return maxima_forms + sum_forms + norm_forms


SUM_CONSTANTS = ("MEAN", "SYMMETRIC", "WEIGHTED", "MASKED", "BIASED", "BLOCK")
SUMS = [  # mean, symmetric, weighted
    (False, False, False),
    (False, False, True),
    (True, False, False),
    (True, True, False),
    (False, True, True),
]
SETS = ("{}", "{}_step", "{}_offsets", "{}_mask", "{}_norms", "{}_of")
SET_TYPES = ("*fp32", "*fp32", "*i64", "*i8", "*fp64", "*i64")
MAXIMA_SIGNATURE = {
    "maxima": "*fp64",
    "winners": "*i32",
    **{name.format(side): kind for side in "ab" for name, kind in zip(SETS, SET_TYPES)},
    **dict.fromkeys(("a_stride", "b_stride", "dims", "pairs", "blocks", "width"), "i32"),
    **dict.fromkeys(("NORMALIZE", "MASKED", "WINNERS", "BLOCK_M", "BLOCK_N"), "constexpr"),
}
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
NORMS_SIGNATURE = {
    "norms": "*fp64",
    "rows": "*fp32",
    "step": "*fp32",
    **dict.fromkeys(("stride", "dims", "count"), "i32"),
    "BLOCK": "constexpr",
}

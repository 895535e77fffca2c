"""Scores of listed pairs in float64, by the specification and to the bit (`pyengine/specification/reference.py`).

Eight strided lanes from +0.0, each product and each sum rounded on its own (compiled without contraction), then
((l0+l1)+(l2+l3)) + ((l4+l5)+(l6+l7)). What is masked at the end of a row adds +0.0, which changes no lane.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped

PAIRS = 32  # of a step: eight lanes each
UNROLL = 4  # steps whose loads are in flight together
WARPS = 4
WAVES = 8  # blocks of threads for each multiprocessor, about
METRICS = ("cosine", "dot", "l2")
FLOAT32_MAX = tl.constexpr(3.4028234663852886e38)


def refine(
    queries: Tensor, docs: Tensor, step: Tensor | None, bias: Tensor | None, rows: Tensor,
    starts: Tensor, counts: Tensor, scores: Tensor, longest: int, metric: str, dims: int, chip: Chip,
) -> None:  # fmt: skip
    """Write the scores of each query q against its documents ``rows[starts[q] : starts[q] + counts[q]]``.

    ``queries`` float32 [Q, D], of which the first ``dims`` are scored; ``docs`` [N, D] float32, float16,
    bfloat16, or int8 with a ``step`` float32 [N] to multiply by; ``bias`` float64 [N] or None; ``rows`` int32 and
    ``scores`` float32 of one shape, of which ``starts`` int64 [Q] and ``counts`` int32 [Q], ``longest`` at most, count
    the entries.
    """
    if len(queries) and longest:
        splits = min(-(-longest // PAIRS), max(1, WAVES * chip.multiprocessors // len(queries)))
        refine_kernel[(len(queries), splits)](
            queries, docs, docs if step is None else step, docs if bias is None else bias, rows, starts, counts,
            scores, queries.stride(0), docs.stride(0), dims, METRICS.index(metric), step is not None, bias is not None,
            PAIRS, UNROLL, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip


@triton.jit
def lane_sum(lanes):
    """float64 [P]: the sum of the lanes [P, 8], in pairs."""
    fours = tl.sum(tl.reshape(lanes, [lanes.shape[0], 4, 2]), axis=2)
    twos = tl.sum(tl.reshape(fours, [lanes.shape[0], 2, 2]), axis=2)
    return tl.sum(twos, axis=1)


@triton.jit
def rounded(score):
    """float64 to float32, once: finite values outside its range are clamped, and zero is +0.0."""
    score = tl.minimum(tl.maximum(score, -FLOAT32_MAX), FLOAT32_MAX).to(tl.float32)
    return tl.where(score == 0, 0.0, score)


@triton.jit(do_not_specialize=["query_stride", "dims"])
def refine_kernel(
    queries_ptr, docs_ptr, step_ptr, bias_ptr, rows_ptr, starts_ptr, counts_ptr, scores_ptr,
    query_stride, doc_stride, dims,
    METRIC: tl.constexpr, HAS_STEP: tl.constexpr, HAS_BIAS: tl.constexpr, PAIRS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    count, start = tl.load(counts_ptr + query), tl.load(starts_ptr + query)
    lane = tl.arange(0, 8)
    for at in range(tl.program_id(1) * PAIRS, count, tl.num_programs(1) * PAIRS):
        pair = at + tl.arange(0, PAIRS)
        held = pair < count
        row = tl.load(rows_ptr + start + pair, mask=held, other=0).to(tl.int64)
        docs = docs_ptr + row[:, None] * doc_stride
        if HAS_STEP:
            step = tl.load(step_ptr + row)[:, None]
        products, squares = tl.zeros([PAIRS, 8], tl.float64), tl.zeros([PAIRS, 8], tl.float64)
        own = tl.zeros([1, 8], tl.float64)
        for first in range(0, dims, 8 * UNROLL):
            for part in tl.static_range(UNROLL):
                at_lane = first + 8 * part + lane
                inside = at_lane < dims
                x = tl.load(queries_ptr + query * query_stride + at_lane, mask=inside, other=0.0).to(tl.float64)[
                    None, :
                ]
                y = tl.load(docs + at_lane[None, :], mask=held[:, None] & inside[None, :], other=0).to(tl.float32)
                if HAS_STEP:
                    y = y * step
                y = y.to(tl.float64)
                if METRIC == 2:
                    y = x - y
                    products += y * y
                else:
                    products += x * y
                if METRIC == 0:
                    squares += y * y
                    own += x * x
        score = lane_sum(products)
        if METRIC == 0:
            norms = tl.sqrt(lane_sum(own)) * tl.sqrt(lane_sum(squares))
            score = tl.where(norms > 0, score / tl.where(norms > 0, norms, 1.0), 0.0)
        if HAS_BIAS:
            score += tl.load(bias_ptr + row)
        tl.store(scores_ptr + start + pair, rounded(score), mask=held)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    types = {
        "queries_ptr": "*fp32", "step_ptr": "*fp32", "bias_ptr": "*fp64", "rows_ptr": "*i32", "starts_ptr": "*i64",
        "counts_ptr": "*i32", "scores_ptr": "*fp32", "query_stride": "i32", "doc_stride": "i32", "dims": "i32",
    }  # fmt: skip
    forms = []
    for kind in ("fp32", "fp16", "bf16", "i8"):
        for metric in range(len(METRICS)):
            for bias in (False, True):
                values = {
                    "METRIC": metric, "HAS_STEP": kind == "i8", "HAS_BIAS": bias, "PAIRS": PAIRS, "UNROLL": UNROLL
                }  # fmt: skip
                signature = types | {"docs_ptr": f"*{kind}"} | dict.fromkeys(values, "constexpr")
                forms.append(Shipped("refine:refine_kernel", signature, values, WARPS, 3, fp_fusion=False))
    return forms

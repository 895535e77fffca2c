"""Query tokens, coded on the GPU for the scan of `maxsim_topk`: the codes, and the terms of the bounds that
`pyengine.backends.shared.token_terms` says in words of tensors (`code`, `query_terms`), by two kernels that write into
room that is there. The second empties the pools of the queries, too.

Sums and lengths are float64, off by far less than `MARGIN` has room for. What is not finite leaves a query without an
answer that could be certified.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from pyengine.kernels.chips import Chip, Shipped
from pyengine.kernels.dense_topk import nearest
from pyengine.kernels.maxsim_topk import QueryPanels
from pyengine.kernels.selection import Pools
from pyengine.kernels.triton_parts import LEAST

ROWS, BLOCK = 8, 128  # tokens and dimensions of a step
TERM_ROWS = 128
WARPS = 4
MARGIN = tl.constexpr(1 + 2.0**-30)  # `token_terms.MARGIN`
UP = 1 + 2.0**-20  # what kernels take as float32 is no less than what it was


class Laid(NamedTuple):
    """Where the tokens of Q queries lie in panels of R rows (`maxsim_plan.lay`): ``token_of`` int32 [R] the token of
    each row, -1 where there is none, ``slots`` int32 [R] which query of its group that is of, ``begins`` int32 [Q + 1]
    the rows at which queries begin, ``panels`` and ``group_queries`` int32 [groups + 1], ``lengths`` int32 [Q]."""

    token_of: Any
    slots: Any
    begins: Any
    panels: Any
    group_queries: Any
    lengths: Any


class Room(NamedTuple):
    """Room for Q coded queries: ``codes`` [R, dims padded], ``measured`` float64 [3, R], ``coefficients`` and
    ``factors`` float32 [R], ``terms`` float64 [Q, 7], and float64 [Q, 2] their ``scaling`` (`answers.finish`)."""

    codes: Tensor
    measured: Tensor
    coefficients: Tensor
    factors: Tensor
    terms: Tensor
    scaling: Tensor


class Coding(NamedTuple):
    """How queries are coded: ``mean`` and ``symmetric`` say which shares tokens have, ``rounding`` how far sums of the
    scan may be off, relatively, and ``underflow`` in units; ``units`` float64 [2] are those of the documents."""

    normalize: bool
    mean: bool
    symmetric: bool
    rounding: float
    underflow: float
    units: Tensor


def code_queries(
    tokens: Tensor, weights: Tensor | None, laid: Laid, how: Coding, room: Room, found: Pools
) -> QueryPanels:
    """The queries, ``tokens`` float32 [T, D] with ``weights`` float32 [T], as the scan takes them; and empty pools."""
    (count, width), n_queries = room.codes.shape, len(laid.lengths)
    if count:
        code_tokens_kernel[(triton.cdiv(count, ROWS),)](
            tokens, laid.token_of, room.codes, room.measured, tokens.shape[1], width, count,
            NORMALIZE=how.normalize, ROWS=ROWS, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    if n_queries:
        query_terms_kernel[(n_queries,)](
            room.measured, laid.token_of, laid.begins, laid.lengths, room.coefficients if weights is None else weights,
            how.units, room.coefficients, room.factors, room.terms, room.scaling, found.counts, found.threshold,
            found.lost, count, int(how.mean), int(how.symmetric), how.rounding * UP, how.underflow * UP,
            WEIGHTED=weights is not None, BLOCK=TERM_ROWS, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return QueryPanels(
        room.codes, room.coefficients, room.factors, laid.slots, laid.panels, laid.group_queries, laid.lengths,
        room.terms,
    )  # fmt: skip


@triton.jit(do_not_specialize=["dims", "width", "count"])
def code_tokens_kernel(
    tokens_ptr, token_of_ptr, codes_ptr, measured_ptr, dims, width, count,
    NORMALIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of the tokens of some rows the codes, and in ``measured`` their factors, errors and sizes: 0 of no token."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    token = tl.load(token_of_ptr + row, mask=row < count, other=-1).to(tl.int64)
    real = token >= 0
    largest = tl.zeros([ROWS], tl.float32)
    squares = tl.zeros([ROWS], tl.float64)
    for first in range(0, dims, BLOCK):
        k = first + tl.arange(0, BLOCK)
        there = real[:, None] & (k < dims)[None, :]
        x = tl.load(tokens_ptr + token[:, None] * dims + k[None, :], mask=there, other=0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(x), axis=1))
        wide = x.to(tl.float64)
        squares += tl.sum(wide * wide, axis=1)

    factor = largest.to(tl.float64)
    if codes_ptr.dtype.element_ty == tl.int8:
        factor = factor / 127
    else:  # the next power of two
        factor = (((factor.to(tl.int64, bitcast=True) >> 52) + 1) << 52).to(tl.float64, bitcast=True)
    factor = tl.where(largest > 0, factor, 1.0)
    inverse = 1 / factor
    rest = tl.zeros([ROWS], tl.float64)
    for first in range(0, width, BLOCK):
        k = first + tl.arange(0, BLOCK)
        there = real[:, None] & (k < dims)[None, :]
        x = tl.load(tokens_ptr + token[:, None] * dims + k[None, :], mask=there, other=0.0).to(tl.float64)
        scaled = x * inverse[:, None]
        if codes_ptr.dtype.element_ty == tl.int8:
            code = nearest(scaled).to(tl.int8)
        else:
            code = scaled.to(tl.float32).to(tl.float16)
        off = x - factor[:, None] * code.to(tl.float32).to(tl.float64)
        rest += tl.sum(off * off, axis=1)
        tl.store(
            codes_ptr + row[:, None] * width + k[None, :], code, mask=(row < count)[:, None] & (k < width)[None, :]
        )

    error, size = tl.sqrt(rest), tl.sqrt(squares)
    if NORMALIZE:
        shrink = tl.where(size > 0, 1 / tl.where(size > 0, size, 1.0), 0.0)
        factor, error, size = factor * shrink, error * shrink, size * shrink
    at = measured_ptr + row
    tl.store(at, tl.where(real, factor, 0.0), mask=row < count)
    tl.store(at + count, tl.where(real, error * MARGIN, 0.0), mask=row < count)
    tl.store(at + 2 * count.to(tl.int64), tl.where(real, size * MARGIN, 0.0), mask=row < count)


@triton.jit
def _measured(measured_ptr, token_of_ptr, weights_ptr, row, held, count, even, rounding, WEIGHTED: tl.constexpr):
    """float64 [n]: shares, factors, errors of a scan, and sizes of the tokens of some rows."""
    at = measured_ptr + row
    factor, error = tl.load(at, mask=held, other=0.0), tl.load(at + count, mask=held, other=0.0)
    size = tl.load(at + 2 * count.to(tl.int64), mask=held, other=0.0)
    share = even + tl.zeros_like(factor)
    if WEIGHTED:
        token = tl.load(token_of_ptr + row, mask=held, other=-1)
        share = share * tl.load(weights_ptr + token, mask=token >= 0, other=0.0).to(tl.float64)
    return share, factor, error + rounding * (size + error), size


@triton.jit(do_not_specialize=["count", "mean", "symmetric", "rounding", "underflow"])
def query_terms_kernel(
    measured_ptr, token_of_ptr, begins_ptr, lengths_ptr, weights_ptr, units_ptr, coefficients_ptr, factors_ptr,
    terms_ptr, scaling_ptr, counts_ptr, threshold_ptr, lost_ptr, count, mean, symmetric, rounding, underflow,
    WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The coefficients and factors of the tokens of a query, in its units, and the terms of its bounds."""
    query = tl.program_id(0)
    start, stop = tl.load(begins_ptr + query), tl.load(begins_ptr + query + 1)
    length = tl.maximum(tl.load(lengths_ptr + query), 1).to(tl.float64)
    even = tl.where(mean != 0, 1 / length, 1.0) * tl.where(symmetric != 0, 0.5, 1.0)
    zero = tl.zeros([BLOCK], tl.float64)
    units, factor_units, errors, sizes, most_error, most_size, total = zero, zero, zero, zero, zero, zero, zero
    for first in range(start, stop, BLOCK):
        row = first + tl.arange(0, BLOCK)
        share, factor, error, size = _measured(
            measured_ptr, token_of_ptr, weights_ptr, row, row < stop, count, even, rounding, WEIGHTED
        )
        units, factor_units = tl.maximum(units, tl.abs(share * factor)), tl.maximum(factor_units, factor)
        errors, sizes, total = errors + tl.abs(share) * error, sizes + tl.abs(share) * size, total + size
        most_error, most_size = tl.maximum(most_error, error), tl.maximum(most_size, size)
    unit, factor_unit = tl.max(units, axis=0), tl.max(factor_units, axis=0)
    unit, factor_unit = tl.where(unit > 0, unit, 1.0), tl.where(factor_unit > 0, factor_unit, 1.0)
    for first in range(start, stop, BLOCK):
        row = first + tl.arange(0, BLOCK)
        share, factor, error, size = _measured(
            measured_ptr, token_of_ptr, weights_ptr, row, row < stop, count, even, rounding, WEIGHTED
        )
        tl.store(coefficients_ptr + row, (share * factor / unit).to(tl.float32), mask=row < stop)
        tl.store(factors_ptr + row, (factor / factor_unit).to(tl.float32), mask=row < stop)

    forth, back = unit * tl.load(units_ptr), factor_unit * tl.load(units_ptr + 1)
    terms = terms_ptr + 7 * query
    tl.store(terms, forth)
    tl.store(terms + 1, back)
    tl.store(terms + 2, tl.sum(errors, axis=0) * MARGIN)
    tl.store(terms + 3, tl.sum(sizes, axis=0) * MARGIN)
    tl.store(terms + 4, tl.max(most_error, axis=0))
    tl.store(terms + 5, tl.max(most_size, axis=0))
    tl.store(terms + 6, (forth + back) * underflow)
    finite = tl.sum(total, axis=0) < float("inf")
    tl.store(scaling_ptr + 2 * query, 1.0)
    tl.store(scaling_ptr + 2 * query + 1, tl.where(finite, 0.0, float("nan")))
    tl.store(counts_ptr + query, 0)
    tl.store(threshold_ptr + query, float("-inf"))
    tl.store(lost_ptr + query, LEAST)


def shipped(chip: Chip) -> list[Shipped]:
    """Every compiled form."""
    both = (False, True)
    return [_tokens_form(kind, each) for kind in ("*i8", "*fp16") for each in both] + [
        _terms_form(each) for each in both
    ]


def _tokens_form(kind: str, normalize: bool) -> Shipped:
    types = {"tokens_ptr": "*fp32", "token_of_ptr": "*i32", "codes_ptr": kind, "measured_ptr": "*fp64"}
    values = {"NORMALIZE": normalize, "ROWS": ROWS, "BLOCK": BLOCK}
    types |= dict.fromkeys(("dims", "width", "count"), "i32") | dict.fromkeys(values, "constexpr")
    return Shipped("maxsim_queries:code_tokens_kernel", types, values, WARPS, 3, fp_fusion=False)


def _terms_form(weighted: bool) -> Shipped:
    types = {"measured_ptr": "*fp64", **dict.fromkeys(("token_of_ptr", "begins_ptr", "lengths_ptr"), "*i32")}
    types |= {"weights_ptr": "*fp32", "units_ptr": "*fp64"}
    types |= dict.fromkeys(("coefficients_ptr", "factors_ptr"), "*fp32")
    types |= {"terms_ptr": "*fp64", "scaling_ptr": "*fp64", "counts_ptr": "*i32", "threshold_ptr": "*fp32"}
    values = {"WEIGHTED": weighted, "BLOCK": TERM_ROWS}
    types |= {"lost_ptr": "*i32"} | dict.fromkeys(("count", "mean", "symmetric"), "i32")
    types |= dict.fromkeys(("rounding", "underflow"), "fp32") | dict.fromkeys(values, "constexpr")
    return Shipped("maxsim_queries:query_terms_kernel", types, values, WARPS, 3, fp_fusion=False)

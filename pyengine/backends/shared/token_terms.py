"""The terms and bounds of the MaxSim scan on a GPU (`kernels/maxsim_topk.py`, `csrc/cuda/maxsim.cu`), of torch tensors
or of NumPy arrays alike. `pyengine.kernels.maxsim_topk` derives the bounds that these are the terms of."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from pyengine.problems.problem import Codes
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.types import F64

SCANNED = ("sum", "mean", "symmetric")  # the reductions that maxima bound
MARGIN = 1 + 2.0**-30  # beyond what float64 rounds in lengths and errors
UNDERFLOW = 2.0**-90  # float32 loses less than this, of a unit, for each token and dimension
MOST_BLOCKS = (1 << 31) - 1  # of threads, of one launch


class Coded(NamedTuple):
    """Tokens x ~ factor codes: ``codes`` int8 or float16 [T, dims], ``factor``, ``error`` >= |x - factor codes| and
    ``size`` >= |x|, float64 [T]; of unit vectors where they are normalised."""

    codes: Any
    factor: Any
    error: Any
    size: Any


class QueryTerms(NamedTuple):
    """What a scan knows of queries: ``coefficients`` a_i f_i and ``factors`` f_i float32 [Tq], in units of their query,
    and ``sums`` float64 [Q, 7]: the units of the two sums, sum |a| e, sum |a| |q|, max e, max |q|, what underflows."""

    coefficients: Any
    factors: Any
    sums: Any


def codes_of(docs: TokenDocuments) -> Codes | None:
    """The int8 codes that documents come with."""
    codes = docs.tokens.codes
    return codes if isinstance(codes, Codes) and not codes.planes else None


def unit_coded(codes: Any, scale: Any, residual: Any, lengths: Any, normalize: bool) -> Coded:
    """By int8 codes of unit vectors: of tokens of these ``lengths``, each off by ``residual`` from ``scale`` codes,
    float64 [T]."""
    xp = _namespace(lengths)
    size = xp.asarray(lengths > 0, dtype=xp.float64) if normalize else lengths
    return Coded(codes, scale * size, residual * size * MARGIN, size * MARGIN)


def code(rows: Any, form: str, normalize: bool) -> Coded:
    """Code tokens float32 [t, D] as "int8" or "float16". What is left out is measured."""
    xp = _namespace(rows)
    exact = xp.asarray(rows, dtype=xp.float64)
    largest = xp.amax(abs(exact), axis=1)
    factor = largest / 127 if form == "int8" else xp.exp2(xp.asarray(xp.frexp(largest)[1], dtype=xp.float64))
    factor = xp.where(largest > 0, factor, 1.0)
    scaled = exact / factor[:, None]
    codes = xp.asarray(xp.round(scaled), dtype=xp.int8) if form == "int8" else xp.asarray(scaled, dtype=xp.float16)
    return measured(exact, codes, factor, normalize)


def measured(exact: Any, codes: Any, factor: Any, normalize: bool) -> Coded:
    """Tokens float64 [t, D] by codes, of which these factors float64 [t] make them again, but for what is measured."""
    xp = _namespace(exact)
    error = norm(exact - factor[:, None] * xp.asarray(codes, dtype=xp.float64))
    return shrunk(codes, factor, error, norm(exact), normalize)


def shrunk(codes: Any, factor: Any, error: Any, size: Any, normalize: bool) -> Coded:
    """The same of tokens of which error and size are known."""
    xp = _namespace(size)
    if normalize:  # what this rounds is far below what is left out, or covered by the scan's rounding
        shrink = xp.where(size > 0, 1 / xp.where(size > 0, size, 1.0), 0.0)
        factor, error, size = factor * shrink, error * shrink, xp.asarray(size > 0, dtype=xp.float64)
    return Coded(codes, factor, error * MARGIN, size * MARGIN)


def norm(rows: Any) -> Any:
    """float64 [t]: the lengths of rows [t, D]."""
    xp = _namespace(rows)
    wide = xp.asarray(rows, dtype=xp.float64)
    return xp.sqrt((wide * wide).sum(axis=1))


def segments(reduce: str, values: Any, lengths: Any) -> Any:
    """The "max" or "sum" of each segment of values >= 0; 0 of an empty one. Lengths that fit are not checked, for which
    torch would wait."""
    if isinstance(values, np.ndarray):
        found, some = np.zeros(len(lengths)), lengths > 0
        if some.any():
            starts = (np.cumsum(lengths) - lengths)[some]
            found[some] = (np.maximum if reduce == "max" else np.add).reduceat(values, starts)
        return found
    if not len(values):
        return values.new_zeros(len(lengths))
    torch = import_module("torch")
    return torch.segment_reduce(values, reduce, lengths=lengths, axis=0, unsafe=True, initial=0.0)


def reach(coded: Coded, lengths: Any) -> Any:
    """float64 [N, 2]: the largest |d_j| + r_j, and r_j, of each document."""
    xp = _namespace(coded.size)
    return xp.stack([segments("max", each, lengths) for each in (coded.size + coded.error, coded.error)], axis=1)


def shared_reach(coded: Coded, share: Any, lengths: Any) -> Any:
    """float64 [N, 2]: sum_j |b_j| (|d_j| + r_j), and sum_j |b_j| r_j, of each document, for shares b float64 [T]."""
    xp, size = _namespace(coded.size), abs(share)
    sums = [segments("sum", size * each, lengths) for each in (coded.size + coded.error, coded.error)]
    return xp.stack(sums, axis=1) * MARGIN


def coefficients(problem: MaxSimProblem) -> tuple[F64, F64]:
    """a [Tq] and b [Td] of the score, sum_i a_i M_i + sum_j b_j C_j; b is empty where there is no second sum."""
    symmetric = problem.reduce == "symmetric"
    weights = problem.query_weights, problem.doc_weights
    sides = (problem.queries.offsets, problem.docs.offsets)[: 1 + symmetric]

    def plain(lengths: np.ndarray) -> F64:
        return np.repeat(1 / np.maximum(1, np.where(problem.reduce == "sum", 1, lengths)), lengths)

    each = [plain(np.diff(n)) if weight is None else weight.astype(np.float64) for weight, n in zip(weights, sides)]
    return (each[0] / 2, each[1] / 2) if symmetric else (each[0], np.empty(0))


def most_tokens(problem: MaxSimProblem) -> int:
    """Of a query, or of a document where those are summed over too."""
    sides = (problem.queries.offsets, problem.docs.offsets)[: 1 + (problem.reduce == "symmetric")]
    return int(max(np.diff(side).max(initial=0) for side in sides))


def query_terms(
    coded: Coded, share: Any, owner: Any, lengths: Any, units: tuple[float, Any], rounding: float, underflow: float
) -> QueryTerms:
    """Of query tokens with shares a float64 [Tq], each of the query ``owner`` int64 [Tq]. ``units`` are those of the
    documents' weights and of their shares, the second 0 where these are not summed; ``rounding`` says how far the
    scan's float32 sums may be off, relative to their terms, and ``underflow`` in units."""
    xp = _namespace(share)
    error = coded.error + rounding * (coded.size + coded.error)
    product = share * coded.factor
    unit, factor_unit = (segments("max", each, lengths) for each in (abs(product), coded.factor))
    unit, factor_unit = (xp.where(each > 0, each, 1.0) for each in (unit, factor_unit))
    sums = [
        unit * units[0],
        factor_unit * units[1],
        segments("sum", abs(share) * error, lengths) * MARGIN,
        segments("sum", abs(share) * coded.size, lengths) * MARGIN,
        segments("max", error, lengths),
        segments("max", coded.size, lengths),
        (unit * units[0] + factor_unit * units[1]) * underflow,
    ]
    pair = product / unit[owner], coded.factor / factor_unit[owner]
    first, second = (xp.asarray(each, dtype=xp.float32) for each in pair)
    return QueryTerms(first, second, xp.stack(sums, axis=1))


def parts(n_docs: int, capacity: int, k: int, groups: int = 1) -> Iterator[tuple[int, int]]:
    """Stretches of documents, first and count: as many as pools have places, and then so many that what surpasses the
    k-th best of those before fills about a quarter of what is free. Each has a block of threads for each group of
    queries."""
    done, free = 0, capacity - k
    while done < n_docs:
        count = capacity if not done else done * max(1, free // (4 * max(1, k)))
        count = min(count, n_docs - done, MOST_BLOCKS // max(1, groups))
        yield done, count
        done += count


def _namespace(array: Any) -> Any:
    """numpy, or torch, which has the functions that are used here by the same names."""
    return np if isinstance(array, np.ndarray) else import_module("torch")

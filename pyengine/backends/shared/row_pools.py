"""What the scans of sparse and of sliced rows on a GPU share, in Triton (`triton_pools`) and in CUDA (`cuda_rows`):
sizes of pools, bounds in the units of queries, and candidates from what pools hold. NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pyengine.problems.problem import Problem
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.refining import exact, exact_sparse
from pyengine.specification import reference
from pyengine.types import F32, F64, Attempt, Candidates

P = TypeVar("P", bound=Problem)
PLACES = 1 << 29  # of all pools of one scan, at most
ROOM = 1024  # places of a pool beyond those asked for
LARGE_UNIT = 2.0**90  # above it, the inverse of a unit may vanish
LEAST = np.float32(2.0**-149)  # as a threshold: what may score above 0
PER_PART = ("rows", "estimates", "dropped")


def capacity(problem: Problem, width: int) -> int:
    """Places of a pool."""
    return max(1, min(max(width, 2 * problem.k) + ROOM, len(problem.docs)))


def parts(problem: P, width: int, most: int = PLACES) -> Iterator[P]:
    """The problem for at most so many queries at a time, and so few that their pools have at most ``PLACES``."""
    step = max(1, min(most, PLACES // capacity(problem, width)))
    for start in range(0, max(1, problem.n_queries), step):
        yield problem.only(np.arange(start, min(start + step, problem.n_queries)))


class Held(NamedTuple):
    """What pools of C places hold, on the host: ``rows`` int32, ``upper`` and ``lower`` float32 [Q, C], of each the
    first ``counts`` int32 [Q]."""

    rows: Any
    upper: Any
    lower: Any
    counts: Any


def candidates(found: Held, units: F64, dropped: F64) -> Candidates:
    """The same as candidates; the estimates lie in the middle of the bounds. ``units`` and ``dropped`` float64 [Q]."""
    held = np.arange(found.rows.shape[1]) < found.counts[:, None]
    middle = (found.upper[held].astype(np.float64) + found.lower[held]) / 2 * np.repeat(units, found.counts)
    estimates = reference.round_score(np.where(np.isfinite(middle), middle, 0.0))
    offsets = np.concatenate([[0], np.cumsum(found.counts)]).astype(np.int64)
    return Candidates(found.rows[held].astype(np.int64), offsets, estimates, dropped)


def joined(each: Sequence[Attempt]) -> Attempt:
    """The attempts for some of the queries after another, as one."""
    return Attempt(*(np.concatenate([getattr(own, name) for own in each]) for name in Attempt._fields))


def together(each: list[Candidates]) -> Candidates:
    """The candidates of one part of the queries after another."""
    lengths = np.concatenate([[0], *(np.diff(own.offsets) for own in each)]).astype(np.int64)
    rows, estimates, dropped = (np.concatenate([getattr(own, name) for own in each]) for name in PER_PART)
    return Candidates(rows, np.cumsum(lengths), estimates, dropped)


def zeroed(dropped: F64, units: F64) -> F64:
    """float64 [Q]: 0 where the threshold stayed at `LEAST`, so that only what scores 0 at most was left out."""
    bound: F64 = np.where(dropped == np.float64(LEAST) * units, 0.0, dropped)
    return bound


def fill_zeros(
    asked: SparseProblem,
    k: int,
    found: Attempt,
    listed: Callable[[SparseProblem], Candidates],
    refine: Callable[[SparseProblem, Candidates], F32],
) -> None:
    """Write the k best anew, on the host, for those queries whose k best documents of score 0 fill up."""
    short = np.flatnonzero((found.dropped == 0.0) & ~(found.scores[:, -1] > 0))
    if len(short) and asked.bias is None:
        rest = asked.only(short)
        filled = rest.not_excluded(exact_sparse.fill_zeros(rest, listed(rest), rest.k))
        rest = replace(rest, k=k)
        left = rest.eligible(filled._replace(estimates=refine(rest, filled)))
        found.scores[short], found.ids[short] = exact.select(rest, left, left.estimates)
        found.dropped[short] = filled.dropped


def single(bias: F64 | None) -> F32 | None:
    """A bias as float32 [N]: NaN for what it cannot hold, of which the scan then knows nothing."""
    if bias is None:
        return None
    with np.errstate(over="ignore", under="ignore"):
        rounded = bias.astype(np.float32)
    known: F32 = np.where(np.isinf(rounded), np.float32(np.nan), rounded)
    return known


def floors(problem: Problem, units: F64, least: np.float32) -> F32:
    """float32 [Q], at least ``least``: bounds below it need no place."""
    floor = np.full(len(units), least, np.float32)
    if problem.floor is not None:
        floor = np.maximum(floor, np.nextafter((problem.floor / units).astype(np.float32), np.float32(-np.inf)))
    return floor


def score_floors(problem: Problem) -> F32:
    """`floors` where bounds are in units of 1."""
    return floors(problem, np.ones(problem.n_queries), np.float32(-np.inf))


def factors(largest: F64, unit: float, biased: bool) -> F64:
    """float64 [Q]: of queries with these largest magnitudes the powers of two by which they become 2^14 to 2^15;
    with a bias larger ones, where times ``unit`` they would be below 2^-60."""
    exponents = np.frexp(largest)[1] - 15
    if biased:
        exponents = np.maximum(exponents, -59 - np.frexp(unit)[1])
    powers: F64 = np.ldexp(1.0, exponents)
    return powers


def above(values: F64) -> F32:
    """float32, none below what it stands for, and 0 for 0."""
    rounded = np.nextafter(values.astype(np.float32), np.float32(np.inf))
    upper: F32 = np.where(values > 0, rounded, np.float32(0))
    return upper


class Errors(NamedTuple):
    """Float32 [Q]: what bounds are made with (`pyengine.kernels.sparse_topk`)."""

    widen: F32
    slack: F32
    inverse: F32


def errors(widen: F64, slack: F64, units: F64, biased: bool) -> Errors:
    """``widen``, ``slack`` and 1 / units (0 without a bias). With a bias, its own errors are added."""
    if biased:
        widen, slack = np.maximum(widen, 2.0**-19), slack + np.where(units > LARGE_UNIT, 4.0, 2.0**-60)
    inverse = (1 / units if biased else np.zeros_like(units)).astype(np.float32)
    return Errors(above(widen), above(slack), inverse)

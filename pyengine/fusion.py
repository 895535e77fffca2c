"""The arithmetic of `pyengine.fuse`: candidates of several rankings side by side, normalised, combined, selected.

Shapes: Q queries, K results of a ranking, C candidates: the distinct documents of all rankings of a query. Values are
float64, NaN where a ranking lacks a candidate, and sums take their terms in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pyengine.types import F32, F64, I64, Bool

LARGEST = float(np.finfo(np.float64).max)


class Ranking(NamedTuple):
    """A checked result: ``scores`` float32 [Q, K], ``ids`` int64 [Q, K], ``certified`` bool [Q], and its name."""

    scores: F32
    ids: I64
    certified: Bool
    name: str


class Candidates(NamedTuple):
    """``ids`` int64 [Q, C], rising and padded with -1; ``columns`` int64 [Q, K] for each ranking: where its entries
    are among them (those of pads mean nothing)."""

    ids: I64
    columns: list[I64]


def align(rankings: Sequence[Ranking]) -> Candidates:
    """The candidates of each query. ValueError where a ranking has a document twice."""
    entries = np.concatenate([each.ids for each in rankings], axis=1)
    order = np.argsort(entries.view(np.uint64), axis=1)  # -1 comes last
    ordered = np.take_along_axis(entries, order, axis=1)
    columns = np.zeros(entries.shape, np.int64)
    np.put_along_axis(columns, order[:, 1:], np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1), axis=1)
    width = int(columns.max(initial=-1, where=entries >= 0)) + 1
    ids = np.full((len(entries), width + 1), -1, np.int64)
    np.put_along_axis(ids, columns, entries, axis=1)
    ends = np.cumsum([each.ids.shape[1] for each in rankings])
    found = Candidates(ids[:, :width], np.split(columns, ends[:-1], axis=1))
    for each, own in zip(rankings, found.columns):
        _once(each, spread(np.ones(each.ids.shape), each, own, found.ids))
    return found


def _once(ranking: Ranking, ones: F64) -> None:
    doubled = np.flatnonzero((ranking.ids >= 0).sum(axis=1) != np.isfinite(ones).sum(axis=1))
    if doubled.size:
        found, counts = np.unique(ranking.ids[doubled[0]], return_counts=True)
        twice = found[(counts > 1) & (found >= 0)][0]
        raise ValueError(f"{ranking.name} must have a document once per query; row {doubled[0]} repeats id {twice}")


def spread(values: F64, ranking: Ranking, columns: I64, ids: I64) -> F64:
    """A ranking's values [Q, K] in the columns of the candidates [Q, C]."""
    out = np.full((ids.shape[0], ids.shape[1] + 1), np.nan)  # one column more, for pads of full rows
    np.put_along_axis(out, columns, np.where(ranking.ids >= 0, values, np.nan), axis=1)
    return out[:, :-1]


def normalized(scores: F64, how: str, floor: float | None, name: str) -> F64:
    """Scores [Q, C] as `fuse` says of ``normalize``, where missing ones have the least; NaN in rows that have none."""
    known = ~np.isnan(scores)
    lowest = np.fmin.reduce(scores, axis=1, keepdims=True, initial=np.inf)  # passes NaN over
    highest = np.fmax.reduce(scores, axis=1, keepdims=True, initial=-np.inf)
    if floor is not None:
        below = np.flatnonzero(lowest < floor)
        if below.size:
            raise ValueError(f"floors must not exceed a score; {name} has {lowest[below[0], 0]:g} in row {below[0]}")
        lowest = np.full_like(lowest, floor)
    if how == "zscore":
        values = _standardized(scores, known, lowest == highest)
    elif how == "minmax":
        values = _stretched(scores, lowest, highest, 1.0 if floor is None else 0.0)
    else:
        values = scores
    least = 0.0 if how == "minmax" else np.where(known, values, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    return np.where(known, values, np.where(known.any(axis=1, keepdims=True), least, np.nan))


def _stretched(scores: F64, lowest: F64, highest: F64, flat: float) -> F64:
    """(s - lowest) / (highest - lowest), ``flat`` where these are equal."""
    equal = ~(highest > lowest)
    values: F64 = np.where(equal, flat, (scores - lowest) / np.where(equal, 1.0, highest - lowest))
    return values


def _standardized(scores: F64, known: Bool, equal: Bool) -> F64:
    """(s - mean) / standard deviation of the known scores of each row, summed by rising id; 0 where all are equal."""
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = _sum(np.where(known, scores, 0.0)) / count
    off = np.where(known & ~equal, scores - mean, 0.0)  # the rounded mean of equal scores need not be that score
    deviation = np.sqrt(_sum(off * off) / count)
    values: F64 = off / np.where(deviation > 0, deviation, 1.0)
    return values


def _sum(terms: F64) -> F64:
    """The sums [Q, 1] of rows [Q, C], one term after the other."""
    return np.cumsum(terms, axis=1)[:, -1:] if terms.shape[1] else np.zeros((len(terms), 1))


def reciprocal(rankings: Sequence[Ranking], candidates: Candidates, weights: F64, constant: float) -> F64:
    """The sum over rankings of weight / (constant + place), [Q, C]."""
    total = np.zeros(candidates.ids.shape)
    for each, columns, weight in zip(rankings, candidates.columns, weights):
        place = np.cumsum(each.ids >= 0, axis=1)
        term = spread(weight / (constant + place), each, columns, candidates.ids)
        total += np.where(np.isnan(term), 0.0, term)
    return total


def weighted(terms: Sequence[F64], weights: F64) -> F64:
    """The sum of weight times term, [Q, C]."""
    total = np.zeros(terms[0].shape)
    for term, weight in zip(terms, weights):
        total += np.where(np.isnan(term), 0.0, weight * term)
    return total


def product(terms: Sequence[F64], rankings: Sequence[Ranking]) -> F64:
    """The product of the terms, [Q, C]. ValueError for a negative one."""
    total = np.ones(terms[0].shape)
    for term, each in zip(terms, rankings):
        negative = np.flatnonzero((term < 0).any(axis=1))
        if negative.size:
            wanted = "must have no negative score, once normalised, for method='product'"
            raise ValueError(f"{each.name} {wanted}; row {negative[0]} has one (normalize='minmax' leaves none)")
        with np.errstate(over="ignore", under="ignore"):
            total = np.minimum(total * np.where(np.isnan(term), 1.0, term), LARGEST)  # never inf, which times 0 is NaN
    return total


def best(scores: F32, ids: I64, k: int) -> tuple[F32, I64]:
    """The k best of candidates [Q, C], ties by smaller id, padded."""
    width = min(k, ids.shape[1])
    bits = np.where(ids >= 0, scores, np.float32(-np.inf)).view(np.int32)
    falling = ~(bits ^ ((bits >> 31) & 0x7FFFFFFF))  # an integer that falls as the float rises
    keys = (falling.astype(np.int64) << 32) | np.arange(ids.shape[1])  # candidates rise by id, so ties go to the first
    if width < ids.shape[1]:
        keys = np.partition(keys, width - 1, axis=1)[:, :width]
    columns = np.sort(keys, axis=1) & 0xFFFFFFFF
    top_scores = np.full((len(ids), k), -np.inf, np.float32)
    top_ids = np.full((len(ids), k), -1, np.int64)
    top_ids[:, :width] = np.take_along_axis(ids, columns, axis=1)
    top_scores[:, :width] = np.take_along_axis(scores, columns, axis=1)
    top_scores[top_ids < 0] = -np.inf
    return top_scores, top_ids

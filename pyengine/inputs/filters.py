"""Filters: which documents a query may get, beyond the mask. From a caller's arguments to what a problem holds.

``allow`` and ``deny`` become part of the mask, one bitmap for all queries. The others are kept as they are, and decide
which candidates are *eligible*: ``exclude`` before they are refined, ``groups``, ``after`` and ``threshold`` by their
refined scores. Nothing here is ever of size Q x N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pyengine import checks
from pyengine.inputs import lists
from pyengine.inputs.lists import RowLists, first_rows
from pyengine.types import F32, F64, I64, U8, Bool, Candidates, TopK

GROUP_PLACES = 4  # how many more candidates than k are asked for where some may belong to one group


class FilterArguments(NamedTuple):
    """The arguments of a search by these names, as the caller gave them."""

    allow: Any = None
    deny: Any = None
    exclude: Any = None
    groups: Any = None
    per_group: Any = 1
    after: Any = None
    threshold: Any = None


class Mark(NamedTuple):
    """A place in each query's ranking: ``rank`` float64 [Q] is a rank score, ``ids`` int64 [Q]."""

    rank: F64
    ids: I64


@dataclass(frozen=True)
class Filters:
    """Checked filters of Q queries and N documents: ``excluded`` rows, ``groups`` int64 [N] (at most ``per_group``
    results of each label), results strictly ``after`` a mark, and of at least the rank score ``threshold`` [Q]."""

    excluded: RowLists | None = None
    groups: I64 | None = None
    per_group: int = 1
    after: Mark | None = None
    threshold: F64 | None = None

    def only(self, which: I64) -> Filters:
        """The filters of some of the queries."""
        return replace(
            self,
            excluded=None if self.excluded is None else self.excluded.only(which),
            after=None if self.after is None else Mark(self.after.rank[which], self.after.ids[which]),
            threshold=None if self.threshold is None else self.threshold[which],
        )

    def places(self, k: int) -> int:
        """How many candidates to ask for at first, so that k may be eligible."""
        excluded = 0 if self.excluded is None else self.excluded.common  # those with longer lists may have to ask again
        return (k + excluded) * (1 if self.groups is None else GROUP_PLACES)

    def most(self, k: int) -> int:
        """At most how many results a query can have."""
        return k if self.groups is None else max(1, min(k, self.per_group * len(np.unique(self.groups))))

    def floor(self) -> F64 | None:
        """float64 [Q]: a document of a lower rank score is not eligible."""
        return None if self.threshold is None else below(self.threshold)

    def ceiling(self) -> F64 | None:
        """float64 [Q]: a document of a higher rank score is not eligible, and does not matter for those that are (in
        its group, it would)."""
        return None if self.after is None or self.groups is not None else above(self.after.rank)

    def eligible(self, candidates: Candidates, rank: F32, ids: I64) -> Bool:
        """bool [M]: which of these candidates, with their rank scores and ids, may be returned. Of each group, all
        better members must be among them. The groups come first, so that pages follow on one another."""
        owner = first_rows(candidates.offsets)
        keep = np.ones(len(owner), bool)
        if self.groups is not None:
            order = lists.best_first(candidates, rank, ids)
            keep &= lists.occurrences(candidates, order, self.groups[candidates.rows]) < self.per_group
        if self.after is not None:
            mark, mark_ids = self.after.rank[owner], self.after.ids[owner]
            keep &= (rank < mark) | ((rank == mark) & (ids > mark_ids))
        if self.threshold is not None:
            keep &= rank >= self.threshold[owner]
        return keep

    def describe(self) -> list[str]:
        """In words, for `explain`."""
        said = []
        if self.excluded is not None:
            said.append(f"exclude (up to {self.excluded.longest} per query)")
        if self.groups is not None:
            said.append(f"groups (at most {self.per_group} of each)")
        said += [name for name in ("after", "threshold") if getattr(self, name) is not None]
        return said


def below(rank: F64) -> F64:
    """float64: what lies lower than this rounds to a float32 that is less than ``rank``."""
    return _next(rank, -np.inf)


def above(rank: F64) -> F64:
    """float64: what lies higher than this rounds to a float32 that is greater than ``rank``."""
    return _next(rank, np.inf)


def _next(rank: F64, towards: float) -> F64:
    """The float32 that follows, in that direction, on the smallest that is not less than ``rank``."""
    up, end = np.float32(np.inf), np.float32(towards)
    with np.errstate(over="ignore", under="ignore"):
        rounded = rank.astype(np.float32)
        at_least = np.where(rounded < rank, np.nextafter(rounded, up), rounded)
        following: F64 = np.nextafter(at_least, end).astype(np.float64)
    return following


RowsOf = Callable[[I64], I64]  # the rows of ids, -1 where there is none


def build(given: FilterArguments, n_queries: int, n_docs: int, metric: str, rows_of: RowsOf) -> Filters | None:
    """Check everything but ``allow`` and ``deny``; None where nothing is filtered."""
    sign = -1.0 if metric == "l2" else 1.0
    per_group = checks.positive_int(given.per_group, "per_group")
    if given.groups is None and per_group != 1:
        raise ValueError(f"per_group must come with groups; got per_group={per_group} and no groups")
    if given.exclude is None and given.groups is None and given.after is None and given.threshold is None:
        return None
    threshold = thresholds(given.threshold, n_queries, sign)
    after = _mark(given.after, n_queries, sign)
    if after is not None and (after.ids < 0).any():  # nothing comes after a pad, and no score reaches this
        threshold = np.full(n_queries, -np.inf) if threshold is None else threshold
        threshold = np.where(after.ids < 0, np.inf, threshold)
    return Filters(
        excluded=_excluded(given.exclude, n_queries, rows_of),
        groups=_labels(given.groups, n_docs),
        per_group=per_group,
        after=after,
        threshold=threshold,
    )


def narrowed(mask: U8 | None, given: FilterArguments, n_docs: int, rows_of: RowsOf) -> U8 | None:
    """The bitmap [1 or Q, ceil(N/8)] of what mask, ``allow`` and ``deny`` all permit."""
    for name, value in (("allow", given.allow), ("deny", given.deny)):
        if value is None:
            continue
        ids, known = _ids(value, name)
        rows = rows_of(known)
        if name == "allow" and (rows < 0).any():
            raise ValueError(f"allow must hold ids of documents; got {ids[np.argmin(rows)]}, which is unknown")
        listed = np.zeros(n_docs, bool)
        listed[rows[rows >= 0]] = True
        bits = np.packbits(listed if name == "allow" else ~listed, bitorder="little")[None]
        mask = bits if mask is None else mask & bits
    return mask


def thresholds(value: Any, n_queries: int, sign: float) -> F64 | None:
    """A score, or one per query, as rank scores float64 [Q]."""
    if value is None:
        return None
    array = _numbers(value, "threshold")
    if array.shape not in ((), (n_queries,)):
        raise ValueError(f"threshold must be a number or have shape ({n_queries},), one per query; got {array.shape}")
    return np.broadcast_to(sign * array, (n_queries,))


def _numbers(value: Any, name: str) -> F64:
    array = checks.host_array(value, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers (float or int); got dtype {array.dtype}")
    if np.isnan(array).any():
        raise ValueError(f"{name} must not be NaN; got {np.count_nonzero(np.isnan(array))} such")
    return array.astype(np.float64)


def integers(value: Any, name: str) -> np.ndarray:
    array = checks.host_array(value, name)
    if array.dtype.kind not in "iu" and not (array.size == 0 and array.dtype.kind == "f"):  # [] is float64
        raise TypeError(f"{name} must hold integers; got dtype {array.dtype}")
    return array


def as_ids(array: np.ndarray) -> I64:
    """int64; -1, which no document has, for what lies beyond it."""
    beyond = array > np.iinfo(np.int64).max if array.dtype.kind == "u" else np.zeros(array.shape, bool)
    ids: I64 = array.astype(np.int64)
    ids[beyond] = -1
    return ids


def _ids(value: Any, name: str) -> tuple[np.ndarray, I64]:
    """Integers [n], as given and as ids."""
    array = integers(checks.unordered(value), name)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape [n]; got shape {array.shape}")
    return array, as_ids(array)


def _excluded(value: Any, n_queries: int, rows_of: RowsOf) -> RowLists | None:
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        each = [_ids(ids, f"exclude[{q}]")[1] for q, ids in enumerate(value)]
        given, lengths = len(each), [len(ids) for ids in each]
        flat = np.concatenate([*each, np.empty(0, np.int64)])
    else:
        array = integers(value, "exclude")
        if array.ndim != 2:
            raise ValueError(f"exclude must be a list of id arrays, or have shape [Q, E]; got shape {array.shape}")
        given, lengths, flat = len(array), [array.shape[1]] * len(array), as_ids(array).ravel()
    if given != n_queries:
        raise ValueError(f"exclude must have one list of ids per query, {n_queries}; got {given}")
    rows = rows_of(flat)
    owner = np.repeat(np.arange(n_queries), lengths)
    return lists.from_pairs(owner[rows >= 0], rows[rows >= 0], n_queries)


def _labels(value: Any, n_docs: int) -> I64 | None:
    if value is None:
        return None
    array = integers(value, "groups")
    if array.shape != (n_docs,):
        raise ValueError(f"groups must have shape ({n_docs},), one label per document; got {array.shape}")
    return array.astype(np.int64)


def _mark(value: Any, n_queries: int, sign: float) -> Mark | None:
    if value is None:
        return None
    if isinstance(value, TopK):
        scores, ids = checks.host_array(value.scores, "after"), checks.host_array(value.ids, "after")
        if ids.ndim != 2 or not ids.shape[1] or scores.shape != ids.shape:
            raise ValueError(f"after must be a TopK of scores and ids [Q, K]; got shapes {scores.shape}, {ids.shape}")
        scores, ids = scores[:, -1], ids[:, -1]
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        scores, ids = value
    else:
        raise TypeError(f"after must be a TopK, or a pair of scores [Q] and ids [Q]; got {type(value).__name__}")
    scores, ids = _numbers(scores, "after"), as_ids(integers(ids, "after"))
    for array in (scores, ids):
        if array.shape != (n_queries,):
            raise ValueError(f"after must have one score and one id per query, ({n_queries},); got {array.shape}")
    return Mark(sign * scores, ids)

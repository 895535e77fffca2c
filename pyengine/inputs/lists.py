"""Ragged lists of rows, one list per query, as flat arrays: query q owns ``offsets[q]:offsets[q + 1]``."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pyengine.types import F32, I64, Bool, Candidates


class RowLists(NamedTuple):
    """``rows`` int64 [M], rising and distinct within each query, and ``offsets`` int64 [Q+1]."""

    rows: I64
    offsets: I64

    def only(self, which: I64) -> RowLists:
        """The lists of these queries."""
        lengths = np.diff(self.offsets)[which]
        offsets = _offsets(lengths)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][which] - offsets[:-1], lengths)
        return RowLists(self.rows[places], offsets)

    def hold(self, candidates: Candidates, n_docs: int) -> Bool:
        """bool [M]: whether each candidate is in the list of its query."""
        keys = first_rows(self.offsets) * n_docs + self.rows  # rising, since the rows of each query rise
        wanted = first_rows(candidates.offsets) * n_docs + candidates.rows
        held: Bool = np.zeros(len(wanted), bool)
        if len(keys):
            held = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
        return held

    @property
    def longest(self) -> int:
        return int(np.diff(self.offsets).max(initial=0))

    @property
    def common(self) -> int:
        """A length that nine lists of ten do not exceed."""
        lengths = np.sort(np.diff(self.offsets))
        return int(lengths[9 * len(lengths) // 10]) if len(lengths) else 0


def from_pairs(owner: I64, rows: I64, n_queries: int) -> RowLists:
    """The lists of pairs of a query number and a row, in any order and any number of times."""
    order = np.lexsort((rows, owner))
    owner, rows = owner[order], rows[order]
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(owner) != 0) | (np.diff(rows) != 0)
    return RowLists(rows[new], _offsets(np.bincount(owner[new], minlength=n_queries)))


def first_rows(offsets: I64) -> I64:
    """The query number [M] of each candidate."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def runs(flags: Bool) -> list[slice]:
    """Where neighbours of ``flags`` bool [N] are alike."""
    ends = [0, *(np.flatnonzero(np.diff(flags)) + 1), len(flags)]
    return [slice(int(start), int(stop)) for start, stop in pairwise(ends)]


def take(candidates: Candidates, keep: Bool) -> Candidates:
    """The candidates that are True."""
    before = np.concatenate([[0], np.cumsum(keep)])
    return candidates._replace(
        rows=candidates.rows[keep],
        offsets=before[candidates.offsets].astype(np.int64),
        estimates=candidates.estimates[keep],
    )


def best_first(candidates: Candidates, rank: F32, ids: I64) -> I64:
    """int64 [M]: an order that sorts each query's candidates by rank score, ties by smaller id."""
    order: I64 = np.lexsort((ids, -rank, first_rows(candidates.offsets)))
    return order


def places(candidates: Candidates, order: I64) -> I64:
    """int64 [M]: how many candidates of its query come before each in that order (`best_first`)."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - candidates.offsets[first_rows(candidates.offsets)]
    return place


def occurrences(candidates: Candidates, order: I64, labels: I64) -> I64:
    """int64 [M]: how many candidates of its query and its label [M] come before each in that order."""
    owner = first_rows(candidates.offsets)
    together = order[np.lexsort((labels[order], owner))]  # stable: runs of one query and label, best first
    labels = labels[together]
    new = np.ones(len(together), bool)
    new[1:] = (np.diff(owner) != 0) | (labels[1:] != labels[:-1])
    number = np.arange(len(together))
    found = np.empty(len(together), np.int64)
    found[together] = number - np.maximum.accumulate(np.where(new, number, 0))
    return found


def _offsets(lengths: I64) -> I64:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets

"""Sparse documents as the scan of `csrc/cuda/sparse_topk.cu` reads them: postings by windows of documents.

A term has a scale D_t, the power of two by which its largest weight becomes 2^12 to 2^13. A posting is a word of 32
bits: the level of a weight, signed, the nearest integer of w / D_t and never 0; below it the document's number in its
window, times four. What a level leaves of any weight of a term, |w - D_t level|, is at most its residual r_t, which is
0 where weights have few bits, as counts and ones do.

The postings of a window lie together, term after term, each filled up to fours with words of 0. Within a run of 128 a
word of 16 bytes has those that are a quarter of the run apart, so that threads beside one another add for documents
that are. A *segment* is the postings of a term in a window; those of a term follow one another, in the order of
windows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.inputs.sparse_rows import I32, SparseRows
from pyengine.types import F32, F64, I64

WINDOW = 1 << 14  # documents whose sums, int32, are in the shared memory of a block
LEVEL_BITS = 13  # of a level: what it leaves weighs as much as what rounding the factors of some 40 terms does
RUN = 128  # postings of a warp, four to a lane
SHORT_TERMS = 1 << 16  # what is sorted by radix at a time
WHOLE = float(1 << 24)  # integers up to it are exact in float32


@dataclass(frozen=True)
class Windows:
    """N documents of T terms as a scan reads them, in S segments.

    ``postings`` uint32 [4 F]; ``segments`` int32 [3, S]: window, place in ``postings`` and length, both in fours, the
    place as uint32. Term t, of the name ``names[t]`` (int32 [T], rising), has the ``held[t]`` segments (int32 [T]) from
    ``first[t]`` (int64 [T]) on. ``scales``, ``residuals`` and ``largest`` levels are float64 [T].
    """

    n_docs: int
    postings: NDArray[np.uint32]
    segments: I32
    names: I32
    first: I64
    held: I32
    scales: F64
    residuals: F64
    largest: F64
    signed: bool
    integers: bool  # all weights are

    @property
    def n_windows(self) -> int:
        return -(-self.n_docs // WINDOW)

    def numbers(self, names: I32) -> tuple[NDArray[np.bool_], I64]:
        """Which of these terms documents have, and the numbers of those."""
        if not len(self.names):
            return np.zeros(len(names), bool), np.empty(0, np.int64)
        at = np.minimum(np.searchsorted(self.names, names), len(self.names) - 1)
        known = self.names[at] == names
        return known, at[known].astype(np.int64)


class _Sorted(NamedTuple):
    """The postings of one window by terms: of each segment the ``names`` int32, ``lengths`` int64 and ``largest``
    magnitude float64 [s]; the ``docs`` uint16 and ``weights`` float32 of all, and whether these are ``signed`` or all
    ``integers``."""

    names: I32
    lengths: I64
    largest: F64
    docs: NDArray[np.uint16]
    weights: F32
    signed: bool
    integers: bool


def windows(count: int, part: Callable[[I64], SparseRows]) -> Windows:
    """So many documents as a scan reads them, where ``part`` gives those of some numbers. Takes some 10 bytes a weight
    beside them while it is made."""
    spans = [np.arange(first, min(first + WINDOW, count)) for first in range(0, count, WINDOW)]
    with ThreadPoolExecutor(checks.thread_count(None)) as threads:
        parts = list(threads.map(lambda span: _sorted(part(span)), spans))
        made = _laid_out(parts)
        edges = np.cumsum([0, *(len(each.names) for each in parts)])
        residuals = np.empty(int(edges[-1]))

        def fill(window: int) -> None:
            own, span = parts[window], slice(edges[window], edges[window + 1])
            residuals[span] = _fill(made.postings, own, made.starts[span], made.scales[made.numbers[span]])
            parts[window] = own._replace(docs=own.docs[:0].copy(), weights=own.weights[:0].copy())

        signed = any(each.signed for each in parts)
        integers = all(each.integers for each in parts)
        list(threads.map(fill, range(len(parts))))
    return Windows(
        count, made.postings, made.segments, made.names, made.first.astype(np.int64),
        np.bincount(made.numbers).astype(np.int32), made.scales, _maxima(residuals[made.by_term], made.first),
        np.rint(made.largest / made.scales), signed, integers,
    )  # fmt: skip


class _Layout(NamedTuple):
    """Where the postings of windows go. Of the S segments, window after window: the ``starts`` int64, in fours, and the
    ``numbers`` int64 of their terms; ``by_term`` int64 sorts them. The others as in `Windows`, ``largest`` a weight."""

    postings: NDArray[np.uint32]
    segments: I32
    starts: I64
    numbers: I64
    by_term: I64
    names: I32
    first: I64
    largest: F64
    scales: F64


def _laid_out(parts: list[_Sorted]) -> _Layout:
    all_names = np.concatenate([np.empty(0, np.int32), *(each.names for each in parts)])
    of_segments = np.concatenate([np.empty(0), *(each.largest for each in parts)])
    fours = np.concatenate([np.empty(0, np.int64), *(-(-each.lengths // 4) for each in parts)])
    starts = np.cumsum(fours) - fours
    by_term = np.argsort(all_names, kind="stable")
    names, first = np.unique(all_names[by_term], return_index=True)
    numbers = np.empty(len(by_term), np.int64)
    numbers[by_term] = np.repeat(np.arange(len(names)), np.diff(first, append=len(by_term)))
    largest = _maxima(of_segments[by_term], first)
    scales = np.ldexp(1.0, np.frexp(largest)[1] - LEVEL_BITS)
    window = np.repeat(np.arange(len(parts)), [len(each.names) for each in parts])
    segments = np.stack([window, starts.astype(np.uint32).view(np.int32), fours])[:, by_term].astype(np.int32)
    postings = np.zeros(4 * int(fours.sum()), np.uint32)
    return _Layout(postings, segments, starts, numbers, by_term, names, first, largest, scales)


def _maxima(values: F64, first: I64) -> F64:
    """float64 [T], of the values of each term."""
    found: F64 = np.maximum.reduceat(values, first) if len(first) else np.empty(0)
    return found


def _sorted(rows: SparseRows) -> _Sorted:
    docs = np.repeat(np.arange(len(rows), dtype=np.uint16), rows.lengths)
    kept = rows.values != 0
    terms, weights, docs = rows.indices[kept], rows.values[kept], docs[kept]
    order = np.argsort(terms.astype(np.uint16), kind="stable")
    if rows.n_terms > SHORT_TERMS:
        order = order[np.argsort((terms[order] >> 16).astype(np.uint16), kind="stable")]
    terms, weights, docs = terms[order], weights[order], docs[order]
    starts = np.flatnonzero(np.diff(terms, prepend=-1))
    largest = _maxima(np.abs(weights).astype(np.float64), starts)
    signed, integers = bool((weights < 0).any()), bool((weights == np.rint(weights)).all())
    return _Sorted(terms[starts], np.diff(starts, append=len(terms)), largest, docs, weights, signed, integers)


def _fill(postings: NDArray[np.uint32], part: _Sorted, starts: I64, scales: F64) -> F64:
    """Write the postings of a window: float64 [s], what the levels of each segment leave at most."""
    before = np.cumsum(part.lengths) - part.lengths
    scale, weights = np.repeat(scales, part.lengths), part.weights.astype(np.float64)
    levels = np.rint(weights / scale)
    levels = np.where(levels == 0, np.sign(weights), levels)
    words = (levels.astype(np.int32) << 16).view(np.uint32) | (part.docs.astype(np.uint32) << 2)
    postings[_places(part.lengths, before, starts)] = words
    return _maxima(np.abs(weights - scale * levels), before)


def _places(lengths: I64, before: I64, starts: I64) -> I64:
    """Where each posting of segments goes that begin at ``starts``, in fours."""
    place = np.arange(int(lengths.sum())) - np.repeat(before, lengths)
    run, place = place // RUN, place % RUN
    lanes = np.minimum(np.repeat(-(-lengths // 4), lengths) - RUN // 4 * run, RUN // 4)
    found: I64 = 4 * (np.repeat(starts, lengths) + RUN // 4 * run + place % lanes) + place // lanes
    return found

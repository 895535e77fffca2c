"""Made-up sparse vectors: what a lexicon encoder such as SPLADE gives, or text, as far as a search can tell.

A document is a Poisson process over the terms: the term of rank r (0, 1, ...) is drawn for it at a rate that falls as
(r + shift) ** exponent, times the document's length, which is log-normal (sigma 0.3). The rates are such that documents
have ``mean`` distinct terms on average. The ids of terms are a random permutation of their ranks. A query has so many
distinct terms, drawn with odds P(t) ** g, where P(t) is the share of the documents that hold t, and g such that the
lists of its terms together hold, on average, as many postings per document as is asked for.

`SPLADE`: 30,522 terms, 120 a document; a hundred head terms hold a half of all postings, the first is in 99 % of the
documents. Its weights are log(1 + x), x log-normal (median 0.6, sigma 0.9), independent of the term.
`TEXT`: 60,000 terms, 60 distinct ones a document, by Zipf's law without its stop words; how often each was drawn is
counted.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyengine.inputs.sparse_rows import SparseRows
from pyengine.types import F32, F64, I64

I32 = NDArray[np.int32]
SPREAD = 0.3  # of the logarithm of documents' lengths, unless a law says otherwise
QUANTILES = np.array([-1.593, -0.967, -0.589, -0.282, 0.0, 0.282, 0.589, 0.967, 1.593])  # of a standard normal
PART = 1 << 13  # documents made at once: what is sorted fits in a cache
CELLS = 1 << 24  # of the table that turns random numbers into terms
SEED = 20_260


class Law(NamedTuple):
    """How terms are spread over documents, and their weights: ``spread`` is that of the logarithm of documents'
    lengths, ``median`` and ``sigma`` those of x in log(1 + x)."""

    n_terms: int
    mean: float
    shift: float
    exponent: float
    spread: float = SPREAD
    median: float = 0.6
    sigma: float = 0.9

    @cache  # noqa: B019 (of a tuple: what it keeps is small)
    def rates(self) -> F64:
        """float64 [n_terms], by term id: how often a term is drawn for a document of length 1, on average."""
        weights = (np.arange(self.n_terms) + self.shift + 1) ** self.exponent
        low, high = 0.0, 1e9
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if shares(middle * weights, self.spread).sum() < self.mean else (low, middle)
        return np.random.default_rng([SEED, 1]).permutation(low * weights)


SPLADE, TEXT = Law(30_522, 120.0, 25.0, -1.7), Law(60_000, 60.0, 10.0, -1.1)


def shares(rates: NDArray[np.floating], spread: float = SPREAD) -> F64:
    """The share of the documents that hold each term: the mean over nine lengths of documents."""
    found: F64 = np.mean([-np.expm1(-length * rates) for length in lengths_of(QUANTILES, spread)], axis=0)
    return found


def lengths_of(normal: F64, spread: float) -> F64:
    """Log-normal, 1 on average."""
    found: F64 = np.exp(spread * normal - spread**2 / 2)
    return found


def documents(n_docs: int, law: Law) -> tuple[SparseRows, I32]:
    """So many documents, weighted as learned ones are, and how often each of their terms was drawn, int32 [P]. The
    terms of the first are the same however many there are. Raises ValueError for more than 65,536 terms: a term and its
    document are sorted as one uint32."""
    if law.n_terms > 1 << 16:
        raise ValueError(f"n_terms must be at most 65,536; got {law.n_terms}")
    rates = law.rates()
    cells = np.diff(np.rint(np.cumsum(rates) * (CELLS / rates.sum())).astype(np.int64), prepend=0)
    table = np.repeat(np.arange(law.n_terms, dtype=np.uint16), cells)
    parts = [_part(at, min(PART, n_docs - at), table, rates.sum(), law.spread) for at in range(0, n_docs, PART)]
    lengths, terms, counts = (np.concatenate(each) for each in zip(*parts))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return SparseRows(offsets, terms, weights(len(terms), 2, law), law.n_terms), counts


def _part(first: int, count: int, table: NDArray[np.uint16], rate: float, spread: float) -> tuple[I64, I32, I32]:
    """How many terms each of these documents has, which, and how often."""
    random = np.random.default_rng([SEED, 3, first])
    drawn = random.poisson(lengths_of(random.standard_normal(PART), spread) * rate)[:count]
    rows = np.repeat(np.arange(count, dtype=np.uint32), drawn)
    keys = (rows << 16) | table[random.integers(0, CELLS, len(rows), dtype=np.uint32)]
    keys.sort()
    places = np.flatnonzero(np.diff(keys, prepend=np.uint32(0xFFFFFFFF)))  # no key is that: its row would be too large
    counts = np.diff(places, append=len(keys)).astype(np.int32)
    found = keys[places]
    return np.bincount(found >> 16, minlength=count), (found & 0xFFFF).astype(np.int32), counts


def weights(count: int, stream: int, law: Law) -> F32:
    """float32 [count] of log(1 + x)."""
    found = np.random.default_rng([SEED, stream]).standard_normal(count, np.float32)
    np.multiply(found, np.float32(law.sigma), out=found)
    np.add(found, np.float32(np.log(law.median)), out=found)
    np.exp(found, out=found)
    return np.log1p(found, out=found)


def queries(n_queries: int, law: Law, n_terms: int, touched: float) -> SparseRows:
    """So many queries of ``n_terms`` weighted terms, whose lists together hold ``touched`` postings per document on
    average (a little fewer, since a term is drawn once). The first are the same however many there are."""
    share = shares(law.rates(), law.spread)
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        odds = share**middle
        low, high = (middle, high) if n_terms * (odds @ share) / odds.sum() < touched else (low, middle)
    clocks = np.random.default_rng([SEED, 4, n_terms]).standard_exponential((n_queries, law.n_terms), np.float32)
    clocks /= (share**low).astype(np.float32)  # the first to ring are drawn
    chosen = np.sort(np.argpartition(clocks, n_terms - 1, axis=1)[:, :n_terms], axis=1)
    offsets = np.arange(n_queries + 1, dtype=np.int64) * n_terms
    return SparseRows(offsets, chosen.ravel(), weights(n_queries * n_terms, 5 + n_terms, law), law.n_terms)

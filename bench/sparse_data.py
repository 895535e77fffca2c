"""Made-up learned sparse vectors: what a lexicon encoder such as SPLADE gives, as far as a search can tell.

A document is a Poisson process over the terms: term t of rank r occurs in it with probability 1 - exp(-L_d * rate_t),
where rate_t falls as (r + 25) ** -1.7 and L_d is log-normal (sigma 0.3): the rates are such that a document has ``mean``
distinct terms on average, of which a hundred head terms hold about a half. The ids of terms are a random permutation of
their ranks. A weight is log(1 + x), x log-normal (median 0.6, sigma 0.9), independent of its term. A query has so many
distinct terms, drawn with odds P(t) ** g, where g is such that the lists of its terms hold, on average, so many postings
per document as is asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyengine.types import F32, F64, I64

I32 = NDArray[np.int32]
SHIFT, EXPONENT = 25.0, -1.7  # of Zipf's law (Mandelbrot's form)
SPREAD = 0.3  # of the logarithm of documents' lengths
MEDIAN, SIGMA = 0.6, 0.9  # of x in log(1 + x)
PART = 1 << 13  # documents made at once: what is sorted fits in a cache
CELLS = 1 << 24  # of the table that turns random numbers into terms
SEED = 20_260


class Csr(NamedTuple):
    """Rows: indptr int64 [n + 1], indices int32 [P] rising in each row, values float32 [P] above 0."""

    indptr: I64
    indices: I32
    values: F32


def rates(n_terms: int, mean: float) -> F64:
    """float64 [n_terms], by term id: how often a term is drawn for a document of length 1."""
    weights = (np.arange(n_terms) + SHIFT + 1) ** EXPONENT
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if shares(middle * weights).sum() < mean else (low, middle)
    return np.random.default_rng([SEED, 1]).permutation(low * weights)


def shares(rate: F64) -> F64:
    """The share of the documents that hold a term of that rate: the mean over nine lengths of documents."""
    lengths = _lengths(np.array([-1.593, -0.967, -0.589, -0.282, 0.0, 0.282, 0.589, 0.967, 1.593]))
    found: F64 = np.mean([-np.expm1(-length * rate) for length in lengths], axis=0)
    return found


def _lengths(normal: NDArray[np.floating]) -> F64:
    """Log-normal, 1 on average."""
    found: F64 = np.exp(SPREAD * normal - SPREAD**2 / 2).astype(np.float64)
    return found


def documents(n_docs: int, n_terms: int, mean: float) -> Csr:
    """So many documents of ``mean`` terms on average; the first are the same however many there are. Of at most 65,536
    terms: a term and its document are sorted as one uint32. Raises ValueError for more."""
    if n_terms > 1 << 16:
        raise ValueError(f"n_terms must be at most 65,536, got {n_terms:,}")
    rate = rates(n_terms, mean)
    cells = np.diff(np.rint(np.cumsum(rate) * (CELLS / rate.sum())).astype(np.int64), prepend=0)
    table = np.repeat(np.arange(n_terms, dtype=np.uint16), cells)
    parts = [_part(at, min(PART, n_docs - at), table, rate) for at in range(0, n_docs, PART)]
    counts = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, np.int64)
    indices = np.concatenate([part[1] for part in parts]) if parts else np.empty(0, np.int32)
    return Csr(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), indices, weights(len(indices), 2))


def _part(first: int, count: int, table: NDArray[np.uint16], rate: F64) -> tuple[I64, I32]:
    """How many terms each of these documents has, and which."""
    random = np.random.default_rng([SEED, 3, first])
    drawn = random.poisson(_lengths(random.standard_normal(PART)) * rate.sum())[:count]
    rows = np.repeat(np.arange(count, dtype=np.uint32), drawn)
    keys = (rows << 16) | table[random.integers(0, CELLS, len(rows), dtype=np.uint32)]
    keys.sort()
    keys = keys[np.flatnonzero(np.diff(keys, prepend=np.uint32(0xFFFFFFFF)))]
    return np.bincount(keys >> 16, minlength=count).astype(np.int64), (keys & 0xFFFF).astype(np.int32)


def weights(count: int, stream: int) -> F32:
    """float32 [count] of log(1 + x)."""
    found = np.random.default_rng([SEED, stream]).standard_normal(count, np.float32)
    np.multiply(found, np.float32(SIGMA), out=found)
    np.add(found, np.float32(np.log(MEDIAN)), out=found)
    np.exp(found, out=found)
    return np.log1p(found, out=found)


def queries(n_queries: int, n_terms: int, mean: float, each: int, touched: float) -> Csr:
    """So many queries of ``each`` terms, whose lists hold ``touched`` postings per document on average, all lists of a
    query together."""
    share = shares(rates(n_terms, mean))
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        odds = share**middle
        low, high = (middle, high) if each * (odds @ share) / odds.sum() < touched else (low, middle)
    random = np.random.default_rng([SEED, 4, each])
    keys = random.standard_exponential((n_queries, n_terms), np.float32) / (share**low).astype(np.float32)
    chosen = np.sort(np.argpartition(keys, each - 1, axis=1)[:, :each], axis=1)  # the first of so many clocks to ring
    return Csr(
        np.arange(n_queries + 1, dtype=np.int64) * each,
        chosen.astype(np.int32).ravel(),
        weights(n_queries * each, 5 + each),
    )

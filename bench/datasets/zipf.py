"""Made-up sparse rows with the statistics of real ones: a `sparse_data.Law`, which says how they are made, fitted.

The shares of documents that hold the terms give the rates at which these are drawn; the logarithms of the rates are a
line in log(rank + shift), by least squares over ranks that are spread evenly on a logarithmic scale. The spread of
lengths is such that the number of distinct terms varies as it does. Weights w are taken as log(1 + x), x log-normal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.datasets.clustered import bisect
from bench.workloads import sparse_data
from bench.workloads.sparse_data import Law
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.types import F64, I64

SHIFTS = np.geomspace(0.3, 1000, 60)
RANKS = 200  # at which the line is compared
MOST_TERMS = 1 << 16  # that `sparse_data.documents` can make


class Asking(NamedTuple):
    """Queries: so many terms, whose lists hold ``touched`` postings per document together."""

    n_terms: int
    touched: float


def fit(docs: SparseRows, queries: SparseRows) -> tuple[Law, Asking]:
    """The laws of documents and queries. ValueError where there is nothing to fit, or a weight is not positive: these
    are laws of positive weights. Of a larger vocabulary the 65,536 commonest terms are taken."""
    frequency = np.sort(np.bincount(docs.indices, minlength=1))[::-1]
    frequency = frequency[frequency > 0][:MOST_TERMS]
    if len(frequency) < 10 or not queries.nnz:
        raise ValueError(f"docs must have at least 10 terms and queries 1; got {len(frequency)} and {queries.nnz}")
    if docs.values.min() <= 0:
        raise ValueError(f"docs must have positive weights; got {docs.values.min()}")
    share = frequency / len(docs)
    rates = -np.log1p(-np.minimum(share, 1 - 0.5 / len(docs)))
    shift, exponent = _line(rates)
    x = np.log(np.expm1(docs.values.astype(np.float64)))
    law = Law(
        len(frequency),
        float(share.sum()),
        shift,
        exponent,
        _spread(docs.lengths, rates),
        float(np.exp(np.median(x))),
        float(x.std()),
    )
    of_term = np.bincount(docs.indices, minlength=docs.n_terms) / len(docs)
    n_terms = max(1, round(queries.nnz / len(queries)))
    touched = of_term[queries.indices[queries.indices < len(of_term)]].sum() / len(queries)
    return law, Asking(min(n_terms, law.n_terms), float(touched))


def made(law: Law, asking: Asking, n_docs: int, n_queries: int) -> tuple[SparseRows, SparseRows]:
    """Documents and queries by those laws."""
    docs, _ = sparse_data.documents(n_docs, law)
    return docs, sparse_data.queries(n_queries, law, asking.n_terms, asking.touched)


def _line(rates: F64) -> tuple[float, float]:
    """The shift and the exponent of rates by falling rank."""
    ranks = np.unique(np.geomspace(1, len(rates), RANKS).astype(np.int64))
    target = np.log(rates[ranks - 1])
    fits = []
    for shift in SHIFTS:
        (exponent, _), residual, *_ = np.polyfit(np.log(ranks + shift), target, 1, full=True)
        fits.append((float(residual.sum()), float(shift), float(exponent)))
    return min(fits)[1:]


def _spread(n_terms: I64, rates: F64) -> float:
    """That makes the number of distinct terms vary as these do, [N], where terms are drawn at these rates."""

    def variation(spread: float) -> float:
        held = [-np.expm1(-length * rates) for length in sparse_data.lengths_of(sparse_data.QUANTILES, spread)]
        counts, drawn = [each.sum() for each in held], np.mean([(each * (1 - each)).sum() for each in held])
        return float((np.var(counts) + drawn) / np.mean(counts) ** 2)

    return bisect(variation, float(n_terms.var() / n_terms.mean() ** 2), 0.0, 2.0, 30)

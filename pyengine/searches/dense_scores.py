"""Every score of queries and documents, for callers who need the numbers and not the best of them.

Blocks of float64 products propose, with a bound; where everything within it rounds to one float32, that is the score,
and the few other pairs are scored by the specification.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyengine import checks
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.refining import exact
from pyengine.searches.dense import prepare
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Candidates

BLOCK = 1 << 20  # scores at a time: 8 MiB in float64
UNIT = 2.0**-53


@exact.arithmetic()
def dense_scores(queries: Any, docs: Any, *, metric: str = "cosine", num_threads: int | None = None) -> F32:
    """float32 [Q, N]: the score of every query with every document, as `pyengine.topk` has them, whose arguments these
    are, on the host. Q x N scores are a lot of memory, and `topk` needs none of it."""
    problem = _problem(queries, docs, metric, num_threads)
    scores = np.empty((problem.n_queries, len(problem.docs)), np.float32)
    query_norms = exact.norms(problem.queries, problem.dims, problem.num_threads)[:, None]
    step = max(1, min(len(problem.docs), BLOCK // problem.dims))
    height = max(1, BLOCK // step)
    for start in range(0, scores.shape[1], step):
        rows = problem.docs.rows[start : start + step]
        docs64, norms = rows.T.astype(np.float64), exact.norms(rows, problem.dims, problem.num_threads)
        for first in range(0, scores.shape[0], height):
            some = slice(first, first + height)
            products = problem.queries[some].astype(np.float64) @ docs64
            near = _proposed(products, query_norms[some], norms, problem.dims, problem.metric)
            scores[some, start : start + step] = _settled(problem, first, start, *near)
    return scores


@exact.arithmetic()
def paired_scores(queries: Any, docs: Any, *, metric: str = "cosine", num_threads: int | None = None) -> F32:
    """float32 [Q]: the score of each query with the document of the same number; arguments as for `dense_scores`."""
    problem = _problem(queries, docs, metric, num_threads)
    if len(problem.docs) != problem.n_queries:
        got = f"{problem.n_queries} and {len(problem.docs)} rows"
        raise ValueError(f"queries and docs must have as many rows, to be scored in pairs; got {got}")
    numbers = np.arange(problem.n_queries)
    return exact.refine(problem, _candidates(numbers, numbers, problem.n_queries))


def _problem(queries: Any, docs: Any, metric: str, num_threads: int | None) -> DenseProblem:
    rows = checks.vectors(docs, "docs")
    checks.finite(rows, "docs")
    return prepare(queries, Documents(rows, checked=True), 1, metric=metric, num_threads=num_threads)


def _settled(problem: DenseProblem, first_query: int, first_doc: int, proposed: F64, error: F64) -> F32:
    """The scores of a block of the matrix, from what is within ``error`` of them."""
    scores = reference.round_score(proposed - error)
    query, doc = np.nonzero(scores != reference.round_score(proposed + error))
    if len(query):
        scores[query, doc] = exact.refine(problem, _candidates(query + first_query, doc + first_doc, problem.n_queries))
    return scores


def _proposed(products: F64, query_norms: F64, norms: F64, dims: int, metric: str) -> tuple[F64, F64]:
    """Scores, and how far those of the specification may be from them.

    Products of two float32 are exact in float64. A sum of n of them, in any order, is within ``n u / (1 - n u) |q||d|``
    of the real number (u = 2^-53), so that two such sums differ by at most twice that. The further units are for the
    norms, which are as inexact, and for the operations behind the sum. Of ``l2``, each of |q|^2, |d|^2 and 2<q,d> is so
    bounded, and so are the squares that the specification adds up, by |q|^2 + |d|^2 and twice that.
    """
    if metric == "dot":
        return products, (2 * dims + 16) * UNIT * query_norms * norms
    if metric == "cosine":
        lengths = query_norms * norms
        cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
        return cosines, np.where(lengths > 0, (2 * dims + 16) * UNIT, 0.0)
    squares = query_norms**2 + norms**2
    return squares - 2 * products, (6 * dims + 32) * UNIT * squares


def _candidates(queries: I64, rows: I64, n_queries: int) -> Candidates:
    """These pairs, by ascending query."""
    offsets = np.searchsorted(queries, np.arange(n_queries + 1))
    return Candidates(np.ascontiguousarray(rows), offsets, np.empty(len(rows), np.float32), np.empty(0))

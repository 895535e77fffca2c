"""The specification of sparse scoring, in NumPy float64, written to be read. Every backend returns these bits.

A score is the sum over the terms that a query and a document share, by ascending term id, of q_t d_t: one running sum
in float64 from +0.0, each product and each sum rounded on its own. A bias is added in float64, and the whole is rounded
to float32 once (`reference.round_score`). Rows are `SparseRows`: terms ascend and are distinct.

Documents without a shared term are documents like all others, of score 0 (and the bias): they fill up the k best in the
order of their ids, and come before those of negative scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyengine.inputs.sparse_rows import SparseRows
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, TopK


def shared(queries: SparseRows, owner: I64, docs: SparseRows) -> tuple[I64, F64]:
    """The terms that document m shares with query ``owner[m]``, for all m in order, each by ascending term id: where in
    ``docs.indices`` they are, int64 [S], and their products, float64 [S]."""
    n_terms = max(queries.n_terms, docs.n_terms)
    keys = np.repeat(np.arange(len(queries)), queries.lengths) * n_terms + queries.indices  # they rise
    wanted = np.repeat(owner, docs.lengths) * n_terms + docs.indices
    at = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
    places = np.flatnonzero(keys[at] == wanted) if len(keys) else np.empty(0, np.int64)
    products = queries.values[at[places]].astype(np.float64) * docs.values[places].astype(np.float64)
    return places, products


def pair_sums(queries: SparseRows, owner: I64, docs: SparseRows) -> F64:
    """float64 [M]: the scores of document m with query ``owner[m]``, before a bias."""
    places, products = shared(queries, owner, docs)
    number = np.repeat(np.arange(len(docs)), docs.lengths)[places]
    sums = np.bincount(number, products, len(docs))  # adds one after another, each to its own +0.0
    return sums.astype(np.float64)  # of nothing, they are integers


def unrounded_scores(queries: SparseRows, docs: SparseRows, bias: F64 | None = None) -> F64:
    """float64 [Q, N], ``bias`` [N] included."""
    score = np.empty((len(queries), len(docs)))
    for q in range(len(queries)):
        score[q] = pair_sums(queries.part(slice(q, q + 1)), np.zeros(len(docs), np.int64), docs)
    return score if bias is None else score + bias


def scores(queries: SparseRows, docs: SparseRows, bias: F64 | None = None) -> F32:
    """float32 [Q, N]: `unrounded_scores`, rounded once."""
    return reference.round_score(unrounded_scores(queries, docs, bias))


def contributions(query: SparseRows, doc: SparseRows) -> tuple[I64, F32]:
    """The shared terms, int64 [S], of a query and a document (one row each) and their products rounded to float32, the
    largest first, ties by smaller term id."""
    places, products = shared(query, np.zeros(1, np.int64), doc)
    rounded, terms = reference.round_score(products), doc.indices[places].astype(np.int64)
    order = np.lexsort((terms, -rounded))
    return terms[order], rounded[order]


def topk(
    queries: SparseRows, docs: SparseRows, k: int, *, ids: I64 | None = None, bias: F64 | None = None, **filters: Any
) -> TopK:
    """Exact top-k of the `scores`. ``ids`` int64 [N] replace row numbers; ``filters``: see `reference.first_k`."""
    ranks = (scores(queries.part(slice(q, q + 1)), docs, bias)[0] for q in range(len(queries)))
    return reference.first_k(ranks, (len(queries), len(docs)), k, ids, **filters)

"""The specification of late interaction (MaxSim), in NumPy float64, written to be read. Every backend returns these
bits.

With s_ij the product of query token i and document token j (`reference.unrounded_scores`), M_i is the maximum of s_ij
over the document's tokens and C_j its maximum over the query's. Both start at -inf, so negative maxima survive. A sum
starts at +0.0 and takes its terms in order; a weight times its maximum is rounded before it is added.

    sum        sum_i M_i                                      ColBERT (arXiv 2004.12832)
    mean       (sum_i M_i) / L_q
    symmetric  (mean_i M_i + mean_j C_j) / 2                  FILIP (arXiv 2111.07783)
    with query weights w:  sum_i w_i M_i                      (of "sum")
    with w and document weights v:  (sum_i w_i M_i + sum_j v_j C_j) / 2    of "symmetric" (arXiv 2203.07111)
    softmax    (sum_i f_i) / L_q, f_i = sum_j p_ij s_ij and p_i = softmax(s_i / t)
    pooled     cos(q, sum_j p_j d_j) of queries of one token q         X-Pool, without parameters (arXiv 2203.15086)
    aligned    sum_k cos(q_k, d_k), or sum_k w_k cos(q_k, d_k), of sets of one length

The softmax is `reference_softmax`: its operations are part of the specification, so that it is exact to the bit like
all else. With ``normalize`` tokens are compared, and pooled, as unit vectors.

A bias is added in float64, and the whole is rounded to float32 once. A query without tokens scores 0, before its bias,
against every document; a document without tokens scores -inf against all other queries, which no top k returns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyengine.inputs.ragged import Ragged
from pyengine.specification import reference, reference_softmax
from pyengine.types import F32, F64, I64, TopK

MAXIMA = ("sum", "mean", "symmetric")
REDUCTIONS = (*MAXIMA, "softmax", "pooled", "aligned")
SOFT = ("softmax", "pooled")  # those with a temperature
WEIGHTED = ("sum", "symmetric", "aligned")  # those that query weights go with


def similarities(query: F32, doc: F32, normalize: bool = False) -> F64:
    """float64 [Lq, Ld]: the products of all tokens, or with ``normalize`` their cosines."""
    products = np.empty((len(query), len(doc)))
    for i, token in enumerate(query):
        products[i] = reference.unrounded_scores(token, doc, "cosine" if normalize else "dot")
    return products


def weighted_sum(maxima: F64, weights: F32 | None) -> float:
    """The sum of the terms, in their order, from +0.0."""
    terms: list[float] = (maxima if weights is None else weights.astype(np.float64) * maxima).tolist()
    total = 0.0
    for term in terms:
        total += term
    return total


def reduced(products: F64, reduce: str, query_weights: F32 | None = None, doc_weights: F32 | None = None) -> float:
    """The float64 score, without bias, of one query and one document with these `similarities` [Lq, Ld]."""
    n_query, n_doc = map(int, products.shape)
    if n_query == 0:
        return 0.0
    if n_doc == 0:
        return -math.inf
    forth = weighted_sum(products.max(axis=1), query_weights)
    if reduce == "sum":
        return forth
    if reduce == "mean":
        return forth / n_query
    back = weighted_sum(products.max(axis=0), doc_weights)
    return (forth + back) / 2 if query_weights is not None else (forth / n_query + back / n_doc) / 2


def pair_score(
    query: F32,
    doc: F32,
    products: F64,
    *,
    reduce: str = "sum",
    normalize: bool = False,
    query_weights: F32 | None = None,
    doc_weights: F32 | None = None,
    temperature: float | None = None,
) -> float:
    """The float64 score, without bias, of one query and one document, of any reduction. ``products`` [Lq, Ld] are their
    `similarities`: cosines for "aligned"."""
    if not products.size or reduce in MAXIMA:
        return reduced(products, reduce, query_weights, doc_weights)
    if reduce == "aligned":
        return weighted_sum(products.diagonal(), query_weights)
    assert temperature is not None
    if reduce == "pooled":
        return reference_softmax.pooled(query[0], doc, products[0], temperature, normalize)
    return weighted_sum(reference_softmax.softened(products, temperature)[1], None) / len(products)


def round_score(score: F64) -> F32:
    """Round once to float32, as `reference.round_score`; -inf stays."""
    rounded: F32 = np.where(score == -np.inf, np.float32(-np.inf), reference.round_score(score))
    return rounded


def winners(products: F64) -> I64:
    """int64 [Lq]: the first document token of the greatest product, -1 without any. For the columns, transpose."""
    if products.shape[1] == 0:
        return np.full(len(products), -1, np.int64)
    first: I64 = products.argmax(axis=1).astype(np.int64)
    return first


def unrounded_scores(
    queries: Ragged,
    docs: Ragged,
    *,
    reduce: str = "sum",
    normalize: bool = False,
    query_weights: F32 | None = None,
    doc_weights: F32 | None = None,
    temperature: float | None = None,
    bias: F64 | None = None,
) -> F64:
    """float64 [Q, N], ``bias`` [N] included. The weights, float32 [Tq] and [Td], lie as the tokens do."""
    normalize |= reduce == "aligned"
    score = np.empty((len(queries), len(docs)))
    for q, query in enumerate(queries):
        products = similarities(query, docs.values, normalize)
        own = None if query_weights is None else query_weights[slice(*queries.offsets[q : q + 2])]
        for d, (low, high) in enumerate(zip(docs.offsets[:-1], docs.offsets[1:])):
            theirs = None if doc_weights is None else doc_weights[low:high]
            score[q, d] = pair_score(
                query, docs.values[low:high], products[:, low:high], reduce=reduce, normalize=normalize,
                query_weights=own, doc_weights=theirs, temperature=temperature,
            )  # fmt: skip
    return score if bias is None else score + bias


def scores(queries: Ragged, docs: Ragged, **options: Any) -> F32:
    """float32 [Q, N]: `unrounded_scores` with its options, rounded once."""
    return round_score(unrounded_scores(queries, docs, **options))


def topk(
    queries: Ragged,
    docs: Ragged,
    k: int,
    *,
    reduce: str = "sum",
    normalize: bool = False,
    query_weights: F32 | None = None,
    doc_weights: F32 | None = None,
    temperature: float | None = None,
    bias: F64 | None = None,
    ids: I64 | None = None,
    **filters: Any,
) -> TopK:
    """Exact top-k of the `scores`. ``ids`` int64 [N] replace row numbers; ``filters`` are those of `reference.first_k`.
    Documents that score -inf are never returned."""
    matrix = scores(
        queries, docs, reduce=reduce, normalize=normalize, query_weights=query_weights, doc_weights=doc_weights,
        temperature=temperature, bias=bias,
    )  # fmt: skip
    return reference.first_k(matrix, (len(queries), len(docs)), k, ids, **filters)

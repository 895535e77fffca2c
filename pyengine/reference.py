"""The specification, in NumPy float64, written to be read. Every backend returns these bits.

A dot product takes eight strided lanes: lane l starts at +0.0 and sums products l, l+8, l+16, ... in that order; the
lanes are added as ((l0+l1)+(l2+l3)) + ((l4+l5)+(l6+l7)). Each product and each sum is rounded on its own. The score,
with its bias, is rounded to float32 once, at its end. DESIGN.md, "The specification", says why.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyengine.types import F32, F64, I64, Bool, TopK

METRICS = ("cosine", "dot", "l2")
LANES = 8
FLOAT32_MAX = float(np.finfo(np.float32).max)
BLOCK_ELEMENTS = 1 << 22  # float64 scratch of `topk`: 32 MiB


def lane_sum(terms: F64) -> F64:
    """Sum the last axis [..., D] in the order of the specification. The lanes lie first so that each step adds
    whole contiguous planes."""
    lanes = np.zeros((LANES, *terms.shape[:-1]))
    for start in range(0, terms.shape[-1], LANES):
        step = terms[..., start : start + LANES]
        lanes[: step.shape[-1]] += np.moveaxis(step, -1, 0)
    total: F64 = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    return total


def dot(a: NDArray[np.floating], b: NDArray[np.floating]) -> F64:
    """Dot product over the last axis, with broadcasting, in float64."""
    return lane_sum(a.astype(np.float64) * b.astype(np.float64))


def norm(a: NDArray[np.floating]) -> F64:
    """Euclidean norm over the last axis: sqrt(<a, a>) in float64."""
    return np.sqrt(dot(a, a))


def round_score(score: F64) -> F32:
    """Round once to float32: finite values outside its range are clamped, and zero is +0.0."""
    clamped = np.clip(score, -FLOAT32_MAX, FLOAT32_MAX)
    with np.errstate(under="ignore"):
        rounded: F32 = clamped.astype(np.float32) + np.float32(0.0)  # -0.0 + 0.0 is +0.0
    return rounded


def unrounded_scores(queries: F32, docs: F32, metric: str, bias: F64 | None = None) -> F64:
    """float64 scores of query rows against document rows [..., D], broadcast against each other.

    ``cosine`` is <q,d> / (|q| |d|), 0 where either norm is 0; ``l2`` is the sum of (q_i - d_i)^2.
    """
    if metric == "l2":
        difference = queries.astype(np.float64) - docs.astype(np.float64)
        score = lane_sum(difference * difference)
    else:
        score = dot(queries, docs)
    if metric == "cosine":
        norms = norm(queries) * norm(docs)
        score = np.divide(score, norms, out=np.zeros_like(score), where=norms > 0)
    return score if bias is None else score + bias


def pair_scores(queries: F32, docs: F32, metric: str, bias: F64 | None = None) -> F32:
    """The scores: `unrounded_scores`, rounded once."""
    return round_score(unrounded_scores(queries, docs, metric, bias))


def scores(queries: F32, docs: F32, metric: str = "cosine", bias: F64 | None = None, dims: int | None = None) -> F32:
    """The full score matrix [Q, N], for tests and small problems."""
    return pair_scores(queries[:, None, :dims], docs[None, :, :dims], metric, bias)


def rank_score(score: F32, metric: str) -> F32:
    """The score as a quantity to be maximised."""
    return -score if metric == "l2" else score


def select(rank: F32, ids: I64, k: int) -> tuple[F32, I64]:
    """The k best of one query's candidates (rank scores and ids, both [M]), padded to k with -inf and -1."""
    best = np.lexsort((ids, -rank))[:k]
    best = best[rank[best] > -np.inf]
    top_rank = np.full(k, -np.inf, np.float32)
    top_ids = np.full(k, -1, np.int64)
    top_rank[: best.size], top_ids[: best.size] = rank[best], ids[best]
    return top_rank, top_ids


def topk(
    queries: F32,
    docs: F32,
    k: int,
    metric: str = "cosine",
    *,
    mask: Bool | None = None,
    bias: F64 | None = None,
    dims: int | None = None,
    ids: I64 | None = None,
) -> TopK:
    """Exact top-k by the specification. ``mask`` bool [N] or [Q, N] says which documents may be returned,
    ``bias`` float64 [N] is added to the score, ``dims`` scores a prefix, ``ids`` int64 [N] replace row numbers."""
    n_queries, n_docs = len(queries), len(docs)
    ids = np.arange(n_docs, dtype=np.int64) if ids is None else ids
    allowed = np.broadcast_to(np.True_ if mask is None else mask, (n_queries, n_docs))
    top_rank = np.full((n_queries, k), -np.inf, np.float32)
    top_ids = np.full((n_queries, k), -1, np.int64)
    block = max(1, BLOCK_ELEMENTS // max(1, queries.shape[1]))
    for q in range(n_queries):
        for start in range(0, n_docs, block):
            part = slice(start, start + block)
            score = scores(queries[q : q + 1], docs[part], metric, None if bias is None else bias[part], dims)[0]
            keep = allowed[q, part]
            rank = np.concatenate([top_rank[q], rank_score(score, metric)[keep]])
            top_rank[q], top_ids[q] = select(rank, np.concatenate([top_ids[q], ids[part][keep]]), k)
    return TopK(rank_score(top_rank, metric), top_ids, np.ones(n_queries, bool))

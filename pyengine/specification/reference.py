"""The specification, in NumPy float64, written to be read. Every backend returns these bits.

A dot product takes eight strided lanes: lane l starts at +0.0 and sums products l, l+8, l+16, ... in that order; the
lanes are added as ((l0+l1)+(l2+l3)) + ((l4+l5)+(l6+l7)). Each product and each sum is rounded on its own. The score,
with its bias, is rounded to float32 once, at its end. DESIGN.md, "The specification", says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine.types import F32, F64, I64, Bool, Ranges, TopK

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
    clamped = np.minimum(np.maximum(score, -FLOAT32_MAX), FLOAT32_MAX)
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


def all_ranks(query: F32, docs: F32, metric: str = "cosine", bias: F64 | None = None, dims: int | None = None) -> F32:
    """float32 [N]: the rank score of every document for one query [D]."""
    rank = np.empty(len(docs), np.float32)
    block = max(1, BLOCK_ELEMENTS // max(1, len(query)))
    for start in range(0, len(docs), block):
        part = slice(start, start + block)
        score = scores(query[None], docs[part], metric, None if bias is None else bias[part], dims)[0]
        rank[part] = rank_score(score, metric)
    return rank


def best_first(rank: F32, ids: I64) -> I64:
    """The rows of one query's rank scores [N], the best first, ties by smaller id."""
    return np.lexsort((ids, -rank))


def permitted(
    n_queries: int, ids: I64, mask: Bool | None = None, allow: I64 | None = None, deny: I64 | None = None,
    exclude: Sequence[I64] | None = None,
) -> Bool:  # fmt: skip
    """bool [Q, N]: which documents of these ids each query may get. ``allow`` and ``deny`` are ids, ``exclude`` ids for
    each query."""
    may = np.ones((n_queries, len(ids)), bool) & (True if mask is None else mask)
    may &= True if allow is None else np.isin(ids, allow)
    may &= True if deny is None else ~np.isin(ids, deny)
    for q, gone in enumerate([] if exclude is None else exclude):
        may[q] &= ~np.isin(ids, gone)
    return may


def first_of_groups(labels: I64, per_group: int) -> Bool:
    """bool [M], of labels best first: which are among the first ``per_group`` of their label."""
    before: dict[int, int] = {}
    keep = np.zeros(len(labels), bool)
    for place, label in enumerate(labels.tolist()):
        keep[place] = before.setdefault(label, 0) < per_group
        before[label] += 1
    return keep


def topk(
    queries: F32,
    docs: F32,
    k: int,
    metric: str = "cosine",
    *,
    bias: F64 | None = None,
    dims: int | None = None,
    ids: I64 | None = None,
    **filters: Any,
) -> TopK:
    """Exact top-k by the specification. ``bias`` float64 [N] is added to the score, ``dims`` scores a prefix, ``ids``
    int64 [N] replace row numbers, and ``filters`` are those of `first_k`."""
    ranks = (all_ranks(query, docs, metric, bias, dims) for query in queries)
    sign = -1.0 if metric == "l2" else 1.0
    found = first_k(ranks, (len(queries), len(docs)), k, ids, sign, **filters)
    return found._replace(scores=rank_score(found.scores, metric))


def first_k(
    ranks: Iterable[F32],
    shape: tuple[int, int],
    k: int,
    ids: I64 | None = None,
    sign: float = 1.0,
    *,
    mask: Bool | None = None,
    allow: I64 | None = None,
    deny: I64 | None = None,
    exclude: Sequence[I64] | None = None,
    groups: I64 | None = None,
    per_group: int = 1,
    after: tuple[F32 | F64, I64] | None = None,
    threshold: float | F64 | None = None,
) -> TopK:
    """The k best documents of each query, with their rank scores, of which ``ranks`` gives [N] for one query after
    another, Q in all: ``shape`` is Q and N. ``sign`` makes scores of rank scores. -inf is never returned.

    ``mask`` bool [N] or [Q, N] says which documents may be returned, and so do the ids of `permitted`. Of what is
    permitted, best first: at most ``per_group`` of each label in ``groups`` [N]; then what comes ``after`` a score and
    an id (nothing comes after a pad); then what reaches the ``threshold``; then the first k.
    """
    n_queries, n_docs = shape
    ids = np.arange(n_docs, dtype=np.int64) if ids is None else ids
    may = permitted(n_queries, ids, mask, allow, deny, exclude)
    top_rank = np.full((n_queries, k), -np.inf, np.float32)
    top_ids = np.full((n_queries, k), -1, np.int64)
    for q, every in enumerate(ranks):
        order = best_first(every, ids)
        rows = order[may[q, order] & (every[order] > -np.inf)]
        rank = every[rows]
        keep = np.ones(len(rows), bool) if groups is None else first_of_groups(groups[rows], per_group)
        if after is not None:
            mark, mark_id = sign * after[0][q], after[1][q]
            keep &= (rank < mark) | ((rank == mark) & (ids[rows] > mark_id)) if mark_id >= 0 else False
        if threshold is not None:
            keep &= rank >= np.broadcast_to(sign * np.asarray(threshold, np.float64), n_queries)[q]
        best = np.flatnonzero(keep)[:k]
        top_rank[q, : best.size], top_ids[q, : best.size] = rank[best], ids[rows[best]]
    return TopK(top_rank, top_ids, np.ones(n_queries, bool))


def range_search(queries: F32, docs: F32, threshold: float | F64, metric: str = "cosine", **options: Any) -> Ranges:
    """Every document that reaches the threshold: of `topk` with its ``options``, all but the pads."""
    found = topk(queries, docs, max(1, len(docs)), metric, threshold=threshold, **options)
    kept = found.ids >= 0
    return Ranges(found.scores[kept], found.ids[kept], np.concatenate([[0], np.cumsum(kept.sum(axis=1))]))


def rank_of(
    queries: F32,
    docs: F32,
    targets: I64,
    metric: str = "cosine",
    *,
    bias: F64 | None = None,
    dims: int | None = None,
    ids: I64 | None = None,
    **permits: Any,
) -> I64:
    """int64, of the shape [Q] or [Q, T] of ``targets``: 1 + how many other documents, of those that each query may get
    (`permitted`), have a better score than the document of that id, or the same and a smaller id."""
    ids = np.arange(len(docs), dtype=np.int64) if ids is None else ids
    may = permitted(len(queries), ids, **permits)
    ranks = np.ones((len(queries), math.prod(targets.shape[1:])), np.int64)
    for q, own in enumerate(targets.reshape(ranks.shape)):
        rows = best_first(all_ranks(queries[q], docs, metric, bias, dims), ids)
        for t, target in enumerate(own):
            before = rows[: np.flatnonzero(ids[rows] == target)[0]]
            ranks[q, t] += np.count_nonzero(may[q, before])
    return ranks.reshape(targets.shape)

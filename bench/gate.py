"""The gate: answers are compared with the specification before anything is timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contestants import Answer
from pyengine import reference
from pyengine.types import F32, I64, Bool

MANY_DOCS = 1 << 19  # where the specification takes seconds per query


class Verdict(NamedTuple):
    """``exact``: ids and the bits of the scores are the specification's on every checked query. ``recall``: the
    share of its ids that were found. ``reason``: where it first differs, "" when it does not."""

    exact: bool
    recall: float
    reason: str


class Rows(Protocol):
    """Vectors [N, D] that are decoded a slice at a time; an array is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice) -> F32: ...


class Specification:
    """The specification's top k of single queries over one corpus, each computed once. The answer for a smaller k is
    its beginning. ``mask`` bool [N] says which documents may be returned."""

    def __init__(self, docs: Rows, queries: F32, metric: str, mask: Bool | None = None) -> None:
        self.docs, self.queries, self.metric, self.mask = docs, queries, metric, mask
        self._known: dict[int, Answer] = {}

    def row(self, query: int, k: int) -> tuple[F32, I64]:
        """Scores [k] and ids [k] of one query."""
        if query not in self._known or len(self._known[query][0]) < k:
            one = self.queries[query : query + 1]
            found = reference.topk(one, self.docs, k, self.metric, mask=self.mask)  # type: ignore[arg-type]
            self._known[query] = found.scores[0], found.ids[0]
        scores, ids = self._known[query]
        return scores[:k], ids[:k]

    def sample(self, n_queries: int) -> list[int]:
        """Up to four queries, spread over the batch; up to two of a large corpus."""
        inner = [] if len(self.docs) > MANY_DOCS else [n_queries // 3, 2 * n_queries // 3]
        return sorted({0, *inner, n_queries - 1})


def disagreements(answers: Sequence[Answer], limit: int = 4) -> list[int]:
    """The first queries on which answers that should be equal are not: the specification must decide those."""
    first = answers[0] if answers else None
    differs = [_differs(one, first) for one in answers[1:] if first and one[0].shape == first[0].shape]
    return [int(query) for query in np.flatnonzero(np.any(differs, axis=0))[:limit]] if differs else []


def judge(answer: Answer, truth: Specification, queries: Sequence[int], k: int) -> Verdict:
    """Compare rows of an answer (scores float32 [Q, k], ids int64 [Q, k]) with the specification. For the recall, a
    document that ties with the k-th score is as good as the one which the specification chose."""
    scores, ids = answer
    expected = (len(scores), k)
    if scores.shape != expected or ids.shape != expected:
        return Verdict(False, 0.0, f"shapes {scores.shape} and {ids.shape} where {expected} was asked for")
    reason, found = "", 0
    for query in queries:
        true_scores, true_ids = truth.row(query, k)
        found += (np.isin(ids[query], true_ids) | (_bits(scores[query]) == _bits(true_scores)[-1])).sum()
        wrong = (ids[query] != true_ids) | (_bits(scores[query]) != _bits(true_scores))
        if wrong.any() and not reason:
            at = int(np.argmax(wrong))
            reason = (
                f"query {query}, place {at}: id {ids[query, at]} with {scores[query, at]!r}, "
                f"where the specification has id {true_ids[at]} with {true_scores[at]!r}"
            )
    return Verdict(not reason, found / (len(queries) * k), reason)


def recall(ids: I64, true_ids: I64) -> float:
    """The share of the ids [Q, k] that are among the true ones [Q, k] of their query."""
    return float(np.mean([np.isin(true, found).mean() for found, true in zip(ids, true_ids)]))


def _differs(one: Answer, other: Answer) -> Bool:
    """bool [Q]: the queries whose ids or scores are not the same bits."""
    differs = (one[1] != other[1]) | (_bits(one[0]) != _bits(other[0]))  # [Q, k]
    return np.asarray(differs.any(axis=1), np.bool_)


def _bits(scores: F32) -> NDArray[np.uint32]:
    return np.ascontiguousarray(scores, np.float32).view(np.uint32)

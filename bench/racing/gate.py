"""The gate: answers are compared with the specification before anything is timed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.ours.contestants import Answer
from pyengine.inputs.ragged import Ragged
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.specification import reference, reference_maxsim, reference_sparse
from pyengine.types import F32, F64, I64, Bool

TOKENS = 1 << 16  # that the specification takes at once
ROWS = 1 << 15  # sparse ones that it takes at once
MARGIN = 1e-6  # of the score of parallel vectors: float32's rounding and far more than float64's
MANY_VECTORS = 1 << 19  # where the specification takes seconds per query


class Verdict(NamedTuple):
    """``exact``: ids and the bits of the scores are the specification's on every checked query. ``recall``: the
    share of its ids that were found. ``reason``: where it first differs, "" when it does not. ``ranks``: the share of
    the checked queries with its ids in its order, whatever the scores' bits."""

    exact: bool
    recall: float
    reason: str
    ranks: float = 1.0


class Rows(Protocol):
    """Vectors [N, D] that are decoded a slice at a time; an array is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice) -> F32: ...


class Truth(ABC):
    """A specification's top k of single queries over one corpus, each computed once. The answer for a smaller k is
    its beginning."""

    def __init__(self, n_vectors: int) -> None:
        self.n_vectors = n_vectors
        self._known: dict[int, Answer] = {}

    def row(self, query: int, k: int) -> tuple[F32, I64]:
        """Scores [k] and ids [k] of one query."""
        if query not in self._known or len(self._known[query][0]) < k:
            self._known[query] = self.find(query, k)
        scores, ids = self._known[query]
        return scores[:k], ids[:k]

    @abstractmethod
    def find(self, query: int, k: int) -> tuple[F32, I64]:
        """What `row` returns, computed."""

    def sample(self, n_queries: int) -> list[int]:
        """Up to four queries, spread over the batch; up to two of a large corpus."""
        inner = [] if self.n_vectors > MANY_VECTORS else [n_queries // 3, 2 * n_queries // 3]
        return sorted({0, *inner, n_queries - 1})


class Specification(Truth):
    """Of dense search: `pyengine.specification.reference`. ``mask`` bool [N] says which documents may be returned."""

    def __init__(self, docs: Rows, queries: F32, metric: str, mask: Bool | None = None) -> None:
        super().__init__(len(docs))
        self.docs, self.queries, self.metric, self.mask = docs, queries, metric, mask

    def find(self, query: int, k: int) -> tuple[F32, I64]:
        one = self.queries[query : query + 1]
        found = reference.topk(one, self.docs, k, self.metric, mask=self.mask)  # type: ignore[arg-type]
        return found.scores[0], found.ids[0]


class TokenSpecification(Truth):
    """Of late interaction: `pyengine.specification.reference_maxsim`, some documents at a time."""

    def __init__(self, docs: Ragged, queries: Ragged, reduce: str) -> None:
        super().__init__(len(docs.values))
        self.docs, self.queries, self.reduce = docs, queries, reduce

    def find(self, query: int, k: int) -> tuple[F32, I64]:
        """The specification takes minutes for a million tokens; it scores what may be among the k best: the products of
        BLAS in float64 differ from its own far less than ``MARGIN``."""
        one = self.queries.take(np.array([query]))
        parts = np.array_split(np.arange(len(self.docs)), 1 + len(self.docs.values) // TOKENS)
        rough, margin = np.concatenate([self._rough(one.values, self.docs.take(part)) for part in parts], axis=1)
        kth = np.sort(rough)[-min(k, len(rough))]
        may = np.flatnonzero(~(rough + margin < kth - margin.max()))
        scores, places = _best(reference_maxsim.scores(one, self.docs.take(may), reduce=self.reduce)[0], k)
        return scores, may[places]

    def _rough(self, query: F32, docs: Ragged) -> F64:
        """float64 [2, N]: the scores, and how far they may be from the specification's."""
        products = query.astype(np.float64) @ docs.values.astype(np.float64).T
        each = [products[:, low:high] for low, high in pairwise(docs.offsets)]
        scores = [reference_maxsim.reduced(part, self.reduce) for part in each]
        largest = np.linalg.norm(query, axis=1).sum() * np.linalg.norm(docs.values, axis=1).max(initial=0)
        return np.array([scores, np.full(len(docs), MARGIN * largest)])


class SparseSpecification(Truth):
    """Of sparse search: `pyengine.specification.reference_sparse`, some documents at a time."""

    def __init__(self, docs: SparseRows, queries: SparseRows) -> None:
        super().__init__(len(docs))
        self.docs, self.queries = docs, queries

    def find(self, query: int, k: int) -> tuple[F32, I64]:
        one = self.queries.part(slice(query, query + 1))
        parts = (self.docs.part(slice(start, start + ROWS)) for start in range(0, len(self.docs), ROWS))
        return _best(np.concatenate([reference_sparse.scores(one, part)[0] for part in parts]), k)


def _best(scores: F32, k: int) -> tuple[F32, I64]:
    """The k largest scores and their places, ties by smaller place."""
    best = np.argsort(-scores, kind="stable")[:k]
    return scores[best], best


def disagreements(answers: Sequence[Answer], limit: int = 4) -> list[int]:
    """The first queries on which answers that should be equal are not: the specification must decide those."""
    first = answers[0] if answers else None
    differs = [_differs(one, first) for one in answers[1:] if first and one[0].shape == first[0].shape]
    return [int(query) for query in np.flatnonzero(np.any(differs, axis=0))[:limit]] if differs else []


def judge(answer: Answer, truth: Truth, queries: Sequence[int], k: int) -> Verdict:
    """Compare rows of an answer (scores float32 [Q, k], ids int64 [Q, k]) with the specification. For the recall, a
    document that ties with the k-th score is as good as the one which the specification chose."""
    scores, ids = answer
    expected = (len(scores), k)
    if scores.shape != expected or ids.shape != expected:
        return Verdict(
            False, 0.0, ranks=0.0, reason=f"shapes {scores.shape} and {ids.shape} where {expected} was asked for"
        )
    reason, found = "", 0
    ranked = sum(np.array_equal(ids[query], truth.row(query, k)[1]) for query in queries)
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
    return Verdict(not reason, found / (len(queries) * k), reason, ranked / len(queries))


def recall(ids: I64, true_ids: I64) -> float:
    """The share of the ids [Q, k] that are among the true ones [Q, k] of their query."""
    return float(np.mean([np.isin(true, found).mean() for found, true in zip(ids, true_ids)]))


def _differs(one: Answer, other: Answer) -> Bool:
    """bool [Q]: the queries whose ids or scores are not the same bits."""
    differs = (one[1] != other[1]) | (_bits(one[0]) != _bits(other[0]))  # [Q, k]
    return np.asarray(differs.any(axis=1), np.bool_)


def _bits(scores: F32) -> NDArray[np.uint32]:
    return np.ascontiguousarray(scores, np.float32).view(np.uint32)

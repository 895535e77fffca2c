"""One validated MaxSim search, and documents of many vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from pyengine import checks
from pyengine.inputs.ragged import Ragged, finite, place
from pyengine.inputs.rows import Rows
from pyengine.problems.problem import Codes, Corpus, Documents, Problem
from pyengine.types import F32, I64, Bool

MANY_ROWS = 1 << 18  # documents of a corpus looked at together
MANY_VALUES = 1 << 19  # of tokens that are gathered, and decoded, together


@dataclass(frozen=True)
class TokenDocuments(Corpus):
    """N documents of token vectors: document n is ``tokens[offsets[n]:offsets[n + 1]]``, ``offsets`` int64 [N+1].

    ``tokens`` are all their vectors as a dense store gives them; its ``cache`` is for what is derived from them, that
    of this corpus for what is derived from documents.
    """

    tokens: Documents
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def dim(self) -> int:
        return self.tokens.dim

    @property
    def store(self) -> str:
        return self.tokens.store

    @property
    def codes(self) -> Codes | Rows | None:
        return self.tokens.codes

    @property
    def checked(self) -> bool:
        return self.tokens.checked

    @property
    def device(self) -> Any:
        return self.tokens.device

    def check_finite(self, listed: Bool | None = None) -> None:
        """Of all documents, or of those that ``listed`` [N] names."""
        if listed is None or listed.all():
            finite(self.tokens.rows, self.offsets, "docs")
            return
        for first in range(0, len(self), MANY_ROWS):
            rows = first + np.flatnonzero(listed[first : first + MANY_ROWS])
            for places in gathered(self.offsets, rows, self.dim):
                part = self.tokens.rows[places]
                if not np.isfinite([part.min(initial=0), part.max(initial=0)]).all():  # NaN passes through both
                    bad = places[np.argmin(np.isfinite(part).all(axis=1))]
                    raise checks.non_finite("docs", place(self.offsets, int(bad)))

    def part(self, which: slice) -> TokenDocuments:
        offsets = self.offsets[which.start : which.stop + 1]
        tokens = self.tokens.part(slice(int(offsets[0]), int(offsets[-1])))
        return TokenDocuments(tokens, offsets - offsets[0], cache={})

    def without_loose_codes(self) -> TokenDocuments:
        return replace(self, tokens=self.tokens.without_loose_codes())

    def trusting_loose_codes(self) -> TokenDocuments:
        return replace(self, tokens=self.tokens.trusting_loose_codes())

    def ragged(self) -> Ragged:
        """All vectors, decoded."""
        return Ragged(self.tokens.vectors(), self.offsets)


def gathered(offsets: I64, rows: I64, dim: int) -> Iterator[I64]:
    """Where the tokens of these documents lie, one document after another: a few megabytes of tokens at a time."""
    ends = np.cumsum(offsets[rows + 1] - offsets[rows])
    ahead = offsets[rows + 1] - ends
    total, step = int(ends[-1]) if len(ends) else 0, max(1, MANY_VALUES // max(1, dim))
    for start in range(0, total, step):
        tokens = np.arange(start, min(start + step, total))
        yield tokens + ahead[np.searchsorted(ends, tokens, side="right")]


@dataclass(frozen=True, kw_only=True)
class MaxSimProblem(Problem):
    """A MaxSim top-k search (`pyengine.specification.reference_maxsim`). ``metric`` is "cosine" where tokens are
    normalised (and for "aligned"), else "dot"; the weights, float32 [Tq] and [Td], lie as the tokens of queries and
    documents do."""

    family: ClassVar[str] = "maxsim"
    docs: TokenDocuments
    queries: Ragged
    reduce: str = "sum"
    query_weights: F32 | None = None
    doc_weights: F32 | None = None
    temperature: float | None = None

    @property
    def n_queries(self) -> int:
        return len(self.queries)

    @property
    def normalize(self) -> bool:
        return self.metric == "cosine"

    def scoring(self) -> dict[str, Any]:
        """The options of `reference_maxsim.scores`."""
        return {
            "reduce": self.reduce,
            "normalize": self.normalize,
            "query_weights": self.query_weights,
            "doc_weights": self.doc_weights,
            "temperature": self.temperature,
            "bias": self.bias,
        }

    def upper(self) -> MaxSimProblem:
        """A search by maxima alone whose scores are at least these, rounding included: "mean" for "softmax". Otherwise
        the same."""
        if self.reduce != "softmax":
            return self
        return replace(self, reduce="mean", temperature=None, ceiling=None)  # what is above it may score below

    def row_numbers(self, k: int) -> MaxSimProblem:
        """The same search for the k best, by row number, of those that the mask allows."""
        return replace(self, k=k, ids=None, filters=None)

    def queries_only(self, which: I64) -> dict[str, Any]:
        weights = self.query_weights
        some = None if weights is None else weights[self.queries.places(which)]
        return {"queries": self.queries.take(which), "query_weights": some}

    def docs_only(self, which: slice) -> dict[str, Any]:
        first, last = self.docs.offsets[[which.start, which.stop]]
        return {"doc_weights": None if self.doc_weights is None else self.doc_weights[first:last]}

    def describe_operands(self) -> str:
        weighted = " weighted" if self.query_weights is not None else ""
        queries = f"queries float32 [{self.n_queries}] of {len(self.queries.values)} tokens"
        documents = f"documents {self.docs.store} [{len(self.docs)}] of {len(self.docs.tokens)} tokens"
        at = "" if self.temperature is None else f" at temperature {self.temperature:g}"
        return f"{self.reduce}{at}{weighted} of {self.metric}, {queries}, {documents}, dim {self.docs.dim}"

"""One validated sparse search, and documents of term weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pyengine.inputs.ragged import taken
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem import PlainCorpus, Problem
from pyengine.types import F32, I64


@dataclass(frozen=True)
class TermRows:
    """N sparse rows as a store keeps them: row n is ``offsets[n]:offsets[n + 1]`` of ``terms`` and ``values``.

    ``offsets`` int64 [N+1]; ``terms`` uint16 (of at most 65,536) or int32 [P], rising in each row. ``values`` [P] are
    the weights as float32 or float16, or uint8 codes with ``low`` and ``step`` float32 [N] for each row: a code is the
    weight step * code + low, the product and the sum each rounded to float32. The decoded weights are the truth.
    """

    offsets: I64
    terms: NDArray[Any]
    values: NDArray[Any]
    n_terms: int
    low: F32 | None = None
    step: F32 | None = None

    @classmethod
    def of(cls, rows: SparseRows) -> TermRows:
        """The same arrays, not copied."""
        return cls(rows.indptr, rows.indices, rows.values, rows.n_terms)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nnz(self) -> int:
        """P, how many weights there are."""
        return len(self.terms)

    @property
    def nbytes(self) -> int:
        steps = [] if self.low is None or self.step is None else [self.low, self.step]
        return sum(each.nbytes for each in (self.offsets, self.terms, self.values, *steps))

    def part(self, which: slice) -> TermRows:
        """Consecutive rows, as they are kept."""
        offsets = self.offsets[which.start : which.stop + 1]
        span = slice(offsets[0], offsets[-1])
        low, step = (None if each is None else each[which] for each in (self.low, self.step))
        return TermRows(offsets - offsets[0], self.terms[span], self.values[span], self.n_terms, low, step)

    def decoded(self, rows: I64 | None = None) -> SparseRows:
        """These rows, or all; a decoded weight may be 0."""
        rows = np.arange(len(self)) if rows is None else rows
        places, offsets = taken(self.offsets, rows)
        terms, weights = self.terms[places].astype(np.int32), self.values[places].astype(np.float32)
        if self.low is not None and self.step is not None:
            lengths = np.diff(offsets)
            weights = np.repeat(self.step[rows], lengths) * weights + np.repeat(self.low[rows], lengths)
        return SparseRows.canonical(offsets, terms, weights, self.n_terms)


@dataclass(frozen=True)
class Postings:
    """The inverted form of ``count`` rows from ``first`` on. The ``arrays`` are those that
    `_native.build_postings` makes, by the names that `_native.Postings` asks for; nothing else looks into them."""

    first: int
    count: int
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SparseDocuments(PlainCorpus):
    """N documents of term weights. ``postings`` are inverted forms of ranges of ``rows``, rising and apart; documents
    that none covers are found by their rows."""

    rows: TermRows
    postings: tuple[Postings, ...] = ()

    @property
    def n_terms(self) -> int:
        return self.rows.n_terms

    @property
    def store(self) -> str:
        return str(self.rows.values.dtype.name)

    def part(self, which: slice) -> SparseDocuments:
        return SparseDocuments(self.rows.part(which), cache={})

    def sparse_rows(self) -> SparseRows:
        """All rows, decoded."""
        rows = self.rows
        if rows.terms.dtype == np.int32 and rows.values.dtype == np.float32:
            return SparseRows.canonical(rows.offsets, rows.terms, rows.values, rows.n_terms)
        return self.derived("decoded", rows.decoded)


@dataclass(frozen=True, kw_only=True)
class SparseProblem(Problem):
    """A sparse top-k search (`pyengine.specification.reference_sparse`). ``metric`` is "dot"."""

    family: ClassVar[str] = "sparse"
    docs: SparseDocuments
    queries: SparseRows
    metric: str = "dot"

    @property
    def n_queries(self) -> int:
        return len(self.queries)

    @property
    def by_row(self) -> bool:
        """Whether of documents that tie the first rows come first, and nothing may take the place of what is listed."""
        if self.filters is not None:
            return False
        return self.ids is None or self.docs.id_order(self.ids) is None

    def queries_only(self, which: I64) -> dict[str, Any]:
        return {"queries": self.queries.take(which)}

    def describe_operands(self) -> str:
        queries = f"queries float32 [{self.n_queries}] of {self.queries.nnz} weights"
        documents = f"documents {self.docs.store} [{len(self.docs)}] of {self.docs.rows.nnz} weights"
        return f"dot, {queries}, {documents}, {self.docs.n_terms} terms"

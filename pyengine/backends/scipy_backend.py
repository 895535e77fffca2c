"""scipy proposes by products of sparse matrices; the search core certifies and refines."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from pyengine.backends.base import SparseBackend
from pyengine.backends.shared import sparse_lists
from pyengine.backends.shared.sparse_lists import Inverted, Sharing
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.types import Candidates

PRODUCT = 1 << 22  # scores of queries and documents that share terms, held at a time


class ScipySparse(SparseBackend):
    """The product of a few queries with the inverted form of the documents, both CSR in float64: of documents that
    share terms only, with the bound that `sparse_lists` derives.

    With ``precision="fast"`` scores are sums in float64, which differ from the specification's by that bound: 2^-50 of
    the sum of magnitudes, for each term of the query. scipy uses one thread.
    """

    name = "scipy"

    def missing(self) -> str | None:
        return None if find_spec("scipy") else "scipy is not installed: run 'pip install scipy'"

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        return sparse_lists.candidates(problem, _sharing(problem), width)


def _sharing(problem: SparseProblem) -> Iterator[Sharing]:
    sparse: Any = import_module("scipy.sparse")
    inverted = sparse_lists.inverted(problem)
    signed = inverted.signed or bool((problem.queries.values < 0).any())
    docs, sizes = problem.docs.derived(("scipy", signed), lambda: _documents(sparse, problem, inverted, signed))
    line = np.zeros(len(problem.docs))  # scores of one query, for where terms cancel and a product has no place
    for which in _portions(problem, inverted):
        asked = _matrix(sparse, problem.queries.part(which), inverted)
        shared = abs(asked) @ sizes  # its places are those where terms are shared
        scores = asked @ docs if signed else shared
        for q in range(which.stop - which.start):
            span, own = slice(*shared.indptr[q : q + 2]), slice(*scores.indptr[q : q + 2])
            rows = shared.indices[span]
            line[scores.indices[own]] = scores.data[own]
            yield Sharing(rows.astype(np.int64), line[rows], shared.data[span])
            line[rows] = 0.0


def _documents(sparse: Any, problem: SparseProblem, inverted: Inverted, signed: bool) -> tuple[Any, Any]:
    """The documents [T, N], and their magnitudes."""
    starts = inverted.starts.astype(np.int32) if inverted.starts[-1] < 1 << 31 else inverted.starts
    shape = (len(inverted.terms), len(problem.docs))
    docs = sparse.csr_array((inverted.weights, inverted.docs, starts), shape=shape)
    return docs, abs(docs) if signed else docs


def _portions(problem: SparseProblem, inverted: Inverted) -> Iterator[slice]:
    """Queries whose products hold no more than `PRODUCT` places, or one."""
    queries = problem.queries
    places = inverted.of(queries.indices)
    read = np.where(places < 0, 0, np.diff(inverted.starts, append=0)[places])
    ends = np.concatenate([[0], np.cumsum(read)])[queries.indptr]
    start = 0
    while start < len(queries):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + PRODUCT, side="right")) - 1)
        yield slice(start, min(stop, len(queries)))
        start = stop


def _matrix(sparse: Any, queries: SparseRows, inverted: Inverted) -> Any:
    """The queries [q, T] over the terms that documents have."""
    places = inverted.of(queries.indices)
    known = places >= 0
    indptr = np.concatenate([[0], np.cumsum(known)])[queries.indptr]
    weights = queries.values[known].astype(np.float64)
    return sparse.csr_array((weights, places[known], indptr), shape=(len(queries), len(inverted.terms)))

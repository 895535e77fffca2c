"""faiss proposes from an IndexFlatIP; the search core certifies and refines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from pyengine.backends.base import Backend
from pyengine.backends.shared import float32
from pyengine.backends.shared.float32 import DocumentTerms
from pyengine.problems.problem import DenseProblem
from pyengine.types import F32, I64, Candidates

BLOCK = 1 << 14  # documents added to an index at a time


class FaissBackend(Backend):
    """An IndexFlatIP over rows that carry their own error bound, built at the first search and kept with the corpus.

    With ``precision="fast"`` the scores are float32 sums of D + 2 products, in faiss's order. They differ from the
    specification's by at most 2 G (|q| |d| + |bias|) for ``dot``, 2 G (1 + |bias|) for ``cosine`` and
    2 G ((|q| + |d|)^2 + |bias|) for ``l2``, where G is about (D + 12) 2^-24. `backends/shared/float32.py` derives G.
    Vectors of norm above 2^60, or below 2^-60 in ``cosine``, have no estimate.

    The index holds a second float32 copy of the corpus; a search with a bias builds its own. ``num_threads`` holds for
    the call: faiss's number of OpenMP threads is set before it and restored after it.
    """

    name = "faiss"

    def missing(self) -> str | None:
        return None if find_spec("faiss") else "faiss is not installed: run 'pip install faiss-cpu'"

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        key = ("faiss", problem.metric, problem.dims)
        with _threads(problem.num_threads):
            flat = _build(problem) if problem.bias is not None else problem.docs.derived(key, lambda: _build(problem))
            queries = float32.query_terms(problem.queries[:, : problem.dims], problem.metric, flat.terms.size)
            bounds, rows = _search(flat.index, queries.rows, problem, min(width + 1, len(problem.docs)))
        return float32.candidates(problem, width, bounds, rows, flat.terms, queries)


class _Flat(NamedTuple):
    index: Any
    terms: DocumentTerms


def _build(problem: DenseProblem) -> _Flat:
    """The index over rows [w d, c, r] of the documents (see `float32`)."""
    docs, dims = problem.docs, problem.dims
    norms = docs.norms if docs.norms is not None and dims == docs.dim else float32.norms(docs.rows, dims)
    terms = float32.document_terms(norms, problem.bias, problem.metric, float32.error_factor(dims))
    index = _faiss().IndexFlatIP(dims + 2)
    for start in range(0, len(docs), BLOCK):
        part = slice(start, start + BLOCK)
        index.add(np.hstack([docs.rows[part][:, :dims] * terms.columns[part, :1], terms.columns[part, 1:]]))
    return _Flat(index, terms)


def _search(index: Any, queries: F32, problem: DenseProblem, keep: int) -> tuple[F32, I64]:
    """The ``keep`` best bounds [Q, M] and their rows, -inf where there are fewer. Each mask is a search of its own."""
    if keep == 0 or len(queries) == 0:
        return np.empty((len(queries), keep), np.float32), np.empty((len(queries), keep), np.int64)
    faiss = _faiss()
    masks = [None] if problem.mask is None else list(problem.mask)
    found = []
    for mask, part in zip(masks, np.split(queries, len(masks))):
        chosen = None if mask is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(mask))
        found.append(index.search(part, keep, params=chosen))
    bounds, rows = (np.concatenate(each) for each in zip(*found))
    return np.where(rows < 0, np.float32(-np.inf), bounds), rows


def _faiss() -> ModuleType:
    return import_module("faiss")


@contextmanager
def _threads(number: int) -> Iterator[None]:
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

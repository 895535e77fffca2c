"""Ties by the thousand: of equal scores the first ids are found without scoring all that tie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends.cpu.cpu_sparse import CpuSparse
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseDocuments, SparseProblem, TermRows
from pyengine.refining import exact_sparse
from pyengine.searches import sparse
from pyengine.searches.search import exact_search
from pyengine.specification import reference_sparse as spec

pytestmark = pytest.mark.skipif(exact_sparse.native() is None, reason="not built")
N, TERMS = 40_000, 12
QUERIES = {
    "one term": {0: 1.0},
    "counts": dict.fromkeys(range(TERMS), 1.0),
    "small multiples": {0: 0.37, 1: 3 * np.float32(0.37), 5: -2 * np.float32(0.37)},
    "negative": {3: -0.3, 4: -1.7},
    "negative multiples": {3: -1.0, 4: -2.0},
    "not alike": {1: 0.3, 2: 0.7, 3: -1.1},
}


def documents(kind: str) -> SparseRows:
    """Half of the rows have term 0, a quarter each of the others; weights of 1, of 1 to 200, or of -100 to 100."""
    rng = np.random.default_rng(5)
    rows, terms = np.nonzero(rng.random((N, TERMS)) < np.where(np.arange(TERMS), 0.25, 0.5))
    low, high = {"binary": (1, 1), "impacts": (1, 200), "signed": (-100, 100)}[kind]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=N))])
    return SparseRows(indptr, terms, rng.integers(low, high + 1, len(terms)), TERMS)


def problem(docs: SparseRows, query: str, k: int, **options: Any) -> SparseProblem:
    postings = tuple(exact_sparse.build(TermRows.of(docs), *each) for each in ((0, 30_000), (30_000, 39_000)))
    corpus = SparseDocuments(TermRows.of(docs), postings, cache={})
    return sparse.prepare([QUERIES[query]], corpus, k, **options)


@pytest.mark.parametrize("kind", ["binary", "impacts", "signed"])
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.usefixtures("isa")
def test_ties_go_to_the_first_ids(query: str, kind: str) -> None:
    docs, mask = documents(kind), np.random.default_rng(6).random(N) < 0.3
    asked = SparseRows.of([QUERIES[query]], TERMS)
    shuffled = np.random.default_rng(7).permutation(N)
    options: dict[str, Any]
    for options in ({}, {"mask": mask}, {"ids": np.arange(N) * 3}, {"ids": shuffled}, {"num_threads": 3}):
        for k in (10, 700):
            found = exact_search(problem(docs, query, k, **options), CpuSparse())
            given: dict[str, Any] = {name: value for name, value in options.items() if name != "num_threads"}
            conformance.same(found, spec.topk(asked, docs, k, **given), f"{options.keys()}, k = {k}")


@pytest.mark.parametrize("query", ["one term", "counts", "small multiples", "negative multiples"])
@pytest.mark.parametrize("kind", ["binary", "impacts"])
def test_sums_of_whole_weights_are_exact(query: str, kind: str) -> None:
    """So that no more than k are listed."""
    docs = documents(kind)
    for k in (1, 10, 700):
        asked = problem(docs, query, k, num_threads=1)
        assert len(CpuSparse().listed(asked, 1 << 20).rows) == k


def test_removed_documents_do_not_slow_down_a_search() -> None:
    """The floor that a window gives is that of what the mask allows: few are listed, however good the others."""
    docs = documents("impacts")
    index = pe.SparseIndex(TERMS)
    index.add(docs)
    best = index.search([QUERIES["counts"]], 5000).ids[0]
    index.remove(best)
    left = np.setdiff1d(np.arange(N), best)
    found = index.search([QUERIES["counts"]], 20)
    want = spec.topk(SparseRows.of([QUERIES["counts"]], TERMS), docs.take(left), 20)
    np.testing.assert_array_equal(found.ids, left[want.ids])
    np.testing.assert_array_equal(found.scores, want.scores)

"""The cases of the conformance suite for sparse rows."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyengine.conformance.conformance_cases import FILTERS, OPTIONS, K
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseDocuments, SparseProblem, TermRows
from pyengine.refining import exact_sparse
from pyengine.refining.exact_sparse import BELOW_ZERO
from pyengine.searches import sparse
from pyengine.specification import reference
from pyengine.types import F64, Candidates

Rng = np.random.Generator
Sides = Callable[[Rng], tuple[SparseRows, SparseRows]]  # the queries and the documents
Values = Callable[[Rng, int], Any]
UINT16_TERMS = 1 << 16
ZERO = 2.0**-150  # the largest float64 that rounds to 0 in float32
LARGEST = {name: np.float32(most) for name, most in (("float32", 3.4e38), ("float16", 65504), ("uint8", 1e38))}


def _impacts(rng: Rng, count: int) -> Any:
    """Positive and skewed, as models give."""
    return rng.gamma(2.0, 0.5, count) + 0.01


def rows(rng: Rng, n_rows: int, longest: int, n_terms: int, values: Values = _impacts, zipf: float = 0.0) -> SparseRows:
    """Rows of 0 .. ``longest`` terms: all alike, or the first by far the most frequent."""
    lengths = rng.integers(0, longest + 1, n_rows)
    chance = None if zipf == 0.0 else (1.0 + np.arange(n_terms)) ** -zipf
    chance = None if chance is None else chance / chance.sum()
    most = np.minimum(lengths, n_terms)
    terms = [rng.choice(n_terms, count, replace=False, p=chance) for count in most.tolist()]
    indptr = np.concatenate([[0], np.cumsum(most)])
    indices = np.concatenate([np.empty(0, np.int64), *terms])
    return SparseRows(indptr, indices, np.asarray(values(rng, len(indices))), n_terms)


def _alike(n_queries: int = 5, n_docs: int = 300, longest: int = 20, n_terms: int = 200, **options: Any) -> Sides:
    def sides(rng: Rng) -> tuple[SparseRows, SparseRows]:
        queries = rows(rng, n_queries, longest, n_terms, **options)
        return queries, rows(rng, n_docs, longest, n_terms, **options)

    return sides


def _scaled(low: float, high: float) -> Values:
    return lambda rng, count: rng.choice([-1, 1], count) * rng.uniform(low, high, count)


def _opposed(rng: Rng) -> tuple[SparseRows, SparseRows]:
    """Every shared term makes a score worse, so that documents without one are the best."""
    queries, docs = _alike()(rng)
    return SparseRows(queries.indptr, queries.indices, -queries.values, queries.n_terms), docs


def _cancelling(rng: Rng) -> tuple[SparseRows, SparseRows]:
    """Scores of which many are 0 though terms are shared."""
    return _alike(values=lambda rng, count: rng.choice([-1.0, 1.0], count), n_terms=12, longest=8)(rng)


def _windows(n_docs: int) -> Sides:
    """So many documents that local numbers of 16 bits do not suffice, or just."""

    def sides(rng: Rng) -> tuple[SparseRows, SparseRows]:
        queries = rows(rng, 3, 6, 40)
        owner = np.sort(rng.integers(0, n_docs, n_docs // 4))
        owner[-3:] = n_docs - 1  # duplicates, which are summed
        indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n_docs))])
        return queries, SparseRows(indptr, rng.integers(0, 40, len(owner)), rng.gamma(2.0, 0.5, len(owner)), 40)

    return sides


def _apart(rng: Rng) -> tuple[SparseRows, SparseRows]:
    """No term is shared."""
    queries, docs = rows(rng, 3, 9, 50), rows(rng, 120, 9, 50)
    moved = SparseRows(queries.indptr, queries.indices + 50, queries.values, 100)
    return moved, SparseRows(docs.indptr, docs.indices, docs.values, 100)


def _many_terms(rng: Rng) -> tuple[SparseRows, SparseRows]:
    """More than 16 bits number, of which few are in use."""
    queries, docs = _alike(n_terms=90)(rng)
    names, count = np.sort(rng.choice(3_000_000, 90, replace=False)), 3_000_000
    asked, rows = (SparseRows(each.indptr, names[each.indices], each.values, count) for each in (queries, docs))
    return asked, rows


CORPORA: dict[str, Sides] = {
    "random": _alike(),
    "skewed": _alike(zipf=1.0, n_terms=1000, longest=40),
    "ties": _alike(values=lambda rng, count: rng.integers(1, 3, count), n_terms=30, longest=6),
    "binary": _alike(values=lambda rng, count: np.ones(count), n_terms=40, longest=12),
    "normal": _alike(values=lambda rng, count: rng.standard_normal(count)),
    "opposed": _opposed,
    "cancelling": _cancelling,
    "vanishing": _alike(values=lambda rng, count: rng.uniform(1e-30, 1e-29, count), n_terms=100, longest=3),
    "some_vanish": _alike(values=lambda rng, count: rng.choice([1e-25, 1e-19], count), n_terms=200, longest=4),
    "few_matches": _alike(n_terms=5000, longest=6),
    "apart": _apart,
    "one_term": _alike(n_terms=1, longest=1),
    "long": _alike(n_queries=3, n_docs=40, longest=900, n_terms=1000),
    "many_terms": _many_terms,
    "huge": _alike(values=_scaled(1e38, 3.4e38)),
    "tiny": _alike(values=_scaled(1e-45, 1e-38)),
    "all_magnitudes": _alike(
        values=lambda rng, count: rng.standard_normal(count) * 10.0 ** rng.uniform(-37, 37, count)
    ),
    "empty_documents": lambda rng: (rows(rng, 3, 5, 9), rows(rng, 12, 0, 9)),
    "empty_queries": lambda rng: (rows(rng, 2, 0, 9), rows(rng, 30, 5, 9)),
    "no_documents": lambda rng: (rows(rng, 3, 5, 9), rows(rng, 0, 5, 9)),
    "no_queries": lambda rng: (rows(rng, 0, 5, 9), rows(rng, 30, 5, 9)),
    "window-1": _windows(65_535),
    "window": _windows(65_536),
    "window+1": _windows(65_537),
}
STORES = ("rows", "float32", "float16", "uint8")
WITH_EVERY_OPTION = ("random", "ties", "normal", "few_matches", "cancelling", "some_vanish")
LARGE = ("window-1", "window", "window+1")


@dataclass(frozen=True)
class SparseCase:
    """One search. `problem` makes it, the same at each call; ``str`` is its name."""

    corpus: str
    options: str
    store: str

    def __str__(self) -> str:
        return f"{self.corpus}-{self.options}-{self.store}"

    def problem(self) -> SparseProblem:
        rng = np.random.default_rng(zlib.crc32(f"{self.corpus}-{self.options}".encode()))
        queries, docs = CORPORA[self.corpus](rng)
        options = {"k": K, **OPTIONS[self.options](rng, (len(queries), len(docs), docs.n_terms))}
        filters = FilterArguments(**{name: options.pop(name) for name in FILTERS if name in options})
        return sparse.prepare(queries, documents(docs, self.store), filters=filters, num_threads=2, **options)


def documents(docs: SparseRows, store: str) -> SparseDocuments:
    """Rows as a backend sees them: bare ``rows`` (as from `pyengine.sparse_topk`), or as an index keeps them, most of
    them with postings where the extension makes them."""
    if store == "rows":
        return SparseDocuments(TermRows.of(docs))
    kept = stored(docs, store)
    half, most = len(docs) // 2, len(docs) - len(docs) // 8
    ranges = [] if exact_sparse.native() is None else [(0, half), (half, most)]
    postings = tuple(exact_sparse.build(kept, *each) for each in ranges if each[0] < each[1])
    return SparseDocuments(kept, postings, cache={})


def stored(docs: SparseRows, store: str) -> TermRows:
    """With weights of 32, 16 or 8 bits. Larger ones than a store can hold become the largest."""
    terms = docs.indices.astype(np.uint16 if docs.n_terms <= UINT16_TERMS else np.int32)
    values = np.clip(docs.values, -LARGEST[store], LARGEST[store])
    if store != "uint8":
        return TermRows(docs.indptr, terms, values.astype(store), docs.n_terms)
    filled, owner = docs.lengths > 0, np.repeat(np.arange(len(docs)), docs.lengths)
    low, step = np.zeros(len(docs), np.float32), np.zeros(len(docs), np.float32)
    if filled.any():
        starts = docs.indptr[:-1][filled]
        low[filled] = np.minimum.reduceat(values, starts)
        step[filled] = (np.maximum.reduceat(values, starts) - low[filled]) / 255
    safe = np.where(step[owner] > 0, step[owner], 1)
    codes = np.clip(np.rint((values - low[owner]) / safe), 0, 255).astype(np.uint8)
    return TermRows(docs.indptr, terms, codes, docs.n_terms, low, step)


def dropped(problem: SparseProblem, candidates: Candidates, scores: F64) -> F64:
    """float64 [Q, N]: what a document may score that is not listed. That is ``dropped``, or what rounds to it where it
    is 0, or what rounds to the next float32, for one that comes after k listed ones that reach this (see
    `SparseBackend.listed`); with filters that is so of 0 alone, after all of at most 0 (`exact_sparse.fill_zeros`)."""
    bounds = np.repeat(
        np.where(candidates.dropped == 0.0, ZERO, candidates.dropped)[:, None], len(problem.docs), axis=1
    )
    ids, rounded = problem.ids_of(np.arange(len(problem.docs))), reference.round_score(scores)
    with np.errstate(over="ignore", under="ignore"):
        ties = np.nextafter(reference.round_score(candidates.dropped), np.float32(np.inf))
    for q, tie in enumerate(ties):
        rows = candidates.rows[slice(*candidates.offsets[q : q + 2])]
        best = rows[np.lexsort((ids[rows], -rounded[q, rows]))]
        if len(best) < problem.k or rounded[q, best[problem.k - 1]] < tie:
            continue
        if problem.filters is None:
            last = best[problem.k - 1]
            after = (rounded[q] < rounded[q, last]) | (ids > ids[last])
        else:
            after = (candidates.dropped[q] == BELOW_ZERO) & (ids > ids[rows[rounded[q, rows] <= 0]].max(initial=-1))
        bounds[q, after & (rounded[q] <= tie)] = np.inf
    return bounds


def sparse_cases() -> list[SparseCase]:
    """Every case that can be made here, for ``pytest.mark.parametrize(..., ids=str)``."""
    asked = [each for each in OPTIONS if each != "plain" and "dims" not in _given(each)]
    plain = [(corpus, store) for corpus in CORPORA for store in (STORES if corpus not in LARGE else STORES[:2])]
    return [
        *(SparseCase(corpus, "plain", store) for corpus, store in plain),
        *(SparseCase(corpus, each, store) for corpus in WITH_EVERY_OPTION for each in asked for store in _kept(corpus)),
    ]


def _kept(corpus: str) -> tuple[str, ...]:
    return ("rows", "uint8") if corpus == "random" else ("rows",)


def _given(options: str) -> dict[str, Any]:
    return OPTIONS[options](np.random.default_rng(0), (2, 50, 8))

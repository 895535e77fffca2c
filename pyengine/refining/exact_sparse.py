"""The sparse specification on candidate lists: the C++ kernels where they are built, NumPy where not.

Both give the same bits. What does not depend on the family is in `exact`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from pyengine.inputs.lists import first_rows, take
from pyengine.problems.problem_sparse import Postings, SparseDocuments, SparseProblem, TermRows
from pyengine.refining import exact
from pyengine.specification import reference, reference_sparse
from pyengine.types import F32, I64, Candidates

PAIR_WEIGHTS = 1 << 20  # weights of candidates that the NumPy form gathers together
MANY_ROWS = 1 << 18  # rows looked at together for those that are not listed
BELOW_ZERO = -(2.0**-149)  # a float32 too, so that it stays below 0 when it is rounded


def native() -> ModuleType | None:
    """The compiled extension, if it has the sparse kernels."""
    kernels = exact.native()
    return kernels if hasattr(kernels, "sparse_propose") else None


def native_rows(rows: TermRows) -> Any:
    """Rows as the extension takes them."""
    kernels = native()
    assert kernels is not None
    values = rows.values.view(np.uint16) if rows.values.dtype == np.float16 else rows.values
    return kernels.TermRows(rows.offsets, rows.terms, values, rows.n_terms, low=rows.low, step=rows.step)


def asked(problem: SparseProblem) -> Any:
    """The queries as the extension takes them."""
    kernels, rows = native(), problem.queries
    assert kernels is not None
    return kernels.TermRows(rows.indptr, rows.indices, rows.values, rows.n_terms)


def corpus(docs: SparseDocuments) -> Any:
    """The rows of documents as the extension takes them."""
    return docs.derived("native rows", lambda: native_rows(docs.rows))


def native_postings(docs: SparseDocuments) -> list[Any]:
    """The postings of documents as the extension takes them, which looks at a few bytes for each term."""
    return docs.derived("native postings", lambda: [_native_postings(each) for each in docs.postings])


def _native_postings(postings: Postings) -> Any:
    kernels = native()
    assert kernels is not None
    return kernels.Postings(postings.first, postings.count, **postings.arrays)


def build(rows: TermRows, first: int, last: int, terms: I64 | None = None) -> Postings:
    """The inverted form of the rows first .. last-1; only of these rising terms, where given. Needs the extension."""
    kernels = native()
    assert kernels is not None
    wanted = None if terms is None else terms.astype(np.int32)
    arrays = kernels.build_postings(native_rows(rows), first, last, wanted)
    return Postings(first, last - first, arrays)


def refine(problem: SparseProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates (see `reference_sparse.scores`)."""
    kernels = native()
    if kernels is None:
        return _refine(problem, candidates)
    scores: F32 = kernels.sparse_refine(
        asked(problem), corpus(problem.docs), problem.bias, candidates.rows, candidates.offsets, problem.num_threads
    )  # fmt: skip
    return scores


def _refine(problem: SparseProblem, candidates: Candidates) -> F32:
    """`refine` in NumPy, so many candidates at a time that little memory is held."""
    docs, owner = problem.docs.rows, first_rows(candidates.offsets)
    ends = np.cumsum(docs.offsets[candidates.rows + 1] - docs.offsets[candidates.rows])
    scores = np.empty(len(owner))
    start = 0
    while start < len(owner):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + PAIR_WEIGHTS, side="right")))
        part = slice(start, stop)
        scores[part] = reference_sparse.pair_sums(problem.queries, owner[part], docs.decoded(candidates.rows[part]))
        start = stop
    if problem.bias is not None:
        scores += problem.bias[candidates.rows]
    return reference.round_score(scores)


def fill_zeros(problem: SparseProblem, candidates: Candidates, k: int) -> Candidates:
    """With the documents of score 0 that may fill up the k best, where all that may score above 0 are listed (then
    ``dropped`` is 0.0) and they are fewer than k.

    What is listed and scores 0 or less is taken off; then the first rows that are not listed, by id, are added until k
    of them score 0. All that is then not listed scores 0 at most, and its id is above those of all listed that do: so
    it comes after k listed ones that score 0 at least, whatever is filtered. `BELOW_ZERO`, as ``dropped``, says that: a
    list that filters leave too short does not prove itself whole by it, but where there is a threshold. With a bias,
    documents without shared terms do not tie.
    """
    thresholds = problem.filters is not None and problem.filters.threshold is not None
    certain = candidates.dropped == 0.0
    if problem.bias is not None or thresholds or not certain.any():
        return candidates
    positive = np.bincount(first_rows(candidates.offsets)[candidates.estimates > 0], minlength=problem.n_queries)
    short = np.flatnonzero(certain & (positive < k))
    if not len(short):
        return candidates
    candidates = _above_zero(problem, candidates, short)
    dropped = candidates.dropped.copy()
    added: dict[int, tuple[I64, F32]] = {}
    for count in (k, 8 * k, 64 * k):  # more than k only where terms are shared, and scores negative
        if not len(short):
            break
        found = [_first_unlisted(problem, candidates, q, count) for q in short.tolist()]
        scores = _scores_of(problem.only(short), found)
        whole = np.array([len(rows) < count for rows in found])
        done = whole | np.array([np.count_nonzero(own >= 0) >= k for own in scores])
        dropped[short[done]] = np.where(whole, -np.inf, BELOW_ZERO)[done]
        added |= {int(short[i]): (found[i], scores[i]) for i in np.flatnonzero(done)}
        short = short[~done]
    return _with(candidates, added)._replace(dropped=dropped)


def _first_unlisted(problem: SparseProblem, candidates: Candidates, q: int, count: int) -> I64:
    """The first ``count`` allowed rows, by id, that are not listed for query q; all, where they are fewer."""
    n_docs, mask = len(problem.docs), problem.mask
    order = None if problem.ids is None else problem.docs.id_order(problem.ids)
    listed = np.sort(candidates.rows[slice(*candidates.offsets[q : q + 2])])
    bits = None if mask is None else mask[q if len(mask) > 1 else 0]
    found, total, start, step = [np.empty(0, np.int64)], 0, 0, min(MANY_ROWS, count + len(listed) + 64)
    while start < n_docs and total < count:
        stop = min(start + step, n_docs)
        rows = np.arange(start, stop) if order is None else order[start:stop]
        keep = np.searchsorted(listed, rows) == np.searchsorted(listed, rows, side="right")
        if bits is not None:
            keep &= (bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(bool)
        found.append(rows[keep])
        total += len(found[-1])
        start, step = stop, min(MANY_ROWS, 4 * step)
    return np.concatenate(found)[:count]


def _above_zero(problem: SparseProblem, candidates: Candidates, which: I64) -> Candidates:
    """The candidates, of these queries only those that score above 0."""
    spans = [slice(*candidates.offsets[q : q + 2]) for q in which]
    scores = _scores_of(problem.only(which), [candidates.rows[span] for span in spans])
    keep = np.ones(len(candidates.rows), bool)
    for span, own in zip(spans, scores):
        keep[span] = own > 0
    return take(candidates, keep)


def _scores_of(problem: SparseProblem, each: list[I64]) -> list[F32]:
    """The scores of each query with its rows."""
    offsets = np.cumsum([0, *map(len, each)])
    rows = np.concatenate([np.empty(0, np.int64), *each])
    scores = refine(problem, Candidates(rows, offsets, np.empty(len(rows), np.float32), np.empty(0)))
    return np.split(scores, offsets[1:-1])


def _with(candidates: Candidates, added: dict[int, tuple[I64, F32]]) -> Candidates:
    """The candidates, and at the end of the list of each query what was added for it."""
    lengths = np.zeros(len(candidates.offsets) - 1, np.int64)
    for q, (rows, _) in added.items():
        lengths[q] = len(rows)
    places = np.repeat(candidates.offsets[1:], lengths)
    each = [added[q] for q in sorted(added)]
    rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in each)])
    scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in each)])
    return candidates._replace(
        rows=np.insert(candidates.rows, places, rows),
        offsets=candidates.offsets + np.concatenate([[0], np.cumsum(lengths)]),
        estimates=np.insert(candidates.estimates, places, scores),
    )

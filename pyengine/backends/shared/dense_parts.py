"""Dense search on a GPU of documents that it cannot hold. One part of them after another is copied, while the part
before it is scanned; what a scan lists is scored by the specification on the host, where the vectors are, and the k
best so far are the threshold of the next scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from pyengine.inputs import lists
from pyengine.problems.problem import DenseProblem
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32, F64, Candidates

ALIGN = 8  # rows: parts begin at a byte of a mask
LEAST_PART = 1 << 16  # documents: where the GPU cannot hold so many, it is of no use


def at_once(n_docs: int, document_bytes: int, free: int | None) -> int | None:
    """How many documents are on the GPU at a time, where its ``free`` bytes (None: enough) cannot hold them all: two
    such parts, and half as much again for what a search needs."""
    if free is None or n_docs * document_bytes <= free:
        return None
    return free // (3 * document_bytes)


def propose(
    problem: DenseProblem,
    at_once: int,
    fetch: Callable[[DenseProblem], object],
    scan: Callable[[DenseProblem], Candidates],
) -> Candidates:
    """What may be among the k best, with the specification's scores; ``at_once`` documents in a part, of which two are
    on the GPU at a time. ``fetch`` copies what a part's ``scan`` reads, and returns when it is there; it is called in
    another thread."""
    count, at_once = len(problem.docs), max(ALIGN, at_once // ALIGN * ALIGN)
    parts = [slice(first, min(first + at_once, count)) for first in range(0, count, at_once)]
    if problem.n_queries == 0 or not parts:
        return exact.everything(problem)

    def fetched(part: slice) -> DenseProblem:
        there = _among(problem, part)
        fetch(there)
        return there

    best = np.full((problem.n_queries, min(problem.k, count)), -np.inf, np.float32)
    found = []
    with ThreadPoolExecutor(1) as copying:
        ready = copying.submit(fetched, parts[0])
        for part, following in zip(parts, [*parts[1:], None]):
            there = ready.result()
            if following is not None:
                ready = copying.submit(fetched, following)
            listed = scan(replace(there, floor=_floor(problem, best)))
            listed = listed._replace(rows=listed.rows + part.start)
            found.append(listed._replace(estimates=exact.refine(problem, listed)))
            best = _best(problem, best, found[-1])
    return _together(found)


def _among(problem: DenseProblem, part: slice) -> DenseProblem:
    """The same search of a part of the documents."""
    mask = None if problem.mask is None else problem.mask[:, part.start // 8 : -(-part.stop // 8)]
    return replace(
        problem,
        docs=problem.docs.part(part),
        mask=None if mask is None else np.ascontiguousarray(mask),
        bias=None if problem.bias is None else problem.bias[part],
        ids=None,
        filters=None,
    )


def _floor(problem: DenseProblem, best: F32) -> F64 | None:
    """float64 [Q]: a rank score below that of the k-th best so far, and above all that are worse; a document that is
    dropped for it cannot even tie."""
    kth = best.min(axis=1)
    with np.errstate(over="ignore"):
        floor: F64 = np.nextafter(kth, np.float32(-np.inf)).astype(np.float64)
    return floor if problem.floor is None else np.maximum(floor, problem.floor)


def _best(problem: DenseProblem, best: F32, found: Candidates) -> F32:
    """float32 [Q, k]: the rank scores of the best so far, -inf where there are fewer."""
    scores, ids = exact.select(replace(problem, ids=None, k=best.shape[1]), found, found.estimates)
    new = np.where(ids >= 0, reference.rank_score(scores, problem.metric), np.float32(-np.inf))
    worst = best.shape[1]
    kept: F32 = -np.partition(-np.concatenate([best, new], axis=1), worst - 1, axis=1)[:, :worst]
    return kept


def _together(found: Sequence[Candidates]) -> Candidates:
    """One list for each query, of those of all parts; a bound on what any of them dropped."""
    owner = np.concatenate([lists.first_rows(each.offsets) for each in found])
    order = np.argsort(owner, kind="stable")
    lengths = np.sum([np.diff(each.offsets) for each in found], axis=0)
    rows, estimates = (np.concatenate([getattr(each, name) for each in found])[order] for name in ("rows", "estimates"))
    dropped = np.max([each.dropped for each in found], axis=0)
    return Candidates(rows, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), estimates, dropped)

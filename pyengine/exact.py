"""The specification's arithmetic on candidate lists: the C++ kernels where they are built, NumPy where not.

Both give the same bits. `refine` scores listed candidates; `scan` scores everything, in bounded memory.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from pyengine import checks, reference
from pyengine.problem import DenseProblem, first_rows
from pyengine.types import F32, Candidates, I64, TopK

PAIR_BLOCK = 1 << 13  # candidates per step of the NumPy form


def native() -> ModuleType | None:
    """The compiled extension, or None when it is not built."""
    try:
        from pyengine import _native
    except ImportError:
        return None
    return _native


def refine(problem: DenseProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates (see `reference.pair_scores`)."""
    kernels = native()
    queries, rows = problem.queries[:, : problem.dims], problem.docs.rows
    if kernels is not None:
        return kernels.refine(
            problem.queries, rows, problem.dims, problem.metric, candidates.rows, candidates.offsets,
            problem.bias, problem.num_threads,
        )  # fmt: skip
    owner = first_rows(candidates.offsets)
    scores = np.empty(len(candidates.rows), np.float32)
    for start in range(0, len(scores), PAIR_BLOCK):
        part = slice(start, start + PAIR_BLOCK)
        chosen = candidates.rows[part]
        bias = None if problem.bias is None else problem.bias[chosen]
        docs = rows[chosen, : problem.dims]
        scores[part] = reference.pair_scores(queries[owner[part]], docs, problem.metric, bias)
    return scores


def select(problem: DenseProblem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
    """The k best candidates of each query: scores float32 [Q, K] and ids int64 [Q, K], padded."""
    kernels = native()
    if kernels is not None:
        return kernels.select(scores, candidates.rows, candidates.offsets, problem.k, problem.metric == "l2", problem.ids)
    ids = candidates.rows if problem.ids is None else problem.ids[candidates.rows]
    rank = reference.rank_score(scores, problem.metric)
    bounds = zip(candidates.offsets[:-1], candidates.offsets[1:])
    best = [reference.select(rank[low:high], ids[low:high], problem.k) for low, high in bounds]
    top_rank = np.array([b[0] for b in best], np.float32).reshape(-1, problem.k)
    top_ids = np.array([b[1] for b in best], np.int64).reshape(-1, problem.k)
    return reference.rank_score(top_rank, problem.metric), top_ids


def scan(problem: DenseProblem) -> TopK:
    """Top-k with every document scored by the specification: the last resort, and always right."""
    kernels = native()
    if kernels is not None:
        scores, ids = kernels.exact_topk(
            problem.queries, problem.docs.rows, problem.dims, problem.metric, problem.k, problem.mask, problem.bias,
            problem.ids, problem.num_threads,
        )  # fmt: skip
        return TopK(scores, ids, np.ones(problem.n_queries, bool))
    mask = None if problem.mask is None else checks.unpack(problem.mask, len(problem.docs))
    return reference.topk(
        problem.queries, problem.docs.rows, problem.k, problem.metric, mask=mask, bias=problem.bias,
        dims=problem.dims, ids=problem.ids,
    )  # fmt: skip

"""The specification of gated inner products on candidate lists: the C++ kernels where they are built, NumPy where not.

Both give the same bits. What does not depend on the family is in `exact`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from pyengine.inputs.lists import first_rows
from pyengine.problems.problem import Codes
from pyengine.problems.problem_sliced import SlicedDocuments, SlicedProblem
from pyengine.refining import exact
from pyengine.specification import reference, reference_sliced
from pyengine.types import F32, F64, Candidates

PAIR_WEIGHTS = 1 << 20  # weights of candidates that the NumPy form gathers together


def codes(docs: SlicedDocuments, num_threads: int) -> tuple[Codes, F64]:
    """int8 codes of the documents' unit vectors, and float64 [N] their norms; made once. Needs the extension."""

    def build() -> tuple[Codes, F64]:
        values = docs.rows.values
        return Codes(*exact.quantize(values, num_threads)), exact.norms(values, docs.dim, num_threads)

    return docs.derived("int8 codes", build)


def corpus(problem: SlicedProblem, kernels: ModuleType, scan: bool = False) -> Any:
    """The documents as the extension takes them; with what the proposer needs on top where ``scan`` is set."""
    docs, extra = problem.docs, dict[str, Any]()
    if scan:
        coded, norms = codes(docs, problem.num_threads)
        extra = {"codes": coded.codes, "scale": coded.scale, "residual": coded.residual, "norms": norms}
        extra["largest_norm"] = float(norms.max(initial=0))
    return kernels.Corpus(
        exact.native_rows(docs.rows.values), docs.dim, "dot", mask=problem.mask, bias=problem.bias,
        slices=docs.rows.padded, **extra,
    )  # fmt: skip


def refine(problem: SlicedProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates (see `reference_sliced.scores`)."""
    kernels, queries = exact.native(), problem.queries
    if kernels is None:
        return _refine(problem, candidates)
    scores: F32 = kernels.refine(
        corpus(problem, kernels), queries.values, candidates.rows, candidates.offsets, problem.num_threads,
        query_slices=queries.padded,
    )  # fmt: skip
    return scores


def _refine(problem: SlicedProblem, candidates: Candidates) -> F32:
    queries, docs, owner = problem.queries, problem.docs.rows, first_rows(candidates.offsets)
    scores = np.empty(len(owner))
    step = max(1, PAIR_WEIGHTS // docs.dim)
    for start in range(0, len(owner), step):
        q, d = owner[start : start + step], candidates.rows[start : start + step]
        scores[start : start + step] = reference_sliced.gated_sum(
            queries.values[q], queries.slices[q], docs.values[d], docs.slices[d]
        )
    if problem.bias is not None:
        scores += problem.bias[candidates.rows]
    return reference.round_score(scores)

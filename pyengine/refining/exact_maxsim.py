"""The MaxSim specification on candidate lists: the C++ kernels where they are built, NumPy where not.

Both give the same bits. What does not depend on the family is in `exact`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from pyengine.inputs.lists import first_rows
from pyengine.inputs.rows import Rows
from pyengine.problems.problem import Codes
from pyengine.problems.problem_maxsim import MANY_VALUES, MaxSimProblem
from pyengine.refining import exact
from pyengine.specification import reference, reference_maxsim
from pyengine.types import F32, I64, Candidates


def corpus(problem: MaxSimProblem, kernels: ModuleType, scan: bool = False) -> Any:
    """The documents as the extension takes them; with what the proposer needs on top where ``scan`` is set."""
    docs, codes = problem.docs, problem.docs.codes
    if scan and isinstance(codes, Rows):
        return kernels.Tokens(exact.native_rows(codes), docs.offsets)
    extra: dict[str, Any] = {"norms": docs.tokens.norms}
    if scan and isinstance(codes, Codes):
        extra |= {"codes": codes.codes, "scale": codes.scale, "residual": codes.residual}
        extra["code_planes"] = codes.planes
    return kernels.Tokens(exact.native_rows(docs.tokens.rows), docs.offsets, **extra)


def query_tokens(problem: MaxSimProblem, kernels: ModuleType) -> Any:
    """The queries as the extension takes them."""
    queries = problem.queries
    return kernels.Tokens(exact.native_rows(queries.values), queries.offsets)


def refine(problem: MaxSimProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates (see `reference_maxsim.scores`)."""
    kernels = exact.native()
    owner = first_rows(candidates.offsets)
    if kernels is None:
        return _refine(problem, owner, candidates)
    scores: F32
    scores, *_ = kernels.maxsim_pairs(
        query_tokens(problem, kernels), corpus(problem, kernels), owner, candidates.rows,
        **problem.scoring(), argmax=False, num_threads=problem.num_threads,
    )  # fmt: skip
    return scores


def _refine(problem: MaxSimProblem, owner: np.ndarray, candidates: Candidates) -> F32:
    """`refine` in NumPy, a pair at a time."""
    queries, docs = problem.queries, problem.docs
    options = problem.scoring()
    bias, weights = options.pop("bias"), [options.pop(name) for name in ("query_weights", "doc_weights")]
    scores = np.empty(len(owner))
    for place, (q, row) in enumerate(zip(owner, candidates.rows)):
        spans = slice(*queries.offsets[q : q + 2]), slice(*docs.offsets[row : row + 2])
        doc = docs.tokens.rows[spans[1]]
        products = reference_maxsim.similarities(queries[q], doc, problem.normalize)
        own = [None if weight is None else weight[span] for weight, span in zip(weights, spans)]
        scores[place] = reference_maxsim.pair_score(
            queries[q], doc, products, **options, query_weights=own[0], doc_weights=own[1]
        )
    if bias is not None:
        scores += bias[candidates.rows]
    return reference_maxsim.round_score(scores)


def align(query: F32, doc: F32, normalize: bool) -> tuple[I64, F32]:
    """int64 and float32 [Lq]: the first token of ``doc`` [Ld, D], which has one at least, that each token of ``query``
    [Lq, D] has its maximum with, and that maximum."""
    tokens = _winners(query, doc, normalize)
    scores = np.empty(len(query), np.float32)
    step = max(1, MANY_VALUES // max(1, doc.shape[1]))
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        scores[part] = reference.pair_scores(query[part], doc[tokens[part]], "cosine" if normalize else "dot")
    return tokens, scores


def _winners(query: F32, doc: F32, normalize: bool) -> I64:
    kernels = exact.native()
    if kernels is None:  # a token at a time: of one query token all products are held
        each = (reference_maxsim.similarities(token, doc, normalize) for token in query[:, None])
        return np.array([reference_maxsim.winners(products)[0] for products in each], np.int64)
    one = np.zeros(1, np.int64)
    sides = (kernels.Tokens(exact.native_rows(rows), np.array([0, len(rows)])) for rows in (query, doc))
    _, winners, _ = kernels.maxsim_pairs(
        *sides, one, one, normalize=normalize, reduce="sum", query_weights=None, doc_weights=None, bias=None,
        argmax=True, num_threads=1,
    )  # fmt: skip
    tokens: I64 = winners.astype(np.int64)
    return tokens

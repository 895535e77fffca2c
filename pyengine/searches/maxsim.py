"""Late interaction: fused MaxSim over ragged sets of token vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.inputs import ragged
from pyengine.problems.problem import Documents
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.refining import exact, exact_maxsim
from pyengine.searches.maxsim_request import candidate_lists, kind, lists_of, numbers_of, prepare, rerank
from pyengine.searches.maxsim_scores import PairsOf, listed, matrix, pair_list, parts
from pyengine.searches.request import answer, as_input, run
from pyengine.types import I64, Alignment, TopK

__all__ = ["maxsim", "maxsim_align", "maxsim_candidates", "maxsim_pairs", "maxsim_topk"]


@exact.arithmetic()
def maxsim(
    queries: Any,
    docs: Any,
    *,
    reduce: str = "sum",
    normalize: bool = False,
    query_weights: Any = None,
    doc_weights: Any = None,
    temperature: float | None = None,
    bias: Any = None,
    backend: str = "auto",
    num_threads: int | None = None,
) -> Any:
    """The MaxSim score of every query with every document, exact to the bit whatever the backend.

    With s_ij the product of query token i and document token j, ``M_i = max_j s_ij`` and ``C_j = max_i s_ij``. The exp
    of "softmax" and "pooled" is part of the specification (`reference_softmax`): they are equal to the
    bit too. They are within 1e-6 of the real numbers that their formulas give for these s_ij, relatively; where terms
    cancel, within 1e-12 of ``max |s_ij|``, and with a pooled vector that is off by 1e-12 of ``sum_j p_j |d_j|``.

    Parameters
    ----------
    queries, docs : Ragged, list of arrays [L, D], or array [n, L, D], of real numbers
        Q queries and N documents. What is padded comes as ``Ragged.padded(array, mask)``: masked tokens take part in
        nothing. What is not float32 is converted to it once. Any row may be without tokens.
    reduce : "sum", "mean", "symmetric", "softmax", "pooled" or "aligned"
        - sum: ``sum_i M_i`` (ColBERT, arXiv 2004.12832); mean: that divided by the number of query tokens.
        - symmetric: ``(mean_i M_i + mean_j C_j) / 2`` (FILIP, arXiv 2111.07783).
        - softmax: ``mean_i sum_j p_ij s_ij`` with ``p_i = softmax(s_i / temperature)``; `mean` as the temperature goes
          to 0, and the mean of all s_ij as it grows.
        - pooled: ``cos(q, sum_j p_j d_j)`` of queries of one token (or none), X-Pool's parameter-free form (arXiv
          2203.15086).
        - aligned: ``sum_k cos(q_k, d_k)``; all queries and documents that have tokens have as many.
    normalize : bool
        Whether s_ij is the cosine, 0 where a norm is 0, or the dot product; `pooled` then pools unit vectors.
    query_weights : real [Tq], one per query token in their order, or list of Q arrays [L]
        With ``sum``: ``sum_i w_i M_i``; with ``aligned``: ``sum_k w_k cos(q_k, d_k)``.
    doc_weights : real [Td], one per document token in their order, or list of N arrays [L]
        With ``symmetric``, both or none: ``(sum_i w_i M_i + sum_j v_j C_j) / 2`` (arXiv 2203.07111).
    temperature : float above 0, with "softmax" and "pooled" only, and always
    bias : real [N]
        Added to the score of each document in float64, before the one rounding to float32.
    backend : "auto" or a name of `pyengine.backends`
    num_threads : int, default OMP_NUM_THREADS, else the cores available

    Returns
    -------
    float32 [Q, N]
        A query without tokens scores 0 (and the bias) against every document, a document without tokens -inf against
        every other query. A tensor where the queries are (or are a list of) tensors.

    Raises
    ------
    TypeError, ValueError
        One sentence naming the argument: a wrong dtype, shape or value, or a token with NaN or inf.
    RuntimeError
        The chosen backend cannot run this, with each backend's reason.
    """
    problem = _prepared(
        queries, docs, reduce=reduce, normalize=normalize, query_weights=query_weights, doc_weights=doc_weights,
        temperature=temperature, bias=bias, num_threads=num_threads,
    )  # fmt: skip
    problem.docs.check_finite()
    return as_input(answer(problem, backend, matrix), kind(queries))


@exact.arithmetic()
def maxsim_pairs(
    queries: Any,
    docs: Any,
    pairs: Any,
    *,
    reduce: str = "sum",
    normalize: bool = False,
    query_weights: Any = None,
    doc_weights: Any = None,
    temperature: float | None = None,
    bias: Any = None,
    backend: str = "auto",
    num_threads: int | None = None,
) -> Any:
    """The MaxSim scores, float32 [P], of ``pairs``, int [P, 2]: the number of a query and of a document. Tokens of
    documents that no pair names are not looked at: NaN or inf there has no effect. The other arguments, and the errors,
    are those of `maxsim`."""
    problem = _prepared(
        queries, docs, reduce=reduce, normalize=normalize, query_weights=query_weights, doc_weights=doc_weights,
        temperature=temperature, bias=bias, num_threads=num_threads,
    )  # fmt: skip
    chosen = pair_list(pairs)

    def pairs_of(part: slice) -> tuple[I64, I64]:
        owner = numbers_of(chosen[part, 0], "pairs[:, 0]", problem.n_queries, "queries")
        return owner, numbers_of(chosen[part, 1], "pairs[:, 1]", len(problem.docs), "documents")

    _check_listed(problem, len(chosen), pairs_of)
    return as_input(listed(problem, backend, len(chosen), pairs_of), kind(queries))


@exact.arithmetic()
def maxsim_candidates(
    queries: Any,
    docs: Any,
    lists: Sequence[Any],
    *,
    reduce: str = "sum",
    normalize: bool = False,
    query_weights: Any = None,
    doc_weights: Any = None,
    temperature: float | None = None,
    bias: Any = None,
    backend: str = "auto",
    num_threads: int | None = None,
) -> list[Any]:
    """The MaxSim scores of each query with the documents of its list, in the list's order: Q arrays float32 [C_q].

    ``lists`` are Q arrays int [C_q] of document numbers, or int [Q, C]. Tokens of documents that no list names are not
    looked at: NaN or inf there has no effect. The other arguments, and the errors, are those of `maxsim`.
    """
    problem = _prepared(
        queries, docs, reduce=reduce, normalize=normalize, query_weights=query_weights, doc_weights=doc_weights,
        temperature=temperature, bias=bias, num_threads=num_threads,
    )  # fmt: skip
    each = lists_of(lists, "lists", problem.n_queries)
    ends = np.cumsum([len(own) for own in each], dtype=np.int64)
    starts = ends - np.diff(ends, prepend=0)

    def pairs_of(part: slice) -> tuple[I64, I64]:
        owner = np.searchsorted(ends, np.arange(part.start, part.stop), side="right")
        among = range(owner[0], owner[-1] + 1)
        rows = [each[q][max(0, part.start - starts[q]) : part.stop - starts[q]] for q in among]
        return owner, numbers_of(np.concatenate(rows), "lists", len(problem.docs), "documents")

    count = int(ends[-1]) if len(ends) else 0
    _check_listed(problem, count, pairs_of)
    scores = listed(problem, backend, count, pairs_of)
    return [as_input(part, kind(queries)) for part in np.split(scores, ends)[: len(each)]]


@exact.arithmetic()
def maxsim_topk(
    queries: Any,
    docs: Any,
    k: int = 10,
    *,
    candidates: Any = None,
    mask: Any = None,
    bias: Any = None,
    reduce: str = "sum",
    normalize: bool = False,
    query_weights: Any = None,
    doc_weights: Any = None,
    temperature: float | None = None,
    precision: str = "exact",
    backend: str = "auto",
    num_threads: int | None = None,
) -> TopK:
    """The k best documents of each query by their MaxSim score.

    Parameters
    ----------
    candidates : list of Q arrays int [C_q], or int [Q, C] padded with -1
        Document numbers, in any order and any number of times, of which alone the best are returned: a rerank.
        Tokens of other documents are not looked at: NaN or inf there has no effect.
    k, mask, precision : as for `pyengine.topk`
        Documents of score -inf (those without tokens) are never returned; their places are pads.

    The other arguments, and the errors, are those of `maxsim`; the result is that of `pyengine.topk`.
    """
    problem = _prepared(
        queries, docs, k, scan=candidates is None, mask=mask, reduce=reduce, normalize=normalize,
        query_weights=query_weights, doc_weights=doc_weights, temperature=temperature, bias=bias,
        num_threads=num_threads,
    )  # fmt: skip
    like = kind(queries)
    if candidates is None:
        return run(problem, backend, precision, like=like)
    checks.choice(precision, "precision", checks.PRECISIONS)
    lists = candidate_lists(candidates, problem)
    named = np.zeros(len(problem.docs), bool)
    named[lists.rows] = True
    problem.docs.check_finite(named)
    return TopK(*(as_input(part, like) for part in answer(problem, backend, partial(rerank, lists=lists))))


@exact.arithmetic()
def maxsim_align(query: Any, doc: Any, *, normalize: bool = False) -> Alignment:
    """The document token, of ``doc`` [Ld, D], that each token of ``query`` [Lq, D] has its maximum with.

    Returns
    -------
    Alignment
        ``tokens`` int64 [Lq], the first of equals, or -1 where the document has none; ``scores`` float32 [Lq], their
        products (with ``normalize`` cosines), whose sum is the MaxSim score but for rounding; -1 scores -inf.
    """
    rows = checks.vectors(doc, "doc")
    tokens = checks.vectors(query, "query", rows.shape[1])
    checks.finite(rows, "doc")
    checks.finite(tokens, "query")
    cosine = checks.flag(normalize, "normalize")
    winners, best = np.full(len(tokens), -1, np.int64), np.full(len(tokens), -np.inf, np.float32)
    if len(rows):
        winners, best = exact_maxsim.align(tokens, rows, cosine)
    return Alignment(as_input(winners, query), as_input(best, query))


def _prepared(queries: Any, docs: Any, k: int = 1, scan: bool = False, **arguments: Any) -> MaxSimProblem:
    """The problem of a function that is given its documents. A scan may find NaN or inf on the way; otherwise the
    caller looks through the documents that matter (`TokenDocuments.check_finite`)."""
    checked, rows = ragged.both(queries, docs)
    documents = TokenDocuments(Documents(rows.values, checked=not scan), rows.offsets)
    return prepare(checked, documents, k, **arguments)


def _check_listed(problem: MaxSimProblem, count: int, pairs_of: PairsOf) -> None:
    """Check the numbers of these pairs, and look through the tokens of their documents."""
    named = np.zeros(len(problem.docs), bool)
    for part in parts(count):
        named[pairs_of(part)[1]] = True
    problem.docs.check_finite(named)

"""From the arguments of MaxSim functions, and of an index, to a problem; and the search among candidates."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.backends.base import Proposer
from pyengine.inputs import ragged
from pyengine.inputs.filters import FilterArguments, as_ids, integers
from pyengine.inputs.lists import RowLists, from_pairs
from pyengine.inputs.ragged import Ragged
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.searches.request import UNFILTERED, fields
from pyengine.specification.reference_maxsim import REDUCTIONS, SOFT, WEIGHTED
from pyengine.types import I64, Bool, Candidates, TopK


def prepare(
    queries: Any,
    docs: TokenDocuments,
    k: int,
    *,
    reduce: str = "sum",
    normalize: bool = False,
    query_weights: Any = None,
    doc_weights: Any = None,
    temperature: Any = None,
    mask: Any = None,
    filters: FilterArguments = UNFILTERED,
    bias: Any = None,
    ids: Any = None,
    num_threads: int | None = None,
) -> MaxSimProblem:
    """Check everything but the documents' values, and make the problem."""
    checks.choice(reduce, "reduce", REDUCTIONS)
    _check_weights(reduce, query_weights, doc_weights)
    temperature = _temperature(temperature, reduce)
    rows = ragged.tokens(queries, "queries", docs.dim)
    ragged.finite(rows.values, rows.offsets, "queries")
    _check_lengths(reduce, rows, docs)
    cosine = checks.flag(normalize, "normalize") or reduce == "aligned"
    shared = fields(
        docs, len(rows), k, metric="cosine" if cosine else "dot", mask=mask, filters=filters, bias=bias, ids=ids,
        num_threads=num_threads,
    )  # fmt: skip
    return MaxSimProblem(
        docs=docs,
        queries=rows,
        reduce=reduce,
        query_weights=ragged.per_token(query_weights, "query_weights", rows.offsets),
        doc_weights=ragged.per_token(doc_weights, "doc_weights", docs.offsets),
        temperature=temperature,
        **shared,
    )


def _check_weights(reduce: str, query_weights: Any, doc_weights: Any) -> None:
    if query_weights is not None and reduce not in WEIGHTED:
        raise ValueError(f"query_weights must come with reduce='sum', 'symmetric' or 'aligned'; got reduce={reduce!r}")
    if doc_weights is not None and reduce != "symmetric":
        raise ValueError(f"doc_weights must come with reduce='symmetric'; got reduce={reduce!r}")
    if reduce == "symmetric" and (query_weights is None) != (doc_weights is None):
        alone = "query_weights" if doc_weights is None else "doc_weights"
        raise ValueError(f"query_weights must come with doc_weights where reduce='symmetric'; got {alone} alone")


def _temperature(value: Any, reduce: str) -> float | None:
    if reduce not in SOFT:
        if value is not None:
            raise ValueError(f"temperature must come with reduce='softmax' or 'pooled'; got reduce={reduce!r}")
        return None
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
        raise TypeError(f"temperature must be a number above 0 with reduce={reduce!r}; got {value!r}")
    if not 0 < value <= sys.float_info.max:
        raise ValueError(f"temperature must be finite and above 0; got {value!r}")
    return float(value)


def _check_lengths(reduce: str, queries: Ragged, docs: TokenDocuments) -> None:
    """Of "pooled" and "aligned", which are not of sets of any lengths. Empty ones always are."""
    asked = queries.lengths
    if reduce == "pooled" and (asked > 1).any():
        wrong = int(np.argmax(asked > 1))
        raise ValueError(f"queries must have one token each with reduce='pooled'; query {wrong} has {asked[wrong]}")
    if reduce != "aligned":
        return
    living = np.arange(len(docs)) if docs.living is None else docs.living.rows
    lengths = np.concatenate([asked, np.diff(docs.offsets)[living]])
    odd = np.flatnonzero((lengths > 0) & (lengths != lengths[np.argmax(lengths > 0)]))
    if odd.size:
        name, place = ("queries", odd[0]) if odd[0] < len(asked) else ("docs", odd[0] - len(asked))
        raise ValueError(
            f"queries and docs must have one number of tokens with reduce='aligned', and the first has "
            f"{lengths[np.argmax(lengths > 0)]}; row {place} of {name} has {lengths[odd[0]]}"
        )


def candidate_lists(value: Any, problem: MaxSimProblem, skip_unknown: bool = False) -> RowLists:
    """The rows of the documents of these ids: Q arrays or lists, an array [Q, C], or a `TopK`; -1 is a pad."""
    given = _arrays_of(value.ids if isinstance(value, TopK) else value, "candidates", problem.n_queries)
    each = [own[own != -1] if own.dtype.kind == "i" else own for own in given]
    flat = np.concatenate([np.empty(0, np.int64), *map(as_ids, each)])
    owner = np.repeat(np.arange(len(each)), [len(own) for own in each])
    rows = problem.docs.rows_of(problem.ids, flat)
    unknown = rows < 0
    if unknown.any() and not skip_unknown:
        got = next(own[bad][0] for own, bad in zip(each, _split(unknown, each)) if bad.any())
        raise ValueError(f"candidates must hold ids of documents; got {got}, which is unknown")
    return from_pairs(owner[~unknown], rows[~unknown], len(each))


def _split(flat: Bool, each: list[np.ndarray]) -> list[Bool]:
    return np.split(flat, np.cumsum([len(own) for own in each])[:-1])


def rerank(problem: MaxSimProblem, backend: Proposer[MaxSimProblem], lists: RowLists) -> TopK:
    """The k best of the listed documents of each query that its mask and filters leave."""
    nothing = np.full(problem.n_queries, -np.inf)
    listed = Candidates(lists.rows, lists.offsets, np.empty(len(lists.rows), np.float32), nothing)
    listed = problem.not_excluded(problem.allowed(listed))
    found = problem.eligible(listed._replace(estimates=backend.refine(problem, listed)))
    scores, ids = backend.select(problem, found, found.estimates)
    return TopK(scores, ids, np.ones(problem.n_queries, bool))


def lists_of(value: Any, name: str, n_queries: int) -> list[I64]:
    """Q arrays of document numbers."""
    return [as_ids(own) for own in _arrays_of(value, name, n_queries)]


def _arrays_of(value: Any, name: str, n_queries: int) -> list[np.ndarray]:
    """Q arrays of integers, as given."""
    if isinstance(value, (list, tuple)):
        arrays = [integers(own, f"{name}[{q}]") for q, own in enumerate(value)]
    else:
        arrays = list(np.atleast_1d(integers(value, name)))
    if any(own.ndim != 1 for own in arrays):
        raise ValueError(f"{name} must be a list of arrays of document numbers, or have shape [Q, C]")
    if len(arrays) != n_queries:
        raise ValueError(f"{name} must have one list per query, {n_queries}; got {len(arrays)}")
    return arrays


def numbers_of(given: np.ndarray, name: str, count: int, of: str) -> I64:
    numbers = as_ids(given)
    wrong = (numbers < 0) | (numbers >= count)
    if wrong.any():
        raise ValueError(f"{name} must hold numbers of the {count} {of}; got {given[np.argmax(wrong)]}")
    return numbers


def rows_of(given: np.ndarray, name: str, problem: MaxSimProblem) -> I64:
    """The rows of the documents of these ids."""
    rows = problem.docs.rows_of(problem.ids, as_ids(given))
    if (rows < 0).any():
        raise ValueError(f"{name} must hold ids of documents; got {given[np.argmax(rows < 0)]}, which is unknown")
    return rows


def kind(queries: Any) -> Any:
    """What decides the kind of array of a result: the queries, or the first of a list of them."""
    return queries[0] if isinstance(queries, (list, tuple)) and queries else queries

"""Sparse top-k: fused sparse lexicon scoring over vocabulary weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyengine.inputs import sparse_forms
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseDocuments, SparseProblem, TermRows
from pyengine.refining import exact
from pyengine.searches.request import UNFILTERED, fields, run
from pyengine.specification import reference_sparse
from pyengine.types import TermContributions, TopK

__all__ = ["explain_terms", "prepare", "sparse_topk"]


@exact.arithmetic()
def sparse_topk(
    queries: Any,
    docs: Any,
    k: int = 10,
    *,
    mask: Any = None,
    allow: Any = None,
    deny: Any = None,
    exclude: Any = None,
    groups: Any = None,
    per_group: int = 1,
    after: Any = None,
    threshold: Any = None,
    bias: Any = None,
    precision: str = "exact",
    backend: str = "auto",
    num_threads: int | None = None,
) -> TopK:
    """The k best documents of each query by the inner product of their term weights (SPLADE, arXiv 2107.05720; BM25
    impacts), exact to the bit whatever the backend.

    A score is the sum of the products of the weights of shared terms. Documents that share no term with a query score 0
    (and their bias): they fill up the k best in the order of their row numbers, before those of negative scores.

    Parameters
    ----------
    queries, docs : SparseRows, scipy sparse matrix, torch sparse COO or CSR tensor, or list of dicts {term id: weight}
        Q queries and N documents over one vocabulary, as many terms on both sides. What is not float32 is rounded to it
        once, weights of one term in one row are summed, zeros are dropped, and weights may be negative. In boolean
        matrices and tensors (binary codes) True is a weight of 1. Dicts may hold any term ids that the other side can
        have.
    bias : real [N]
        Added to the score of each document in float64, before the one rounding to float32.
    precision : "exact" or "fast"
        ``fast`` returns what the proposer ranked, with its own scores, not certified: of quantised weights for ``cpu``,
        of float64 sums for the other backends. There may be fewer than k results: with filters, or where more documents
        tie at the k-th place than a scan keeps.
    k, mask, allow, deny, exclude, groups, per_group, after, threshold, backend, num_threads : as for `pyengine.topk`

    Returns
    -------
    TopK
        ``scores`` float32 [Q, K], ``ids`` int64 [Q, K] (row numbers of ``docs``), ``certified`` bool [Q]; tensors where
        the queries are a tensor.

    Raises
    ------
    TypeError, ValueError
        One sentence naming the argument: a wrong dtype, shape or value, a row with NaN or inf, or with a term id that
        is not one.
    RuntimeError
        The chosen backend cannot run this, with each backend's reason.
    """
    asked, rows = sparse_forms.both(queries, docs)
    given = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
    corpus = SparseDocuments(TermRows.of(rows))
    problem = prepare(asked, corpus, k, mask=mask, filters=given, bias=bias, num_threads=num_threads)
    return run(problem, backend, precision, like=queries)


def prepare(
    queries: Any,
    docs: SparseDocuments,
    k: int,
    *,
    mask: Any = None,
    filters: FilterArguments = UNFILTERED,
    bias: Any = None,
    ids: Any = None,
    num_threads: int | None = None,
) -> SparseProblem:
    """Check everything, and make the problem."""
    rows = SparseRows.of(queries, docs.n_terms, "queries")
    shared = fields(
        docs, len(rows), k, metric="dot", mask=mask, filters=filters, bias=bias, ids=ids, num_threads=num_threads
    )
    return SparseProblem(docs=docs, queries=rows, **shared)


@exact.arithmetic()
def explain_terms(query: Any, doc: Any) -> TermContributions:
    """What each shared term adds to the score of a query and a document: the products of their weights.

    Parameters
    ----------
    query, doc : dict {term id: weight}, or one row of what `sparse_topk` takes

    Returns
    -------
    TermContributions
        ``terms`` int64 [S] and ``contributions`` float32 [S], the largest first, ties by smaller term id. Their sum is
        the score, but for rounding.
    """
    one, other = ([each] if isinstance(each, Mapping) else each for each in (query, doc))
    asked, row = sparse_forms.both(one, other, names=("query", "doc"))
    for name, rows in (("query", asked), ("doc", row)):
        if len(rows) != 1:
            raise ValueError(f"{name} must be one row; got {len(rows)}")
    return TermContributions(*reference_sparse.contributions(asked, row))

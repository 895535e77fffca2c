"""Dense top-k: fused normalize-matmul-topk over one matrix of vectors."""

from __future__ import annotations

from typing import Any

from pyengine import checks
from pyengine.backends.cuda.cuda_inputs import adopted, operands
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.refining import exact
from pyengine.searches import plain
from pyengine.searches.request import UNFILTERED, fields, run, run_both
from pyengine.specification.reference import METRICS
from pyengine.types import TopK

__all__ = ["prepare", "run", "topk", "topk_both"]


def topk(
    queries: Any,
    docs: Any,
    k: int = 10,
    *,
    metric: str = "cosine",
    mask: Any = None,
    allow: Any = None,
    deny: Any = None,
    exclude: Any = None,
    groups: Any = None,
    per_group: int = 1,
    after: Any = None,
    threshold: Any = None,
    bias: Any = None,
    dims: int | None = None,
    precision: str = "exact",
    rescore: int | None = None,
    backend: str = "auto",
    num_threads: int | None = None,
) -> TopK:
    """The k best documents of each query, exact to the bit whatever the backend.

    Parameters
    ----------
    queries, docs : array-like [Q, D] and [N, D] of real numbers
        NumPy, torch, DLPack, buffers or nested lists, of any strides. What is not float32 is converted to it once,
        and the converted values are the vectors: bfloat16, float8_e4m3fn and float8_e5m2, of torch or ml_dtypes, lose
        nothing. Nothing is normalised beforehand. CUDA tensors stay on their device, which must be one (those of
        float8 are copied there, as float16); the results are tensors wherever the queries are. So do other arrays on a
        GPU (cupy, jax, numba: ``__cuda_array_interface__`` or DLPack), of float32, float16 or bfloat16, with adjacent
        values in a row: ``cuda`` searches them, after what is under way on their stream; the results are NumPy's.
    k : int >= 1
        Beyond the number of documents that may be returned, rows are padded with id -1.
    metric : "cosine", "dot" or "l2"
        Cosine is 0 where a norm is 0. ``l2`` is the squared Euclidean distance: smaller is better, rows ascend.
    mask : bool [N] or [Q, N], or uint8 bitmap [ceil(N/8)] or [Q, ceil(N/8)] with the first document in the low bit
        Which documents may be returned.
    allow, deny : int [n]
        Ids (here: row numbers) that alone may, and that may not be returned, for all queries; the mask holds too.
        Unknown ids in ``deny`` and ``exclude`` have no effect; in ``allow`` they are an error.
    exclude : list of Q arrays int [E_q], or int [Q, E] padded with -1
        Ids that a query is not to get: known positives, or itself.
    groups : int [N], with per_group : int >= 1
        Labels: each query gets at most ``per_group`` documents of a label, the best ones. With 1, that is the top k of
        groups by their best member.
    after : TopK, or (real [Q], int [Q])
        Only what ranks strictly after this score and id: the next page. Of a TopK the last column is meant; after a
        pad there is nothing. ``groups`` count what was on earlier pages, so that pages together are one longer search.
    threshold : real, or real [Q]
        Only scores, as rounded to float32, of at least this (for ``l2``, at most). What is left of k are pads.
    bias : real [N]
        Added to the score of each document in float64, before the one rounding to float32.
    dims : int
        Score only the first ``dims`` dimensions (Matryoshka prefixes, arXiv 2205.13147); cosine renormalises.
    precision : "exact" or "fast"
        ``fast`` returns what the proposer ranked, with its own scores, not certified: off by at most the bound of the
        int8 codes for ``cpu`` (DESIGN.md, "Bounds": of the document's, and of the query's where no codes are stored),
        by float32 rounding for ``torch`` and ``faiss``. Ties, other k and other batches may then come out differently;
        all that is promised of ``exact`` only. With filters there may be fewer than k results.
    rescore : int >= 1, with precision="fast" only
        Score the ``rescore`` k best proposals by the specification, and return the best of them.
    backend : "auto" or a name of `pyengine.backends`
    num_threads : int, default OMP_NUM_THREADS, else the cores available

    Returns
    -------
    TopK
        ``scores`` float32 [Q, K], ``ids`` int64 [Q, K] (row numbers of ``docs``), ``certified`` bool [Q].

    Raises
    ------
    TypeError, ValueError
        One sentence naming the argument: a wrong dtype, shape or value, or a row with NaN or inf.
    RuntimeError
        The chosen backend cannot run this, with each backend's reason.
    """
    if mask is allow is deny is exclude is groups is after is threshold is bias is dims is rescore is None:
        found = plain.search(
            queries, plain.documents(docs), k, metric, precision=precision, per_group=per_group, backend=backend,
            num_threads=num_threads,
        )  # fmt: skip
        if found is not None:
            return found
    with exact.arithmetic():
        asked, rows = operands(queries, docs)
        given = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
        problem = prepare(
            asked, Documents(rows), k, metric=metric, mask=mask, filters=given, bias=bias, dims=dims,
            num_threads=num_threads,
        )  # fmt: skip
        return run(problem, backend, precision, like=queries, rescore=rescore)


@exact.arithmetic()
def topk_both(
    a: Any,
    b: Any,
    k: int = 10,
    *,
    metric: str = "cosine",
    dims: int | None = None,
    precision: str = "exact",
    backend: str = "auto",
    num_threads: int | None = None,
) -> tuple[TopK, TopK]:
    """The k best rows of ``b`` for each row of ``a``, and the k best of ``a`` for each of ``b``: both directions of a
    retrieval, or mutual neighbours.

    ``a`` [A, D] and ``b`` [B, D] are as ``queries`` and ``docs`` of `topk`, as are the other arguments and the errors.
    ``triton`` and ``cuda`` make each product once, for both. Elsewhere these are two searches, and cost as much:
    products are a third of the time for 20,000 rows on AMX, and less for larger k (bench/NOTES.md). A x B scores are
    never held.

    Returns
    -------
    (TopK [A, K] with row numbers of b, TopK [B, K] with row numbers of a)
    """
    a, b = adopted(a, "a"), adopted(b, "b")
    rows_a, rows_b = checks.documents(a, b, names=("b", "a")), checks.documents(b, a, names=("a", "b"))
    if rows_a.shape[1] != rows_b.shape[1]:
        raise ValueError(f"b must have {rows_a.shape[1]} dimensions per row, as a has; got shape {tuple(rows_b.shape)}")
    checks.finite(rows_a, "a")
    checks.finite(rows_b, "b")

    def problem(queries: Any, rows: Any) -> DenseProblem:
        docs = Documents(rows, checked=True)
        return prepare(queries, docs, k, metric=metric, dims=dims, num_threads=num_threads)

    return run_both(problem(rows_a, rows_b), problem(rows_b, rows_a), backend, precision, likes=(a, b))


def prepare(
    queries: Any,
    docs: Documents,
    k: int,
    *,
    metric: str,
    mask: Any = None,
    filters: FilterArguments = UNFILTERED,
    bias: Any = None,
    dims: int | None = None,
    ids: Any = None,
    num_threads: int | None = None,
) -> DenseProblem:
    """Check everything but the documents' values, and make the problem."""
    checks.choice(metric, "metric", METRICS)
    rows = checks.vectors(adopted(queries, "queries"), "queries", docs.dim)
    checks.finite(rows, "queries")
    shared = fields(
        docs, len(rows), k, metric=metric, mask=mask, filters=filters, bias=bias, ids=ids, num_threads=num_threads
    )
    return DenseProblem(docs=docs, queries=rows, dims=checks.prefix(dims, docs.dim), **shared)

"""Dense top-k: fused normalize-matmul-topk over one matrix of vectors."""

from __future__ import annotations

from typing import Any

from pyengine import checks, exact
from pyengine.backends import registry
from pyengine.problem import DenseProblem, Documents
from pyengine.reference import METRICS
from pyengine.search import exact_search, fast_search
from pyengine.types import TopK


@exact.arithmetic()
def topk(
    queries: Any,
    docs: Any,
    k: int = 10,
    *,
    metric: str = "cosine",
    mask: Any = None,
    bias: Any = None,
    dims: int | None = None,
    precision: str = "exact",
    backend: str = "auto",
    num_threads: int | None = None,
) -> TopK:
    """The k best documents of each query, exact to the bit whatever the backend.

    Parameters
    ----------
    queries, docs : array-like [Q, D] and [N, D] of real numbers
        NumPy, torch, DLPack, buffers or nested lists, of any strides. What is not float32 is converted to it once,
        and the converted values are the vectors. Nothing is normalised beforehand. CUDA tensors stay on their
        device, which must be one; the results are tensors wherever the queries are.
    k : int >= 1
        Beyond the number of documents that may be returned, rows are padded with id -1.
    metric : "cosine", "dot" or "l2"
        Cosine is 0 where a norm is 0. ``l2`` is the squared Euclidean distance: smaller is better, rows ascend.
    mask : bool [N] or [Q, N], or uint8 bitmap [ceil(N/8)] or [Q, ceil(N/8)] with the first document in the low bit
        Which documents may be returned.
    bias : real [N]
        Added to the score of each document in float64, before the one rounding to float32.
    dims : int
        Score only the first ``dims`` dimensions (Matryoshka prefixes, arXiv 2205.13147); cosine renormalises.
    precision : "exact" or "fast"
        ``fast`` returns what the proposer ranked, with its own scores, not certified: off by at most the int8 residual
        bound |q||d - d'| for ``cpu`` (DESIGN.md, "Bounds"), by float32 rounding for ``torch`` and ``faiss``. Ties,
        other k and other batches may then come out differently; all that is promised of ``exact`` only.
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
    rows = checks.documents(docs, queries)
    problem = prepare(
        queries, Documents(rows), k, metric=metric, mask=mask, bias=bias, dims=dims, num_threads=num_threads
    )
    return run(problem, backend, precision, like=queries)


def prepare(
    queries: Any,
    docs: Documents,
    k: int,
    *,
    metric: str,
    mask: Any = None,
    bias: Any = None,
    dims: int | None = None,
    ids: Any = None,
    num_threads: int | None = None,
) -> DenseProblem:
    """Check everything but the documents' values, and make the problem."""
    checks.choice(metric, "metric", METRICS)
    rows = checks.vectors(queries, "queries", docs.dim)
    checks.finite(rows, "queries")
    n_docs = len(docs) if docs.living is None else len(docs.living)
    mask, bias = checks.bitmap(mask, len(rows), n_docs), checks.biases(bias, n_docs)
    if docs.living is not None:
        mask, bias = docs.living.mask(mask), docs.living.spread(bias)
    return DenseProblem(
        queries=rows,
        docs=docs,
        k=checks.positive_int(k, "k"),
        metric=metric,
        dims=checks.prefix(dims, docs.dim),
        mask=mask,
        bias=bias,
        ids=ids,
        num_threads=checks.thread_count(num_threads),
    )


def run(problem: DenseProblem, backend: str, precision: str, like: Any) -> TopK:
    """Choose the backend, search, and give the result in the caller's kind of array."""
    checks.choice(precision, "precision", checks.PRECISIONS)
    chosen = registry.choose(backend, problem)
    search = exact_search if precision == "exact" else fast_search
    unchecked = not problem.docs.checked
    if unchecked and not chosen.checks_finite(problem):
        checks.finite(problem.docs.rows, "docs")
    try:
        result = search(problem, chosen)
    except ArithmeticError:
        checks.finite(problem.docs.rows, "docs")  # names the first such row
        raise
    return _as_input(result, like)


def _as_input(result: TopK, like: Any) -> TopK:
    if not checks.is_torch(like):
        return result
    import torch

    return TopK(*(torch.from_numpy(part).to(like.device) for part in result))

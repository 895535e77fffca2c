"""Top-k of densified lexical vectors by gated inner products."""

from __future__ import annotations

from typing import Any

from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.problems.problem_sliced import SlicedDocuments, SlicedProblem
from pyengine.refining import exact
from pyengine.searches.request import UNFILTERED, fields, run
from pyengine.types import TopK

__all__ = ["prepare", "sliced_topk"]


@exact.arithmetic()
def sliced_topk(
    queries: SlicedRows,
    docs: SlicedRows,
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
    """The k best documents of each query by the products of the weights whose indices agree: the gated inner product
    of densified lexical vectors (DSR, arXiv 2112.04666; DHR, arXiv 2206.09912). To the bit what `sparse_topk` returns
    for the same vectors as sparse rows (`SlicedRows.sparse`).

    Parameters
    ----------
    queries, docs : SlicedRows [Q, D] and [N, D]
        A document that shares no index with a query scores 0 (and its bias).
    k, mask, allow, deny, exclude, groups, per_group, after, threshold, bias : as for `pyengine.topk`
    precision : "exact" or "fast"
        ``fast`` returns what the proposer ranked, with its own scores, not certified: off by at most the bound of the
        int8 codes for ``cpu``, r |q| |d| with r about 0.01 and the query's 1e-4 (DESIGN.md, "Bounds").
    backend : "auto" or a name of `pyengine.backends`
    num_threads : int, default OMP_NUM_THREADS, else the cores available

    Returns and raises as `pyengine.topk`.
    """
    rows = _sliced(docs, "docs")
    given = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
    problem = prepare(
        queries, SlicedDocuments(rows, cache=rows.cache), k, mask=mask, filters=given, bias=bias,
        num_threads=num_threads,
    )  # fmt: skip
    return run(problem, backend, precision, like=None)


def prepare(
    queries: SlicedRows,
    docs: SlicedDocuments,
    k: int,
    *,
    mask: Any = None,
    filters: FilterArguments = UNFILTERED,
    bias: Any = None,
    ids: Any = None,
    num_threads: int | None = None,
) -> SlicedProblem:
    """Check the arguments, and make the problem."""
    rows = _sliced(queries, "queries")
    if rows.dim != docs.dim:
        raise ValueError(f"queries must have {docs.dim} slices, as docs have; got {rows.dim}")
    shared = fields(
        docs, len(rows), k, metric="dot", mask=mask, filters=filters, bias=bias, ids=ids, num_threads=num_threads
    )
    return SlicedProblem(docs=docs, queries=rows, **shared)


def _sliced(value: Any, name: str) -> SlicedRows:
    if not isinstance(value, SlicedRows):
        raise TypeError(f"{name} must be a pyengine.SlicedRows (of SparseRows: SlicedRows.of); got {value!r:.60}")
    return value

"""A plain search of the host's memory in one call of the extension: a search of a thousand documents takes less time
than it takes Python to make a `DenseProblem` and to go from step to step.

Plain is a top k by float32 arrays, by so few queries among so few documents that one thread does it, and nothing else
asked for. `search` gives the answer of the general search, to the bit, or None: where something is not plain, not
finite, or not certified. The general search then does it, or says what is wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pyengine.backends.cpu import centring, cpu_backend, machine
from pyengine.checks import MAX_THREADS
from pyengine.kernels.plan import PANEL, plan_dense
from pyengine.refining import exact
from pyengine.specification.reference import METRICS
from pyengine.types import F32, F64, I64, U8, TopK

MOST_RESULTS = 256  # of all queries, where not everything is scored: to refine for more is work for threads
UNKNOWN = object()


class PlainDocuments(NamedTuple):
    """``rows`` [N, D], whatever they are. Of an index also what it knows of them: that they are finite, their ids,
    norms and int8 codes (see `pyengine.problems.problem`), and ``cache``, what was derived of them."""

    rows: Any
    ids: I64 | None = None
    norms: F64 | None = None
    codes: U8 | None = None
    scale: F32 | None = None
    residual: F32 | None = None
    cache: dict[Any, Any] | None = None


def search(queries: Any, docs: PlainDocuments, k: Any, metric: Any) -> TopK | None:
    """The k best documents for each of ``queries`` [Q, D]. The arguments are whatever the caller was given."""
    rows, ids, norms, *codes, _ = docs
    if type(queries) is not np.ndarray or type(rows) is not np.ndarray or queries.ndim != 2 or rows.ndim != 2:
        return None
    if type(k) is not int or not 0 < k < 1 << 31 or type(metric) is not str or metric not in METRICS:
        return None
    (n_queries, dim), n_docs = queries.shape, len(rows)
    at_once = cpu_backend.scored_at_once(n_queries, n_docs, dim)
    launch = {} if at_once else _launch(docs, n_queries, dim, k, metric)
    kernels = exact.native()
    if launch is None or kernels is None:
        return None
    found = kernels.search(queries, rows, k, metric, ids, norms, *codes, **launch)
    return None if found is None else TopK(*found)


def _launch(docs: PlainDocuments, n_queries: int, dim: int, k: int, metric: str) -> dict[str, Any] | None:
    """How the documents are scanned, and what else that needs; None where it is not plain."""
    if n_queries > PANEL or k * n_queries > MOST_RESULTS or not 0 < dim <= machine.MAX_DIMS:
        return None
    scanned = 4 * dim if docs.codes is None else docs.codes.shape[1]
    plan = plan_dense(n_queries, len(docs.rows), dim, k, cpu_backend.width_for(k), scanned, MAX_THREADS)
    if plan.num_threads > 1:
        return None
    launch: dict[str, Any] = plan.launch()
    del launch["num_threads"]
    if docs.cache is not None and metric != "cosine":
        launch["largest_norm"] = docs.cache.get("largest_norm")  # the general search derives it
        if launch["largest_norm"] is None or (metric == "l2" and _may_be_centred(docs)):
            return None
    return launch


def _may_be_centred(docs: PlainDocuments) -> bool:
    cache: dict[Any, Any] = docs.cache or {}
    return len(docs.rows) >= centring.MANY and cache.get("centre", UNKNOWN) is not None

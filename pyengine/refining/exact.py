"""The specification's arithmetic on candidate lists: the C++ kernels where they are built, NumPy where not.

Both give the same bits. `refine` scores listed candidates; `scan` scores everything, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.inputs.lists import first_rows
from pyengine.inputs.rows import Rows
from pyengine.problems.problem import Codes, DenseProblem, Problem
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, U8, Candidates, TopK

F = TypeVar("F", bound=Callable[..., Any])
PAIR_BLOCK = 1 << 13  # candidates per step of the NumPy form
EVERYTHING = 1 << 18  # pairs of a query and a document listed at a time, where all are


@cache  # asked several times for each search
def native() -> ModuleType | None:
    """The compiled extension, or None when it is not built. One that is built but broken is an error."""
    try:
        return import_module("pyengine._native")
    except ModuleNotFoundError:
        return None


class arithmetic:
    """Floating point as the specification assumes it, whatever the caller has set: rounding to nearest, denormals kept
    (torch.set_flush_denormal flushes them), and NumPy silent where a checked result over- or underflows. Also a
    decorator. A class, since a generator takes longer, and small searches notice."""

    def __enter__(self) -> None:
        self._kernels = native()
        self._before = None if self._kernels is None else self._kernels.default_float_state()
        self._silence = np.errstate(all="ignore")
        self._silence.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._silence.__exit__(*raised)
        if self._kernels is not None:
            self._kernels.restore_float_state(self._before)

    def __call__(self, function: F) -> F:
        @wraps(function)
        def within(*args: Any, **kwargs: Any) -> Any:
            with arithmetic():
                return function(*args, **kwargs)

        decorated: Any = within
        return decorated  # type: ignore[no-any-return]


def corpus(problem: DenseProblem, scan: bool = False) -> Any:
    """The documents as the extension takes them; with what the proposer needs on top where ``scan`` is set."""
    docs = problem.docs
    whole = problem.dims == docs.dim
    extra: dict[str, Any] = {"norms": docs.norms} if whole or scan else {}
    if scan and isinstance(docs.codes, Codes):
        extra |= {"codes": docs.codes.codes, "scale": docs.codes.scale, "residual": docs.codes.residual}
        extra["code_planes"] = docs.codes.planes
        extra["prefix_norms"] = (
            None
            if whole
            else docs.derived(("norms", problem.dims), lambda: norms(docs.rows, problem.dims, problem.num_threads))
        )
    known = docs.norms
    if scan and known is not None and len(docs) and problem.metric != "cosine":
        extra["largest_norm"] = docs.derived("largest_norm", lambda: float(known.max()))
    return _kernels().Corpus(
        native_rows(docs.rows), problem.dims, problem.metric, mask=problem.mask, bias=problem.bias, **extra
    )


def native_rows(rows: F32 | Rows) -> Any:
    """Rows as the extension takes them."""
    if not isinstance(rows, Rows):
        return _kernels().Rows(rows, "float32", rows.shape[1])
    data = rows.data.view(np.uint16) if rows.kind == "float16" else rows.data
    if rows.kind != "residual":
        return _kernels().Rows(data, rows.kind, rows.dim, rows.planes, rows.step)
    extra = {"short_step": rows.step, "centroid": rows.centroid, "centroids": rows.centroids}
    return _kernels().Rows(data, rows.kind, rows.dim, rows.planes, **extra)


def norms(rows: F32 | Rows, dims: int, num_threads: int) -> F64:
    """float64 [n]: the norms of the first ``dims`` dimensions, by the specification; not finite where a row is not."""
    kernels = native()
    found: F64
    if kernels is None:
        found = reference.norm(rows[:][:, :dims])
    else:
        found = kernels.norms(native_rows(rows), dims, num_threads)
    return found


def quantize(rows: F32, num_threads: int) -> tuple[U8, F32, F32]:
    """The int8 codes, scales and residuals of finite rows (see `Codes`). Needs the extension."""
    coded: tuple[U8, F32, F32] = _kernels().quantize(rows, num_threads)
    return coded


def code_into(rows: F32, into: Mapping[str, NDArray[Any]], num_threads: int) -> None:
    """In one pass over rows of any values: their `norms`, what `quantize` says of the finite ones, and a copy of them
    as ``rows``, where there is an array for it. Needs the extension."""
    arrays = {name: array for name, array in into.items() if name != "rows"}
    _kernels().code_into(rows, copy=into.get("rows"), **arrays, num_threads=num_threads)


def decode(rows: Rows) -> F32:
    """float32 [N, D]: the vectors, as the extension decodes them; the bits of ``rows[:]``."""
    values: F32 = _kernels().decode(native_rows(rows))
    return values


def pack_planes(rows: F32, planes: int, num_threads: int) -> tuple[U8, F32, F32, F32]:
    """Finite rows as bit planes with a step (see `Rows`), and as `Codes` their scales and residuals. Needs the
    extension."""
    coded: tuple[U8, F32, F32, F32] = _kernels().pack_planes(rows, planes, num_threads)
    return coded


def _kernels() -> ModuleType:
    kernels = native()
    assert kernels is not None
    return kernels


def refine(problem: DenseProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates (see `reference.pair_scores`)."""
    kernels = native()
    if kernels is not None:
        scores: F32 = kernels.refine(
            corpus(problem), problem.queries, candidates.rows, candidates.offsets, problem.num_threads
        )
        return scores
    queries, rows, owner = problem.queries[:, : problem.dims], problem.docs.rows, first_rows(candidates.offsets)
    scores = np.empty(len(candidates.rows), np.float32)
    for start in range(0, len(scores), PAIR_BLOCK):
        part = slice(start, start + PAIR_BLOCK)
        chosen = candidates.rows[part]
        bias = None if problem.bias is None else problem.bias[chosen]
        docs = rows[chosen][:, : problem.dims]
        scores[part] = reference.pair_scores(queries[owner[part]], docs, problem.metric, bias)
    return scores


def select(problem: Problem, candidates: Candidates, scores: F32) -> tuple[F32, I64]:
    """The k best candidates of each query: scores float32 [Q, K] and ids int64 [Q, K], padded."""
    kernels = native()
    if kernels is not None:
        best: tuple[F32, I64] = kernels.select(
            scores, candidates.rows, candidates.offsets, problem.k, problem.metric == "l2", problem.ids
        )
        return best
    ids = candidates.rows if problem.ids is None else problem.ids[candidates.rows]
    rank = reference.rank_score(scores, problem.metric)
    bounds = zip(candidates.offsets[:-1], candidates.offsets[1:])
    lists = [reference.select(rank[low:high], ids[low:high], problem.k) for low, high in bounds]
    top_rank = np.array([top[0] for top in lists], np.float32).reshape(-1, problem.k)
    top_ids = np.array([top[1] for top in lists], np.int64).reshape(-1, problem.k)
    return reference.rank_score(top_rank, problem.metric), top_ids


def portions(problem: Problem) -> Iterator[I64]:
    """Query numbers, so few at a time that `everything` of them is no larger than `EVERYTHING`, or one query."""
    step = max(1, EVERYTHING // max(1, len(problem.docs)))
    for start in range(0, problem.n_queries, step):
        yield np.arange(start, min(start + step, problem.n_queries))


def everything(problem: Problem) -> Candidates:
    """Every allowed document of every query, not scored: for `portions` of the queries."""
    n_docs = len(problem.docs)
    mask = np.ones((1, n_docs), bool) if problem.mask is None else checks.unpack(problem.mask, n_docs)
    rows = np.ascontiguousarray(np.nonzero(np.broadcast_to(mask, (problem.n_queries, n_docs)))[1])
    lengths = np.broadcast_to(np.count_nonzero(mask, axis=1), problem.n_queries)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Candidates(rows, offsets, np.empty(len(rows), np.float32), np.full(problem.n_queries, -np.inf))


def scan(problem: DenseProblem) -> TopK:
    """Top-k with every document scored by the specification: the last resort, and always right."""
    kernels = native()
    if kernels is not None:
        scores, ids = kernels.exact_topk(corpus(problem), problem.queries, problem.k, problem.ids, problem.num_threads)
        return TopK(scores, ids, np.ones(problem.n_queries, bool))
    mask = None if problem.mask is None else checks.unpack(problem.mask, len(problem.docs))
    return reference.topk(
        problem.queries, problem.docs.rows, problem.k, problem.metric, mask=mask, bias=problem.bias,
        dims=problem.dims, ids=problem.ids,
    )  # fmt: skip

"""The steps of a dense search by the kernels of `csrc/cuda`. `dense_terms` derives the bounds, and
`pyengine.kernels.dense_plan` and `dense_forms` plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda import cuda_device, cuda_filters, cuda_products
from pyengine.backends.cuda.cuda_between_kernels import ceiling
from pyengine.backends.cuda.cuda_between_kernels import scan as scan_between
from pyengine.backends.cuda.cuda_device import KINDS, Array, Gpu
from pyengine.backends.cuda.cuda_documents import Scanned, originals, scanned
from pyengine.backends.cuda.cuda_filters import Limits
from pyengine.backends.cuda.cuda_kernels import (
    MOST_BLOCKS,
    PAD,
    PLANNED,
    Coded,
    Pools,
    code_queries,
    decode,
    pools,
    refine_pairs,
    scan,
)
from pyengine.backends.cuda.cuda_kernels import select as select_keys
from pyengine.backends.shared.dense_terms import DocumentTerms, Scale, document_terms, scale_of
from pyengine.kernels import dense_forms
from pyengine.kernels.dense_plan import DenseScan, limited_tile, plan_dense_scan, scan_with
from pyengine.problems.problem import DenseProblem
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Attempt, Candidates, TopK


class Found(NamedTuple):
    """The pools of the queries [first, first + Q), and the scale of their bounds; between two limits also ``above``
    int32 [Q], how many documents more are certainly above the ceiling."""

    first: int
    queries: Array
    pools: Pools
    scale: Scale
    above: Array | None = None


def _terms(problem: DenseProblem, known: Scanned, gpu: Gpu) -> tuple[Array, Array]:
    """The columns and the units of `DocumentTerms` on the GPU, kept where they do not depend on a bias."""

    def build() -> tuple[Array, Array]:
        rounded = known.values.kind == "float32"
        made: DocumentTerms = document_terms(
            known.lengths, False, problem.bias, problem.metric, problem.dims, rounded
        )  # fmt: skip
        return gpu.array(made.columns), gpu.array(made.units)

    key = ("terms", problem.metric, problem.dims, known.values.kind)
    return cuda_device.mirrored(problem.docs, gpu, key, build) if problem.bias is None else build()


def plan(problem: DenseProblem, gpu: Gpu, width: int, kind: str = "int8", rising: bool = True) -> DenseScan:
    """The tile, the pools and the parts of a scan of documents of that kind, as `scans` has it: for so many queries at
    a time as a launch has blocks for."""
    found = _plan(problem, gpu, width, kind, rising)
    most = found.tile.queries * max(1, MOST_BLOCKS // max(1, found.n_tiles))
    return replace(found, query_block=min(found.query_block, most))


def _plan(problem: DenseProblem, gpu: Gpu, width: int, kind: str, rising: bool) -> DenseScan:
    n_queries, n_docs, dims, k = problem.n_queries, len(problem.docs), problem.dims, problem.k
    row_bytes = -(-dims // 8) if kind == "bits" else dims * KINDS[kind]
    if between_limits(problem, rising):
        tile = dense_forms.MANY if kind == "bits" else limited_tile(gpu.chip, PLANNED.get(kind, "fp32"))
        return scan_with(tile, {}, n_queries, n_docs, dims, k, row_bytes, width)
    if kind == "bits":
        signs = cuda_products.are_signs(problem)
        return dense_forms.plan_bits(signs, n_queries, n_docs, dims, k, row_bytes, width)
    if kind == "float32":
        return dense_forms.plan_float32(gpu.chip, n_queries, n_docs, dims, k, row_bytes, width)
    return plan_dense_scan(gpu.chip, PLANNED[kind], n_queries, n_docs, dims, k, row_bytes, width, cuda=True)


def between_limits(problem: DenseProblem, rising: bool = True) -> bool:
    """Whether a scan counts what is above a ceiling, for which there is one form."""
    return problem.ceiling is not None or not rising


def scans(problem: DenseProblem, width: int, gpu: Gpu, rising: bool = True) -> Iterator[Found]:
    """The pools of one block of queries after another: of what may be among their k best of those not above the
    ceiling; or, where thresholds are not ``rising``, of all between floor and ceiling."""
    known = scanned(problem, gpu)
    columns, units = _terms(problem, known, gpu)
    kind, limited = known.values.kind, between_limits(problem, rising)
    chosen = plan(problem, gpu, width, kind, rising)
    for first in range(0, problem.n_queries, chosen.query_block):
        part = problem.only(np.arange(first, min(first + chosen.query_block, problem.n_queries)))
        queries = gpu.array(part.queries)
        coded = code_queries(gpu, queries, units, part.metric, part.dims, chosen.tile, kind)
        found = pools(gpu, part.n_queries, chosen.capacity, _floors(part, coded, gpu))
        mask = None if part.mask is None else gpu.array(part.mask)
        if not limited:
            scan(gpu, known.values, columns, coded, mask, found, chosen)
            yield Found(first, queries, found, _scale(part, coded, gpu))
            continue
        over = ceiling(gpu, _ceilings(part, coded, gpu))
        scan_between(gpu, known.values, columns, coded, mask, found, over, chosen, rising)
        yield Found(first, queries, found, _scale(part, coded, gpu), over.above)


def _scale(part: DenseProblem, coded: Coded, gpu: Gpu) -> Scale:
    return scale_of(gpu.host(coded.scaling)[: part.n_queries], part.dims)


def _floors(part: DenseProblem, coded: Coded, gpu: Gpu) -> F32 | None:
    if part.floor is None:
        return None
    floors: F32 = _scale(part, coded, gpu).floors(part.floor)
    return floors


def _ceilings(part: DenseProblem, coded: Coded, gpu: Gpu) -> F32:
    if part.ceiling is None:
        return np.full(part.n_queries, np.inf, np.float32)
    ceilings: F32 = _scale(part, coded, gpu).ceilings(part.ceiling)
    return ceilings


def propose(problem: DenseProblem, width: int) -> Candidates:
    """What may be among the k best, by the scan, on the host."""
    if problem.n_queries == 0 or len(problem.docs) == 0:
        return exact.everything(problem)
    gpu = cuda_device.gpu_of(problem.docs)
    parts = [listed(problem, found, gpu) for found in scans(problem, width, gpu)]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.offsets for part in parts]))]).astype(np.int64)
    rows, estimates, dropped = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "estimates", "dropped")
    )
    return Candidates(rows, offsets, estimates, dropped)


def listed(problem: DenseProblem, found: Found, gpu: Gpu) -> Candidates:
    """The pools of a block as candidates, with the number of each query's in place of offsets."""
    counts, rows, upper, lower = found.pools.listed(gpu)
    own = Scale(*(np.repeat(each, counts) for each in found.scale))
    rank = own.estimates(lower[:, None], upper[:, None])[:, 0]
    estimates = reference.round_score(-rank if problem.metric == "l2" else rank)
    return Candidates(rows, counts, estimates, found.scale.dropped(found.pools.dropped(gpu)))


def attempt(problem: DenseProblem, asked: DenseProblem, width: int) -> Attempt | None:
    """The whole search on the GPU."""
    if problem.n_queries == 0 or len(problem.docs) == 0:
        return None
    gpu = cuda_device.gpu_of(problem.docs)
    places, limits = id_places(problem, gpu), cuda_filters.limits(problem, gpu)
    parts = [selected(problem, found, limits, places, gpu) for found in scans(asked, width, gpu)]
    keys, dropped = (np.concatenate(each) for each in zip(*parts))
    return answered(problem, keys, dropped)


def answered(problem: DenseProblem, keys: I64, dropped: F64) -> Attempt:
    """The answer that keys int64 [Q, k] are, with ids for places in their order."""
    rank, place = decode(keys)
    order = _id_order(problem)
    filled = keys != PAD
    rows = place if order is None else order[np.where(filled, place, 0)]
    ids = np.where(filled, problem.ids_of(np.where(filled, rows, 0)), -1)
    scores = np.where(filled, rank, np.float32(-np.inf))
    return Attempt(reference.rank_score(scores, problem.metric) + np.float32(0.0), ids, dropped)


def _id_order(problem: DenseProblem) -> I64 | None:
    return None if problem.ids is None else problem.docs.id_order(problem.ids)


def id_places(problem: DenseProblem, gpu: Gpu) -> Array | None:
    """int32 [N]: the place of each row by its id; None where ids rise."""
    order = _id_order(problem)
    if order is None:
        return None
    return cuda_device.mirrored(problem.docs, gpu, "id places", lambda: gpu.array(cuda_device.places(order)))


def selected(
    problem: DenseProblem, found: Found, limits: Limits | None, places: Array | None, gpu: Gpu
) -> tuple[I64, F64]:
    """The keys int64 [Q, k] of the best that the filters leave, refined, best first; and what was dropped, float64
    [Q]."""
    pools, scores, negate = found.pools, refined(problem, found, found.pools.capacity, gpu), problem.metric == "l2"
    cuda_filters.leave(gpu, scores, pools, limits, places, negate, found.first)
    keys = select_keys(gpu, scores, pools, problem.k, places, negate)
    return keys, found.scale.dropped(pools.dropped(gpu))


def refined(problem: DenseProblem, found: Found, longest: int, gpu: Gpu) -> Array:
    """float32 [Q, C]: the specification's scores of what the pools hold, at most ``longest`` for a query."""
    pools = found.pools
    starts = gpu.array(pools.capacity * np.arange(len(pools.rows)))
    scores = gpu.empty(pools.rows.shape, "float32")
    _refine(problem, found.queries, pools.rows, starts, pools.counts, scores, longest, gpu)
    return scores


def refine(problem: DenseProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    gpu = cuda_device.gpu_of(problem.docs)
    counts = np.diff(candidates.offsets)
    queries, rows, starts, lengths = (
        gpu.array(each)
        for each in (
            problem.queries, candidates.rows.astype(np.int32), candidates.offsets[:-1], counts.astype(np.int32)
        )
    )  # fmt: skip
    scores = gpu.empty(candidates.rows.shape, "float32")
    _refine(problem, queries, rows, starts, lengths, scores, int(counts.max(initial=0)), gpu)
    return gpu.host(scores)


def _refine(
    problem: DenseProblem,
    queries: Array,
    rows: Array,
    starts: Array,
    counts: Array,
    scores: Array,
    longest: int,
    gpu: Gpu,
) -> None:
    kept = originals(problem.docs, gpu)
    bias = None if problem.bias is None else gpu.array(problem.bias)
    refine_pairs(
        gpu, queries, kept.values, kept.step, bias, rows, starts, counts, scores, longest, problem.metric, problem.dims
    )


def score_everything(problem: DenseProblem) -> TopK:
    """Top-k with every document scored by the specification, where the documents are."""
    if problem.docs.device is None:
        return exact.scan(problem)
    from pyengine.backends.torch import torch_float64

    return torch_float64.scan(problem)

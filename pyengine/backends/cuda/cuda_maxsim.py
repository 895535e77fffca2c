"""Late interaction by the kernels of `csrc/cuda`: the steps of a search. `token_terms` derives what its bounds are made
of, and `pyengine.kernels.maxsim_plan` plans."""

from __future__ import annotations

import numpy as np

from pyengine.backends.cuda import cuda_device, cuda_filters, cuda_tokens
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_kernels import PAD, Pools, decode, pools, tighten
from pyengine.backends.cuda.cuda_kernels import select as select_keys
from pyengine.backends.cuda.cuda_maxsim_kernels import OWN_SHARED, Pairs, Scoring, scan, score_pairs, shared_bytes
from pyengine.backends.shared import row_pools, token_terms
from pyengine.inputs.lists import first_rows
from pyengine.kernels import maxsim_sm90_plan
from pyengine.kernels.maxsim_plan import CUDA_SYMMETRIC_TILES, ScanPlan, cuda_tiles, plan_scan
from pyengine.kernels.maxsim_sm90_plan import PageScan
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.specification import reference
from pyengine.types import F32, I64, Attempt, Bool, Candidates

PLACES = 1 << 14  # of a pool, where there is room: then so many documents are scanned at once
POOL_BYTES, PLACE_BYTES = 1 << 28, 16  # of all pools; a row, two bounds, a score


def plan(problem: MaxSimProblem, gpu: Gpu) -> ScanPlan:
    """How a problem is scanned."""
    docs, symmetric = problem.docs, problem.reduce == "symmetric"
    form, lengths = cuda_tokens.form_of(docs), np.diff(problem.queries.offsets)
    return plan_scan(lengths, len(docs.tokens), docs.dim, form, gpu.chip, symmetric, cuda_tiles(form, symmetric))


def form(problem: MaxSimProblem, gpu: Gpu) -> tuple[str, str]:
    """The form of the scan, of `maxsim_plan` or of `maxsim_sm90_plan`, and why."""
    docs, symmetric = problem.docs, problem.reduce == "symmetric"
    kind, lengths, tokens = cuda_tokens.form_of(docs), np.diff(problem.queries.offsets), len(docs.tokens)
    return maxsim_sm90_plan.form(gpu.device.capability, gpu.chip, kind, tokens, docs.dim, symmetric, lengths)


def most_tokens(gpu: Gpu) -> int:
    """Of a query whose maxima are kept in shared memory, whichever tile it takes."""
    tile = max(CUDA_SYMMETRIC_TILES, key=lambda each: each.block_m)
    return (gpu.chip.shared - OWN_SHARED - shared_bytes(tile, 0, "int8")) // 4 // tile.block_m * tile.block_m


def places(problem: MaxSimProblem, width: int) -> int:
    """How many places a pool has: twice the ``width`` of the lists asked for, and more where memory allows."""
    n_docs = len(problem.docs)
    room = min(PLACES, n_docs, POOL_BYTES // (PLACE_BYTES * problem.n_queries))
    return max(2 * min(max(problem.k, width), n_docs), room)


def propose(problem: MaxSimProblem, width: int) -> Candidates:
    """What of the documents can be among the k best of each query."""
    gpu = cuda_device.gpu_of(problem.docs)
    found = listed(problem, width, gpu)
    rows, upper, lower, counts = (gpu.host(each) for each in found[:4])
    filled = np.arange(found.capacity) < np.minimum(counts, found.capacity)[:, None]
    offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    with np.errstate(invalid="ignore"):  # -inf + inf, of what is not known
        middle = (upper[filled].astype(np.float64) + lower[filled]) / 2
    estimates = reference.round_score(np.where(np.isnan(middle), 0.0, middle))
    return Candidates(rows[filled].astype(np.int64), offsets, estimates, found.dropped(gpu).astype(np.float64))


def listed(problem: MaxSimProblem, width: int, gpu: Gpu) -> Pools:
    """Pools of what can be among the k best. What is seen first is spread over the corpus, for a first threshold."""
    tiled = plan(problem, gpu)
    made: ScanPlan | PageScan = tiled
    panel, symmetric, n_docs = tiled.tile.block_m, problem.reduce == "symmetric", len(problem.docs)
    if form(problem, gpu)[0] == "sm_90":
        made = maxsim_sm90_plan.plan_pages(gpu.chip, np.diff(problem.queries.offsets))
        panel = made.tokens
    docs, units = cuda_tokens.scanned_docs(problem, gpu)
    queries = cuda_tokens.scanned_queries(problem, units, panel, gpu)
    found = pools(gpu, problem.n_queries, places(problem, width), row_pools.score_floors(problem))
    centre = gpu.array(np.zeros(problem.n_queries, np.float32))
    mask = None if problem.mask is None else gpu.array(problem.mask)
    k, stride = min(problem.k, n_docs), -(-n_docs // found.capacity)
    for first, count in token_terms.parts(n_docs, found.capacity, k, len(queries.panels) - 1):
        scan(gpu, found, queries, docs, mask, first, count, stride, made, symmetric)
        tighten(gpu, found, centre, k)
    return found


def attempt(problem: MaxSimProblem, asked: MaxSimProblem, width: int) -> Attempt:
    """The whole search on the GPU; the host learns only how many there are to refine."""
    gpu = cuda_device.gpu_of(problem.docs)
    found = listed(asked, width, gpu)
    counts = np.minimum(gpu.host(found.counts), found.capacity).astype(np.int64)
    owners = np.repeat(np.arange(len(counts)), counts)
    starts = np.arange(len(counts)) * found.capacity - (np.cumsum(counts) - counts)
    at = np.arange(len(owners)) + np.repeat(starts, counts)
    owner, place = gpu.arrays(owners.astype(np.int32), at)
    pairs = Pairs(owner, place, found.rows)
    scores = _scores(problem, pairs, gpu)
    order = None if problem.ids is None else problem.docs.id_order(problem.ids)
    ranks = None
    if order is not None:
        ranks = cuda_device.mirrored(problem.docs, gpu, "id places", lambda: gpu.array(cuda_device.places(order)))
    cuda_filters.leave(gpu, scores, found, cuda_filters.limits(problem, gpu), ranks, False)
    keys = select_keys(gpu, scores, found, problem.k, ranks, False)
    best, chosen = decode(keys)
    filled = (keys != PAD) & (best > -np.inf)
    return Attempt(
        np.where(filled, best, np.float32(-np.inf)), _ids(problem, order, chosen, filled),
        found.dropped(gpu).astype(np.float64),
    )  # fmt: skip


def _ids(problem: MaxSimProblem, order: I64 | None, chosen: I64, filled: Bool) -> I64:
    rows = np.where(filled, chosen, 0)
    return np.where(filled, problem.ids_of(rows if order is None else order[rows]), -1)


def _scores(problem: MaxSimProblem, pairs: Pairs, gpu: Gpu) -> Array:
    weights = problem.query_weights, problem.doc_weights, problem.bias
    how = Scoring(
        problem.reduce != "sum" and problem.query_weights is None,
        problem.reduce == "symmetric",
        *(None if each is None else gpu.array(each) for each in weights),
    )
    scores = gpu.empty(pairs.rows.shape, "float32")
    score_pairs(gpu, cuda_tokens.exact_queries(problem, gpu), cuda_tokens.exact_docs(problem, gpu), pairs, how, scores)
    return scores


def refine(problem: MaxSimProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    gpu = cuda_device.gpu_of(problem.docs)
    owners, rows = (each.astype(np.int32) for each in (first_rows(candidates.offsets), candidates.rows))
    pairs = Pairs(*gpu.arrays(owners, np.arange(len(rows)), rows))
    return gpu.host(_scores(problem, pairs, gpu))

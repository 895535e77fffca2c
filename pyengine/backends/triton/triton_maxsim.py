"""Proposing and refining MaxSim with Triton's kernels, on the device throughout."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends.shared.token_terms import parts
from pyengine.backends.triton import triton_device, triton_pools, triton_tokens
from pyengine.inputs.lists import first_rows
from pyengine.kernels import maxsim_refine, maxsim_topk, selection
from pyengine.kernels.maxsim_plan import ScanPlan, plan_scan
from pyengine.kernels.selection import Pools
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Attempt, Bool, Candidates

PAIRS = 1 << 20  # places of pools that are scored together: 16 MiB of numbers


def plan(problem: MaxSimProblem) -> ScanPlan:
    """How a problem is scanned."""
    docs, lengths = problem.docs, np.diff(problem.queries.offsets)
    form, chip = triton_tokens.form_of(docs), triton_device.chip()
    return plan_scan(lengths, len(docs.tokens), docs.dim, form, chip, problem.reduce == "symmetric")


def propose(problem: MaxSimProblem, width: int) -> Candidates:
    """What of the documents can be among the k best of each query, in pools of twice the ``width``."""
    found = listed(problem, width)
    rows, upper, lower, counts = (each.cpu().numpy() for each in found[:4])
    filled = np.arange(found.capacity) < np.minimum(counts, found.capacity)[:, None]
    offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    upper, lower = upper[filled].astype(np.float64), lower[filled].astype(np.float64)
    middle = np.clip((upper + lower) / 2, -reference.FLOAT32_MAX, reference.FLOAT32_MAX)
    estimates = np.where(np.isnan(middle), 0.0, middle).astype(np.float32)
    return Candidates(rows[filled].astype(np.int64), offsets, estimates, dropped(found))


def dropped(found: Pools) -> F64:
    """float64 [Q]: a bound on the rank scores of what the pools do not hold."""
    bounds: F64 = selection.dropped(found).cpu().numpy().astype(np.float64)
    return bounds


def listed(problem: MaxSimProblem, width: int) -> Pools:
    """Pools of what can be among the k best. What is seen first is spread over the corpus, for a first threshold."""
    own = triton_tokens.mirror(problem)
    device, made, symmetric = own.weights.device, plan(problem), problem.reduce == "symmetric"
    docs, share_unit = triton_tokens.coded_tokens(problem, own)
    queries = triton_tokens.query_panels(problem, (own.unit, share_unit), made.tile, made.form, device)
    rows, mask = _allowed(problem, own.every)
    k = min(problem.k, len(rows))
    found = selection.pools(problem.n_queries, 2 * max(1, k, min(width, len(rows))), device)
    if len(rows) > found.capacity:
        rows = _spread(rows, -(-len(rows) // found.capacity))
    for first, count in parts(len(rows), found.capacity, k, len(queries.panels) - 1):
        maxsim_topk.scan(found, queries, docs, rows, mask, first, count, made.tile, symmetric)
        selection.tighten(found, k)
    return found


def _spread(rows: Tensor, stride: int) -> Tensor:
    """The same rows, one of so many of them first."""
    sampled = torch.arange(len(rows), device=rows.device) % stride == 0
    order = torch.sort(sampled.logical_not().byte(), stable=True).indices
    return rows[order]


def _allowed(problem: MaxSimProblem, every: Tensor) -> tuple[Tensor, Tensor | None]:
    """The rows to be read, and what masks them by query: a mask for all queries is a list of rows."""
    mask = problem.mask
    if mask is None:
        return every, None
    if len(mask) == 1:
        return triton_device.upload(np.flatnonzero(checks.unpack(mask, len(every))[0]), every.device), None
    return every, triton_device.upload(mask, every.device)


def attempt(problem: MaxSimProblem, asked: MaxSimProblem, width: int) -> Attempt:
    """Propose, refine and select on the device, and wait for it once. Every place of a pool is a pair to be scored, of
    nothing where it is empty: so the host need not know how many there are."""
    found = listed(asked, width)
    kept = torch.clamp(found.counts, max=found.capacity)
    filled = torch.arange(found.capacity, device=kept.device) < kept[:, None]
    doc_of, scores = torch.where(filled, found.rows, -1), torch.empty_like(found.upper)
    step = max(1, PAIRS // found.capacity)
    for first in range(0, len(kept), step):
        some = doc_of[first : first + step]
        query_of = torch.arange(first, first + len(some), device=kept.device).repeat_interleave(found.capacity)
        scores[first : first + step] = _scores(problem, query_of, some.long().flatten()).view(some.shape)
    order = _ranks(problem)
    kept = triton_pools.left(problem, scores, found.rows, kept, order)
    best = selection.select(scores, found.rows, kept, problem.k, order, negate=False)
    bounds = selection.dropped(found).double().view(torch.int64)
    answer = torch.cat([best, bounds[:, None]], dim=1).cpu().numpy()
    keys = answer[:, :-1]
    values, places = selection.decode(keys)
    pads = keys == selection.PAD
    return Attempt(
        np.where(pads, np.float32(-np.inf), values),
        np.where(pads, -1, _ids(problem, places, pads)),
        np.ascontiguousarray(answer[:, -1]).view(np.float64),
    )


def refine(problem: MaxSimProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    device = triton_device.device_of(problem.docs)
    owner, rows = (triton_device.upload(each, device) for each in (first_rows(candidates.offsets), candidates.rows))
    scores: F32 = _scores(problem, owner, rows).cpu().numpy()
    return scores


def _scores(problem: MaxSimProblem, query_of: Tensor, doc_of: Tensor) -> Tensor:
    docs = triton_tokens.exact_docs(problem)
    weights = (problem.query_weights, problem.doc_weights, problem.bias)
    how = maxsim_refine.Scoring(
        problem.reduce, problem.normalize,
        *(None if each is None else triton_device.upload(each, query_of.device) for each in weights),
    )  # fmt: skip
    return maxsim_refine.scores(triton_tokens.exact_queries(problem), docs, query_of, doc_of, how).scores


def _ranks(problem: MaxSimProblem) -> Tensor | None:
    """int32 [N]: the place of each row in the order of ids, None where that is the order of the rows."""
    order = None if problem.ids is None else problem.docs.id_order(problem.ids)
    if order is None:
        return None

    def ranks(device: torch.device) -> Tensor:
        found = np.empty(len(order), np.int32)
        found[order] = np.arange(len(order), dtype=np.int32)
        return torch.from_numpy(found).to(device)

    return triton_device.mirrored(problem.docs, "ranks of ids", ranks)


def _ids(problem: MaxSimProblem, places: I64, pads: Bool) -> I64:
    """The ids at these places in their order."""
    if problem.ids is None:
        return places
    order, places = problem.docs.id_order(problem.ids), np.where(pads, 0, places)
    return problem.ids_of(places if order is None else order[places]) if len(problem.docs) else places

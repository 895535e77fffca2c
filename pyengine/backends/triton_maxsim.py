"""Proposing and refining MaxSim with Triton's kernels, on the device throughout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends import triton_device, triton_pools, triton_tokens
from pyengine.inputs.lists import first_rows
from pyengine.kernels import maxsim_refine, maxsim_topk, selection
from pyengine.kernels.maxsim_plan import ScanPlan, plan_scan
from pyengine.kernels.selection import Pools
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, Attempt, Bool, Candidates

MOST_PROGRAMS = (1 << 31) - 1  # of one launch
SCANNED = ("sum", "mean", "symmetric")


def plan(problem: MaxSimProblem) -> ScanPlan:
    """How a problem is scanned."""
    docs, lengths = problem.docs, np.diff(problem.queries.offsets).tolist()
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
    a, b = triton_tokens.coefficients(problem)
    docs, share_unit = triton_tokens.coded_tokens(problem, own, b)
    queries = triton_tokens.query_panels(problem, a, (own.unit, share_unit), made.tile, made.form, device)
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


def parts(n_docs: int, capacity: int, k: int, groups: int = 1) -> Iterator[tuple[int, int]]:
    """Stretches of documents, first and count: as many as pools have places, and then so many that what surpasses the
    k-th best of those before fills about a quarter of what is free. Each has a program for each group of queries."""
    done, free = 0, capacity - k
    while done < n_docs:
        count = capacity if not done else done * max(1, free // (4 * max(1, k)))
        count = min(count, n_docs - done, MOST_PROGRAMS // max(1, groups))
        yield done, count
        done += count


def _allowed(problem: MaxSimProblem, every: Tensor) -> tuple[Tensor, Tensor | None]:
    """The rows to be read, and what masks them by query: a mask for all queries is a list of rows."""
    mask = problem.mask
    if mask is None:
        return every, None
    if len(mask) == 1:
        return torch.from_numpy(np.flatnonzero(checks.unpack(mask, len(every))[0])).to(every.device), None
    return every, torch.from_numpy(np.ascontiguousarray(mask)).to(every.device)


def attempt(problem: MaxSimProblem, asked: MaxSimProblem, width: int) -> Attempt:
    """Propose, refine and select without a copy to the host but of how many there are to refine."""
    found = listed(asked, width)
    filled = torch.arange(found.capacity, device=found.counts.device) < found.counts[:, None]
    owner, doc_of = filled.nonzero()[:, 0], found.rows[filled].long()
    scores = torch.empty_like(found.upper)
    scores[filled] = _scores(problem, owner, doc_of)
    kept = torch.clamp(found.counts, max=found.capacity)
    order = _ranks(problem)
    kept = triton_pools.left(problem, scores, found.rows, kept, order)
    keys = selection.select(scores, found.rows, kept, problem.k, order, negate=False).cpu().numpy()
    best, places = selection.decode(keys)
    pads = keys == selection.PAD
    return Attempt(
        np.where(pads, np.float32(-np.inf), best), np.where(pads, -1, _ids(problem, places, pads)), dropped(found)
    )


def refine(problem: MaxSimProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    device = triton_device.device_of(problem.docs)
    owner, rows = (torch.from_numpy(each).to(device) for each in (first_rows(candidates.offsets), candidates.rows))
    scores: F32 = _scores(problem, owner, rows).cpu().numpy()
    return scores


def _scores(problem: MaxSimProblem, query_of: Tensor, doc_of: Tensor) -> Tensor:
    docs = triton_tokens.exact_docs(problem)
    weights = (problem.query_weights, problem.doc_weights, problem.bias)
    how = maxsim_refine.Scoring(
        problem.reduce, problem.normalize,
        *(None if each is None else torch.from_numpy(each).to(query_of.device) for each in weights),
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

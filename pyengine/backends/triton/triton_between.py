"""Dense search between two limits on a GPU: ranges, ranks of given documents, and pages that begin below a score.

Documents that are certainly above the ceiling of a query are counted, and take no place in its pool; those that may lie
between the limits are listed. A pool that was too small says how many places it needs, and is filled again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine.backends.torch.torch_float32 import tensor
from pyengine.backends.triton import triton_dense, triton_device
from pyengine.backends.triton.triton_answers import id_places, on_host
from pyengine.backends.triton.triton_dense import allowing, documents, limitable, limited_plan
from pyengine.backends.triton.triton_filters import ceiling, limits
from pyengine.backends.triton.triton_steps import Found
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.inputs.lists import runs
from pyengine.kernels import dense_between, dense_rank, selection
from pyengine.kernels import refine as refining
from pyengine.kernels.dense_plan import PLACE_BYTES, POOL_BYTES, DenseScan
from pyengine.kernels.dense_topk import ScanDocuments, code_queries, query_room
from pyengine.problems.problem import DenseProblem
from pyengine.types import F32, I64, Attempt, Candidates

PLACES = 1 << 14  # of a pool at first


class Between(NamedTuple):
    """Of the queries ``which`` int64 [Q]: what is ``found``, all of it, at most ``longest`` for one; and ``above``
    int32 [Q], how many more are certainly above the ceiling."""

    which: I64
    found: Found
    above: Tensor
    longest: int


def attempt(problem: DenseProblem, asked: DenseProblem, width: int) -> Attempt | None:
    """`triton_dense.attempt` where something is filtered: what is certainly above a ceiling is not listed, and what the
    filters leave is selected from."""
    if problem.n_queries == 0 or len(problem.docs) == 0:
        return None
    device, asked = triton_device.device_of(problem.docs), limitable(asked)
    with triton_device.launching_on(device):
        room = Workspace(device)
        queries, made = room.copied("queries", asked.queries), triton_dense.steps(asked, width, room)
        made = replace(made, k=problem.k, order=id_places(problem), limits=limits(problem, device))
        return on_host(problem, made.answer(queries, room).packed)


def between(problem: DenseProblem) -> Iterator[Between]:
    """What may lie between the floor and the ceiling of each query, in the order of the queries."""
    if problem.n_queries and len(problem.docs):
        yield from _between(problem, *documents(problem), np.arange(problem.n_queries), PLACES)


def _between(problem: DenseProblem, docs: ScanDocuments, units: Tensor, which: I64, width: int) -> Iterator[Between]:
    kind, row_bytes = docs.values.dtype, docs.values.stride(0) * docs.values.itemsize
    plan = triton_dense.plan(replace(problem.only(which), k=1), width, kind, row_bytes)
    plan = limited_plan(plan, docs, triton_device.chip(docs.values.device))
    for first in range(0, len(which), plan.query_block):
        some = which[first : first + plan.query_block]
        found, above = _scan(problem.only(some), docs, units, plan)
        counts = found.pools.counts.cpu().numpy()
        for part in runs(counts > plan.capacity):
            longest = int(counts[part].max())
            if longest <= plan.capacity:
                yield Between(some[part], _only(found, part), above[part], longest)
                continue
            step = max(1, POOL_BYTES // (PLACE_BYTES * longest))
            for start in range(part.start, part.stop, step):
                yield from _between(problem, docs, units, some[start : min(start + step, part.stop)], longest)


def _only(found: Found, part: slice) -> Found:
    pools = selection.Pools(*(_aligned(each[part]) for each in found.pools))
    coded = found.coded._replace(scaling=_aligned(found.coded.scaling[part]))
    return Found(0, _aligned(found.queries[part]), coded, pools)


def _aligned(rows: Tensor) -> Tensor:
    """The same, where kernels may load 16 bytes at once: for others they would be compiled once more."""
    return rows if rows.data_ptr() % 16 == 0 else rows.clone()


def _scan(problem: DenseProblem, docs: ScanDocuments, units: Tensor, plan: DenseScan) -> tuple[Found, Tensor]:
    """The pools of these queries, and how many documents are above the ceiling of each."""
    values, device, n_queries = docs.values, docs.values.device, problem.n_queries
    padded = -(-n_queries // plan.tile.queries) * plan.tile.queries
    queries = tensor(problem.queries).to(device, copy=True)
    coded = query_room(values.dtype, plan.dims, plan.tile.parts, padded, device)
    pools = selection.pools(n_queries, plan.capacity, device)
    floor = np.full(n_queries, -np.inf) if problem.floor is None else problem.floor
    code_queries(queries, units, tensor(floor).to(device), problem.metric, plan.dims, coded, pools)
    high = None if problem.ceiling is None else tensor(problem.ceiling).to(device)
    over = ceiling(high, coded, n_queries, plan.dims)
    dense_between.scan(docs, coded, allowing(problem, device), pools, over, plan, rising=False)
    return Found(0, queries, coded, pools), over.above


def within(problem: DenseProblem) -> Iterator[tuple[I64, Candidates, I64]]:
    """See `Proposer.within`."""
    with triton_device.launching_on(triton_device.device_of(problem.docs)):
        for part in between(problem):
            listed = triton_dense.listed(problem, part.found)
            offsets = np.concatenate([[0], np.cumsum(listed.offsets)]).astype(np.int64)
            yield part.which, listed._replace(offsets=offsets), part.above.cpu().numpy().astype(np.int64)


def before(problem: DenseProblem, targets: I64, rank: F32) -> I64:
    """int64 [Q]: how many allowed documents rank before the row ``targets`` int64 [Q] of each query, which has this
    rank score, and between the problem's limits."""
    device = triton_device.device_of(problem.docs)
    order, parts = id_places(problem), []
    rows = torch.from_numpy(targets.astype(np.int32)).to(device)
    places, ranks = rows if order is None else order[rows.long()], torch.from_numpy(rank).to(device)
    with triton_device.launching_on(device):
        for part in between(problem):
            pools, some = part.found.pools, torch.from_numpy(part.which).to(device)
            scores = _refined(problem, part)
            better = dense_rank.before(
                scores, pools.rows, pools.counts, ranks[some], places[some], order, problem.metric == "l2"
            )
            parts.append(better + part.above)
    return torch.cat(parts).cpu().numpy().astype(np.int64) if parts else np.zeros(len(targets), np.int64)


def _refined(problem: DenseProblem, part: Between) -> Tensor:
    """float32 [Q, C]: the specification's scores of what is listed."""
    pools, device = part.found.pools, part.found.pools.rows.device
    kept, scores = triton_dense.originals(problem.docs), torch.empty_like(part.found.pools.upper)
    starts = pools.capacity * torch.arange(len(pools.rows), device=device)
    bias = None if problem.bias is None else tensor(problem.bias).to(device)
    refining.refine(
        part.found.queries, kept.values, kept.step, bias, pools.rows, starts, pools.counts, scores, part.longest,
        problem.metric, problem.dims, triton_device.chip(device),
    )  # fmt: skip
    return scores

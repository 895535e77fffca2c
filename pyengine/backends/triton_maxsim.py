"""Proposing and refining MaxSim with Triton's kernels: bounds of a stretch of documents at a time, and a running merge
of the best, all on the device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine import checks, reference
from pyengine.backends import triton_device, triton_tokens
from pyengine.kernels import maxsim_topk
from pyengine.kernels.maxsim_plan import ScanPlan, plan_scan
from pyengine.problem_maxsim import MaxSimProblem
from pyengine.types import Candidates

SCANNED = ("sum", "mean", "symmetric")


class Listed(NamedTuple):
    """What a scan lists, on the device: ``rows`` int64 [Q, C] with bounds float32 [Q, C] on their rank scores, -inf in
    empty places, and ``dropped`` float32 [Q]."""

    rows: Tensor
    upper: Tensor
    lower: Tensor
    dropped: Tensor


def plan(problem: MaxSimProblem) -> ScanPlan:
    docs = problem.docs
    return plan_scan(
        np.diff(problem.queries.offsets).tolist(), len(docs), len(docs.tokens), docs.dim, triton_tokens.form_of(docs),
        triton_device.chip(None), problem.reduce == "symmetric",
    )  # fmt: skip


def propose(problem: MaxSimProblem, width: int) -> Candidates:
    """The documents of the ``width`` best bounds of each query that can be among its k best."""
    found = listed(problem, width)
    rows, upper, lower, dropped = (each.cpu().numpy() for each in found)
    filled = upper > -np.inf
    offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    with np.errstate(all="ignore"):
        middle = (upper.astype(np.float64) + lower) / 2
    estimates = np.clip(np.where(np.isfinite(middle), middle, upper), -reference.FLOAT32_MAX, reference.FLOAT32_MAX)
    return Candidates(rows[filled], offsets, estimates.astype(np.float32)[filled], dropped.astype(np.float64))


def listed(problem: MaxSimProblem, width: int) -> Listed:
    """The same on the device."""
    own = triton_tokens.mirror(problem)
    device, made = own.weights.device, plan(problem)
    a, b = triton_tokens.coefficients(problem)
    docs, share_unit = triton_tokens.coded_tokens(problem, own, b)
    queries = triton_tokens.query_panels(problem, a, (own.unit, share_unit), made.tile, made.form, device)
    rows, mask = _allowed(problem, own.every)
    best = Listed(
        torch.empty((problem.n_queries, 0), dtype=torch.int64, device=device),
        *(torch.empty((problem.n_queries, 0), device=device) for _ in range(2)),
        torch.full((problem.n_queries,), -torch.inf, device=device),
    )
    for first in range(0, len(rows), made.columns):
        part = rows[first : first + made.columns]
        upper, lower = (torch.empty((problem.n_queries, len(part)), device=device) for _ in range(2))
        maxsim_topk.scan(queries, docs, rows, mask, first, made.tile, problem.reduce == "symmetric", upper, lower)
        best = _merged(best, part, upper, lower, problem.k, width)
    return best


def _allowed(problem: MaxSimProblem, every: Tensor) -> tuple[Tensor, Tensor | None]:
    """The rows to be read, and what masks them by query: a mask for all queries is a list of rows."""
    mask = problem.mask
    if mask is None:
        return every, None
    if len(mask) == 1:
        return torch.from_numpy(np.flatnonzero(checks.unpack(mask, len(every))[0])).to(every.device), None
    return every, torch.from_numpy(np.ascontiguousarray(mask)).to(every.device)


def _merged(best: Listed, rows: Tensor, upper: Tensor, lower: Tensor, k: int, width: int) -> Listed:
    """The best so far and more documents: those of the ``width`` best bounds that reach the k-th best lower bound."""
    upper, lower = (torch.cat(each, dim=1) for each in ((best.upper, upper), (best.lower, lower)))
    rows = torch.cat([best.rows, rows.expand(len(upper), -1)], dim=1)
    kept = min(width, upper.shape[1])
    top, order = upper.topk(min(kept + 1, upper.shape[1]), dim=1)
    beyond = top[:, kept] if top.shape[1] > kept else torch.full_like(best.dropped, -torch.inf)
    order = order[:, :kept]
    rows, upper, lower = (each.gather(1, order) for each in (rows, upper, lower))
    if kept >= k:
        hopeless = upper < lower.topk(k, dim=1).values[:, -1:]
        beyond = torch.maximum(beyond, torch.where(hopeless, upper, -torch.inf).amax(dim=1))
        upper = upper.masked_fill(hopeless, -torch.inf)
        lower = lower.masked_fill(hopeless, -torch.inf)
    return Listed(rows, upper, lower, torch.maximum(best.dropped, beyond))

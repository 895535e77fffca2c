"""The specification in torch, for documents that stay on their device: `reference` and `exact`, tensor by tensor.

Eager operations round each product and each sum on their own (never fused multiply-add), and float64 quotients and (on
CUDA devices) square roots are correctly rounded, so that these are the bits of `reference`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends.torch.torch_float32 import tensor
from pyengine.inputs.lists import first_rows
from pyengine.problems.problem import DenseProblem
from pyengine.specification import reference
from pyengine.types import F32, Candidates, TopK

PAIRS = 1 << 18  # pairs scored at a time: eight lanes, and as much scratch again, are 32 MiB
DOCUMENTS = 1 << 13  # of them, documents, where each query meets each


def lane_sum(a: Tensor, b: Tensor, squared_difference: bool = False) -> Tensor:
    """float64 sum of a b, or of (a - b)^2, over the last axis [..., D] of float32, with broadcasting."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    lanes = a.new_zeros((*shape[:-1], reference.LANES), dtype=torch.float64)
    for start in range(0, shape[-1], reference.LANES):
        x, y = (each[..., start : start + reference.LANES].double() for each in (a, b))
        x, y = (x - y, x - y) if squared_difference else (x, y)
        lanes[..., : x.shape[-1]] += x * y
    l0, l1, l2, l3, l4, l5, l6, l7 = lanes.unbind(-1)
    return ((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7))


def root(values: Tensor) -> Tensor:
    """float64 square roots, correctly rounded: torch 2.13 is off by a unit in 1 of 150 on a CPU with AVX-512."""
    return torch.from_numpy(np.sqrt(values.detach().numpy())) if values.device.type == "cpu" else values.sqrt()


def pair_scores(queries: Tensor, docs: Tensor, metric: str, bias: Tensor | None = None) -> Tensor:
    """float32 scores of float32 rows [..., D] broadcast against each other: `reference.pair_scores`."""
    score = lane_sum(queries, docs, metric == "l2")
    if metric == "cosine":
        norms = root(lane_sum(queries, queries)) * root(lane_sum(docs, docs))
        score = torch.where(norms > 0, score / norms, 0.0)
    if bias is not None:
        score = score + bias
    return score.clamp(-reference.FLOAT32_MAX, reference.FLOAT32_MAX).float() + 0.0  # -0.0 + 0.0 is +0.0


def refine(problem: DenseProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    rows, queries, bias = _operands(problem)
    owner, chosen = (tensor(each).to(rows.device) for each in (first_rows(candidates.offsets), candidates.rows))
    scores = rows.new_empty(len(chosen))
    step = max(1, PAIRS * reference.LANES // problem.dims)  # the gathered rows take as much as the lanes
    for start in range(0, len(chosen), step):
        part = slice(start, start + step)
        some_bias = None if bias is None else bias[chosen[part]]
        scores[part] = pair_scores(queries[owner[part]], rows[chosen[part]], problem.metric, some_bias)
    return np.asarray(scores.cpu().numpy())


def scan(problem: DenseProblem) -> TopK:
    """Top-k with every document scored, in bounded memory."""
    step = PAIRS // DOCUMENTS
    starts = range(0, max(1, problem.n_queries), step)
    parts = [_scan(problem.only(np.arange(start, min(start + step, problem.n_queries)))) for start in starts]
    return TopK(*(np.concatenate(each) for each in zip(*parts)))


def _scan(problem: DenseProblem) -> TopK:
    """`scan` of a few queries. Documents are taken by ascending id, so that a stable sort breaks ties by it."""
    rows, queries, bias = _operands(problem)
    ids = np.arange(len(rows)) if problem.ids is None else problem.ids
    order = np.argsort(ids)
    allowed = None if problem.mask is None else torch.from_numpy(checks.unpack(problem.mask, len(rows))[:, order])
    best = rows.new_full((len(queries), problem.k), -torch.inf)
    best_ids = torch.full_like(best, -1, dtype=torch.int64)
    for start in range(0, len(rows), DOCUMENTS):
        part = order[start : start + DOCUMENTS]
        chosen, chosen_ids = (torch.from_numpy(each).to(rows.device) for each in (part, ids[part]))
        some_bias = None if bias is None else bias[chosen]
        score = pair_scores(queries[:, None], rows[chosen][None], problem.metric, some_bias)
        rank = -score if problem.metric == "l2" else score
        if allowed is not None:
            rank = rank.masked_fill(~allowed[:, start : start + DOCUMENTS].to(rows.device), -torch.inf)
        best, best_ids = _merge(best, best_ids, rank, chosen_ids)
    scores = -best if problem.metric == "l2" else best
    return TopK(scores.cpu().numpy(), best_ids.cpu().numpy(), np.ones(len(queries), bool))


def _merge(best: Tensor, best_ids: Tensor, rank: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The k best rank scores and their ids, both [Q, K], with documents [Q, M] of larger ids [M]."""
    rank, order = torch.cat([best, rank], dim=1).sort(dim=1, descending=True, stable=True)
    rank, order = rank[:, : best.shape[1]], order[:, : best.shape[1]]
    found = torch.cat([best_ids, ids.expand(len(best), -1)], dim=1).gather(1, order)
    return rank, found.masked_fill(rank == -torch.inf, -1)


def _operands(problem: DenseProblem) -> tuple[Tensor, Tensor, Tensor | None]:
    """The scored prefix of the documents [N, dims] and of the queries [Q, dims], and the bias, on one device."""
    rows = tensor(problem.docs.vectors())[:, : problem.dims]
    queries = tensor(problem.queries)[:, : problem.dims].to(rows.device)
    return rows, queries, None if problem.bias is None else tensor(problem.bias).to(rows.device)

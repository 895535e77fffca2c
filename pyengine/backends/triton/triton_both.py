"""Both directions of a dense search by one pass on a GPU (`pyengine.kernels.dense_both`). `dense_sides` derives the
bounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine.backends.shared.dense_sides import cosines, side_terms
from pyengine.backends.shared.dense_terms import Scale
from pyengine.backends.triton import triton_dense, triton_device
from pyengine.kernels import dense_both, selection
from pyengine.kernels import refine as refining
from pyengine.kernels.dense_both import Sides
from pyengine.kernels.dense_both_plan import plan_dense_both, why_two
from pyengine.kernels.dense_topk import ScanDocuments, code_docs, code_queries, query_room
from pyengine.kernels.selection import Pools
from pyengine.problems.problem import DenseProblem
from pyengine.specification import reference
from pyengine.types import Attempt


class Owners(NamedTuple):
    """Rows or columns, and the scale of the bounds in their pools."""

    sides: Sides
    scale: Scale

    def dropped(self) -> Tensor:
        """float64 [N]: a bound on the rank scores that their pools do not hold."""
        found: Tensor = self.scale.dropped(selection.dropped(self.sides.pools))
        return found


def attempt(forth: DenseProblem, back: DenseProblem) -> tuple[Attempt, Attempt] | None:
    """The k best documents of each query of both problems, of which each has the other's documents as its queries.
    None where two searches are better."""
    if why_two(len(forth.docs), len(back.docs), forth.k) is not None:
        return None
    with triton_device.launching_on(triton_device.device_of(forth.docs)):
        rows, columns = scanned(forth, vectors(back))
        return (
            _attempt(forth, _best(forth, vectors(back), columns.sides.pools), columns.dropped()),
            _attempt(back, _best(back, vectors(forth), rows.sides.pools), rows.dropped()),
        )


def scanned(problem: DenseProblem, others: Tensor) -> tuple[Owners, Owners]:
    """The rows, which are the documents, and the columns, which are the others, float32 [Q, D]: with full pools."""
    device, dims = others.device, problem.dims
    codes, scale, residual, own_norms = code_docs(vectors(problem), dims)
    norms = torch.linalg.vector_norm(others[:, :dims], dim=1, dtype=torch.float64)
    plan = plan_dense_both(triton_device.chip(device), len(codes), len(others), dims, problem.k)
    rows = _owners(own_norms, norms, plan.places[0], problem)
    columns = _owners(norms, own_norms, plan.places[1], problem)
    padded = -(-len(others) // plan.tile.queries) * plan.tile.queries
    coded = query_room(codes.dtype, dims, plan.tile.parts, padded, device)
    alone = torch.tensor([1.0, 0.0], dtype=torch.float64, device=device)
    no_floor = torch.full((len(others),), -torch.inf, dtype=torch.float64, device=device)
    code_queries(others, alone, no_floor, "cosine", dims, coded, columns.sides.pools)
    known = ScanDocuments(codes, cosines(own_norms, scale, residual, dims))
    dense_both.scan(known, coded, rows.sides, columns.sides, plan)
    return rows, columns


def vectors(problem: DenseProblem) -> Tensor:
    """float32 [N, D]: the documents, as queries are refined."""
    return triton_device.mirrored(
        problem.docs, "as queries", lambda _: triton_dense.originals(problem.docs).values.float().clone()
    )


def _owners(own: Tensor, others: Tensor, places: int, problem: DenseProblem) -> Owners:
    """Rows or columns of these norms float64 [N], which look for others of those norms."""
    terms = side_terms(own, others, problem.metric, problem.dims)
    pools = selection.pools(len(own), places, own.device)
    return Owners(Sides(terms.columns, pools, terms.scale.centre), terms.scale)


def _best(problem: DenseProblem, queries: Tensor, pools: Pools) -> Tensor:
    """int64 [Q, k]: the keys of the best of what the pools hold, refined."""
    kept, scores = triton_dense.originals(problem.docs), torch.empty_like(pools.upper)
    starts = pools.capacity * torch.arange(len(pools.rows), device=queries.device)
    refining.refine(
        queries, kept.values, kept.step, None, pools.rows, starts, pools.counts, scores, pools.capacity,
        problem.metric, problem.dims, triton_device.chip(queries.device),
    )  # fmt: skip
    return selection.select(scores, pools.rows, pools.counts, problem.k, None, problem.metric == "l2")


def _attempt(problem: DenseProblem, keys: Tensor, dropped: Tensor) -> Attempt:
    on_host = keys.cpu().numpy()
    rank, rows = selection.decode(on_host)
    filled = on_host != selection.PAD
    scores = reference.rank_score(np.where(filled, rank, np.float32(-np.inf)), problem.metric) + np.float32(0.0)
    return Attempt(scores, np.where(filled, rows, -1), dropped.cpu().numpy())

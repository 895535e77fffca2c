"""Sparse rows proposed, refined and selected by the Triton kernels: what a search copies to the device, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pyengine.backends.shared import row_pools
from pyengine.backends.shared.parts import Footprint, Share, row_bytes
from pyengine.backends.shared.row_pools import LEAST
from pyengine.backends.triton import triton_device, triton_pools
from pyengine.backends.triton.triton_pools import Found
from pyengine.backends.triton.triton_queries import scaled, tables
from pyengine.backends.triton.triton_tiles import Tiles, device_rows, tiles
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.kernels import sparse_topk
from pyengine.kernels.sparse_plan import TILE, SparsePlan, plan_sparse
from pyengine.kernels.sparse_refine import DeviceRows, sparse_refine
from pyengine.problems.problem_sparse import SparseDocuments, SparseProblem, TermRows
from pyengine.types import F32, F64, Attempt, Candidates


@dataclass(frozen=True)
class SparseFound(Found):
    """The same, of documents of which those that share no term score 0; and the ``queries`` as they are refined."""

    queries: DeviceRows

    def dropped(self, bounds: F64) -> F64:
        """float64 [Q]: 0 where only what scores 0 at most was left out."""
        return row_pools.zeroed(super().dropped(bounds), self.units)


def footprint(problem: SparseProblem) -> Footprint:
    """What documents take on the device: as they are, and about as much again as the scan reads them."""
    own = row_bytes(problem.docs.rows)
    return Footprint((Share("rows", *own), Share("tiles", *own)), len(problem.docs), problem.docs.rows.offsets)


def rows_of(docs: SparseDocuments) -> DeviceRows:
    """The documents as they are, on the device."""
    return triton_device.mirrored(docs, "rows", lambda device: device_rows(docs.rows, device))


def tiles_of(docs: SparseDocuments) -> Tiles:
    """The documents as the scan reads them, on the device."""
    return triton_device.mirrored(docs, "tiles", lambda device: tiles(rows_of(docs)))


def plan(problem: SparseProblem) -> SparsePlan:
    """How the scan of a problem runs."""
    held, signed = tiles_of(problem.docs), bool((problem.queries.values < 0).any())
    bytes_each = held.terms.element_size() + (0 if held.weights is None else held.weights.element_size())
    return plan_sparse(
        problem.n_queries, len(problem.docs), len(held.terms), held.n_columns, bytes_each, held.signed or signed,
        triton_device.chip(triton_device.device_of(problem.docs)),
    )  # fmt: skip


def describe(problem: SparseProblem) -> tuple[dict[str, str], dict[str, str]]:
    """For `explain`: facts by name, and what was rejected with the reason."""
    chosen, held = plan(problem), tiles_of(problem.docs)
    facts = {
        "tile": f"{TILE} documents and {chosen.block} queries",
        "columns": f"{held.n_columns} of the most frequent terms",
        "reads": f"{chosen.bytes_read:,} bytes",
        "gathers": f"{chosen.gathers:,} times the weights of {chosen.block} queries, at most",
    }
    return facts, chosen.rejected


def scanned(problem: SparseProblem, width: int, room: Workspace) -> SparseFound:
    """Pools of what may be among the k best, on the device: what the queries take goes there in one copy."""
    held, chosen, biased = tiles_of(problem.docs), plan(problem), problem.bias is not None
    own = scaled(problem.queries, held, chosen.block, biased)
    begun = triton_pools.beginning(problem, own.units, np.float32(-np.inf) if biased else LEAST)
    rows = TermRows.of(problem.queries)
    offsets, terms, values, *sent = room.sent("queries", rows.offsets, rows.terms, rows.values, *begun, *own.arrays())
    pools = triton_pools.pools(room, row_pools.capacity(problem, width), *sent[:3])
    single, bias, mask = triton_pools.bias_and_mask(problem, room)
    asked = tables(own, held, chosen.block, room, tuple(sent[3:]))
    sparse_topk.scan(pools, held.arrays(), asked, problem.k, chosen, single, mask)
    queries = DeviceRows(offsets, terms, values, None, None, int(problem.queries.lengths.max(initial=0)))
    return SparseFound(pools, own.units, bias, queries)


def propose(problem: SparseProblem, width: int) -> Candidates:
    """What the pools hold."""
    return triton_pools.proposed(problem, width, scanned)


def attempt(problem: SparseProblem, asked: SparseProblem, width: int) -> Attempt:
    """Scan for what is asked, refine, filter and select on the device. Where documents of score 0 fill up the k best,
    the host lists them."""
    each = [_attempt(part, problem.k, width) for part in row_pools.parts(asked, width)]
    found = row_pools.joined(each)
    row_pools.fill_zeros(asked, problem.k, found, lambda rest: propose(rest, width), refine)
    return found


def _attempt(problem: SparseProblem, k: int, width: int) -> Attempt:
    with triton_pools.room_for(problem, k, width) as room:
        found = scanned(problem, width, room)
        pools, scores = found.pools, found.scores(room)
        sparse_refine(
            pools.rows, found.starts(room), pools.counts, pools.capacity, scores, found.queries, rows_of(problem.docs),
            found.bias,
        )  # fmt: skip
        return triton_pools.selected(replace(problem, k=k), found, scores, room)


def refine(problem: SparseProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    docs = rows_of(problem.docs)
    device = docs.offsets.device
    listed, bias = triton_pools.listed(candidates, device), triton_pools.on_device(problem.bias, device)
    sparse_refine(*listed, device_rows(TermRows.of(problem.queries), device), docs, bias)
    refined: F32 = listed.scores.cpu().numpy()
    return refined

"""Sliced vectors proposed, refined and selected by the Triton kernels: what a search copies to the device, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine.backends.shared import float32, row_pools
from pyengine.backends.shared.parts import Footprint, Share
from pyengine.backends.triton import triton_device, triton_pools
from pyengine.backends.triton.triton_pools import Found
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.kernels import sliced_topk
from pyengine.kernels.sliced_plan import TILE, UNROLL, SlicedPlan, plan_sliced
from pyengine.kernels.sliced_topk import SlicedErrors, SlicedTiles, sliced_refine
from pyengine.problems.problem_sliced import SlicedDocuments, SlicedProblem
from pyengine.types import F32, F64, Attempt, Candidates

HALF, LOST = 2.0**-11, 2.0**-24.9  # what half precision loses: relatively, and 2^-25 at least
PORTION = 1 << 26  # weights that are put in tiles together


class DeviceVectors(NamedTuple):
    """Sliced vectors as they are: ``weights`` float32 [n, D], ``slices`` uint8 [n, D padded]."""

    weights: Tensor
    slices: Tensor


@dataclass(frozen=True)
class HeldTiles:
    """The documents as a scan reads them; ``unit`` is D."""

    tiles: SlicedTiles
    unit: float


def footprint(problem: SlicedProblem) -> Footprint:
    """What documents take on the device: as they are, and in half precision with their indices."""
    dim = problem.docs.dim
    return Footprint((Share("vectors", 5 * dim), Share("tiles", 3 * dim)), len(problem.docs))


def vectors(rows: SlicedRows, device: torch.device) -> DeviceVectors:
    """The vectors as they are, copied to the device."""
    weights, slices = (triton_pools.on_device(each, device) for each in (rows.values, rows.padded))
    assert weights is not None
    assert slices is not None
    return DeviceVectors(weights, slices)


@dataclass(frozen=True)
class SlicedFound(Found):
    """The same, with the ``queries`` as they are refined."""

    queries: DeviceVectors


def vectors_of(docs: SlicedDocuments) -> DeviceVectors:
    return triton_device.mirrored(docs, "vectors", lambda device: vectors(docs.rows, device))


def tiles_of(docs: SlicedDocuments) -> HeldTiles:
    return triton_device.mirrored(docs, "tiles", lambda device: _tiles(docs, vectors_of(docs)))


def _tiles(docs: SlicedDocuments, held: DeviceVectors) -> HeldTiles:
    largest = float(held.weights.abs().max()) if held.weights.numel() else 0.0
    unit = float(np.ldexp(1.0, int(np.frexp(largest)[1]) - 15))
    norms = row_pools.above(1.0001 * float32.norms(docs.rows.values) / unit)
    sizes = torch.from_numpy(norms).to(held.weights.device)
    units = torch.full((len(held.weights), 1), unit, dtype=torch.float64, device=held.weights.device)
    return HeldTiles(SlicedTiles(*in_tiles(held, units, TILE), sizes), unit)


def in_tiles(held: DeviceVectors, units: Tensor, height: int) -> tuple[Tensor, Tensor]:
    """Vectors divided by their ``units`` float64 [n, 1], as half-precision weights and slices
    [tiles, D padded, height]."""
    count, dim = held.weights.shape
    depth, n_tiles = -(-dim // UNROLL) * UNROLL, -(-count // height)
    weights = torch.zeros((n_tiles, depth, height), dtype=torch.float16, device=held.weights.device)
    slices = torch.zeros((n_tiles, depth, height), dtype=torch.uint8, device=held.weights.device)
    step = max(1, PORTION // (dim * height))
    for start in range(0, n_tiles, step):
        rows, into = slice(start * height, (start + step) * height), slice(start, start + step)
        halves = (held.weights[rows].double() / units[rows]).half()
        weights[into, :dim] = _tiled(halves, height)
        slices[into, :dim] = _tiled(held.slices[rows, :dim], height)
    return weights, slices


def _tiled(rows: Tensor, height: int) -> Tensor:
    """[tiles, D, height] of rows [n, D]."""
    missing = -len(rows) % height
    whole = torch.cat([rows, rows.new_zeros((missing, rows.shape[1]))]) if missing else rows
    return whole.view(-1, height, rows.shape[1]).transpose(1, 2)


def plan(problem: SlicedProblem) -> SlicedPlan:
    """How the scan of a problem runs."""
    chip = triton_device.chip(triton_device.device_of(problem.docs))
    return plan_sliced(problem.n_queries, len(problem.docs), problem.docs.dim, chip)


def describe(problem: SlicedProblem) -> tuple[dict[str, str], dict[str, str]]:
    """For `explain`: facts by name, and what was rejected with the reason."""
    chosen = plan(problem)
    facts = {
        "tile": f"{TILE} documents and {chosen.block} queries",
        "reads": f"{chosen.bytes_read:,} bytes",
        "computes": f"{chosen.operations:,} operations",
    }
    return facts, chosen.rejected


def scanned(problem: SlicedProblem, width: int, room: Workspace) -> SlicedFound:
    """Pools of what may be among the k best, on the device: what the queries take goes there in one copy."""
    held, chosen, queries = tiles_of(problem.docs), plan(problem), problem.queries
    biased = problem.bias is not None
    largest = np.abs(queries.values).max(axis=1, initial=0).astype(np.float64)
    factors = row_pools.factors(largest, held.unit, biased)
    units = factors * held.unit
    begun = triton_pools.beginning(problem, units, np.float32(-np.inf))
    bounds = row_pools.errors(*_errors(problem, float32.norms(queries.values) / factors), units, biased)
    sent = room.sent(
        "queries", queries.values, queries.padded, factors[:, None], *begun, *bounds, np.zeros(1, np.float32)
    )
    own, powers, errors = DeviceVectors(*sent[:2]), sent[2], SlicedErrors(*sent[6:])
    pools = triton_pools.pools(room, row_pools.capacity(problem, width), *sent[3:6])
    single, bias, mask = triton_pools.bias_and_mask(problem, room)
    sliced_topk.scan(pools, held.tiles, asked(own, powers, chosen.block, room), errors, problem.k, chosen, single, mask)
    return SlicedFound(pools, units, bias, own)


def asked(queries: DeviceVectors, powers: Tensor, block: int, room: Workspace) -> SlicedTiles:
    """Queries divided by their ``powers`` of two float64 [Q, 1], as the scan reads them: `in_tiles`, into room that is
    kept."""
    count, dim = queries.weights.shape
    shape = -(-count // block), -(-dim // UNROLL) * UNROLL, block
    weights, slices = room.room("asked weights", shape, torch.float16), room.room("asked slices", shape, torch.uint8)
    scaled = torch.div(queries.weights, powers, out=room.room("scaled", (count, dim), torch.float64))
    weights[:, dim:].zero_()
    slices[:, dim:].zero_()
    whole = count // block
    for into, rows in ((weights, scaled), (slices, queries.slices[:, :dim])):
        into[:whole, :dim].copy_(rows[: whole * block].view(whole, block, dim).transpose(1, 2))
        if whole < len(into):
            into[whole, :dim, : count - whole * block].copy_(rows[whole * block :].T)
    return SlicedTiles(weights, slices, None)


def _errors(problem: SlicedProblem, sizes: F64) -> tuple[F64, F64]:
    """float64 [Q]: ``widen`` and ``slack``, of queries of these norms in units (see `pyengine.kernels.sliced_topk`)."""
    dim = problem.docs.dim
    gamma = (dim + 16) * 2.0**-24
    relative = (1 + HALF) ** 2 * (1 + gamma / (1 - gamma)) - 1 + 2.0**-19
    absolute = LOST * np.sqrt(dim)
    return 1.001 * (relative * sizes + absolute), 1.001 * (absolute * sizes + dim * 2.0**-50)


def propose(problem: SlicedProblem, width: int) -> Candidates:
    """What the pools hold."""
    return triton_pools.proposed(problem, width, scanned)


def attempt(problem: SlicedProblem, asked: SlicedProblem, width: int) -> Attempt:
    """Scan for what is asked, refine, filter and select on the device."""
    each = [_attempt(part, problem.k, width) for part in row_pools.parts(asked, width)]
    return row_pools.joined(each)


def _attempt(problem: SlicedProblem, k: int, width: int) -> Attempt:
    with triton_pools.room_for(problem, k, width) as room:
        found = scanned(problem, width, room)
        pools, scores = found.pools, found.scores(room)
        sliced_refine(
            pools.rows, found.starts(room), pools.counts, pools.capacity, scores, *found.queries,
            *vectors_of(problem.docs), found.bias,
        )  # fmt: skip
        return triton_pools.selected(replace(problem, k=k), found, scores, room)


def refine(problem: SlicedProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    docs = vectors_of(problem.docs)
    device = docs.weights.device
    listed, bias = triton_pools.listed(candidates, device), triton_pools.on_device(problem.bias, device)
    sliced_refine(*listed, *vectors(problem.queries, device), *docs, bias)
    refined: F32 = listed.scores.cpu().numpy()
    return refined

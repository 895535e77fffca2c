"""Launches of the kernels that look between two limits: `csrc/cuda/dense_between.cu`, `dense_rank.cu`."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_kernels import (
    Coded,
    Pools,
    operand_arguments,
    scan_arguments,
    shared_bytes,
    suffix,
    tighten,
)
from pyengine.kernels.dense_plan import DenseScan
from pyengine.types import F32

RANK_THREADS = 256


class Ceiling(NamedTuple):
    """Of each query, in the units of its bounds: ``limit`` float32 [Q], and ``above`` int32 [Q], how many allowed
    documents are certainly higher."""

    limit: Array
    above: Array


def ceiling(gpu: Gpu, limit: F32) -> Ceiling:
    """Nothing counted yet."""
    return Ceiling(gpu.array(limit), gpu.array(np.zeros(len(limit), np.int32)))


def scan(
    gpu: Gpu, docs: Array, columns: Array, queries: Coded, mask: Array | None, found: Pools, over: Ceiling,
    plan: DenseScan, rising: bool,
) -> None:  # fmt: skip
    """`cuda_kernels.scan` of what is not above the ceiling; or, where thresholds are not ``rising``, of all that may
    reach them."""
    tile, kind = plan.tile, docs.kind
    blocks, shared = -(-len(found.rows) // tile.queries), shared_bytes(docs, plan)
    operands = operand_arguments(docs, queries, plan.dims, tile.stages)
    for first, last in pairwise(plan.parts if rising else (0, plan.n_tiles)):
        gpu.launch(
            f"dense_between{suffix(kind)}", ((last - first) * blocks, 1), 32 * tile.warps, *operands, *over,
            *scan_arguments(docs, columns, queries, mask, found, plan, first), shared=shared,
        )  # fmt: skip
        if rising:
            tighten(gpu, found, queries.centre, plan.k)


def count_before(
    gpu: Gpu, scores: Array, found: Pools, own: Array, targets: Array, order: Array | None, above: Array, negate: bool
) -> None:
    """Add to ``above`` int32 [Q] how many of what the pools hold rank before the row ``targets`` int32 [Q], whose rank
    score is ``own`` float32 [Q]. ``scores`` float32 [Q, C], negated where ``negate``, are rank scores, and ``order``
    int32 [N] the places of rows by id (None: the rows)."""
    gpu.launch(
        "count_before", (len(targets), 1), RANK_THREADS, scores, found.rows, found.counts, own, targets, order, above,
        found.capacity, negate,
    )  # fmt: skip

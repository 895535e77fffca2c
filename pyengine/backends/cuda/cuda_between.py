"""Dense search between two limits by the kernels of `csrc/cuda`: ranges, and ranks of given documents.

Documents that are certainly above the ceiling of a query are counted, and take no place in its pool; those that may lie
between the limits are listed. A pool that was too small says how many places it needs, and is filled again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda import cuda_dense, cuda_device
from pyengine.backends.cuda.cuda_between_kernels import count_before
from pyengine.backends.cuda.cuda_dense import Found
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_kernels import Pools
from pyengine.backends.shared.dense_terms import Scale
from pyengine.inputs.lists import runs
from pyengine.kernels.dense_plan import PLACE_BYTES, POOL_BYTES
from pyengine.problems.problem import DenseProblem
from pyengine.types import F32, I64, Candidates

PLACES = 1 << 14  # of a pool at first


class Between(NamedTuple):
    """Of the queries ``which`` int64 [Q]: what is ``found``, all of it, at most ``longest`` for one; and ``above``
    int32 [Q], how many more are certainly above the ceiling."""

    which: I64
    found: Found
    above: Array
    longest: int


def _between(problem: DenseProblem, which: I64, width: int, gpu: Gpu) -> Iterator[Between]:
    """What may lie between the floor and the ceiling of each query, in the order of the queries."""
    for found in cuda_dense.scans(replace(problem.only(which), k=1), width, gpu, rising=False):
        assert found.above is not None
        some = which[found.first : found.first + len(found.queries)]
        counts, capacity = gpu.host(found.pools.counts), found.pools.capacity
        for part in runs(counts > capacity):
            longest = int(counts[part].max())
            if longest <= capacity:
                yield Between(some[part], _only(found, part), found.above.part(part), longest)
                continue
            step = max(1, POOL_BYTES // (PLACE_BYTES * longest))
            for start in range(part.start, part.stop, step):
                yield from _between(problem, some[start : min(start + step, part.stop)], longest, gpu)


def _only(found: Found, part: slice) -> Found:
    pools, scale = Pools(*(each.part(part) for each in found.pools)), Scale(*(each[part] for each in found.scale))
    return Found(0, found.queries.part(part), pools, scale)


def within(problem: DenseProblem) -> Iterator[tuple[I64, Candidates, I64]]:
    """See `Proposer.within`."""
    if problem.n_queries == 0 or len(problem.docs) == 0:
        return
    gpu = cuda_device.gpu_of(problem.docs)
    for part in _between(problem, np.arange(problem.n_queries), PLACES, gpu):
        listed = cuda_dense.listed(problem, part.found, gpu)
        offsets = np.concatenate([[0], np.cumsum(listed.offsets)]).astype(np.int64)
        yield part.which, listed._replace(offsets=offsets), gpu.host(part.above).astype(np.int64)


def before(problem: DenseProblem, targets: I64, rank: F32) -> I64:
    """See `Proposer.before`."""
    count = np.zeros(problem.n_queries, np.int64)
    if problem.n_queries == 0 or len(problem.docs) == 0:
        return count
    gpu = cuda_device.gpu_of(problem.docs)
    order = cuda_dense.id_places(problem, gpu)
    for part in _between(problem, np.arange(problem.n_queries), PLACES, gpu):
        own, rows = gpu.arrays(rank[part.which], targets[part.which].astype(np.int32))
        scores = cuda_dense.refined(problem, part.found, part.longest, gpu)
        count_before(gpu, scores, part.found.pools, own, rows, order, part.above, problem.metric == "l2")
        count[part.which] = gpu.host(part.above)
    return count

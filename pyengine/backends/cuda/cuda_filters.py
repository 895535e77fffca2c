"""The filters of a search on a GPU: what of refined pools a query may get (`csrc/cuda/filtering.cu`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_kernels import SELECT_THREADS, Pools
from pyengine.backends.shared import marks
from pyengine.problems.problem import Problem


class Limits(NamedTuple):
    """Filters of Q queries and N documents, None where there is none. ``excluded`` int32 [M] rows that rise for each
    query, from ``offsets`` int64 [Q + 1] on; ``labels`` int64 [N] of which each query gets ``per_group``; rank scores
    of ``least`` float64 [Q] at least, and below ``mark`` float64 [Q], or equal to it from the ``place`` int32 [Q] on.
    """

    excluded: Array | None
    offsets: Array | None
    labels: Array | None
    per_group: int
    least: Array | None
    mark: Array | None
    place: Array | None


def limits(problem: Problem, gpu: Gpu) -> Limits | None:
    """Those of the problem's queries; None where nothing is filtered but by the mask."""
    given = problem.filters
    if given is None:
        return None
    excluded, after = given.excluded, given.after
    return Limits(
        excluded=None if excluded is None else gpu.array(np.append(excluded.rows, 0).astype(np.int32)),
        offsets=None if excluded is None else gpu.array(excluded.offsets),
        labels=None if given.groups is None else gpu.array(given.groups),
        per_group=given.per_group,
        least=None if given.threshold is None else gpu.array(given.threshold),
        mark=None if after is None else gpu.array(after.rank),
        place=None if after is None else gpu.array(marks.places(problem, after)),
    )


def leave(
    gpu: Gpu, scores: Array, found: Pools, limits: Limits | None, order: Array | None, negate: bool, first: int = 0
) -> None:
    """Keep in the pools, which are those of the queries from the ``first`` on, what the limits leave of them, by
    ``scores`` float32 [Q, C]; their bounds are lost. ``order`` int32 [N] gives places for rows (None: themselves), and
    rank scores are the scores, negated where ``negate``."""
    if limits is not None and len(found.rows):
        gpu.launch(
            "filter_pools", (len(found.rows), 1), SELECT_THREADS, scores, found.rows, found.upper, found.lower,
            found.counts, order, limits.excluded, limits.offsets, limits.labels, limits.least, limits.mark,
            limits.place, found.capacity, first, limits.per_group, negate,
        )  # fmt: skip

"""The pools of a scan of sparse or of sliced rows by the CUDA kernels, between the GPU and the search core.

The scans bound scores in units of each query; what is read here is multiplied by them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyengine.backends.cuda import cuda_device, cuda_filters, cuda_kernels
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_kernels import PAD, SELECT_THREADS, WAVES, Pools, decode
from pyengine.backends.shared import row_pools
from pyengine.backends.shared.row_pools import LEAST, Held
from pyengine.problems.problem import Problem
from pyengine.types import F64, I64, Attempt, Candidates

ROW_THREADS, ROW_PAIRS = 128, 4  # of a step of the refining kernels, a warp each


class Found(NamedTuple):
    """What a scan leaves, and the ``units`` of its bounds, float64 [Q]. ``ties``: scores are known, as float32, and
    what ties with the threshold and is not held comes after k that are."""

    pools: Pools
    units: F64
    ties: bool = False

    def dropped(self, gpu: Gpu) -> F64:
        """float64 [Q]: a bound on what the pools do not hold, but for such ties."""
        threshold, lost = self.pools.bounds(gpu)
        if self.ties:
            threshold = np.where(threshold > LEAST, np.nextafter(threshold, np.float32(-np.inf)), threshold)
        bound: F64 = np.maximum(threshold, lost).astype(np.float64) * self.units
        return bound


class Listed(NamedTuple):
    """Pairs on the GPU, as the refining kernels take them: ``rows`` int32 [M], of each query ``counts`` int32 [Q] from
    ``starts`` int64 [Q] on, at most ``longest``; and room for ``scores`` float32 [M]."""

    rows: Array
    starts: Array
    counts: Array
    longest: int
    scores: Array


def pools(gpu: Gpu, problem: Problem, width: int, units: F64, least: np.float32) -> Pools:
    """Empty pools, whose thresholds are ``least`` or the floors of the problem."""
    places = row_pools.capacity(problem, width)
    return cuda_kernels.pools(gpu, problem.n_queries, places, row_pools.floors(problem, units, least))


def tighten(gpu: Gpu, found: Pools, centre: Array, k: int, last: Array | None) -> None:
    """Raise the thresholds to the k-th largest lower bounds. ``centre`` float32 [Q] are zeros; or, where scores are
    known and ties go by rows, ``last`` int32 [Q] is the row of the k-th."""
    gpu.launch(
        "tighten" if last is None else "tighten_ties", (len(found.rows), 1), SELECT_THREADS,
        found.rows, found.upper, found.lower, found.counts, found.threshold, centre if last is None else last,
        found.capacity, k,
    )  # fmt: skip


def candidates(gpu: Gpu, found: Found, dropped: F64) -> Candidates:
    """What the pools hold; the estimates lie in the middle of the bounds."""
    held = Held(*(gpu.host(each) for each in found.pools[:4]))
    return row_pools.candidates(held, found.units, dropped)


def held(gpu: Gpu, found: Pools) -> Listed:
    """All places of the pools."""
    starts = gpu.array(found.capacity * np.arange(len(found.rows)))
    return Listed(found.rows, starts, found.counts, found.capacity, gpu.empty(found.rows.shape, "float32"))


def listed(gpu: Gpu, given: Candidates) -> Listed:
    """Candidates of the host."""
    lengths = np.diff(given.offsets)
    arrays = given.rows.astype(np.int32), given.offsets[:-1].astype(np.int64), lengths.astype(np.int32)
    rows, starts, counts = (gpu.array(each) for each in arrays)
    return Listed(rows, starts, counts, int(lengths.max(initial=0)), gpu.empty(given.rows.shape, "float32"))


def refine_pairs(
    gpu: Gpu, kernel: str, operands: tuple[Array | None, ...], bias: Array | None, pairs: Listed,
    sizes: tuple[int, ...] = (),
) -> None:  # fmt: skip
    """Write the scores of the pairs, by a kernel of `csrc/cuda/sparse_refine.cu`."""
    n_queries = len(pairs.counts)
    if n_queries and pairs.longest:
        splits = min(-(-pairs.longest // ROW_PAIRS), max(1, WAVES * gpu.chip.multiprocessors // n_queries))
        gpu.launch(
            kernel, (n_queries, splits), ROW_THREADS, *operands, bias, pairs.rows, pairs.starts, pairs.counts,
            pairs.scores, *sizes,
        )  # fmt: skip


def selected(gpu: Gpu, problem: Problem, found: Pools, scores: Array, dropped: F64) -> Attempt:
    """The k best of what the pools hold and the filters leave, by these scores of it."""
    rising = None if problem.ids is None else problem.docs.id_order(problem.ids)
    order = None
    if rising is not None:
        order = cuda_device.mirrored(problem.docs, gpu, "id places", lambda: gpu.array(_places(rising)))
    cuda_filters.leave(gpu, scores, found, cuda_filters.limits(problem, gpu), order, False)
    keys = cuda_kernels.select(gpu, scores, found, problem.k, order, False)
    rank, place = decode(keys)
    filled = keys != PAD
    rows = np.where(filled, place, 0)
    ids = problem.ids_of(rows if rising is None else rising[rows]) if len(problem.docs) else rows
    return Attempt(np.where(filled, rank, np.float32(-np.inf)), np.where(filled, ids, -1), dropped)


def _places(rising: I64) -> NDArray[np.int32]:
    """int32 [N]: the place of each row by ids that rise."""
    places = np.empty(len(rising), np.int32)
    places[rising] = np.arange(len(rising), dtype=np.int32)
    return places


def copied(gpu: Gpu, array: NDArray[Any] | None) -> Array | None:
    """A copy on the GPU of what may be absent."""
    return None if array is None else gpu.array(array)

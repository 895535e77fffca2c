"""The scan of `csrc/cuda/sparse_topk.cu`, for sparse rows and for sliced ones, which are such over more terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from pyengine.backends.cuda import cuda_device, cuda_rows
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_kernels import MOST_BLOCKS, SELECT_THREADS
from pyengine.backends.cuda.cuda_rows import Found, Listed
from pyengine.backends.shared import row_pools
from pyengine.backends.shared.posting_windows import WINDOW, Windows
from pyengine.backends.shared.row_pools import LEAST
from pyengine.backends.shared.window_queries import window_queries
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.kernels.sparse_plan import TILE, levels
from pyengine.problems.problem import Problem
from pyengine.types import F32, F64, Attempt, Candidates

P = TypeVar("P", bound=Problem)
MANY = 256  # documents of a window that pass: beyond it, and beyond k, the block of threads selects among them
SUMS = 4 * WINDOW  # bytes of shared memory
TOUCHED = WINDOW // 8  # and more of them for signed weights
POSTING = 6  # bytes on the GPU, with its share of what finds it
LAST = (1 << 31) - 1  # row, before which all are


class DeviceWindows(NamedTuple):
    """``postings`` and ``segments`` of `Windows` on the GPU; ``terms`` has the rest, on the host."""

    postings: Array
    segments: Array
    terms: Windows


def device_windows(made: Windows, gpu: Gpu) -> DeviceWindows:
    postings, segments = gpu.array(made.postings.view(np.int32)), gpu.array(made.segments)
    return DeviceWindows(postings, segments, replace(made, postings=made.postings[:0], segments=made.segments[:, :0]))


def parts(problem: P, width: int) -> Iterator[P]:
    """The problem for as many queries at a time as pools and a launch hold."""
    return row_pools.parts(problem, width, MOST_BLOCKS // max(1, -(-len(problem.docs) // WINDOW)))


def describe(problem: Problem, kept: DeviceWindows) -> dict[str, str]:
    """For `explain`: facts by name."""
    count = kept.terms.n_windows
    return {
        "tile": f"{WINDOW:,} documents and a query",
        "reads": f"{4 * len(kept.postings):,} bytes of postings for all queries together, at most",
        "blocks": f"{count * problem.n_queries:,}, of {count:,} windows",
    }


def scanned(
    problem: Problem,
    queries: SparseRows,
    kept: DeviceWindows,
    bias: F64 | None,
    width: int,
    gpu: Gpu,
    by_row: bool = False,
) -> Found:
    """Pools of what may be among the k best, on the GPU: with a ``bias`` float64 [N] of all documents, else only of
    those that share a term with the query. Where sums are scores, ``by_row`` leaves out what ties with the k-th best
    and comes after it."""
    asked = window_queries(queries, kept.terms, bias)
    found = cuda_rows.pools(gpu, problem, width, asked.units, LEAST if bias is None else np.float32(-np.inf))
    tables = [gpu.array(each) for each in asked[:6]]
    biases, mask = cuda_rows.copied(gpu, row_pools.single(bias)), cuda_rows.copied(gpu, problem.mask)
    ties = by_row and bias is None and not asked.slack.any()
    last = gpu.array(np.full(problem.n_queries, LAST, np.int32)) if ties else None
    centre = gpu.array(np.zeros(problem.n_queries, np.float32))
    kernel, shared = ("sparse_topk_signed", SUMS + TOUCHED) if asked.signed else ("sparse_topk", SUMS)
    for stride, skip, count in levels(kept.terms.n_windows, TILE) if problem.n_queries else []:
        gpu.launch(
            kernel, (count * problem.n_queries, 1), SELECT_THREADS, kept.postings, kept.segments, *tables, biases, mask,
            found.threshold, last, found.rows, found.upper, found.lower, found.counts, found.lost, found.capacity,
            len(problem.docs), problem.n_queries, kept.segments.stride, kept.terms.n_windows,
            0 if mask is None or len(mask) == 1 else mask.stride, stride, skip, problem.k, max(problem.k, MANY),
            shared=shared,
        )  # fmt: skip
        cuda_rows.tighten(gpu, found, centre, problem.k, last)
    return Found(found, asked.units, ties)


@dataclass(frozen=True)
class WindowSearch(Generic[P]):
    """The steps of a search, of either family: ``scan`` fills pools, ``dropped`` bounds what they do not hold, float64
    [Q], ``score`` writes the specification's scores of listed pairs."""

    scan: Callable[[P, int, Gpu], Found]
    dropped: Callable[[Found, Gpu], F64]
    score: Callable[[P, Listed, Gpu], None]

    def propose(self, problem: P, width: int) -> Candidates:
        """What the pools hold."""
        gpu = cuda_device.gpu_of(problem.docs)
        return row_pools.together([self._listed(part, width, gpu) for part in parts(problem, width)])

    def _listed(self, problem: P, width: int, gpu: Gpu) -> Candidates:
        found = self.scan(problem, width, gpu)
        return cuda_rows.candidates(gpu, found, self.dropped(found, gpu))

    def attempt(self, problem: P, asked: P, width: int) -> Attempt:
        """Scan for what is asked, refine, filter and select on the GPU."""
        gpu = cuda_device.gpu_of(problem.docs)
        each = [self._attempt(part, problem.k, width, gpu) for part in parts(asked, width)]
        return row_pools.joined(each)

    def _attempt(self, problem: P, k: int, width: int, gpu: Gpu) -> Attempt:
        found = self.scan(problem, width, gpu)
        pairs = cuda_rows.held(gpu, found.pools)
        self.score(problem, pairs, gpu)
        dropped = self.dropped(found, gpu)
        return cuda_rows.selected(gpu, replace(problem, k=k), found.pools, pairs.scores, dropped)

    def refine(self, problem: P, candidates: Candidates) -> F32:
        """float32 [M]: the specification's scores of the candidates."""
        gpu = cuda_device.gpu_of(problem.docs)
        pairs = cuda_rows.listed(gpu, candidates)
        self.score(problem, pairs, gpu)
        scores: F32 = gpu.host(pairs.scores)
        return scores

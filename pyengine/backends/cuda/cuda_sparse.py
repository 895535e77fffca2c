"""Sparse search by the kernels of `csrc/cuda`: documents as they are kept on the GPU, and the steps of a search."""

from __future__ import annotations

from typing import NamedTuple

from pyengine.backends.cuda import cuda_device, cuda_rows, cuda_windows
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_rows import Found, Listed
from pyengine.backends.cuda.cuda_windows import POSTING, DeviceWindows, WindowSearch, device_windows
from pyengine.backends.shared import row_pools
from pyengine.backends.shared.parts import Footprint, Share, row_bytes
from pyengine.backends.shared.posting_windows import windows
from pyengine.problems.problem_sparse import SparseDocuments, SparseProblem, TermRows
from pyengine.types import F64, Attempt


class DeviceRows(NamedTuple):
    """Sparse rows as they are, the fields of `TermRows`."""

    offsets: Array
    terms: Array
    values: Array
    low: Array | None
    step: Array | None


def device_rows(rows: TermRows, gpu: Gpu) -> DeviceRows:
    offsets, terms, values = (gpu.array(each) for each in (rows.offsets, rows.terms, rows.values))
    return DeviceRows(offsets, terms, values, cuda_rows.copied(gpu, rows.low), cuda_rows.copied(gpu, rows.step))


def footprint(problem: SparseProblem) -> Footprint:
    """What documents take on the GPU: as they are, and as postings."""
    rows = problem.docs.rows
    return Footprint((Share("rows", *row_bytes(rows)), Share("windows", 0, POSTING)), len(rows), rows.offsets)


def rows_of(docs: SparseDocuments, gpu: Gpu) -> DeviceRows:
    """The documents as they are, on the GPU."""
    return cuda_device.mirrored(docs, gpu, "rows", lambda: device_rows(docs.rows, gpu))


def windows_of(docs: SparseDocuments, gpu: Gpu) -> DeviceWindows:
    """The documents as the scan reads them, on the GPU."""

    def build() -> DeviceWindows:
        return device_windows(windows(len(docs), docs.rows.decoded), gpu)

    return cuda_device.mirrored(docs, gpu, "windows", build)


def describe(problem: SparseProblem) -> dict[str, str]:
    """For `explain`: facts by name."""
    return cuda_windows.describe(problem, windows_of(problem.docs, cuda_device.gpu_of(problem.docs)))


def scanned(problem: SparseProblem, width: int, gpu: Gpu) -> Found:
    """Pools of what may be among the k best, on the GPU."""
    kept = windows_of(problem.docs, gpu)
    return cuda_windows.scanned(problem, problem.queries, kept, problem.bias, width, gpu, problem.by_row)


def _dropped(found: Found, gpu: Gpu) -> F64:
    """float64 [Q]: 0 where only what scores 0 at most was left out."""
    return row_pools.zeroed(found.dropped(gpu), found.units)


def score(problem: SparseProblem, pairs: Listed, gpu: Gpu) -> None:
    """Write the scores of the pairs."""
    docs, asked = rows_of(problem.docs, gpu), device_rows(TermRows.of(problem.queries), gpu)
    bias = cuda_rows.copied(gpu, problem.bias)
    cuda_rows.refine_pairs(
        gpu, f"sparse_refine_{docs.terms.kind}_{docs.values.kind}",
        (*docs, asked.offsets, asked.terms, asked.values), bias, pairs,
    )  # fmt: skip


SEARCH = WindowSearch(scanned, _dropped, score)
propose, refine = SEARCH.propose, SEARCH.refine


def attempt(problem: SparseProblem, asked: SparseProblem, width: int) -> Attempt:
    """Scan, refine, filter and select on the GPU. Where documents of score 0 fill up the k best, the host lists
    them."""
    found = SEARCH.attempt(problem, asked, width)
    row_pools.fill_zeros(asked, problem.k, found, lambda rest: propose(rest, width), refine)
    return found

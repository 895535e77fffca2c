"""Sliced vectors by the kernels of `csrc/cuda`: documents as they are kept on the GPU, and the steps of a search.

A position p and an index i are the term 256 p + i of a sparse row, and the score is that of these rows
(`pyengine.specification.reference_sliced`). So the scan is theirs: it reads the postings of a query's own indices,
which of some 40 terms a slice is a fortieth of the weights, where a product of vectors compares all. Every document is
bounded, as with a bias: those that share nothing score 0 like others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda import cuda_device, cuda_rows, cuda_windows
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_rows import Found, Listed
from pyengine.backends.cuda.cuda_windows import POSTING, DeviceWindows, WindowSearch, device_windows
from pyengine.backends.shared.parts import Footprint, Share
from pyengine.backends.shared.posting_windows import windows
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.problems.problem_sliced import SlicedDocuments, SlicedProblem


class DeviceVectors(NamedTuple):
    """Sliced vectors as they are: ``weights`` float32 [n, D], ``slices`` uint8 [n, D padded]."""

    weights: Array
    slices: Array


def footprint(problem: SlicedProblem) -> Footprint:
    """What documents take on the GPU: as they are, and as postings."""
    dim = problem.docs.dim
    return Footprint((Share("vectors", 5 * dim), Share("windows", POSTING * dim)), len(problem.docs))


def vectors(rows: SlicedRows, gpu: Gpu) -> DeviceVectors:
    return DeviceVectors(gpu.array(rows.values), gpu.array(rows.padded))


def vectors_of(docs: SlicedDocuments, gpu: Gpu) -> DeviceVectors:
    """The documents as they are, on the GPU."""
    return cuda_device.mirrored(docs, gpu, "vectors", lambda: vectors(docs.rows, gpu))


def windows_of(docs: SlicedDocuments, gpu: Gpu) -> DeviceWindows:
    """The documents as the scan reads them, on the GPU."""

    def build() -> DeviceWindows:
        return device_windows(windows(len(docs), lambda which: docs.rows.take(which).sparse()), gpu)

    return cuda_device.mirrored(docs, gpu, "windows", build)


def describe(problem: SlicedProblem) -> dict[str, str]:
    """For `explain`: facts by name."""
    return cuda_windows.describe(problem, windows_of(problem.docs, cuda_device.gpu_of(problem.docs)))


def scanned(problem: SlicedProblem, width: int, gpu: Gpu) -> Found:
    """Pools of what may be among the k best, on the GPU."""
    bias = np.zeros(len(problem.docs)) if problem.bias is None else problem.bias
    kept = windows_of(problem.docs, gpu)
    return cuda_windows.scanned(problem, problem.queries.sparse(), kept, bias, width, gpu)


def score(problem: SlicedProblem, pairs: Listed, gpu: Gpu) -> None:
    """Write the scores of the pairs."""
    docs, asked = vectors_of(problem.docs, gpu), vectors(problem.queries, gpu)
    bias = cuda_rows.copied(gpu, problem.bias)
    sizes = problem.docs.dim, docs.slices.stride
    cuda_rows.refine_pairs(gpu, "sliced_refine", (*docs, *asked), bias, pairs, sizes)


SEARCH = WindowSearch(scanned, lambda found, gpu: found.dropped(gpu), score)
propose, attempt, refine = SEARCH.propose, SEARCH.attempt, SEARCH.refine

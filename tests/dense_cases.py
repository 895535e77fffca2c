"""What the tests of dense kernels for GPUs share: some cases of the conformance suite, since an interpreter or an
emulator takes half a second for a search, and the check of a problem."""

from __future__ import annotations

import numpy as np

from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_dense, cuda_device
from pyengine.problems.problem import DenseProblem
from pyengine.searches.search import exact_search
from pyengine.types import F32, F64

CASES = [
    ("random", "k>N", "cosine", "matrix"),
    ("random", "all", "l2", "int8"),
    ("random", "mask_per_query", "dot", "int8"),
    ("random", "bitmap", "l2", "matrix"),
    ("random", "bias_huge", "dot", "int8"),
    ("random", "bias_small", "cosine", "matrix"),
    ("random", "dims=D-1", "cosine", "int8"),
    ("ties", "plain", "dot", "int8"),
    ("random", "all_filters", "l2", "int8"),
    ("zeros", "plain", "cosine", "int8"),
    ("all_equal", "plain", "l2", "matrix"),
    ("all_magnitudes", "plain", "dot", "matrix"),
    ("huge", "plain", "dot", "matrix"),
    ("subnormal", "plain", "cosine", "matrix"),
    ("one_document", "plain", "l2", "matrix"),
    ("no_documents", "plain", "cosine", "matrix"),
    ("no_queries", "plain", "dot", "int8"),
]


def check(problem: DenseProblem, name: str) -> None:
    """What that backend proposes, in lists of two lengths, and its answer."""
    backend = registry.get(name)
    asked = problem.asking(problem.places())
    scores = conformance.rank_scores(asked)
    for width in (problem.k, backend.first_width(asked)):
        conformance.check_candidates(asked, backend.propose(asked, width), scores)
    conformance.same(exact_search(problem, backend), conformance.specified(problem), "topk")


def within_bounds(problem: DenseProblem) -> F64:
    """All documents of a CUDA search are listed, and the specification's scores lie within the bounds of its scan,
    whose widths are returned."""
    gpu, scores, count = cuda_device.gpu_of(problem.docs), conformance.rank_scores(problem), len(problem.docs)
    widths = []
    for found in cuda_dense.scans(problem, count, gpu):
        listed, upper, lower, counts = (gpu.host(each) for each in found.pools[:4])
        assert (counts == count).all()
        unit, base, _ = (np.asarray(each)[:, None] for each in found.scale)
        part = scores[found.first : found.first + len(counts)]
        exact = np.take_along_axis(part, listed[:, :count].astype(np.int64), axis=1)
        slack = 2.0**-45 * (abs(base) + abs(exact))  # of float64, which what is dropped has, too
        above, below = (unit * each[:, :count].astype(np.float64) + base for each in (upper, lower))
        assert (below - slack <= exact).all()
        assert (exact <= above + slack).all()
        widths.append(above - below)
    return np.concatenate(widths)


def rows(seed: int, count: int, dim: int) -> F32:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)

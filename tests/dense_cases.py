"""What the tests of dense kernels for GPUs share: some cases of the conformance suite, since an interpreter or an
emulator takes half a second for a search, and the check of a problem."""

from __future__ import annotations

import numpy as np

from pyengine import conformance
from pyengine.backends import registry
from pyengine.problems.problem import DenseProblem
from pyengine.searches.search import exact_search
from pyengine.types import F32

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


def rows(seed: int, count: int, dim: int) -> F32:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)

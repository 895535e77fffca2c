"""The specification itself as a backend: every document is scored in float64, and the best are proposed."""

from __future__ import annotations

import numpy as np

from pyengine import checks, reference
from pyengine.backends.base import Backend
from pyengine.problem import DenseProblem
from pyengine.types import Candidates


class NumpyBackend(Backend):
    """float64 NumPy, readable and slow: what all others are compared with. Its estimates are exact."""

    name = "numpy"

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        docs = problem.docs
        mask = None if problem.mask is None else checks.unpack(problem.mask, len(docs))
        found = reference.topk(
            problem.queries, docs.rows, width, problem.metric, mask=mask, bias=problem.bias, dims=problem.dims
        )
        kept = found.ids >= 0
        offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
        full = kept.all(axis=1) & (width < len(docs))
        last = reference.rank_score(found.scores[:, -1], problem.metric)
        # What was dropped rounds to `last` at most, so in float64 it lies below the next float32.
        with np.errstate(over="ignore"):
            above = np.nextafter(last, np.float32(np.inf)).astype(np.float64)
        return Candidates(found.ids[kept], offsets, found.scores[kept], np.where(full, above, -np.inf))

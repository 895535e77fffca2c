"""Where a page begins, as the filters on a GPU take it. NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyengine.inputs.filters import Mark
from pyengine.problems.problem import Problem


def places(problem: Problem, after: Mark | None) -> NDArray[np.int32]:
    """int32 [Q]: the first place in the order of ids that is after the mark."""
    if after is None:
        return np.zeros(problem.n_queries, np.int32)
    if problem.ids is None:
        return np.clip(after.ids + 1, 0, len(problem.docs)).astype(np.int32)
    order = problem.docs.id_order(problem.ids)
    return np.searchsorted(problem.ids, after.ids, side="right", sorter=order).astype(np.int32)

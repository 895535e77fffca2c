"""The filters of a search on a GPU, as `pyengine.kernels.filtering` and `pyengine.kernels.dense_between` take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyengine.backends.shared import marks
from pyengine.backends.shared.dense_terms import scale_of
from pyengine.kernels import dense_between
from pyengine.kernels.dense_between import Ceiling
from pyengine.kernels.dense_topk import ScanQueries
from pyengine.kernels.filtering import Limits
from pyengine.problems.problem import Problem


def limits(problem: Problem, device: torch.device) -> Limits | None:
    """Those of the problem's queries; None where nothing is filtered but by the mask."""
    given = problem.filters
    if given is None:
        return None
    n_queries = problem.n_queries

    def there(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)

    excluded = given.excluded
    return Limits(
        excluded=there(np.zeros(1, np.int32) if excluded is None else np.append(excluded.rows, 0).astype(np.int32)),
        offsets=there(np.zeros(n_queries + 1, np.int64) if excluded is None else excluded.offsets),
        longest=0 if excluded is None else excluded.longest,
        labels=None if given.groups is None else there(given.groups),
        per_group=given.per_group,
        threshold=there(np.full(n_queries, -np.inf) if given.threshold is None else given.threshold),
        mark=there(np.full(n_queries, np.inf) if given.after is None else given.after.rank),
        place=there(marks.places(problem, given.after)),
    )


def ceiling(rank: Tensor | None, queries: ScanQueries, n_queries: int, dims: int) -> Ceiling:
    """Rank scores float64 [Q] in the units of the queries' bounds: nothing is above where there are none."""
    scaling = queries.scaling[:n_queries]
    if rank is None:
        return dense_between.ceiling(torch.full((n_queries,), torch.inf, dtype=torch.float32, device=scaling.device))
    return dense_between.ceiling(scale_of(scaling, dims).ceilings(rank))

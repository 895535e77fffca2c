"""Proposing sliced vectors with torch: weights whose indices differ become 0, then float64 products, some documents at
a time, and a running merge of the best bounds.

A float64 sum of D products in any order, and the specification's in its own, differ by at most (D + 16) 2^-51 |q| |d|;
float32 denormals that a thread of torch flushes take 2^-126 (|q_p| + |d_p|) of a product, sqrt(D) (|q| + |d|) 2^-126 in
all. Adding a bias rounds once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends.shared import float32
from pyengine.backends.torch.torch_float32 import Best, tensor
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.specification import reference
from pyengine.types import F64, I64, Candidates

QUERIES, WEIGHTS = 256, 1 << 19  # queries in a block of bounds, and weights of documents in one product


def propose(problem: SlicedProblem, width: int) -> Candidates:
    """The documents of the ``width`` best bounds of each query, and the bound that comes next."""
    docs, count = problem.docs, problem.n_queries
    size = docs.derived("float64 norms", lambda: float32.norms(docs.rows.values)), float32.norms(problem.queries.values)
    parts = [slice(start, min(start + QUERIES, count)) for start in range(0, max(1, count), QUERIES)]
    best = [_best(problem, which, (size[0], size[1][which]), width + 1) for which in parts]
    bounds, rows = (torch.cat([getattr(each, name) for each in best]).numpy() for name in Best._fields)
    dropped = bounds[:, width] if bounds.shape[1] > width else np.full(count, -np.inf)
    listed = bounds[:, :width] > -np.inf
    owner, chosen = np.nonzero(listed)[0], rows[:, :width][listed]
    offsets = np.concatenate([[0], np.cumsum(listed.sum(axis=1))]).astype(np.int64)
    errors = _errors(problem, size[0][chosen], size[1][owner], chosen)
    return Candidates(chosen, offsets, reference.round_score(bounds[:, :width][listed] - errors), dropped)


def _errors(problem: SlicedProblem, docs: F64, queries: F64, rows: I64 | slice) -> F64:
    """By how much a score may be off, of norms [..] that are broadcast, and of these rows."""
    dim = problem.docs.dim
    error = (dim + 16) * 2.0**-51 * docs * queries + float32.TINY * (dim + np.sqrt(dim) * (docs + queries))
    wrong: F64 = error if problem.bias is None else error + 2.0**-50 * np.abs(problem.bias[rows])
    return wrong


def _best(problem: SlicedProblem, which: slice, size: tuple[F64, F64], keep: int) -> Best:
    """The ``keep`` best bounds of these queries."""
    count, n_docs, mask = which.stop - which.start, len(problem.docs), problem.mask
    best = Best(torch.empty((count, 0), dtype=torch.float64), torch.empty((count, 0), dtype=torch.int64))
    step = max(1, WEIGHTS // problem.docs.dim // 8) * 8  # whole bytes of a mask
    for start in range(0, n_docs, step):
        rows = slice(start, min(start + step, n_docs))
        bounds = _scores(problem, which, rows)
        bounds += torch.from_numpy(_errors(problem, size[0][rows], size[1][:, None], rows))
        if problem.bias is not None:
            bounds += torch.from_numpy(problem.bias[rows].copy())
        if mask is not None:
            own = mask[which if len(mask) > 1 else slice(None), start // 8 :]
            bounds.masked_fill_(torch.from_numpy(~checks.unpack(own, rows.stop - start)), -torch.inf)
        best = best.merge(bounds, start, keep)
    return best


def _scores(problem: SlicedProblem, which: slice, rows: slice) -> Tensor:
    """float64 [q, n]: without a bias."""
    docs, queries = problem.docs.rows, problem.queries
    values, slices = tensor(docs.values[rows]), tensor(docs.slices[rows])
    scores = torch.empty((which.stop - which.start, len(values)), dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float32)
    for place, q in enumerate(range(which.start, which.stop)):
        kept = torch.where(slices == tensor(queries.slices[q]), values, zero)
        scores[place] = kept.double() @ tensor(queries.values[q]).double()
    return scores

"""Sums over inverted lists in torch, with the bound that `sparse_lists` derives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine.backends.shared import sparse_lists
from pyengine.backends.shared.sparse_lists import Inverted, Sharing
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.types import F64, I64


class _Lists(NamedTuple):
    """As `sparse_lists.Inverted`, whose arrays they share."""

    docs: Tensor
    weights: Tensor
    magnitudes: Tensor


def sharing(problem: SparseProblem) -> Iterator[Sharing]:
    """One query after another: N sums of its own are held, and no more."""
    inverted = sparse_lists.inverted(problem)
    weights = torch.from_numpy(inverted.weights)
    signed = inverted.signed or bool((problem.queries.values < 0).any())
    lists = _Lists(torch.from_numpy(inverted.docs), weights, weights.abs() if inverted.signed else weights)
    sums = torch.zeros(len(problem.docs), dtype=torch.float64)
    sizes = torch.zeros_like(sums) if signed else sums
    for terms, values in problem.queries:
        places, own = inverted.of(terms), values.astype(np.float64)
        _add(sums, inverted, lists.docs, lists.weights, places, own)
        if signed:
            _add(sizes, inverted, lists.docs, lists.magnitudes, places, np.abs(own))
        rows = sizes.nonzero()[:, 0]
        yield Sharing(rows.numpy(), sums[rows].numpy(), sizes[rows].numpy())
        sums[rows] = 0.0
        sizes[rows] = 0.0


def _add(sums: Tensor, inverted: Inverted, docs: Tensor, weights: Tensor, places: I64, values: F64) -> None:
    for place, value in zip(places.tolist(), values.tolist()):
        if place >= 0:
            span = slice(*inverted.starts[place : place + 2].tolist())
            sums.index_add_(0, docs[span], weights[span], alpha=value)

"""NumPy in place of Triton kernels that have tests of their own, where interpreting them for hundreds of queries would
take minutes: the same results to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyengine.kernels import refine as refining
from pyengine.kernels import selection
from pyengine.kernels.selection import Pools
from pyengine.specification import reference


def stand_in(patch: pytest.MonkeyPatch, *scans: Any) -> None:
    """Have these modules' scans tighten so, and all searches refine and select so, where kernels are interpreted."""
    if torch.cuda.is_available():
        return
    for module in scans:
        patch.setattr(module, "tighten", tighten)
    patch.setattr(selection, "select", select)
    patch.setattr(refining, "refine", refine)


def tighten(found: Pools, k: int, centre: Tensor | None = None) -> None:
    rows, upper, lower, counts, threshold = (each.numpy() for each in found[:5])
    for q, count in enumerate(np.minimum(counts, found.capacity)):
        counts[q] = count
        if count < k:
            continue
        kth = np.sort(lower[q, :count])[-k]
        offset = np.float32(0) if centre is None else centre.numpy()[q]
        with np.errstate(invalid="ignore"):
            reach = kth - np.float32(2.0**-21) * abs(kth + offset) - np.float32(3.009265538105056e-36)
        threshold[q] = np.fmax(threshold[q], reach)
        keep = upper[q, :count] >= threshold[q]
        counts[q] = keep.sum()
        for each in (rows, upper, lower):
            each[q, : counts[q]] = each[q, :count][keep]


def select(scores: Tensor, rows: Tensor, counts: Tensor, k: int, order: Tensor | None, negate: bool) -> Tensor:
    best = np.full((len(counts), k), selection.PAD)
    for q, count in enumerate(counts.numpy()):
        rank = scores.numpy()[q, :count] * np.float32(-1 if negate else 1)
        place = rows.numpy()[q, :count]
        place = place if order is None else order.numpy()[place]
        bits = rank.view(np.int32)
        high = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        keys = np.sort((high.astype(np.int64) << 32) | (0x7FFFFFFF - place.astype(np.int64)))[::-1][:k]
        best[q, : len(keys)] = keys
    return torch.from_numpy(best)


def refine(
    queries: Tensor, docs: Tensor, step: Tensor | None, bias: Tensor | None, rows: Tensor,
    starts: Tensor, counts: Tensor, scores: Tensor, longest: int, metric: str, dims: int, chip: Any,
) -> None:  # fmt: skip
    flat_rows, flat_scores = rows.numpy().reshape(-1), scores.numpy().reshape(-1)
    for q, (start, count) in enumerate(zip(starts.tolist(), counts.tolist())):
        own = slice(start, start + count)
        some = docs[torch.from_numpy(flat_rows[own]).long()].float().numpy()
        if step is not None:
            some = some * step.numpy()[flat_rows[own]][:, None]
        extra = None if bias is None else bias.numpy()[flat_rows[own]]
        query = np.broadcast_to(queries[q].numpy(), some.shape)
        flat_scores[own] = reference.pair_scores(query[:, :dims], some[:, :dims], metric, extra)

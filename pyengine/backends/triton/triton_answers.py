"""The answers of searches on a GPU: where they are written, and what they say on the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyengine.backends.triton import triton_device
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.kernels import answers
from pyengine.kernels.answers import Answer
from pyengine.problems.problem import Problem
from pyengine.types import I64, Attempt


def answer_room(room: Workspace, n_queries: int, k: int) -> Answer:
    """Where the answer of so many queries is written."""
    packed = room.room("packed", (answers.answer_bytes(n_queries, k),), torch.uint8)
    return room.kept("answer", lambda: answers.unpacked(packed, n_queries, k))


def on_host(problem: Problem, packed: Tensor) -> Attempt:
    """The answer that was packed, copied to the host, for which that waits; with ids for places in their order."""
    found = answers.unpacked(packed.to("cpu", copy=True), problem.n_queries, problem.k)
    place, scores, dropped = (each.numpy() for each in (found.ids, found.scores, found.dropped))
    if len(problem.docs) == 0:
        return Attempt(scores, place, dropped)
    filled, order = place >= 0, _id_order(problem)
    rows = np.where(filled, place, 0)
    rows = rows if order is None else order[rows]
    return Attempt(scores, np.where(filled, problem.ids_of(rows), -1), dropped)


def _id_order(problem: Problem) -> I64 | None:
    return None if problem.ids is None else problem.docs.id_order(problem.ids)


def id_places(problem: Problem) -> Tensor | None:
    """int32 [N] on the device: the place of each row by its id; None where ids rise."""
    order = _id_order(problem)
    if order is None:
        return None

    def build(device: torch.device) -> Tensor:
        places = np.empty(len(order), np.int32)
        places[order] = np.arange(len(order), dtype=np.int32)
        return torch.from_numpy(places).to(device)

    return triton_device.mirrored(problem.docs, "id places", build)


def names(problem: Problem) -> Tensor | None:
    """int64 [N] on the device: the ids, rising; None where they are the numbers of the rows."""
    ids = problem.ids
    if ids is None:
        return None
    order = problem.docs.id_order(ids)
    rising = ids if order is None else ids[order]
    counted = len(ids) and order is None and rising[0] == 0 and rising[-1] == len(ids) - 1
    if counted:
        return None
    return triton_device.mirrored(problem.docs, "rising ids", lambda device: torch.tensor(rising).to(device))

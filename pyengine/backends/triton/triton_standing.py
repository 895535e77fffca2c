"""A dense search of which only the queries change, as launches without a wait: what a CUDA graph can be made of."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pyengine.backends.triton import triton_dense, triton_device
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.kernels.answers import Answer
from pyengine.problems.problem import DenseProblem


class Standing:
    """The problem's queries are the first. ``queries`` float32 [Q, D] on the device is what `launch` reads, ``answer``
    what it writes. Raises ArithmeticError for documents with NaN or inf."""

    def __init__(self, problem: DenseProblem, width: int) -> None:
        room = Workspace(triton_device.device_of(problem.docs))
        with triton_device.launching_on(room.device):
            order = triton_dense.id_places(problem)
            steps = triton_dense.steps(problem, width, room, order)
            self._steps, self._room = replace(steps, names=_names(problem)), room
            self.queries: Tensor = room.copied("queries", problem.queries)
        self.answer: Answer = self._steps.answer_room(room)

    def launch(self) -> None:
        """Answer the queries, on the current stream."""
        with triton_device.launching_on(self._room.device):
            self._steps.answer(self.queries, self._room)


def _names(problem: DenseProblem) -> Tensor | None:
    """int64 [N]: the ids, rising; None where they are the numbers of the rows."""
    ids = problem.ids
    if ids is None:
        return None
    order = problem.docs.id_order(ids)
    rising = ids if order is None else ids[order]
    counted = len(ids) and order is None and rising[0] == 0 and rising[-1] == len(ids) - 1
    if counted:
        return None
    return triton_device.mirrored(problem.docs, "rising ids", lambda device: torch.tensor(rising).to(device))

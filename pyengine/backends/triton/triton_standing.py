"""A dense search of which only the queries change, as launches without a wait: what a CUDA graph can be made of."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from pyengine.backends.triton import triton_answers, triton_dense, triton_device
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.kernels.answers import Answer
from pyengine.problems.problem import DenseProblem


class Standing:
    """The problem's queries are the first. ``queries`` float32 [Q, D] on the device is what `launch` reads, ``answer``
    what it writes. Raises ArithmeticError for documents with NaN or inf."""

    def __init__(self, problem: DenseProblem, width: int) -> None:
        room = Workspace(triton_device.device_of(problem.docs))
        with triton_device.launching_on(room.device):
            order = triton_answers.id_places(problem)
            steps = triton_dense.steps(problem, width, room, order)
            self._steps, self._room = replace(steps, names=triton_answers.names(problem)), room
            self.queries: Tensor = room.copied("queries", problem.queries)
        self.answer: Answer = triton_answers.answer_room(room, problem.n_queries, problem.k)

    def launch(self) -> None:
        """Answer the queries, on the current stream."""
        with triton_device.launching_on(self._room.device):
            self._steps.answer(self.queries, self._room)

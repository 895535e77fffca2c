"""A search of which only the queries change, as launches without a wait: what a CUDA graph can be made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from pyengine import checks
from pyengine.backends.triton import triton_answers, triton_dense, triton_device, triton_maxsim
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.inputs import ragged
from pyengine.inputs.ragged import Ragged
from pyengine.kernels.answers import Answer
from pyengine.problems.problem import DenseProblem, Problem
from pyengine.problems.problem_maxsim import MaxSimProblem


class Standing:
    """``queries`` float32 on the device is what `launch` reads, ``answer`` what it writes; `asked` is the problem of
    what the queries hold now, on the host, and raises ValueError where that is NaN or inf."""

    def __init__(
        self, queries: Tensor, answer: Answer, launch: Callable[[], object], asked: Callable[[], Problem]
    ) -> None:
        self.queries, self.answer, self.asked, self._launch = queries, answer, asked, launch

    def launch(self) -> None:
        """Answer the queries, on the current stream."""
        with triton_device.launching_on(self.queries.device):
            self._launch()


def dense(problem: DenseProblem, width: int) -> Standing:
    """For queries [Q, D], of which those of the problem are the first. Raises ArithmeticError for documents with NaN or
    inf."""
    room = _room(problem)
    with triton_device.launching_on(room.device):
        steps = triton_dense.steps(problem, width, room, triton_answers.id_places(problem))
        steps, queries = replace(steps, names=triton_answers.names(problem)), room.copied("queries", problem.queries)

    def asked() -> DenseProblem:
        checks.finite(queries, "queries")
        return replace(problem, queries=queries.cpu().numpy())

    return Standing(queries, _answer(problem, room), lambda: steps.answer(queries, room), asked)


def maxsim(problem: MaxSimProblem, width: int) -> Standing:
    """For queries [Q, L, D] of as many tokens each as those of the problem."""
    room, which = _room(problem), triton_maxsim.listed(problem, width)
    with triton_device.launching_on(room.device):
        steps = triton_maxsim.steps(problem, which, problem.k, room)
        steps = replace(steps, names=triton_answers.names(problem))
    tokens, offsets = steps.asked.tokens, problem.queries.offsets

    def asked() -> MaxSimProblem:
        values = tokens.cpu().numpy()
        ragged.finite(values, offsets, "queries")
        return replace(problem, queries=Ragged(values, offsets))

    queries = tokens.view(problem.n_queries, -1, problem.docs.dim)
    return Standing(queries, _answer(problem, room), lambda: steps.answer(room), asked)


def _room(problem: Problem) -> Workspace:
    return Workspace(triton_device.device_of(problem.docs))


def _answer(problem: Problem, room: Workspace) -> Answer:
    return triton_answers.answer_room(room, problem.n_queries, problem.k)

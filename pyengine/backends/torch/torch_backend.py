"""torch proposes, on the host or on the GPU where the documents are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from pyengine.backends.base import Backend, MaxSimBackend, SlicedBackend, SparseBackend, foreign
from pyengine.problems.problem import DenseProblem, Problem
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.problems.problem_sliced import SlicedProblem
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.types import F32, Candidates, TopK


class TorchBackend(Backend):
    """Chunked float32 matrix products and a running top-k; documents that are CUDA tensors never leave their device.

    With ``precision="fast"`` the scores are float32 sums of D products, in torch's order. They differ from the
    specification's by at most 2 G (|q| |d| + |bias|) for ``dot``, 2 G (1 + |bias|) for ``cosine`` and
    2 G ((|q| + |d|)^2 + |bias|) for ``l2``. `backends/shared/float32.py` derives G: about (D + 12) 2^-24, and under
    `torch.set_float32_matmul_precision` "high" (TF32) 2^-9 more, "medium" (bf16) 2^-6 more. Vectors of norm above 2^60,
    or below 2^-60 in ``cosine``, have no estimate. With ``precision="exact"`` the answer is exact under every setting.

    ``num_threads`` holds for the call: `torch.set_num_threads` is global to the process, set before it and restored
    after it, so calls from several threads at once may see one another's number.
    """

    name = "torch"

    def missing(self) -> str | None:
        return _missing()

    def refusals(self, problem: DenseProblem) -> list[str]:
        return foreign(problem.docs)

    def propose(self, problem: DenseProblem, width: int) -> Candidates:
        from pyengine.backends.torch import torch_float32

        with _settings(problem):
            return torch_float32.propose(problem, width)

    def refine(self, problem: DenseProblem, candidates: Candidates) -> F32:
        if problem.docs.device is None:
            return super().refine(problem, candidates)
        from pyengine.backends.torch import torch_float64

        with _settings(problem):
            return torch_float64.refine(problem, candidates)

    def scan(self, problem: DenseProblem) -> TopK:
        if problem.docs.device is None:
            return super().scan(problem)
        from pyengine.backends.torch import torch_float64

        with _settings(problem):
            return torch_float64.scan(problem)


class TorchMaxSim(MaxSimBackend):
    """Late interaction by float32 products of unit tokens, on the CPU, with the bound that `torch_maxsim` derives.

    With ``precision="fast"`` scores are off by at most that bound. "softmax" is bounded by "mean"; "pooled" and
    "aligned", which no maxima bound, are scored by the specification throughout. What is said above of threads and of
    torch's settings holds here too.
    """

    name = "torch"

    def missing(self) -> str | None:
        return _missing()

    def propose(self, problem: MaxSimProblem, width: int) -> Candidates:
        from pyengine.backends.torch import torch_maxsim

        upper = problem.upper()
        if upper.reduce not in torch_maxsim.PROPOSED:
            return super().propose(problem, width)
        with _settings(problem):
            return torch_maxsim.propose(upper, width)


class TorchSliced(SlicedBackend):
    """Sliced vectors by float64 products on the CPU, with the bound that `torch_sliced` derives."""

    name = "torch"

    def missing(self) -> str | None:
        return _missing()

    def propose(self, problem: SlicedProblem, width: int) -> Candidates:
        from pyengine.backends.torch import torch_sliced

        with _settings(problem):
            return torch_sliced.propose(problem, width)


class TorchSparse(SparseBackend):
    """Sparse rows by `index_add_` of the weights of each term of a query, in float64, on the CPU.

    With ``precision="fast"`` scores are float64 sums, which differ from the specification's by at most 2^-50 of the sum
    of magnitudes for each term of the query (`sparse_lists`). What is said above of threads holds here too.
    """

    name = "torch"

    def missing(self) -> str | None:
        return _missing()

    def listed(self, problem: SparseProblem, width: int) -> Candidates:
        from pyengine.backends.shared import sparse_lists
        from pyengine.backends.torch import torch_sparse

        with _settings(problem):
            return sparse_lists.candidates(problem, torch_sparse.sharing(problem), width)


def _missing() -> str | None:
    return None if find_spec("torch") else "torch is not installed: run 'pip install torch'"


@contextmanager
def _settings(problem: Problem) -> Iterator[None]:
    """The number of threads asked for, no gradients, no autocast: as they were afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(problem.num_threads)
    device = "cpu" if problem.docs.device is None else problem.docs.device.type
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_num_threads(before)

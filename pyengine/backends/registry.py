"""The backends and how one is chosen. Nothing optional is imported until its backend is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, TypeVar

from pyengine.backends.base import Backend, Proposer
from pyengine.checks import choice
from pyengine.kernels import measured
from pyengine.problems.problem import Problem

P = TypeVar("P", bound=Problem)
GROUP = "pyengine.backends"
BUILTIN = ("cpu", "triton", "cuda", "torch", "faiss", "scipy", "numpy")  # in the order in which "auto" tries them
FAMILIES = {  # what those of each name are, for the problems of each family that they can do
    "dense": {
        "cpu": "pyengine.backends.cpu.cpu_backend:CpuBackend",
        "triton": "pyengine.backends.triton.triton_backend:TritonBackend",
        "cuda": "pyengine.backends.cuda.cuda_backend:CudaBackend",
        "torch": "pyengine.backends.torch.torch_backend:TorchBackend",
        "faiss": "pyengine.backends.faiss_backend:FaissBackend",
        "numpy": "pyengine.backends.numpy_backend:NumpyBackend",
    },
    "maxsim": {
        "cpu": "pyengine.backends.cpu.cpu_backend:CpuMaxSim",
        "triton": "pyengine.backends.triton.triton_maxsim_backend:TritonMaxSim",
        "cuda": "pyengine.backends.cuda.cuda_maxsim_backend:CudaMaxSim",
        "torch": "pyengine.backends.torch.torch_backend:TorchMaxSim",
        "numpy": "pyengine.backends.numpy_backend:NumpyMaxSim",
    },
    "sliced": {
        "cpu": "pyengine.backends.cpu.cpu_sliced:CpuSliced",
        "triton": "pyengine.backends.triton.triton_sliced_backend:TritonSliced",
        "cuda": "pyengine.backends.cuda.cuda_sliced_backend:CudaSliced",
        "torch": "pyengine.backends.torch.torch_backend:TorchSliced",
        "numpy": "pyengine.backends.numpy_backend:NumpySliced",
    },
    "sparse": {
        "cpu": "pyengine.backends.cpu.cpu_sparse:CpuSparse",
        "triton": "pyengine.backends.triton.triton_sparse_backend:TritonSparse",
        "cuda": "pyengine.backends.cuda.cuda_sparse_backend:CudaSparse",
        "torch": "pyengine.backends.torch.torch_backend:TorchSparse",
        "scipy": "pyengine.backends.scipy_backend:ScipySparse",
        "numpy": "pyengine.backends.numpy_backend:NumpySparse",
    },
}

_default: ContextVar[str] = ContextVar("pyengine_backend", default="auto")


class BackendStatus(NamedTuple):
    """One line of `backends`: ``reason`` is None when the backend can run, else why not and the remedy."""

    name: str
    available: bool
    reason: str | None


@cache
def _third_party() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILTIN}


def names() -> list[str]:
    """Every backend known here, built in or joined by an entry point, in the order "auto" tries them."""
    return [*BUILTIN, *sorted(_third_party())]


@cache
def get(name: str) -> Backend:
    """The dense backend of that name; it may still be `missing` what it needs."""
    if name in FAMILIES["dense"]:
        backend: Backend = _built(FAMILIES["dense"][name])
        return backend
    joined: Backend = _third_party()[_known(name)].load()()
    return joined


@cache
def _built(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)()


def of_family(name: str, family: str) -> Any:
    """The `Proposer` of that name for problems of a family, None where it has none."""
    if not _takes(_known(name), family):
        return None
    return get(name) if family == "dense" else _built(FAMILIES[family][name])


def _takes(name: str, family: str) -> bool:
    """Those that third parties join are dense."""
    return name in FAMILIES[family] or (family == "dense" and name not in BUILTIN)


def _known(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"backend must be a name; got {name!r}")
    if name not in names():
        raise ValueError(f"backend must be 'auto' or one of {', '.join(map(repr, names()))}; got {name!r}")
    return name


def _missing(name: str, family: str) -> str | None:
    """Why a backend cannot run here. A third party's failure to load is such a reason, not an error of ours."""
    try:
        reason: str | None = of_family(name, family).missing()
        return reason
    except Exception as error:
        if name in BUILTIN:
            raise
        return f"its entry point failed to load: {type(error).__name__}: {error}"


def backends(family: str = "dense") -> list[BackendStatus]:
    """Every backend that has something for a family ("dense", "maxsim" or "sparse"): available, or the reason why not
    and what to do about it."""
    able = [name for name in names() if _takes(name, choice(family, "family", tuple(FAMILIES)))]
    return [BackendStatus(name, reason is None, reason) for name in able for reason in [_missing(name, family)]]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, ``backend="auto"`` means this backend. Per thread and per task."""
    if name != "auto":
        _known(name)
    token = _default.set(name)
    try:
        yield
    finally:
        _default.reset(token)


def reasons(problem: Problem) -> dict[str, list[str]]:
    """For each backend, why it cannot run this problem (empty when it can)."""
    return {name: _reasons(name, problem) for name in names()}


def _reasons(name: str, problem: Problem) -> list[str]:
    if not _takes(name, problem.family):
        return [f"it has nothing for {problem.family}"]
    missing = _missing(name, problem.family)
    return [missing] if missing else of_family(name, problem.family).refusals(problem)


def _order(problem: Problem) -> list[str]:
    """The names in the order in which "auto" tries them: of those with kernels for GPUs, who was measured to be the
    fastest at such a problem comes first."""
    order = names()
    faster = _measured(problem)
    if faster in order:
        order.remove(faster)
        order.insert(BUILTIN.index("triton"), faster)
    return order


def _measured(problem: Problem) -> str | None:
    if not measured.table():
        return None
    from pyengine.backends.cuda import cuda_device

    if cuda_device.missing():
        return None
    return measured.faster(cuda_device.chip(problem.docs).name, problem.family, problem.n_queries, problem.k)


def chooses_cpu(name: Any) -> bool:
    """Whether `choose` takes the backend "cpu", which "auto" tries first, for problems that it does not refuse."""
    if type(name) is not str or (_default.get() if name == "auto" else name) not in ("auto", "cpu"):
        return False
    return get("cpu").missing() is None


def choose(name: str, problem: P) -> Proposer[P]:
    """The backend to run: the one named, or the first that can for "auto". An explicit choice never falls back."""
    name = _default.get() if name == "auto" else name
    for candidate in _order(problem) if name == "auto" else [_known(name)]:
        if not _reasons(candidate, problem):
            chosen: Proposer[P] = of_family(candidate, problem.family)
            return chosen
    why = reasons(problem)
    shown = why if name == "auto" else {name: why[name]}
    lines = [f"  {each}: {'; '.join(texts)}" for each, texts in shown.items()]
    able = [each for each, texts in why.items() if not texts]
    hint = f"\nbackends that can: {', '.join(able)}" if able else ""
    raise RuntimeError(f"backend {name!r} cannot run {problem.describe()}:\n" + "\n".join(lines) + hint)

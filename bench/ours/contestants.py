"""What is raced: a setup that is not timed, and a search that is. Here are ours, which must pass the gate; the others
are in `bench.peers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import pyengine
from pyengine.backends import registry
from pyengine.refining import exact
from pyengine.types import F32, I64

ISAS = ("baseline", "avx2", "avx512", "amx", "neon")
BITS = "the specification's bits"

Answer = tuple[F32, I64]  # scores [Q, K], ids [Q, K]
Search = Callable[..., Any]  # (queries [Q, D], k, and a filter if there is one) -> what `Contestant.read` understands
Prepare = Callable[[Any, str, int], Search]  # (docs, as the arena holds them, metric, threads)


class Unavailable(Exception):
    """Why a contestant cannot run here, in a sentence."""


def first_two(found: Any) -> Answer:
    """The answer of those who return (scores, ids, ...), best first."""
    return np.asarray(found[0], np.float32), np.asarray(found[1], np.int64)


@dataclass(frozen=True)
class Contestant:
    """``value_bytes`` is what it must read of each stored number, ``arithmetic`` ("float32" or "int8", on ``isa`` where
    that is forced) what it multiplies in: they only set the floor with which it is compared. ``copies`` is the memory
    that its setup takes, in corpora, ``pair_bytes`` what a call takes per query and document: they only keep it from
    being started where there is no room. ``exactness`` is what it promises, ``package`` what it is installed as,
    ``backend`` where ours runs. Who is ``only_named`` takes part where somebody asks for it by name. ``close`` gets the
    search when it is over."""

    name: str
    prepare: Prepare
    ours: bool = False
    arithmetic: str = "float32"
    value_bytes: float = 4
    isa: str = ""
    copies: float = 0.0
    pair_bytes: int = 0
    read: Callable[[Any], Answer] = first_two
    package: str = ""
    exactness: str = ""
    backend: str = ""
    only_named: bool = False
    close: Callable[[Search], object] = id  # dropping it is enough

    @property
    def version(self) -> str:
        return pyengine.__version__ if self.ours else version_of(self.package)


def version_of(package: str) -> str:
    """Of what is installed under that name; "" for nothing."""
    try:
        return version(package) if package else ""
    except PackageNotFoundError:
        return ""


def module(name: str, package: str = "") -> Any:
    """An optional module; `Unavailable` names the remedy."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(f"pip install {package or name} ({error})") from None


def index(store: str, backend: str = "cpu", isa: str = "") -> Contestant:
    """`DenseIndex` with that store, on one instruction set where ``isa`` names it."""

    def prepare(docs: F32, metric: str, threads: int) -> Search:
        require(backend)
        with on_isa(isa):
            built = pyengine.DenseIndex(docs.shape[1], metric=metric, store=store, backend=backend)
            built.add(docs)

        def search(queries: F32, k: int) -> Any:
            with on_isa(isa):
                return built.search(queries, k, num_threads=threads)

        return search

    name = f"pyengine-{store}" + (f"@{isa}" if isa else at(backend))
    copies, value_bytes = (1.3, 1) if store == "int8" else (1.0, 4)
    return Contestant(
        name, prepare, True, "int8", value_bytes, isa, copies, exactness=BITS, backend=backend, only_named=bool(isa)
    )


def one_off(backend: str = "cpu") -> Contestant:
    """`pyengine.topk` on the raw vectors: nothing is prepared."""

    def prepare(docs: F32, metric: str, threads: int) -> Search:
        require(backend)
        return lambda queries, k: pyengine.topk(queries, docs, k, metric=metric, backend=backend, num_threads=threads)

    name = "pyengine-topk" + at(backend)
    return Contestant(name, prepare, ours=True, arithmetic="int8", exactness=BITS, backend=backend)


def at(backend: str) -> str:
    """What the name of a contestant of ours has at its end: "@torch"; nothing for "cpu"."""
    return "" if backend == "cpu" else f"@{backend}"


BACKENDS = tuple(status.name for status in pyengine.backends())
OURS = tuple(
    who for backend in BACKENDS for who in (index("int8", backend), index("float32", backend), one_off(backend))
)
FORCED = tuple(index(store, isa=isa) for isa in ISAS for store in ("int8", "float32"))


def require(backend: str, family: str = "dense") -> None:
    """Raise `Unavailable`, with the backend's own reason, unless it can run problems of that family here."""
    reason = registry.of_family(backend, family).missing()
    if reason is not None:
        raise Unavailable(reason)


@contextmanager
def on_isa(name: str) -> Iterator[None]:
    """Within the block the extension uses that instruction set ("" leaves it as it is)."""
    kernels: Any = exact.native()
    if not name:
        yield
        return
    before = kernels.isa()
    try:
        kernels.set_isa(name)
    except (ValueError, RuntimeError) as error:
        raise Unavailable(str(error)) from None
    try:
        yield
    finally:
        kernels.set_isa(before)

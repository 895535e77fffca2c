"""Ours in the tables of late interaction. What this pyengine does not have yet says so, and is not raced."""

from __future__ import annotations

from typing import Any

from bench.operations.compress import Compressed, Compressor, bytes_of
from bench.operations.token_arena import offered
from bench.ours.contestants import BACKENDS, BITS, Contestant, Search, Unavailable, at, require
from bench.peers._tokens import best
from pyengine.inputs.ragged import Ragged


def one_off(backend: str = "cpu") -> Contestant:
    """`pyengine.maxsim_topk` on the raw vectors: nothing is prepared."""

    def prepare(docs: Ragged, reduce: str, threads: int) -> Search:
        topk = offered("maxsim_topk")
        require(backend, "maxsim")
        return lambda queries, k: topk(queries, docs, k, reduce=reduce, backend=backend, num_threads=threads)

    name = "pyengine-topk" + at(backend)
    return Contestant(name, prepare, ours=True, arithmetic="int8", exactness=BITS, backend=backend)


def matrix(backend: str = "cpu") -> Contestant:
    """`pyengine.maxsim`, all scores, of which the best are taken."""

    def prepare(docs: Ragged, reduce: str, threads: int) -> Search:
        maxsim = offered("maxsim")
        require(backend, "maxsim")
        return lambda queries, k: best(maxsim(queries, docs, reduce=reduce, backend=backend, num_threads=threads), k)

    return Contestant("pyengine-maxsim" + at(backend), prepare, ours=True, exactness=BITS, backend=backend)


def index(codec: str, value_bytes: int, backend: str = "cpu") -> Contestant:
    """`MultiVectorIndex` with that codec beside the originals."""

    def prepare(docs: Ragged, reduce: str, threads: int) -> Search:
        built = _built(docs, codec, "ram", backend)
        return lambda queries, k: built.search(queries, k, num_threads=threads)

    name = f"pyengine-{codec}" + at(backend)
    return Contestant(name, prepare, True, "int8", value_bytes, copies=1.3, exactness=BITS, backend=backend)


def codec(name: str, originals: str | None = None) -> Compressor:
    """`MultiVectorIndex` with that codec and nothing else: what it decodes to is what it is judged on."""

    def prepare(docs: Ragged, threads: int) -> Compressed:
        built = _built(docs, name, originals)
        search = lambda queries, k: built.search(queries, k, num_threads=threads)  # noqa: E731
        return Compressed(search, bytes_of(built), built.tokens(built.ids))

    return Compressor(f"pyengine-{name}", prepare, ours=True)


def _built(docs: Ragged, codec: str, originals: str | None, backend: str = "cpu") -> Any:
    make = offered("MultiVectorIndex")
    require(backend, "maxsim")
    try:
        built = make(docs.dim, codec=codec, originals=originals, backend=backend)
    except ValueError as error:
        raise Unavailable(f"this pyengine has no such codec: {error}") from None
    built.add(docs)
    return built


OURS = tuple(
    who
    for backend in BACKENDS
    for who in (index("int8", 1, backend), index("float32", 4, backend), one_off(backend), matrix(backend))
)
CODECS = (
    *(codec(name, "ram") for name in ("float32", "bfloat16")),
    *(codec(name) for name in ("int8", "residual4", "residual2", "residual1", "binary")),
)

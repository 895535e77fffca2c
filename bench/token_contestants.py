"""Ours in the tables of late interaction. What this pyengine does not have yet says so, and is not raced."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.compress import Compressed, Compressor, bytes_of
from bench.contestants import Answer, Contestant, Search, Unavailable, require
from bench.token_arena import offered
from pyengine.ragged import Ragged

BITS = "the specification's bits"


def one_off(backend: str = "cpu") -> Contestant:
    """`pyengine.maxsim_topk` on the raw vectors: nothing is prepared."""

    def prepare(docs: Ragged, reduce: str, threads: int) -> Search:
        topk = offered("maxsim_topk")
        require(backend, "maxsim")
        return lambda queries, k: topk(queries, docs, k, reduce=reduce, backend=backend, num_threads=threads)

    return Contestant("pyengine-topk", prepare, ours=True, arithmetic="int8", exactness=BITS)


def matrix(backend: str = "cpu") -> Contestant:
    """`pyengine.maxsim`, all scores, of which the best are taken."""

    def prepare(docs: Ragged, reduce: str, threads: int) -> Search:
        maxsim = offered("maxsim")
        require(backend, "maxsim")
        return lambda queries, k: best(maxsim(queries, docs, reduce=reduce, backend=backend, num_threads=threads), k)

    return Contestant("pyengine-maxsim", prepare, ours=True, exactness=BITS)


def index(codec: str, value_bytes: int) -> Contestant:
    """`MultiVectorIndex` with that codec beside the originals."""

    def prepare(docs: Ragged, reduce: str, threads: int) -> Search:
        built = _built(docs, codec, "ram")
        return lambda queries, k: built.search(queries, k, num_threads=threads)

    return Contestant(f"pyengine-{codec}", prepare, True, "int8", value_bytes, copies=1.3, exactness=BITS)


def codec(name: str, originals: str | None = None) -> Compressor:
    """`MultiVectorIndex` with that codec and nothing else: what it decodes to is what it is judged on."""

    def prepare(docs: Ragged, threads: int) -> Compressed:
        built = _built(docs, name, originals)
        search = lambda queries, k: built.search(queries, k, num_threads=threads)  # noqa: E731
        return Compressed(search, bytes_of(built), built.tokens(built.ids))

    return Compressor(f"pyengine-{name}", prepare, ours=True)


def _built(docs: Ragged, codec: str, originals: str | None) -> Any:
    make = offered("MultiVectorIndex")
    require("cpu", "maxsim")
    try:
        built = make(docs.dim, codec=codec, originals=originals)
    except ValueError as error:
        raise Unavailable(f"this pyengine has no such codec: {error}") from None
    built.add(docs)
    return built


def best(scores: Any, k: int) -> Answer:
    """The k best documents of each query by its scores [Q, N], ties by smaller id."""
    matrix = np.asarray(scores, np.float32)
    ids = np.argsort(-matrix, axis=1, kind="stable")[:, :k].astype(np.int64)
    return np.take_along_axis(matrix, ids, axis=1), ids


OURS = (one_off(), index("int8", 1), index("float32", 4), matrix())
CODECS = (
    *(codec(name, "ram") for name in ("float32", "bfloat16")),
    *(codec(name) for name in ("int8", "residual4", "residual2", "residual1", "binary")),
)

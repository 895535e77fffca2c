"""Building, saving and loading, beside what merely moving the same bytes takes (the yardsticks) and beside others.

Each is judged by what it leaves behind: an index that answers as the specification does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pyengine
from bench.operations.arena import Arena
from bench.ours.contestants import Unavailable, first_two, module, require
from bench.racing import gate, memory
from bench.racing.race import Entry, enter, refused
from bench.racing.row import Row
from bench.workloads.shapes import Heat

CHUNK = 1 << 14  # rows copied at a time
K = 10  # of the search by which an index is judged

Search = Callable[[Any, int], Any]


class Job(NamedTuple):
    """What is timed, how many bytes it must read and write, and ``searching``: how to search what it made, by its
    result (None where there is nothing to judge)."""

    work: Callable[[], Any]
    n_bytes: int
    searching: Callable[[Any], Search] | None = None


class Worker(NamedTuple):
    name: str
    prepare: Callable[[Arena], Job]
    role: str = "peer"
    copies: float = 1.3  # memory that it takes, in corpora
    only_named: bool = False

    @property
    def ours(self) -> bool:
        return self.role == "ours"


def entries(heat: Heat, arena: Arena, workers: Sequence[Worker]) -> list[Entry]:
    """Of one of the tables "build", "save" and "load"."""
    arena.release()
    return [_entry(heat, arena, who) for who in workers]


def _entry(heat: Heat, arena: Arena, who: Worker) -> Entry:
    (workload,) = heat.workloads
    row = Row(heat.table, workload, who.name, arena.threads(workload), who.role)
    try:
        memory.require(who.copies * arena.corpus.n_bytes)
        job = who.prepare(arena)
    except Exception as error:  # a contestant's, whatever it is: the others go on
        return refused(row, error)
    row, queries = replace(row, n_bytes=job.n_bytes), arena.asked(replace(workload, n_queries=1))

    def judged(result: Any) -> gate.Verdict | None:
        if job.searching is None:
            return None
        answer = first_two(job.searching(result)(queries, K))
        return gate.judge(answer, arena.truth(workload), [0], K)

    entry, verdict = enter(row, job.work, judged, arena.settings)
    entry.row = replace(entry.row, verdict=verdict, note=verdict.reason if verdict else entry.row.note)
    return entry


def _int8(arena: Arena) -> Any:
    """Our index over the arena's documents."""
    require("cpu")
    built = pyengine.DenseIndex(arena.docs.shape[1], store="int8", backend="cpu")
    built.add(arena.docs)
    return built


def _searching(index: Any) -> Search:
    return lambda queries, k: index.search(queries, k)


def build_int8(arena: Arena) -> Job:
    """`DenseIndex.add`: reads the vectors, writes them and their codes."""
    return Job(lambda: _int8(arena), _moved(arena), _searching)


def copy(arena: Arena) -> Job:
    """Reads the vectors, writes as many bytes as the index has: the vectors, and for codes a quarter of them again."""
    docs = arena.docs

    def work() -> Any:
        rows, codes = np.empty_like(docs), np.empty(docs.shape, np.uint8)
        for start in range(0, len(docs), CHUNK):
            part = slice(start, start + CHUNK)
            rows[part] = docs[part]
            codes[part].reshape(-1)[:] = docs[part].view(np.uint8).reshape(-1)[: codes[part].size]
        return rows, codes

    return Job(work, _moved(arena))


def _moved(arena: Arena) -> int:
    """Bytes read and written to build an int8 index."""
    return int(2 * arena.docs.nbytes + arena.docs.size)


def build_faiss(make: Callable[[Any, int], Any]) -> Callable[[Arena], Job]:
    """train and add."""

    def prepare(arena: Arena) -> Job:
        faiss = module("faiss", "faiss-cpu")
        faiss.omp_set_num_threads(arena.settings.threads)

        def work() -> Any:
            built = make(faiss, arena.docs.shape[1])
            built.train(arena.docs[:CHUNK])
            built.add(arena.docs)
            return built

        return Job(
            work, arena.docs.nbytes + len(arena.docs) * make(faiss, arena.docs.shape[1]).sa_code_size(), _searching
        )

    return prepare


def _flat(faiss: Any, dim: int) -> Any:
    return faiss.IndexFlatIP(dim)


def _sq8(faiss: Any, dim: int) -> Any:
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)


def _saved(arena: Arena) -> Path:
    """The folder of our index, saved once."""
    if not hasattr(pyengine.DenseIndex, "save"):
        raise Unavailable("this pyengine cannot save an index")
    path = arena.folder / "saved"
    arena.keep("saved", lambda: arena.keep("index", lambda: _int8(arena)).save(path))
    return path


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def save_int8(arena: Arena) -> Job:
    """`DenseIndex.save`, over what it saved before."""
    path = _saved(arena)
    index = arena.keep("index", lambda: _int8(arena))
    return Job(lambda: index.save(path), _size(path), lambda _: _searching(_load(path, mmap=False)))


def plain_write(arena: Arena) -> Job:
    """As many bytes as a saved index has, written to one file and on the disk when it returns."""
    n_bytes = _size(_saved(arena)) if hasattr(pyengine.DenseIndex, "save") else arena.docs.nbytes
    memory_of, path = arena.docs.reshape(-1).view(np.uint8).data, arena.folder / "plain"

    def work() -> None:
        with path.open("wb", buffering=0) as file:
            for start in range(0, n_bytes, len(memory_of)):
                rest = memory_of[: n_bytes - start]
                while rest:
                    rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        path.unlink()

    return Job(work, n_bytes)


def save_numpy(arena: Arena) -> Job:
    """numpy.save of the vectors."""
    path = arena.folder / "saved.npy"
    return Job(lambda: np.save(path, arena.docs), arena.docs.nbytes)


def _load(path: Path, mmap: bool) -> Any:
    load: Any = getattr(pyengine, "load", None)
    if load is None:
        raise Unavailable("this pyengine cannot load an index")
    return load(path, mmap=mmap)


def load_int8(arena: Arena) -> Job:
    """`pyengine.load(mmap=True)`."""
    path = _saved(arena)
    return Job(lambda: _load(path, mmap=True), 0, _searching)


def load_faiss(arena: Arena) -> Job:
    """faiss.read_index, mapped, of an IndexFlat."""
    faiss = module("faiss", "faiss-cpu")
    path, built = arena.folder / "saved.faiss", _flat(faiss, arena.docs.shape[1])
    built.add(arena.docs)
    faiss.write_index(built, str(path))
    return Job(lambda: faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), 0, _searching)


def load_numpy(arena: Arena) -> Job:
    """numpy.load, mapped, of the vectors."""
    path = arena.folder / "saved.npy"
    np.save(path, arena.docs)
    return Job(lambda: np.load(path, mmap_mode="r"), 0)


BUILDING = (
    Worker("pyengine-int8", build_int8, "ours"),
    Worker("copy", copy, "yardstick"),
    Worker("faiss-flat", build_faiss(_flat)),
    Worker("faiss-sq8", build_faiss(_sq8)),
)
SAVING = (
    Worker("pyengine-int8", save_int8, "ours"),
    Worker("plain-write", plain_write, "yardstick", copies=0.0),
    Worker("numpy", save_numpy, copies=0.0),
)
LOADING = (
    Worker("pyengine-int8", load_int8, "ours"),
    Worker("faiss-flat", load_faiss, copies=1.0),
    Worker("numpy", load_numpy, copies=0.0),
)

"""A cell, built: indexes of ours and of faiss, and the re-ranking of what they propose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pyengine
from bench.ablation import approximate
from bench.ablation.cells import PLAIN, Cell
from bench.datasets.collection import Collection, Rows
from bench.limits import machine
from bench.operations import compress
from bench.ours import contestants
from bench.ours.contestants import Unavailable
from pyengine.types import F32, I64, TopK

READ = {"dense": ("dense",), "maxsim": ("tokens",), "sparse": ("sparse",), "hybrid": ("dense", "sparse")}
Search = Callable[[Rows, int], TopK]  # of queries, in the forms that a cell reads


class Built(NamedTuple):
    """``memory`` is what is kept in memory, in bytes; ``save`` writes all that a later search needs to a folder."""

    search: Search
    memory: int
    save: Callable[[Path], None]


def forms(cell: Cell) -> tuple[str, ...]:
    """Which forms of documents and queries it reads."""
    return READ[cell.family] + ((cell.candidates,) if cell.candidates in ("dense", "sparse", "run") else ())


def build(cell: Cell, collection: Collection, folder: Path) -> Built:
    """`Unavailable` says in a sentence what is missing here; ``folder`` takes files for originals on disk."""
    if cell.threads > machine.cores():
        raise Unavailable(f"threads must be at most the {machine.cores()} cores there are; got {cell.threads}")
    for family in {"hybrid": ("dense", "sparse")}.get(cell.family, (cell.family,)):
        if cell.backend != "auto":
            contestants.require(cell.backend, family)
    maker = {"dense": _dense, "maxsim": _maxsim, "sparse": _sparse, "hybrid": _hybrid}[cell.family]
    try:
        return maker(cell, collection, folder)
    except ImportError as error:
        raise Unavailable(f"{error.name} is missing: pip install {error.name}" if error.name else str(error)) from None


def _dense(cell: Cell, collection: Collection, folder: Path) -> Built:
    docs, metric = _prefix(collection.docs.dense, cell.dims), collection.metric
    if cell.candidates in approximate.FAISS:
        return _faiss(cell, docs, metric)
    if cell.candidates == "projection":
        return _projected(cell, docs, metric, folder)
    if cell.candidates in ("sparse", "run"):
        first = _first_stage(cell, collection, folder)
        again = partial(approximate.rescored, approximate.comparable(docs, metric), metric)
        return _cascade(cell, first, lambda queries, ids, k: again(_prefix(queries.dense, cell.dims), ids, k), docs)
    return _dense_index(cell, docs, metric, folder)


def _dense_index(cell: Cell, docs: F32, metric: str, folder: Path) -> Built:
    originals = None if cell.originals == "none" else cell.originals or "ram"
    index = pyengine.DenseIndex(docs.shape[1], metric, cell.store, originals, cell.backend, directory=folder)
    index.add(docs)
    fast = {"precision": "fast", "rescore": -(-(cell.depth or 1) // cell.k)} if cell.candidates == "codes" else {}

    def search(queries: Rows, k: int) -> TopK:
        return index.search(_prefix(queries.dense, cell.dims), k, num_threads=cell.threads, **fast)  # type: ignore[arg-type]

    on_disk = docs.nbytes if cell.originals == "disk" else 0
    return Built(search, compress.bytes_of(index) - on_disk, lambda path: index.save(path / "dense"))


def _projected(cell: Cell, docs: F32, metric: str, folder: Path) -> Built:
    """Candidates by inner products of projected vectors, which are codes and nothing else."""
    kept = approximate.comparable(docs, metric)
    if metric == "l2":
        raise Unavailable("a projection is for inner products and cosines, and this collection is compared by l2")
    if cell.project is not None and cell.project > docs.shape[1]:
        raise Unavailable(f"project must be at most the {docs.shape[1]} dimensions of the vectors; got {cell.project}")
    basis = approximate.principal(kept, cell.project or docs.shape[1])
    codes = replace(cell, dims=None, candidates="none", originals="ram" if cell.store in PLAIN else "none")
    first = _dense_index(codes, kept @ basis, "dot", folder)

    def propose(queries: Rows, k: int) -> TopK:
        asked = approximate.comparable(_prefix(queries.dense, cell.dims), metric)
        return first.search(Rows(asked @ basis), k)

    def again(queries: Rows, ids: I64, k: int) -> TopK:
        return approximate.rescored(kept, metric, _prefix(queries.dense, cell.dims), ids, k)

    stage = Built(propose, first.memory + basis.nbytes, partial(_save_both, first.save, {"basis": basis}))
    return _cascade(cell, stage, again, kept)


def _faiss(cell: Cell, docs: F32, metric: str) -> Built:
    kept = approximate.comparable(docs, metric)
    index = approximate.FAISS[cell.candidates](cell, kept, metric)
    stage = Built(
        lambda queries, k: index.search(_prefix(queries.dense, cell.dims), k),
        index.n_bytes,
        lambda path: index.save(path / "faiss"),
    )
    again = partial(approximate.rescored, kept, metric)
    return _cascade(cell, stage, lambda queries, ids, k: again(_prefix(queries.dense, cell.dims), ids, k), kept)


def _maxsim(cell: Cell, collection: Collection, folder: Path) -> Built:
    docs = collection.docs.tokens
    assert docs is not None
    originals = None if cell.originals == "none" else cell.originals or "ram"
    index = pyengine.MultiVectorIndex(docs.dim, cell.store, originals, backend=cell.backend, directory=folder)
    index.add(docs, pool=cell.pool if cell.pool and cell.pool > 1 else None)
    fast = {"precision": "fast", "rescore": -(-(cell.depth or 1) // cell.k)} if cell.candidates == "codes" else {}

    def search(queries: Rows, k: int) -> TopK:
        return index.search(queries.tokens, k, num_threads=cell.threads, **fast)  # type: ignore[arg-type]

    on_disk = docs.values.nbytes if cell.originals == "disk" else 0
    own = Built(search, compress.bytes_of(index) - on_disk, lambda path: index.save(path / "tokens"))
    if cell.candidates in ("none", "codes"):
        return own
    first = _first_stage(cell, collection, folder)

    def cascade(queries: Rows, k: int) -> TopK:
        ids = first.search(queries, max(k, cell.depth or k)).ids
        found = index.rerank(queries.tokens, ids, k, num_threads=cell.threads)
        return found._replace(certified=np.zeros(len(ids), bool))  # of these candidates it is, of all it is not

    return Built(cascade, own.memory + first.memory, partial(_save_all, (own, first)))


def _sparse(cell: Cell, collection: Collection, folder: Path) -> Built:
    docs = collection.docs.sparse
    assert docs is not None
    index = pyengine.SparseIndex(docs.n_terms, cell.store, cell.originals or "ram", cell.backend, directory=folder)
    index.add(docs)
    stats = index.stats()

    def search(queries: Rows, k: int) -> TopK:
        return index.search(queries.sparse, k, num_threads=cell.threads)

    return Built(search, stats.row_bytes + stats.posting_bytes, lambda path: index.save(path / "sparse"))


def _hybrid(cell: Cell, collection: Collection, folder: Path) -> Built:
    dense = _dense_index(cell, _prefix(collection.docs.dense, None), collection.metric, folder)
    sparse = _sparse(replace(cell, store="float32", originals="ram"), collection, folder)
    if collection.metric == "l2" and cell.fusion != "rrf":
        raise Unavailable(f"fusion {cell.fusion!r} reads scores of which larger are better, and these are by l2")
    share = cell.weight if cell.weight is not None else 0.5
    how: dict[str, Any] = {} if cell.fusion == "rrf" else {"normalize": cell.normalize}
    weights = None if cell.fusion == "product" else [share, 1 - share]

    def search(queries: Rows, k: int) -> TopK:
        both = [each.search(queries, max(k, cell.depth or k)) for each in (dense, sparse)]
        return pyengine.fuse(both, k, method=cell.fusion or "rrf", weights=weights, **how)

    return Built(search, dense.memory + sparse.memory, partial(_save_all, (dense, sparse)))


def _first_stage(cell: Cell, collection: Collection, folder: Path) -> Built:
    """What proposes for a cell of another family: int8 codes of vectors, postings, or a file's run."""
    if cell.candidates == "run":
        return Built(_given, 0, lambda path: None)
    first = Cell(f"{cell.name}, first", cell.candidates, backend=cell.backend, threads=cell.threads, k=cell.k)
    return build(replace(first, store="float32" if first.family == "sparse" else "int8"), collection, folder)


def _given(queries: Rows, k: int) -> TopK:
    assert queries.run is not None
    ids = queries.run[:, :k]
    return TopK(np.zeros(ids.shape, np.float32), ids, np.zeros(len(ids), bool))


def _cascade(cell: Cell, first: Built, again: Callable[[Rows, I64, int], TopK], docs: F32) -> Built:
    """The first stage, and ``depth`` of what it finds scored again by the vectors ``docs``; the first stage alone
    without a depth."""
    if not cell.depth:
        return first
    depth = cell.depth

    def search(queries: Rows, k: int) -> TopK:
        return again(queries, first.search(queries, max(k, depth)).ids, k)

    return Built(search, first.memory + docs.nbytes, partial(_save_both, first.save, {"vectors": docs}))


def _save_all(stages: tuple[Built, ...], path: Path) -> None:
    for stage in stages:
        stage.save(path)


def _save_both(save: Callable[[Path], None], arrays: dict[str, F32], path: Path) -> None:
    save(path)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)


def _prefix(rows: F32 | None, dims: int | None) -> F32:
    """The first ``dims`` dimensions; `Unavailable` where there are fewer."""
    assert rows is not None
    if dims is None or dims == rows.shape[1]:
        return rows
    if dims > rows.shape[1]:
        raise Unavailable(f"dims must be at most the {rows.shape[1]} dimensions of the vectors; got {dims}")
    return np.ascontiguousarray(rows[:, :dims])

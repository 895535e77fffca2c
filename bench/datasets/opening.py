"""What ``--data`` names: a bundled data set, one like it of any size, a folder, or a file of vectors.

A folder may hold, each optional, and BEIR's layout is one of these:

| files | what |
|---|---|
| corpus.jsonl (or .gz), queries.jsonl | texts: searched by BM25, and by vectors with --encoder or --model |
| docs.npy, queries.npy (or .fvecs, .bvecs, .ivecs) | dense vectors [n, D] |
| docs.tokens.npy, docs.offsets.npy, and of queries | token vectors [T, D] and offsets [n + 1] |
| docs.sparse.jsonl, queries.sparse.jsonl (or .gz; docs.ciff) | sparse rows, in place of BM25 |
| ids.json | doc_ids and query_ids, in row order, of arrays without texts |
| qrels/SPLIT.tsv (BEIR), qrels.txt (TREC) | judgements |
| run.trec | a first stage for the candidates "run" |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.datasets import beir, made_up, scifact, vectors
from bench.datasets.collection import Collection, Rows, numbered

BUNDLED: dict[str, Callable[[], Collection]] = {"scifact": scifact.scifact}
LIKE = "like-"


class Source(NamedTuple):
    """``data`` as given, and what helps to read it: the ``queries`` of a single file of vectors, a ``split`` of
    judgements, an ``encoder`` (module:function) or a folder with a ``model`` for texts, the ``metric`` of vectors."""

    data: str
    queries: Path | None = None
    split: str = "test"
    encoder: str | None = None
    model: Path | None = None
    metric: str = "cosine"


def opened(source: Source) -> Collection:
    """The collection. FileNotFoundError or ValueError in a sentence that names the file or the option."""
    name, _, size = source.data.partition(":")
    path = Path(source.data)
    if source.data in BUNDLED:
        return BUNDLED[source.data]()
    if name.startswith(LIKE) and name[len(LIKE) :] in BUNDLED:
        count = _size(size)  # before the time that reading takes
        return made_up.like(BUNDLED[name[len(LIKE) :]](), count)
    if path.is_dir():
        return beir.read_folder(path, source.split, source.encoder, source.model, source.metric)
    if not path.is_file():
        known = ", ".join([*BUNDLED, *(f"{LIKE}{each}:N" for each in BUNDLED)])
        raise FileNotFoundError(f"--data must be a folder, a file of vectors, or one of {known}; got {source.data!r}")
    return vectors.read_hdf5(path) if path.suffix in vectors.HDF5 else _of_file(path, source)


def _of_file(path: Path, source: Source) -> Collection:
    if path.suffix not in vectors.SUFFIXES:
        known = ", ".join((*vectors.SUFFIXES, *vectors.HDF5))
        raise ValueError(f"--data must be a folder or a file that ends in {known}; got {path}")
    if source.queries is None:
        raise ValueError(f"--queries must name a file of query vectors where --data is one of documents; got {path}")
    docs, queries = vectors.read(path), vectors.read(source.queries)
    if docs.shape[1] != queries.shape[1]:
        raise ValueError(f"{source.queries} must have {docs.shape[1]} dimensions, as {path}; got {queries.shape[1]}")
    names = numbered(len(docs)), numbered(len(queries))
    return Collection(path.stem, Rows(docs), Rows(queries), *names, metric=source.metric)


def _size(given: str) -> int:
    if not given.isdecimal() or int(given) < 100:
        raise ValueError(f"--data like-NAME:N must have a number of documents of 100 or more; got {given!r}")
    return int(given)

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
    found = _read(source)
    for form, of in (("vectors", _vectors), ("tokens", _tokens)):
        dims = [of(rows) for rows in (found.docs, found.queries)]
        if None not in dims and dims[0] != dims[1]:
            wanted = f"{dims[0]} dimensions, as those of documents"
            raise ValueError(f"{source.data}: the {form} of queries must have {wanted}; got {dims[1]}")
    return found


def _vectors(rows: Rows) -> int | None:
    return None if rows.dense is None else rows.dense.shape[1]


def _tokens(rows: Rows) -> int | None:
    return None if rows.tokens is None else rows.tokens.dim


def _read(source: Source) -> Collection:
    name, _, size = source.data.partition(":")
    path = Path(source.data)
    if source.data in BUNDLED:
        _only(source)
        return BUNDLED[source.data]()
    if name.startswith(LIKE) and name[len(LIKE) :] in BUNDLED:
        _only(source)
        count = _size(size)  # before the time that reading takes
        return made_up.like(BUNDLED[name[len(LIKE) :]](), count)
    if path.is_dir():
        _only(source, "split", "encoder", "model", "metric")
        return beir.read_folder(path, source.split, source.encoder, source.model, source.metric)
    if not path.is_file():
        known = ", ".join([*BUNDLED, *(f"{LIKE}{each}:N" for each in BUNDLED)])
        raise FileNotFoundError(f"--data must be a folder, a file of vectors, or one of {known}; got {source.data!r}")
    if path.suffix in vectors.HDF5:
        _only(source)
        return vectors.read_hdf5(path)
    _only(source, "queries", "metric")
    return _of_file(path, source)


def _only(source: Source, *taken: str) -> None:
    """ValueError for an option that such data do not take: it would be passed over in silence."""
    for option, usual in Source._field_defaults.items():
        if option not in taken and getattr(source, option) != usual:
            raise ValueError(f"--{option} says nothing about --data {source.data}: leave it out")


def _of_file(path: Path, source: Source) -> Collection:
    if path.suffix not in vectors.SUFFIXES:
        known = ", ".join((*vectors.SUFFIXES, *vectors.HDF5))
        raise ValueError(f"--data must be a folder or a file that ends in {known}; got {path}")
    if source.queries is None:
        raise ValueError(f"--queries must name a file of query vectors where --data is one of documents; got {path}")
    docs, queries = vectors.read(path), vectors.read(source.queries)
    names = numbered(len(docs)), numbered(len(queries))
    return Collection(path.stem, Rows(docs), Rows(queries), *names, metric=source.metric)


def _size(given: str) -> int:
    if not given.isdecimal() or int(given) < 100:
        raise ValueError(f"--data like-NAME:N must have a number of documents of 100 or more; got {given!r}")
    return int(given)

"""Named documents in a folder: their records as JSON lines, their vectors beside them.

The folder is one of `pyengine.indexes.storage`: kill -9 at any moment leaves the old store or the new one, whole, and
what was truncated or altered is refused. Its array ``documents`` is the bytes of lines ``{"id": .., "document": ..}``,
``rows`` int64 [n] says which of them have a vector, and ``vectors`` is float32 [n, D].
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from pyengine import checks
from pyengine.indexes import storage
from pyengine.indexes.storage import Saved
from pyengine.integrations.documents import Documents
from pyengine.types import F32

R = TypeVar("R")
KIND = " documents"  # after the name of the library


def save(documents: Documents[R], path: str | os.PathLike[str], encode: Callable[[R], Any]) -> None:
    """Write all documents and the settings to the folder ``path``, which is made, or must be empty or a saved store;
    ``encode`` makes JSON of a record. Others may search and change the store meanwhile.

    Raises TypeError for a record that is not JSON, ValueError for a folder with other things in it.
    """
    found, given = documents.state()
    lines = b"".join(_line(name, encode(record)) for name, record in found)
    rows = np.array([row for row, vector in enumerate(given) if vector is not None], np.int64)
    vectors = np.stack([given[row] for row in rows]) if len(rows) else np.empty((0, 1), np.float32)
    facts = {
        "metric": documents.metric, "language": documents.language, "documents": len(found), "bytes": len(lines),
        "with_vector": len(rows), "dim": vectors.shape[1],
    }  # fmt: skip
    arrays: dict[str, tuple[Any, None]] = {
        "documents": (np.frombuffer(lines, np.uint8), None),
        "rows": (rows, None),
        "vectors": (vectors, None),
    }
    storage.write(checks.path(path, "path"), documents.library + KIND, facts, arrays)


def load(
    path: str | os.PathLike[str], library: str, text: Callable[[R], str], decode: Callable[[Any], R]
) -> Documents[R]:
    """What `save` wrote of this library's documents; ``decode`` undoes its ``encode``.

    Raises FileNotFoundError where nothing is saved, and ValueError, naming the file, for what is altered, truncated,
    or another library's.
    """
    with Saved(checks.path(path, "path")) as saved:
        kind = str(saved.facts["format"]).removeprefix(storage.FORMAT)
        if kind != library + KIND:
            raise ValueError(f"{saved.manifest} must describe {library + KIND!r}; got {kind!r}")
        try:
            documents = Documents(library, text, saved.facts["metric"], saved.facts["language"])
            names, records, vectors = _read(saved, decode)
            documents.put(names, records, vectors)
        except (KeyError, TypeError, IndexError) as error:
            wanted = "must describe documents that this pyengine knows"
            raise ValueError(f"{saved.manifest} {wanted}; got {type(error).__name__} {error}") from None
    return documents


def _line(name: str, record: Any) -> bytes:
    try:
        return json.dumps({"id": name, "document": record}).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise TypeError(f"documents must be JSON to be saved; {name!r} is not ({error})") from None


def _count(saved: Saved, name: str) -> int:
    value = saved.facts.get(name)
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"{saved.manifest} must give {name} as an integer of 0 or more; got {value!r}")
    return value


def _read(saved: Saved, decode: Callable[[Any], R]) -> tuple[list[str], list[R], list[F32 | None]]:
    count, size, n_rows, dim = (_count(saved, each) for each in ("documents", "bytes", "with_vector", "dim"))

    def array(name: str, dtype: Any, *shape: int) -> np.ndarray:
        return saved.array(name, np.dtype(dtype), shape, mapped=False, verify=True)

    lines = [json.loads(line) for line in array("documents", np.uint8, size).tobytes().splitlines()]
    names, rows = [line["id"] for line in lines], array("rows", np.int64, n_rows).tolist()
    if len(set(names)) != count or len(lines) != count or len(set(rows)) != n_rows:
        raise ValueError(f"{saved.manifest} must describe {count} documents, {n_rows} with a vector; got others")
    vectors: list[F32 | None] = [None] * count
    for row, vector in zip(rows, array("vectors", np.float32, n_rows, dim)):
        vectors[row] = vector
    return names, [decode(line["document"]) for line in lines], vectors

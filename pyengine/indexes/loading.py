"""`load`: a saved index, checked."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.backends import registry
from pyengine.indexes.arrays import DiskArray
from pyengine.indexes.contents import Contents
from pyengine.indexes.index import DenseIndex
from pyengine.indexes.multi_vector import MultiVectorIndex
from pyengine.indexes.sparse_index import SparseIndex
from pyengine.indexes.storage import FORMAT, Saved
from pyengine.types import I64

KINDS: dict[str, Any] = {each.kind: each for each in (DenseIndex, MultiVectorIndex, SparseIndex)}


def load(
    path: str | os.PathLike[str],
    mmap: bool = False,
    *,
    verify: bool | None = None,
    backend: str = "auto",
    directory: str | os.PathLike[str] | None = None,
) -> Any:
    """An index that the `save` of `DenseIndex`, `MultiVectorIndex` or `SparseIndex` wrote: one of that class.

    Parameters
    ----------
    path : folder
    mmap : bool
        Map the files instead of reading them: instant, and memory holds what searches touch. The files are never
        written: what is added later goes to memory (or to a file of its own for ``originals="disk"``), to which the
        first `add` copies everything. Who shortens the files of a mapped index ends the process.
    verify : bool, default ``not mmap``
        Compare every byte with its hash. The manifest's own hash, sizes, headers, and that ids and bounds make sense
        are checked in any case.
    backend, directory
        As for these.

    Raises
    ------
    FileNotFoundError
        Nothing is saved there.
    ValueError
        One sentence naming the file that is truncated, altered, missing, foreign, or of a newer format version.
    """
    backend = checks.choice(backend, "backend", ("auto", *registry.names()))
    directory = checks.folder(directory, "directory")
    with Saved(checks.path(path, "path")) as saved:
        index = _empty(saved, directory)
        index.backend = backend
        contents = index._contents
        store, listed = contents.store, saved.facts["arrays"]
        count, largest = _whole(saved, "documents", 0), _whole(saved, "largest_id", -1)
        sizes = {name: _whole(saved, name, 0) for name in store.sizes}
        layout = {"ids": (contents.row_ids.dtype, (count,)), **store.layout(count, sizes, listed)}
        if listed.keys() != layout.keys():
            raise ValueError(f"{saved.manifest} must list the arrays {', '.join(layout)}; got others")
        verified = not mmap if verify is None else verify
        heads = {}
        for name, (dtype, shape) in layout.items():
            mapped = mmap or isinstance(store.arrays.get(name), DiskArray)
            heads[name] = saved.array(name, dtype, shape, mapped, verified)
        ids = heads.pop("ids")
        _check_ids(saved, ids, largest)
        flaw = store.flaw(heads)
        if flaw is not None:
            raise ValueError(f"{saved.manifest} must list {flaw}; got others")
    row_ids, store = contents.row_ids.adopted(ids), store.loaded(heads, count)
    index._contents = Contents(store, row_ids, count, largest_id=largest)
    return index


def _empty(saved: Saved, directory: str | None) -> Any:
    try:
        made: Any = KINDS[saved.facts["format"].removeprefix(FORMAT)]
        facts: dict[str, Any] = {name: saved.facts.get(name) for name in made.settings}
        return made(**facts, directory=directory)
    except KeyError as error:
        *others, last = KINDS
        kinds = f"{', '.join(others)} or {last}"
        raise ValueError(f"{saved.manifest} must describe a {kinds}; got {error.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{saved.manifest} must describe an index that this pyengine knows; got {error}") from None


def _whole(saved: Saved, name: str, least: int) -> int:
    value = saved.facts.get(name)
    if type(value) is not int or not least <= value < 1 << 63:
        raise ValueError(f"{saved.manifest} must give {name} as an integer of {least} or more; got {value!r}")
    return value


def _check_ids(saved: Saved, ids: I64, largest: int) -> None:
    rising = ids if (ids[1:] > ids[:-1]).all() else np.sort(ids)
    if not (rising[1:] > rising[:-1]).all() or ids.min(initial=0) < 0 or ids.max(initial=-1) > largest:
        raise ValueError(f"{saved.manifest} must list ids that are distinct and in 0 .. {largest}; got others")

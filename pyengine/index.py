"""`DenseIndex`: a corpus of vectors that one can add to, remove from, search exactly, and keep on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any

import numpy as np

from pyengine import checks, chunks, dense, exact, ranges, ranks, storage, stores
from pyengine.backends import registry
from pyengine.contents import Contents
from pyengine.explain import Plan, explain
from pyengine.filters import FilterArguments
from pyengine.ids import RowIds
from pyengine.problem import ALL, DenseProblem
from pyengine.reference import METRICS
from pyengine.types import I64, Ranges, TopK

MAX_ID = 2**63 - 1


class DenseIndex:
    """Exact top-k over vectors of one dimension.

    Parameters
    ----------
    dim : int
        D, the dimensions of every vector.
    metric : "cosine", "dot" or "l2"
        See `pyengine.topk`.
    store : "int8", "float32", "float16", "bfloat16", "binary", "residual2", "residual3" or "residual4"
        How vectors are kept. ``float32``, ``float16`` and ``bfloat16`` keep them rounded to that type. The others are
        codes: int8, or 1, 2, 3 or 4 bits a dimension (arXiv 2302.08714) with a step per vector.
    originals : "ram", "disk" or None
        With codes: where the float32 vectors are kept too. Then they define the scores, int8 codes propose with a
        bound, and bit codes rank a search of ``precision="fast"`` (an exact one scans the vectors). "disk" keeps them
        in a file, of which a search reads the candidates only. With None the codes are the vectors: the scores are
        those of their decoded values, exactly.
    backend : "auto" or a name of `pyengine.backends`
    directory : path of a folder
        Where that file takes space, by default with the temporary files. It has no name and goes with the index.

    Raises
    ------
    ValueError, TypeError
        One sentence naming the argument. A failed call changes nothing, nor does one that Ctrl-C stops.

    Searches may run while other threads add and remove: each sees one state of the index, as does `save`.
    """

    def __init__(
        self,
        dim: int,
        metric: str = "cosine",
        store: str = "int8",
        originals: str | None = "ram",
        backend: str = "auto",
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self.dim = checks.positive_int(dim, "dim")
        self.metric = checks.choice(metric, "metric", METRICS)
        self.originals = originals
        self.backend = checks.choice(backend, "backend", ("auto", *registry.names()))
        empty = stores.make(store, originals, self.dim, checks.folder(directory, "directory"))
        self._contents = Contents(empty, RowIds())
        self._lock = RLock()  # of those who change it; who reads `_contents` needs none
        self._changing = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_contents": self._contents.detached(), "_lock": None, "_changing": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())

    def __len__(self) -> int:
        return len(self._contents)

    def __repr__(self) -> str:
        contents = self._contents
        return (
            f"DenseIndex(dim={self.dim}, metric={self.metric!r}, store={contents.store.name!r}, "
            f"documents={len(contents)}, bytes={contents.store.nbytes(contents.n_rows)})"
        )

    @property
    def ids(self) -> I64:
        """The ids in the order that ``mask`` and ``bias`` follow, int64 [len(self)]: that of adding."""
        return self._contents.ids

    @contextmanager
    def _change(self) -> Iterator[Contents]:
        """What to change, one thread at a time; what an earlier failed attempt appended is dropped."""
        with self._lock:
            if self._changing:
                raise RuntimeError("vectors must not come from an iterator that changes the index they are added to")
            self._changing = True
            try:
                self._contents.forget_beyond()
                yield self._contents
            finally:
                self._changing = False

    def add(self, vectors: Any, ids: Any = None) -> None:
        """Add rows [n, D] with ``ids`` int64 [n] (default: counting on from the largest id ever used).

        ``vectors`` may also be a memory map, of which a few megabytes are read at a time, or an iterator of chunks
        [n_i, D]; then ``ids``, if given, is an iterator of their ids [n_i]. One call adds everything or nothing, and
        searches see nothing of it until all is there.

        Raises ValueError for a wrong shape, a row with NaN or inf, or an id that is there already; TypeError for a
        wrong dtype; and whatever an iterator raises. Nothing is added then.
        """
        with self._change() as contents:
            added, largest, total = 0, contents.largest_id, chunks.length(vectors)
            for rows, given in chunks.watched(chunks.pieces(vectors, ids, self.dim), total):
                if added == 0 and total is not None:
                    contents.reserve(total)
                new_ids = _count_on(largest, len(rows)) if given is None else given
                used = new_ids[new_ids <= largest]
                _, known = contents.find(used)
                if known.any():
                    raise ValueError(f"ids must be new; id {used[known][0]} is in the index already")
                with exact.arithmetic():
                    contents.append(rows, new_ids, first=added)
                added, largest = added + len(rows), max(largest, int(new_ids.max()))
            if added:
                self._contents = contents.grown(largest)

    def remove(self, ids: Any) -> None:
        """Remove documents by id, in constant time each: they are masked, until more than half of the rows are and
        `compact` follows by itself. Raises ValueError, removing none, if one of the ids is unknown."""
        gone = checks.id_list(ids)
        with self._change() as contents:
            rows, known = contents.find(gone)
            if not known.all():
                raise ValueError(f"ids must be in the index; id {gone[~known][0]} is not")
            if len(gone):
                left = self._contents = contents.without(rows)
                if 2 * len(left) < left.n_rows:
                    with suppress(MemoryError, OSError):  # it can wait
                        self._contents = left.compacted()

    def compact(self) -> None:
        """Give back the memory of removed documents. Answers stay the same; it takes as long as copying the rest."""
        with self._change() as contents:
            self._contents = contents.compacted()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to the folder ``path``, which is made, or must be empty or a saved index.

        Whatever stops it, and be it kill -9, the folder holds the old index or the new one, whole. Removed documents
        are left out; ``backend`` and ``directory`` are not kept. Others may search and change the index meanwhile.
        Raises ValueError for a folder with other things in it, OSError when the disk is full.
        """
        contents = self._contents
        rows = None if contents.living is None else contents.living.rows
        arrays = {"ids": contents.row_ids, **contents.store.arrays}
        heads = {name: array.head(contents.n_rows) for name, array in arrays.items()}
        facts = {
            "dim": self.dim,
            "metric": self.metric,
            "store": contents.store.name,
            "originals": self.originals,
            "documents": len(contents),
            "largest_id": contents.largest_id,
        }
        storage.write(checks.path(path, "path"), facts, heads, rows)

    @exact.arithmetic()
    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        mask: Any = None,
        allow: Any = None,
        deny: Any = None,
        exclude: Any = None,
        groups: Any = None,
        per_group: int = 1,
        after: Any = None,
        threshold: Any = None,
        bias: Any = None,
        dims: int | None = None,
        precision: str = "exact",
        rescore: int | None = None,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> TopK:
        """The k best documents of each query [Q, D]; arguments, result and errors as for `pyengine.topk`.

        ``ids`` of the result are those given to `add`, and ties go to the smaller of them. ``mask``, ``bias`` and
        ``groups`` follow the order of `ids`.
        """
        filters = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
        problem = self._problem(queries, k, mask=mask, filters=filters, bias=bias, dims=dims, num_threads=num_threads)
        return dense.run(problem, self._backend(backend), precision, like=queries, rescore=rescore)

    @exact.arithmetic()
    def range_search(
        self,
        queries: Any,
        threshold: Any,
        *,
        mask: Any = None,
        allow: Any = None,
        deny: Any = None,
        exclude: Any = None,
        bias: Any = None,
        dims: int | None = None,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Ranges:
        """Every document that reaches the threshold; arguments, result and errors as for `pyengine.range_search`."""
        filters = FilterArguments(allow=allow, deny=deny, exclude=exclude, threshold=ranges.required(threshold))
        problem = self._problem(queries, ALL, mask=mask, filters=filters, bias=bias, dims=dims, num_threads=num_threads)
        return ranges.run(problem, self._backend(backend), like=queries)

    @exact.arithmetic()
    def rank_of(
        self,
        queries: Any,
        targets: Any,
        *,
        mask: Any = None,
        allow: Any = None,
        deny: Any = None,
        exclude: Any = None,
        bias: Any = None,
        dims: int | None = None,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """The exact ranks, int64, of documents ``targets`` (ids [Q] or [Q, T]); arguments and errors as for
        `pyengine.rank_of`."""
        filters = FilterArguments(allow=allow, deny=deny, exclude=exclude)
        problem = self._problem(queries, ALL, mask=mask, filters=filters, bias=bias, dims=dims, num_threads=num_threads)
        return ranks.run(problem, targets, self._backend(backend), like=queries)

    def explain(
        self,
        queries: Any,
        k: int = 10,
        *,
        mask: Any = None,
        allow: Any = None,
        deny: Any = None,
        exclude: Any = None,
        groups: Any = None,
        per_group: int = 1,
        after: Any = None,
        threshold: Any = None,
        bias: Any = None,
        dims: int | None = None,
        precision: str = "exact",
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Plan:
        """The plan of that search, without running it: backend, ISA, tiles, store, expected bytes and operations,
        and what was rejected with the reasons. Arguments and errors as for `search`."""
        filters = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
        problem = self._problem(queries, k, mask=mask, filters=filters, bias=bias, dims=dims, num_threads=num_threads)
        return explain(problem, self._backend(backend), precision)

    def _backend(self, name: str | None) -> str:
        return self.backend if name is None else name

    def _problem(self, queries: Any, k: int, **arguments: Any) -> DenseProblem:
        contents = self._contents  # one state of vectors and ids, which later changes leave alone
        ids = contents.row_ids.head(contents.n_rows)
        return dense.prepare(queries, contents.documents(), k, metric=self.metric, ids=ids, **arguments)


def _count_on(largest: int, count: int) -> I64:
    """The next ``count`` ids above ``largest``."""
    first = largest + 1
    if first + count > MAX_ID:
        raise ValueError(f"ids must be given, since counting on from {first} would pass 2^63-1; got None")
    return first + np.arange(count, dtype=np.int64)

"""`DenseIndex`: a corpus of vectors that one can add to, remove from and search exactly."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np

from pyengine import checks, dense, exact, ranges, ranks
from pyengine.backends import registry
from pyengine.explain import Plan, explain
from pyengine.filters import FilterArguments
from pyengine.problem import ALL, DenseProblem
from pyengine.reference import METRICS
from pyengine.stores import STORES, GrowingArray
from pyengine.types import I64, Ranges, TopK

ORIGINALS = ("ram",)
MAX_ID = 2**63 - 1


class DenseIndex:
    """Exact top-k over vectors of one dimension.

    Parameters
    ----------
    dim : int
        D, the dimensions of every vector.
    metric : "cosine", "dot" or "l2"
        See `pyengine.topk`.
    store : "int8" or "float32"
        What is scanned: int8 codes with a bound per vector (1 byte a dimension, faster), or the vectors (4 bytes).
        The answers are the same bits.
    originals : "ram"
        Where the full vectors are, which refine the candidates.
    backend : "auto" or a name of `pyengine.backends`

    Raises
    ------
    ValueError, TypeError
        One sentence naming the argument. A failed call changes nothing.

    Searches may run while other threads add and remove: each sees one state of the index.
    """

    def __init__(
        self, dim: int, metric: str = "cosine", store: str = "int8", originals: str = "ram", backend: str = "auto"
    ) -> None:
        self.dim = checks.positive_int(dim, "dim")
        self.metric = checks.choice(metric, "metric", METRICS)
        checks.choice(store, "store", tuple(STORES))
        checks.choice(originals, "originals", ORIGINALS)
        self.backend = checks.choice(backend, "backend", ("auto", *registry.names()))
        self._store = STORES[store](self.dim)
        self._ids = GrowingArray(np.int64)
        self._largest_id = -1  # ever used
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def __len__(self) -> int:
        return len(self._ids.view)

    def __repr__(self) -> str:
        return (
            f"DenseIndex(dim={self.dim}, metric={self.metric!r}, store={self._store.name!r}, documents={len(self)}, "
            f"bytes={self._store.nbytes})"
        )

    @property
    def ids(self) -> I64:
        """The ids in the order that ``mask`` and ``bias`` follow, int64 [len(self)]."""
        view: I64 = self._ids.view.view()
        view.flags.writeable = False
        return view

    @exact.arithmetic()
    def add(self, vectors: Any, ids: Any = None) -> None:
        """Add rows [n, D] with ``ids`` int64 [n] (default: counting on from the largest id ever used).

        Raises ValueError for a wrong shape, a row with NaN or inf, or an id that is there already; TypeError for a
        wrong dtype. Nothing is added then.
        """
        rows = checks.vectors(vectors, "vectors", self.dim)
        given = None if ids is None else checks.id_list(ids)
        with self._lock:
            new_ids = self._count_on(len(rows)) if given is None else given
            if len(new_ids) != len(rows):
                raise ValueError(f"ids must have one entry per vector, {len(rows)}; got {len(new_ids)}")
            used = new_ids[new_ids <= self._largest_id]
            known = used[np.isin(used, self._ids.view)] if used.size else used
            if known.size:
                raise ValueError(f"ids must be new; id {known[0]} is in the index already")
            if len(rows) == 0:
                return
            self._ids.reserve(len(rows))
            self._store.append(rows)
            self._ids.append(new_ids)
            self._largest_id = max(self._largest_id, int(new_ids.max()))

    def _count_on(self, count: int) -> I64:
        """The next ``count`` ids that were never used."""
        first = self._largest_id + 1
        if count and first + count > MAX_ID:
            raise ValueError(f"ids must be given, since counting on from {first} would pass 2^63-1; got None")
        return first + np.arange(count, dtype=np.int64) if count else np.empty(0, np.int64)

    def remove(self, ids: Any) -> None:
        """Remove documents by id, in one pass over the index: better many ids in one call than many calls. Raises
        ValueError, removing none, if one of the ids is unknown."""
        gone = checks.id_list(ids)
        with self._lock:
            unknown = gone[~np.isin(gone, self._ids.view)]
            if unknown.size:
                raise ValueError(f"ids must be in the index; id {unknown[0]} is not")
            kept = np.flatnonzero(~np.isin(self._ids.view, gone))
            if len(kept) < len(self):
                kept_ids = self._ids.view[kept]
                self._store.keep(kept)
                self._ids.replace(kept_ids)

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
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Plan:
        """The plan of that search, without running it: backend, ISA, tiles, store, expected bytes and operations,
        and what was rejected with the reasons. Arguments and errors as for `search`."""
        filters = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
        problem = self._problem(queries, k, mask=mask, filters=filters, bias=bias, dims=dims, num_threads=num_threads)
        return explain(problem, self._backend(backend))

    def _backend(self, name: str | None) -> str:
        return self.backend if name is None else name

    def _problem(self, queries: Any, k: int, **arguments: Any) -> DenseProblem:
        with self._lock:  # one state of vectors and ids, which later changes leave alone
            docs, ids = self._store.documents(), self._ids.view
        return dense.prepare(queries, docs, k, metric=self.metric, ids=ids, **arguments)

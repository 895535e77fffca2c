"""`DenseIndex`: a corpus of vectors that one can add to, remove from, search exactly, and keep on disk."""

from __future__ import annotations

import os
from typing import Any

from pyengine import checks
from pyengine.backends.cpu.cpu_plain import PlainDocuments
from pyengine.indexes import chunks, stores
from pyengine.indexes.life import Index
from pyengine.indexes.stores import Store
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import ALL, DenseProblem
from pyengine.refining import exact
from pyengine.searches import dense, plain, ranges, ranks
from pyengine.searches.explain import Plan, explain
from pyengine.specification.reference import METRICS
from pyengine.types import F32, Ranges, TopK


class DenseIndex(Index[Store]):
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

    kind = "DenseIndex"
    settings = ("dim", "metric", "store", "originals")

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
        self.store, self.originals = store, originals
        super().__init__(stores.make(store, originals, self.dim, checks.folder(directory, "directory")), backend)

    def __repr__(self) -> str:
        contents = self._contents
        return (
            f"DenseIndex(dim={self.dim}, metric={self.metric!r}, store={self.store!r}, "
            f"documents={len(contents)}, bytes={contents.store.nbytes(contents.n_rows)})"
        )

    def add(self, vectors: Any, ids: Any = None) -> None:
        """Add rows [n, D] with ``ids`` int64 [n] (default: counting on from the largest id ever used).

        ``vectors`` may also be a memory map, of which a few megabytes are read at a time, or an iterator of chunks
        [n_i, D]; then ``ids``, if given, is an iterator of their ids [n_i]. One call adds everything or nothing, and
        searches see nothing of it until all is there.

        Raises ValueError for a wrong shape, a row with NaN or inf, or an id that is there already; TypeError for a
        wrong dtype; and whatever an iterator raises. Nothing is added then.
        """
        total = chunks.length(vectors)
        self._add(chunks.watched(chunks.vectors(vectors, ids, self.dim), total), total)

    def replace(self, vectors: Any, ids: Any) -> None:
        """Put other vectors in the place of those with these ``ids``, as one change: ``vectors`` and ``ids`` are as for
        `add`, but every id must be in the index. In the order of `ids` they come last."""
        self._add(chunks.vectors(vectors, checks.given(ids, "ids"), self.dim), None, replacing=True)

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
        chosen = self._backend(backend)
        if mask is allow is deny is exclude is groups is after is threshold is bias is dims is rescore is None:
            found = plain.search(
                queries, self._plain(), k, self.metric, precision=precision, per_group=per_group, backend=chosen,
                num_threads=num_threads,
            )  # fmt: skip
            if found is not None:
                return found
        with exact.arithmetic():
            given = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
            problem = self._problem(queries, k, mask=mask, filters=given, bias=bias, dims=dims, num_threads=num_threads)
            return dense.run(problem, chosen, precision, like=queries, rescore=rescore)

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

    def vectors(self, ids: Any) -> F32:
        """The vectors of these documents as they are scored, float32 [n, D]: stored ones converted, codes decoded.
        Raises ValueError for an id that is not in the index."""
        contents = self._contents
        rows = contents.rows_of(checks.id_list(ids))
        found: F32 = contents.store.documents(contents.n_rows, contents.cache, contents.living).rows[rows]
        return found

    def _plain(self) -> PlainDocuments | None:
        contents = self._contents
        if contents.living is not None:
            return None
        return contents.store.plain(contents.n_rows, contents.row_ids.head(contents.n_rows), contents.cache)

    def _problem(self, queries: Any, k: int, **arguments: Any) -> DenseProblem:
        contents = self._contents  # one state of vectors and ids, which later changes leave alone
        ids = contents.row_ids.head(contents.n_rows)
        docs = contents.store.documents(contents.n_rows, contents.cache, contents.living)
        return dense.prepare(queries, docs, k, metric=self.metric, ids=ids, **arguments)

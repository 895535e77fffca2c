"""`SparseIndex`: a corpus of sparse rows that one can add to, remove from, search exactly, and keep on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pyengine import checks
from pyengine.indexes import chunks, segments
from pyengine.indexes.life import Index
from pyengine.indexes.sparse_store import SparseStore
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem import ALL
from pyengine.problems.problem_sparse import SparseProblem, TermRows
from pyengine.refining import exact
from pyengine.searches import ranges
from pyengine.searches.explain import Plan, explain
from pyengine.searches.request import run
from pyengine.searches.sparse import prepare
from pyengine.types import Ranges, TopK

LOOKED_AT = 1 << 22  # terms counted together


class SparseStats(NamedTuple):
    """What a `SparseIndex` holds. ``entries`` are the weights, of rows that were removed too until the index compacts,
    and ``terms`` those of the vocabulary that have one. ``segments`` lists how many rows each covers, and ``pending``
    rows are in none yet. ``row_bytes`` are those of the rows in memory, ``disk_bytes`` those in files for
    ``originals="disk"``, ``posting_bytes`` those of the segments; ``bytes_per_posting`` is memory by entries."""

    documents: int
    removed: int
    entries: int
    terms: int
    segments: tuple[int, ...]
    pending: int
    row_bytes: int
    disk_bytes: int
    posting_bytes: int
    bytes_per_posting: float


class SparseIndex(Index[SparseStore]):
    """Exact top-k by inner product of sparse rows: SPLADE and its kin, uniCOIL, BM25 impacts, binary codes.

    Parameters
    ----------
    n_terms : int
        How many terms there are: rows are over term ids 0 .. n_terms-1.
    weights : "float32", "float16" or "uint8"
        How weights are kept, and what they then are: the input, the input rounded to float16, or step * code + low with
        a step and a low per row and 256 codes from its smallest weight (or 0) to its largest. Scores are exact for
        these.
    originals : "ram" or "disk"
        Where terms and weights of the rows are: in memory, or in files, of which a search by ``cpu`` reads the
        candidates, and the few rows that were not inverted yet. The inverted forms that it reads first are in memory.
    backend : "auto" or a name of `pyengine.backends`
    directory : path of a folder
        Where those files take space, by default with the temporary files. They have no names and go with the index.

    Raises
    ------
    ValueError, TypeError
        One sentence naming the argument. A failed call changes nothing, nor does one that Ctrl-C stops.

    Searches may run while other threads add and remove: each sees one state of the index, as does `save`.
    """

    kind = "SparseIndex"
    settings = ("n_terms", "weights", "originals")

    def __init__(
        self,
        n_terms: int,
        weights: str = "float32",
        originals: str = "ram",
        backend: str = "auto",
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self.n_terms = checks.positive_int(n_terms, "n_terms")
        self.weights, self.originals = weights, originals
        super().__init__(SparseStore(self.n_terms, weights, originals, checks.folder(directory, "directory")), backend)

    def __repr__(self) -> str:
        contents = self._contents
        return (
            f"SparseIndex(n_terms={self.n_terms}, weights={self.weights!r}, documents={len(contents)}, "
            f"entries={contents.store.offsets[contents.n_rows]}, bytes={contents.store.nbytes(contents.n_rows)})"
        )

    def add(self, rows: Any, ids: Any = None) -> None:
        """Add rows with ``ids`` int64 [n] (default: counting on from the largest id ever used).

        ``rows`` is a `pyengine.SparseRows`, whatever `SparseRows.of` takes, or an iterator of chunks of such; then
        ``ids``, if given, is an iterator of their ids. One call adds everything or nothing, and searches see nothing of
        it until all is there.

        Raises ValueError for another number of terms, a row with NaN or inf, weights that float16 or uint8 cannot hold,
        or an id that is there already; TypeError for a wrong dtype; and whatever an iterator raises. Nothing is added
        then.
        """
        with exact.arithmetic():  # not while the caller's iterator runs
            given = rows if isinstance(rows, Iterator) else SparseRows.of(rows, self.n_terms)
        total = chunks.length(given)
        entries = given.nnz if isinstance(given, SparseRows) else 0
        self._add(chunks.watched(chunks.sparse(given, ids, self.n_terms), total), total, entries=entries)

    def replace(self, rows: Any, ids: Any) -> None:
        """Put other rows in the place of those with these ``ids``, as one change: ``rows`` and ``ids`` are as for
        `add`, but every id must be in the index. In the order of `ids` they come last."""
        self._add(chunks.sparse(rows, checks.given(ids, "ids"), self.n_terms), None, replacing=True)

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
        precision: str = "exact",
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> TopK:
        """The k best documents of each query; queries as for `pyengine.sparse_topk`, filters as for `pyengine.topk`.

        ``ids`` of the result are those given to `add`, and ties go to the smaller of them. ``mask``, ``bias`` and
        ``groups`` follow the order of `ids`. A document that shares no term with the query scores 0 (and its bias).
        """
        filters = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
        problem = self._problem(queries, k, mask=mask, filters=filters, bias=bias, num_threads=num_threads)
        return run(problem, self._backend(backend), precision, like=queries)

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
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Ranges:
        """Every document that reaches the threshold; arguments and errors as for `search`, the result as for
        `pyengine.range_search`.

        Scores of documents without shared terms are 0 (and their bias), so that a query without terms has every
        document in range of a threshold of 0 or below, and without a bias none of one above.
        """
        filters = FilterArguments(allow=allow, deny=deny, exclude=exclude, threshold=ranges.required(threshold))
        problem = self._problem(queries, ALL, mask=mask, filters=filters, bias=bias, num_threads=num_threads)
        return ranges.run(problem, self._backend(backend), like=queries)

    @exact.arithmetic()
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
        precision: str = "exact",
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> Plan:
        """The plan of that search, without running it: see `pyengine.DenseIndex.explain`."""
        filters = FilterArguments(allow, deny, exclude, groups, per_group, after, threshold)
        problem = self._problem(queries, k, mask=mask, filters=filters, bias=bias, num_threads=num_threads)
        return explain(problem, self._backend(backend), precision)

    def rows(self, ids: Any) -> SparseRows:
        """The rows of these documents, decoded: what `pyengine.explain_terms` takes, for one."""
        contents = self._contents
        return contents.store.term_rows(contents.n_rows).decoded(contents.rows_of(checks.id_list(ids)))

    def stats(self) -> SparseStats:
        """Counts and bytes; it looks at every term."""
        contents = self._contents
        rows, postings = contents.store.term_rows(contents.n_rows), contents.store.postings
        disk_bytes = contents.store.disk_bytes(contents.n_rows)
        row_bytes = contents.store.nbytes(contents.n_rows) - disk_bytes
        posting_bytes = sum(array.nbytes for each in postings for array in each.arrays.values())
        return SparseStats(
            documents=len(contents),
            removed=len(rows) - len(contents),
            entries=rows.nnz,
            terms=_distinct(rows),
            segments=tuple(each.count for each in postings),
            pending=len(rows) - segments.covered(postings),
            row_bytes=row_bytes,
            disk_bytes=disk_bytes,
            posting_bytes=posting_bytes,
            bytes_per_posting=(row_bytes + posting_bytes) / rows.nnz if rows.nnz else 0.0,
        )

    def _problem(self, queries: Any, k: int, **arguments: Any) -> SparseProblem:
        contents = self._contents  # one state of rows and ids, which later changes leave alone
        ids = contents.row_ids.head(contents.n_rows)
        docs = contents.store.documents(contents.n_rows, contents.cache, contents.living)
        return prepare(queries, docs, k, ids=ids, **arguments)


def _distinct(rows: TermRows) -> int:
    """How many terms have a weight, without an array of all terms."""
    seen = np.empty(0, rows.terms.dtype)
    for start in range(0, rows.nnz, LOOKED_AT):
        seen = np.union1d(seen, rows.terms[start : start + LOOKED_AT])
    return len(seen)

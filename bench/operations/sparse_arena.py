"""The arena of sparse search: documents are `sparse_text.Documents`, queries `pyengine.SparseRows`, or a list of them
where they are asked one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.operations.arena import Arena
from bench.operations.token_arena import offered
from bench.ours.contestants import Answer, Contestant, Search, first_two
from bench.racing import gate
from bench.workloads import sparse_data, sparse_text
from bench.workloads.shapes import Workload
from bench.workloads.sparse_shapes import Asking, SparseCorpus
from bench.workloads.sparse_text import Documents
from pyengine.inputs.sparse_rows import SparseRows


class SparseArena(Arena):
    """One corpus, queries of several kinds: `Arena.queries` is how many there may be of each."""

    scans = False

    def load(self, n_queries: int) -> tuple[Documents, Any]:
        return documents(self.corpus), n_queries

    def asked(self, workload: Workload) -> Any:
        queries = self._kind(workload).part(slice(0, workload.n_queries))
        return [queries.part(slice(at, at + 1)) for at in range(len(queries))] if _apart(workload) else queries

    def _kind(self, workload: Any) -> SparseRows:
        """All queries of that workload's kind."""
        asking = workload.asking
        return self.keep(asking, lambda: queries(self.corpus, self.docs, self.queries, asking))

    @property
    def n_vectors(self) -> int:
        """Postings: what bytes are counted by."""
        docs: Documents = self.docs
        return docs.rows.nnz

    def search(self, who: Contestant, workload: Workload) -> Search:
        search = super().search(who, workload)
        return one_by_one(search) if _apart(workload) else search

    def reader(self, who: Contestant, workload: Workload) -> Callable[[Any], Answer]:
        return one_after_another(who.read) if _apart(workload) else who.read

    def work(self, workload: Workload) -> tuple[float, int]:
        """The postings of the queries' lists: of each query those of all its terms where they are asked one by one,
        else of all queries together those of each term once."""
        frequency = self.keep(
            "frequency", lambda: np.bincount(self.docs.rows.indices, minlength=self.docs.rows.n_terms)
        )
        terms = self._kind(workload).part(slice(0, workload.n_queries)).indices
        read = terms if _apart(workload) else np.unique(terms)
        return float(frequency[read].sum()), 2 * int(frequency[terms].sum())

    def judged_on(self, docs: Any, workload: Workload) -> gate.Truth:
        rows = docs.rows if isinstance(docs, Documents) else docs
        return gate.SparseSpecification(rows, self._kind(workload))

    def truth(self, workload: Any) -> gate.Truth:
        return self.keep(("truth", workload.asking), lambda: self.judged_on(self.docs, workload))

    def search_exactly(self, workload: Workload) -> Answer:
        asked = self._kind(workload).part(slice(0, workload.n_queries))
        return first_two(offered("sparse_topk")(asked, self.docs.rows, workload.k))

    def _speed_key(self, who: Contestant, workload: Any) -> Any:
        return (*super()._speed_key(who, workload), workload.asking)


def documents(corpus: SparseCorpus) -> Documents:
    """Raises FileNotFoundError where real data is asked for that is not there."""
    if corpus.data == "scifact":
        return sparse_text.scifact()
    if corpus.data == "text":
        return sparse_text.made_up(corpus.n_docs)
    if corpus.data != "splade":
        raise ValueError(f"data of sparse rows must be 'splade', 'text' or 'scifact'; got {corpus.data!r}")
    return Documents(sparse_data.documents(corpus.n_docs, sparse_data.SPLADE)[0])


def queries(corpus: SparseCorpus, docs: Documents, n_queries: int, asking: Asking) -> SparseRows:
    """So many of that kind for that corpus; real ones are as they are."""
    if docs.asked is not None:
        return docs.asked
    law = sparse_data.TEXT if corpus.data == "text" else sparse_data.SPLADE
    made = sparse_data.queries(n_queries, law, *asking)
    return sparse_text.unweighted(made) if corpus.data == "text" else made


def _apart(workload: Workload) -> bool:
    return bool(getattr(workload, "apart", False))


def one_by_one(search: Search) -> Search:
    """Of a list of queries: a call for each."""
    return lambda queries, k: [search(query, k) for query in queries]


def one_after_another(read: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """The answer of all, from the results of each."""

    def every(results: Any) -> Answer:
        scores, ids = zip(*map(read, results))
        return np.concatenate(scores), np.concatenate(ids)

    return every

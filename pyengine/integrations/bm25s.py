"""bm25s with this engine's search: the library's class, whose `retrieve` is exact.

    import bm25s
    from pyengine.integrations.bm25s import BM25

    retriever = BM25(method="lucene")
    retriever.index(bm25s.tokenize(texts))
    documents, scores = retriever.retrieve(bm25s.tokenize(["a question"]), k=10)

Tokens, weights and files are the library's, so that `load` takes what it saved, and it what `save` wrote. The weights
are packed at the first `retrieve`, in memory, with ``mmap=True`` too. Read against bm25s 0.3.16. (`pyengine.BM25` needs
no bm25s, and has weights of its own.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.indexes.sparse_index import SparseIndex
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.integrations import parts
from pyengine.searches.sparse import sparse_topk
from pyengine.types import F32

LIBRARY = "bm25s"
bm25s = parts.library("bm25s", LIBRARY)
tokenization = parts.library("bm25s.tokenization", LIBRARY)
Original: Any = bm25s.BM25
DIFFERENCES = (
    "ties go to the smaller document number, so that documents without a word of the query fill up in their order",
    "scores are float32, summed in float64 from the library's weights, rounded to float32",
    "results always come sorted; chunksize and backend_selection change nothing",
    "a query of ids of which none is known scores 0 everywhere, also without an empty token",
    "a weight_mask that is not finite is a ValueError",
)


class BM25(Original):
    """`bm25s.BM25`: index, retrieve, get_scores, save, load."""

    _packed: tuple[Any, SparseIndex] | None = None  # the library's scores, and what they were packed to

    def retrieve(
        self,
        query_tokens: Any,
        corpus: Any = None,
        k: int = 10,
        sorted: bool = True,
        return_as: str = "tuple",
        show_progress: bool = True,
        leave_progress: bool = False,
        n_threads: int = 0,
        chunksize: int = 50,
        backend_selection: str = "auto",
        weight_mask: Any = None,
    ) -> Any:
        """`bm25s.Results` with documents [Q, k] (their numbers, or entries of the corpus) and scores float32 [Q, k], or
        the documents alone. ``query_tokens`` are lists of words or of ids, or a `Tokenized`; ``n_threads`` 0 is one,
        -1 all. ValueError for a k above the number of documents, and for a weight_mask that is not an array [N].

        A ``weight_mask`` multiplies the scores; all weights are then packed anew.
        """
        count = self.scores["num_docs"]
        if k > count:
            raise ValueError(f"k must be at most the number of documents, {count}; got {k}")
        checks.choice(return_as, "return_as", ("tuple", "documents"))
        if weight_mask is not None and (not isinstance(weight_mask, np.ndarray) or weight_mask.shape != (count,)):
            got = f"shape {weight_mask.shape}" if isinstance(weight_mask, np.ndarray) else type(weight_mask).__name__
            raise ValueError(f"weight_mask must be a numpy array of shape ({count},), one for each document; got {got}")
        if weight_mask is not None and self.nonoccurrence_array is not None:  # which differs from query to query
            return super().retrieve(
                query_tokens, corpus, k, sorted, return_as, show_progress, leave_progress, n_threads, chunksize,
                backend_selection, weight_mask,
            )  # fmt: skip
        asked = self._asked(query_tokens)
        threads = None if n_threads == -1 else max(1, n_threads)
        if weight_mask is None:
            found = self._index().search(asked, k, num_threads=threads)
        else:
            found = sparse_topk(asked, self._weighted(weight_mask), k, num_threads=threads)
        documents = _entries(self.corpus if corpus is None else corpus, found.ids)
        return documents if return_as == "documents" else bm25s.Results(documents, self._whole(found.scores, asked))

    def _index(self) -> SparseIndex:
        if self._packed is None or self._packed[0] is not self.scores:
            rows = self._rows()
            index = SparseIndex(rows.n_terms)
            index.add(rows)
            self._packed = self.scores, index
        return self._packed[1]

    def _rows(self) -> SparseRows:
        """The library's weights, which it keeps term by term, document by document."""
        data, docs, indptr = (self.scores[name] for name in ("data", "indices", "indptr"))
        terms = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        order = np.argsort(docs, kind="stable")
        ends = np.cumsum(np.bincount(docs, minlength=self.scores["num_docs"]))
        return SparseRows(np.concatenate([[0], ends]), terms[order], data[order], max(1, len(indptr) - 1))

    def _weighted(self, weights: Any) -> SparseRows:
        rows = self._index().rows(self._index().ids)
        values = rows.values * np.repeat(weights.astype(np.float64), rows.lengths)
        return SparseRows(rows.indptr, rows.indices, values, rows.n_terms)

    def _asked(self, query_tokens: Any) -> SparseRows:
        """How often each query has each known term."""
        if isinstance(query_tokens, tuple) and len(query_tokens) == 2 and isinstance(query_tokens[1], Mapping):
            query_tokens = tokenization.convert_tokenized_to_string_list(tokenization.Tokenized(*query_tokens))
        n_terms = max(1, len(self.scores["indptr"]) - 1)
        rows = []
        for query in query_tokens:
            if isinstance(query, str) or not all(isinstance(token, (str, int, np.integer)) for token in query):
                raise ValueError(f"query_tokens must be lists of words or of their ids; got {query!r}")
            words = any(isinstance(token, str) for token in query)
            known = self.get_tokens_ids(query) if words else [i for i in query if i in self.unique_token_ids_set]
            rows.append([each for each in known if each < n_terms])  # the empty token is one that no document has
        ends = np.cumsum([0, *map(len, rows)])
        return SparseRows(ends, np.array([each for row in rows for each in row], np.int64), None, n_terms)

    def _whole(self, scores: F32, asked: SparseRows) -> F32:
        """With what bm25l and bm25+ give a document for the words that it lacks."""
        if self.nonoccurrence_array is None:
            return scores
        weights = self.nonoccurrence_array.astype(np.float64)[asked.indices] * asked.values
        owner = np.repeat(np.arange(len(asked)), asked.lengths)
        added = np.bincount(owner, weights, minlength=len(asked))[:, None]
        return (scores + added).astype(np.float32)


def _entries(corpus: Any, ids: Any) -> Any:
    """What the corpus has under these numbers."""
    if corpus is None:
        return ids
    if isinstance(corpus, np.ndarray) and corpus.ndim == 1:
        return corpus[ids]
    return np.array([corpus[each] for each in ids.ravel().tolist()]).reshape(ids.shape)

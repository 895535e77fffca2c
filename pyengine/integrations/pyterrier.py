"""PyTerrier transformers with this engine: retrieval by vectors and by words, and scores by late interaction.

    from pyengine.integrations.pyterrier import BM25Retriever, DenseRetriever, MaxSimScorer

    pipeline = BM25Retriever(documents) % 100 >> MaxSimScorer(tokens, docnos, encode)
    pipeline = DenseRetriever(index, docnos, encode)

Read against pyterrier 1.1. Importing this needs PyTerrier, and starts no Java. Scores are larger for what is better:
squared distances are negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.indexes.index import DenseIndex
from pyengine.indexes.multi_vector import MultiVectorIndex
from pyengine.indexes.sparse_index import SparseIndex
from pyengine.integrations import parts
from pyengine.lexical.bm25 import BM25
from pyengine.lexical.text import Analyzer
from pyengine.lexical.text_search import ABOVE_ZERO
from pyengine.specification.reference import rank_score
from pyengine.types import TopK

LIBRARY = "pyterrier"
pt = parts.library("pyterrier", LIBRARY)
pd = parts.library("pandas", LIBRARY)
Transformer: Any = pt.Transformer
DIFFERENCES = (
    "ties go to the smaller id of the index (MaxSimScorer: as add_ranks has them, to the row that comes first)",
    "BM25Retriever is `pyengine.BM25` over words of its own analyzer, not Terrier's",
)
OF_A_RESULT = ("docno", "score", "rank")
Encoder = Callable[[list[str]], Any]


class _Retriever(Transformer):
    """From a frame of queries to the best documents of each, from rank 0 on."""

    num_results: int
    docnos: list[str]

    def transform(self, inp: Any) -> Any:
        """A frame with the columns of the queries, and docno, score and rank."""
        columns = self.transform_outputs(list(inp.columns))
        queries = inp[[name for name in columns if name not in OF_A_RESULT]]
        if not len(inp):
            return pd.DataFrame({name: queries.get(name, pd.Series(dtype=_dtype(name))) for name in columns})
        found = self._found(inp, min(self.num_results, len(self.docnos)))
        row, place = np.nonzero(found.ids >= 0)
        result = queries.iloc[row].reset_index(drop=True)
        result["docno"] = [self.docnos[each] for each in found.ids[row, place].tolist()]
        result["score"] = found.scores[row, place].astype(np.float64)
        result["rank"] = place
        return result

    def transform_outputs(self, input_columns: list[str]) -> list[str]:
        """The columns of the result. InputValidationError for columns that do not do."""
        self._validate(input_columns)
        return [name for name in input_columns if name not in OF_A_RESULT] + list(OF_A_RESULT)

    def fuse_rank_cutoff(self, k: int) -> Any:
        """The same with fewer results, where PyTerrier compiles ``retriever % k``."""
        if k >= self.num_results:
            return self
        fewer = copy(self)
        fewer.num_results = k
        return fewer

    def _validate(self, columns: list[str]) -> None:
        raise NotImplementedError

    def _found(self, inp: Any, k: int) -> TopK:
        raise NotImplementedError


class DenseRetriever(_Retriever):
    """Documents of a `pyengine.DenseIndex` with the ids 0 .. N-1, whose names are ``docnos`` [N].

    The queries' vectors are in the column query_vec, or made by ``encode`` (a list of texts in, [n, D] out) of the
    column query.
    """

    def __init__(
        self, index: DenseIndex, docnos: Sequence[str], encode: Encoder | None = None, num_results: int = 1000
    ) -> None:
        self.index, self.encode = index, encode
        self.docnos = _names(docnos, index.ids)
        self.num_results = checks.positive_int(num_results, "num_results")

    def _validate(self, columns: list[str]) -> None:
        _either(self, columns, "query_vec", self.encode, ["qid"])

    def _found(self, inp: Any, k: int) -> TopK:
        rows = np.stack(inp["query_vec"].tolist()) if "query_vec" in inp else self.encode(inp["query"].tolist())  # type: ignore[misc]
        found = self.index.search(checks.vectors(rows, "query_vec"), k)
        return found._replace(scores=rank_score(found.scores, self.index.metric))


class BM25Retriever(_Retriever):
    """BM25 (`pyengine.BM25`, of which ``settings`` are the parameters) over documents, dictionaries with docno and
    text. Those without a word of the query are left out. ``analyze`` makes a list of terms of a text; None is
    `pyengine.Analyzer`, English with stems (needs PyStemmer)."""

    def __init__(
        self,
        documents: Iterable[Mapping[str, Any]],
        analyze: Callable[[str], list[str]] | None = None,
        num_results: int = 1000,
        **settings: Any,
    ) -> None:
        self.analyze = Analyzer() if analyze is None else analyze
        self.num_results = checks.positive_int(num_results, "num_results")
        records = list(documents)
        self.model = BM25.fit((self.analyze(each["text"]) for each in records), **settings)
        self.index = SparseIndex(self.model.docs.n_terms)
        self.index.add(self.model.docs)
        self.docnos = _names([each["docno"] for each in records], self.index.ids)

    def _validate(self, columns: list[str]) -> None:
        pt.validate.columns(columns, includes=["qid", "query"], context=self)

    def _found(self, inp: Any, k: int) -> TopK:
        asked = self.model.queries(map(self.analyze, inp["query"].tolist()))
        return self.index.search(asked, k, threshold=ABOVE_ZERO)


class MaxSimScorer(Transformer):
    """Late interaction scores for the documents (docno) that a frame lists, which are in a `pyengine.MultiVectorIndex`
    with the ids 0 .. N-1 and the names ``docnos`` [N].

    The queries' tokens [L, D] are in the column query_embs, or made by ``encode`` (a list of texts in, a list of arrays
    [L_i, D] out) of the column query. Rows keep their order; score and rank are new.
    """

    def __init__(self, index: MultiVectorIndex, docnos: Sequence[str], encode: Encoder | None = None) -> None:
        self.index, self.encode = index, encode
        self.rows = {name: row for row, name in enumerate(_names(docnos, index.ids))}

    def transform(self, inp: Any) -> Any:
        """The frame with the columns score and rank. ValueError for a docno that the index has not."""
        result = inp[self.transform_outputs(list(inp.columns))[:-2]].copy()
        unknown = [name for name in inp["docno"] if name not in self.rows]
        if unknown:
            raise ValueError(f"docno must name documents of the index; {unknown[0]!r} does not")
        result["score"] = self._scores(inp) if len(inp) else pd.Series(dtype=np.float64)
        return pt.model.add_ranks(result)

    def transform_outputs(self, input_columns: list[str]) -> list[str]:
        """The columns of the result. InputValidationError for columns that do not do."""
        _either(self, input_columns, "query_embs", self.encode, ["qid", "docno"])
        return [name for name in input_columns if name not in ("score", "rank")] + ["score", "rank"]

    def _scores(self, inp: Any) -> Any:
        query, first = np.unique(inp["qid"].to_numpy(str), return_index=True)
        once = inp.iloc[first]
        tokens = once["query_embs"].tolist() if "query_embs" in inp else self.encode(once["query"].tolist())  # type: ignore[misc]
        owner = np.searchsorted(query, inp["qid"].to_numpy(str))
        pairs = np.stack([owner, [self.rows[name] for name in inp["docno"]]], axis=1)
        asked = [checks.vectors(each, "query_embs", self.index.dim) for each in tokens]
        return np.asarray(self.index.pairs(asked, pairs), np.float64)


def _either(transformer: Any, columns: list[str], given: str, encode: Encoder | None, others: list[str]) -> None:
    """Columns must have what is ``given`` or, with an encoder, the query."""
    with pt.validate.any(columns, context=transformer) as checked:
        checked.columns(includes=[*others, given], mode=given)
        if encode is not None:
            checked.columns(includes=[*others, "query"], mode="query")


def _names(docnos: Sequence[str], ids: Any) -> list[str]:
    names = list(map(str, docnos))
    if len({*names}) != len(ids) or len(names) != len(ids):
        raise ValueError(f"docnos must be {len(ids)} distinct names, one for each document; got {len({*names})}")
    if not np.array_equal(np.sort(ids), np.arange(len(ids))):
        raise ValueError(f"index must have the ids 0 .. {len(ids) - 1}; it has others")
    return names


def _dtype(name: str) -> Any:
    return {"score": np.float64, "rank": np.int64}.get(name, object)

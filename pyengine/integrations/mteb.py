"""MTEB with this engine: an index for its encoders, and BM25 and late interaction from texts to results.

    import mteb
    from mteb.models import SearchEncoderWrapper
    from pyengine.integrations.mteb import BM25Search, ExactIndex, LateInteractionSearch

    mteb.evaluate(SearchEncoderWrapper(model, index_backend=ExactIndex(model)), tasks)
    mteb.evaluate(BM25Search(), tasks)
    mteb.evaluate(LateInteractionSearch(model), tasks)  # whose embeddings are token vectors

Read against mteb 2.26.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.indexes.index import DenseIndex
from pyengine.indexes.multi_vector import MultiVectorIndex
from pyengine.indexes.sparse_index import SparseIndex
from pyengine.integrations import parts, runs
from pyengine.lexical.bm25 import BM25
from pyengine.lexical.text import Analyzer
from pyengine.lexical.text_search import ABOVE_ZERO
from pyengine.searches.dense import topk
from pyengine.types import F32, I64, TopK

LIBRARY = "mteb"
DIFFERENCES = (
    "ties go to the document that comes first in the corpus (reranking: in the list), not to an arbitrary one",
    "scores are those of the float64 specification, rounded to float32; runs of BM25Search and LateInteractionSearch "
    "keep equal ones a float32 apart",
    "an embedding with NaN or inf is a ValueError",
    "BM25Search returns no documents without a word of the query",
)
METRICS = {"cosine": "cosine", "dot": "dot", "euclidean": "l2"}  # mteb's names
TopRanked = Mapping[str, Sequence[str]]


class ExactIndex:
    """An `IndexEncoderSearchProtocol`, as `FaissSearchIndex` is one: for a model (anything with ``mteb_model_meta``)
    whose similarity is cosine, dot or euclidean."""

    def __init__(self, model: Any) -> None:
        name = model.mteb_model_meta.similarity_fn_name
        self.metric = METRICS[checks.choice(getattr(name, "value", name), "the model's similarity", tuple(METRICS))]
        self.clear()

    def clear(self) -> None:
        """Drop all documents."""
        self.idxs: list[str] = []
        self.index: DenseIndex | None = None

    def add_documents(self, embeddings: Any, idxs: Sequence[str]) -> None:
        """Embeddings [n, D] of the documents with these names."""
        names = list(idxs)
        rows = checks.vectors(embeddings, "embeddings")
        if len(names) != len(rows):
            raise ValueError(f"idxs must be {len(rows)} names, one for each embedding; got {len(names)}")
        index = DenseIndex(rows.shape[1], metric=self.metric) if self.index is None else self.index
        index.add(rows)
        self.index, self.idxs = index, self.idxs + names

    def search(
        self,
        embeddings: Any,
        top_k: int,
        similarity_fn: Callable[..., Any] | None = None,
        top_ranked: TopRanked | None = None,
        query_idx_to_id: Mapping[int, str] | None = None,
    ) -> tuple[list[list[float]], list[list[int]]]:
        """(scores, places) of the ``top_k`` best, or all that there are, for each embedding [Q, D], best first: places
        in the corpus, or with ``top_ranked`` in the list of the query. ``similarity_fn`` is not asked; distances are
        negative, and not squared."""
        if self.index is None:
            raise ValueError("search needs documents; got none (call add_documents first)")
        rows = checks.vectors(embeddings, "embeddings", self.index.dim)
        if top_ranked is None:
            return self._listed([self.index.search(rows, min(top_k, len(self.index)))])
        names = checks.given(query_idx_to_id, "query_idx_to_id")
        candidates = _candidates([names[row] for row in range(len(rows))], top_ranked, self.idxs)
        return self._listed([self._rerank(rows[q : q + 1], each, top_k) for q, each in enumerate(candidates)])

    def _rerank(self, query: F32, candidates: I64, top_k: int) -> TopK:
        wanted, again = np.unique(candidates, return_inverse=True)
        docs = checks.given(self.index, "index").vectors(wanted)[again]
        return topk(query, docs, max(1, min(top_k, len(docs))), metric=self.metric)

    def _listed(self, found: list[TopK]) -> tuple[list[list[float]], list[list[int]]]:
        scores, places = [], []
        for values, row in ((v, r) for each in found for v, r in zip(each.scores, each.ids)):
            better = -np.sqrt(values) if self.metric == "l2" else values
            scores.append(better[row >= 0].tolist())
            places.append(row[row >= 0].tolist())
        return scores, places


class _Search:
    """A `SearchProtocol`: what is common to those that search texts."""

    mteb_model_meta: Any
    names: list[str] | None = None

    def index(
        self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, encode_kwargs: Any,
        num_proc: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Index a corpus with the columns id, text and perhaps title."""
        task = {"task_metadata": task_metadata, "hf_split": hf_split, "hf_subset": hf_subset}
        self._index(_loader(corpus, "document", task_metadata, encode_kwargs, num_proc), task, encode_kwargs)
        self.names = list(corpus["id"])

    def search(
        self, queries: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, top_k: int, encode_kwargs: Any,
        top_ranked: TopRanked | None = None, num_proc: int | None = None, **kwargs: Any,
    ) -> runs.Run:  # fmt: skip
        """{query id: {document id: score}}, the ``top_k`` best of each; with ``top_ranked`` of those it lists."""
        if self.names is None:
            raise ValueError("search needs a corpus; got none (call index first)")
        task = {"task_metadata": task_metadata, "hf_split": hf_split, "hf_subset": hf_subset}
        asked = self._asked(_loader(queries, "query", task_metadata, encode_kwargs, num_proc), task, encode_kwargs)
        query_ids, k = list(queries["id"]), min(top_k, len(self.names))
        if top_ranked is None:
            return runs.of(self._found(asked, k, None), self.names, query_ids)
        run: runs.Run = {}
        for row, each in enumerate(_candidates(query_ids, top_ranked, self.names)):
            found = self._found(asked[row : row + 1], k, np.unique(each))
            run |= runs.of(found, self.names, query_ids[row : row + 1])
        return run

    def _index(self, loader: Any, task: dict[str, Any], encode_kwargs: Any) -> None:
        raise NotImplementedError

    def _asked(self, loader: Any, task: dict[str, Any], encode_kwargs: Any) -> list[Any]:
        """The queries, for `_found`."""
        raise NotImplementedError

    def _found(self, asked: list[Any], k: int, allow: I64 | None) -> TopK:
        raise NotImplementedError


class BM25Search(_Search):
    """BM25 (`pyengine.BM25`, of which ``settings`` are the parameters) over the words of title and text.

    ``analyze`` makes a list of terms of a text; None is `pyengine.Analyzer`, English with stems (needs PyStemmer).
    """

    def __init__(self, analyze: Callable[[str], list[str]] | None = None, **settings: Any) -> None:
        self.analyze = Analyzer() if analyze is None else analyze
        self.settings = settings
        meta = {"name": "pyengine/bm25", "revision": "1", "modalities": ["text"]}
        self.mteb_model_meta = parts.library("mteb.models", LIBRARY).ModelMeta.create_empty(meta)

    def _index(self, loader: Any, task: dict[str, Any], encode_kwargs: Any) -> None:
        self.model = BM25.fit(self._asked(loader, task, encode_kwargs), **self.settings)
        self.rows = SparseIndex(self.model.docs.n_terms)
        self.rows.add(self.model.docs)

    def _asked(self, loader: Any, task: dict[str, Any], encode_kwargs: Any) -> list[Any]:
        return [self.analyze(text) for batch in loader for text in batch["text"]]

    def _found(self, asked: list[Any], k: int, allow: I64 | None) -> TopK:
        return self.rows.search(self.model.queries(asked), k, allow=allow, threshold=ABOVE_ZERO)


class LateInteractionSearch(_Search):
    """MaxSim over the token vectors of a model: an mteb encoder whose ``encode`` (or, in `MultiVectorWrapper`,
    ``_encode``) returns a list of arrays or tensors [L_i, D]. ``settings`` are those of `pyengine.MultiVectorIndex`."""

    def __init__(self, model: Any, **settings: Any) -> None:
        self.encode = model.encode if hasattr(model, "encode") else model._encode
        self.settings = settings
        self.mteb_model_meta = model.mteb_model_meta

    def _index(self, loader: Any, task: dict[str, Any], encode_kwargs: Any) -> None:
        docs = self._tokens(loader, "document", task, encode_kwargs)
        self.tokens = MultiVectorIndex(docs[0].shape[1], **self.settings)
        self.tokens.add(docs)

    def _asked(self, loader: Any, task: dict[str, Any], encode_kwargs: Any) -> list[Any]:
        return self._tokens(loader, "query", task, encode_kwargs)

    def _found(self, asked: list[Any], k: int, allow: I64 | None) -> TopK:
        return self.tokens.search(asked, k, allow=allow)

    def _tokens(self, loader: Any, kind: str, task: dict[str, Any], encode_kwargs: Any) -> list[F32]:
        made = self.encode(loader, **task, prompt_type=_prompt_type(kind), **encode_kwargs)
        return [checks.vectors(each, "the model's embeddings") for each in made]


def _loader(rows: Any, kind: str, task_metadata: Any, encode_kwargs: Any, num_proc: int | None) -> Any:
    made = parts.library("mteb._create_dataloaders", LIBRARY).create_dataloader
    options = {"task_metadata": task_metadata, "prompt_type": _prompt_type(kind), "num_proc": num_proc}
    return made(rows, **options, **encode_kwargs)


def _prompt_type(kind: str) -> Any:
    return parts.library("mteb.types", LIBRARY).PromptType(kind)


def _candidates(query_ids: Sequence[str], top_ranked: TopRanked, names: Sequence[str]) -> list[I64]:
    """The rows of the documents that each query may find, in the order of its list; none for one without a list."""
    rows = {name: row for row, name in enumerate(names)}
    unknown = [name for query in query_ids for name in top_ranked.get(query) or () if name not in rows]
    if unknown:
        raise ValueError(f"top_ranked must list documents that were indexed; {unknown[0]!r} was not")
    return [np.array([rows[name] for name in top_ranked.get(query) or ()], np.int64) for query in query_ids]

"""BEIR's exact search with this engine, for whatever has ``encode_queries`` and ``encode_corpus``.

    from beir.retrieval.evaluation import EvaluateRetrieval
    from pyengine.integrations.beir import ExactSearch

    results = EvaluateRetrieval(ExactSearch(model), score_function="cos_sim").retrieve(corpus, queries)

Read against beir 2.2. Importing this needs beir.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.integrations import parts, runs
from pyengine.searches.dense import topk
from pyengine.types import TopK

LIBRARY = "beir"
BaseSearch: Any = parts.library("beir.retrieval.search", LIBRARY).BaseSearch
DIFFERENCES = (
    "one query is enough (the library's exact search raises IndexError)",
    "an embedding with NaN or inf is a ValueError, not a score of -1",
    "ties go to the document that comes first in the corpus, and keep a float32 of distance in the results, which come "
    "best first",
    "the corpus is encoded in its own order, not the longest document first",
    "files of embeddings hold NumPy's .npz, whatever their names end in, and no pickles",
)
METRICS = {"cos_sim": "cosine", "dot": "dot"}  # BEIR's names


class ExactSearch(BaseSearch):
    """`DenseRetrievalExactSearch`, with its arguments. ``corpus_chunk_size`` documents are encoded and searched at a
    time; no matrix of scores is made, whatever it is."""

    def __init__(self, model: Any, batch_size: int = 128, corpus_chunk_size: int = 50_000, **kwargs: Any) -> None:
        self.model = model
        self.corpus_chunk_size = checks.positive_int(corpus_chunk_size, "corpus_chunk_size")
        self.options = {
            "batch_size": checks.positive_int(batch_size, "batch_size"),
            "show_progress_bar": kwargs.get("show_progress_bar", True),
            "convert_to_tensor": kwargs.get("convert_to_tensor", True),
        }
        self.results: runs.Run = {}

    def search(
        self,
        corpus: Mapping[str, Mapping[str, str]],
        queries: Mapping[str, str],
        top_k: int,
        score_function: str = "cos_sim",
        return_sorted: bool = False,
        **kwargs: Any,
    ) -> runs.Run:
        """{query id: {document id: score}}, the ``top_k`` best of each but for a document of the query's own id, by
        ``cos_sim`` or ``dot``."""
        metric = METRICS[checks.choice(score_function, "score_function", tuple(METRICS))]
        own = {name: row for row, name in enumerate(queries)}
        encoded = ((self._encoded(corpus, chunk), chunk) for chunk in self._chunks(corpus))
        return self._found(self._asked(queries), list(queries), encoded, top_k, metric, own)

    def encode(
        self,
        corpus: Mapping[str, Mapping[str, str]],
        queries: Mapping[str, str],
        encode_output_path: str = "./embeddings/",
        overwrite: bool = False,
        query_filename: str = "queries.pkl",
        corpus_filename: str = "corpus.*.pkl",
        **kwargs: Any,
    ) -> None:
        """Write the embeddings of the queries, and of the corpus in chunks whose numbers take the place of the star.
        Files that are there stay, and are not encoded again, unless ``overwrite``."""
        folder = Path(encode_output_path)
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite or not (folder / query_filename).exists():
            _write(folder / query_filename, self._asked(queries), list(queries))
        for number, chunk in enumerate(self._chunks(corpus)):
            target = folder / corpus_filename.replace("*", str(number))
            if overwrite or not target.exists():
                _write(target, self._encoded(corpus, chunk), chunk)

    def search_from_files(
        self,
        query_embeddings_file: str,
        corpus_embeddings_files: Sequence[str],
        top_k: int,
        score_function: str = "dot",
        **kwargs: Any,
    ) -> runs.Run:
        """`search` of what `encode` wrote, one file at a time; documents of a query's own id are found, too."""
        metric = METRICS[checks.choice(score_function, "score_function", tuple(METRICS))]
        asked, query_ids = _read(query_embeddings_file)
        return self._found(asked, query_ids, map(_read, corpus_embeddings_files), top_k, metric, {})

    def _asked(self, queries: Mapping[str, str]) -> Any:
        return self.model.encode_queries(list(queries.values()), **self.options)

    def _chunks(self, corpus: Mapping[str, Any]) -> Iterator[list[str]]:
        """The names of the documents, ``corpus_chunk_size`` at a time."""
        names = list(corpus)
        return (names[start : start + self.corpus_chunk_size] for start in range(0, len(names), self.corpus_chunk_size))

    def _encoded(self, corpus: Mapping[str, Any], names: list[str]) -> Any:
        return self.model.encode_corpus([corpus[name] for name in names], **self.options)

    def _found(
        self,
        asked: Any,
        query_ids: list[str],
        chunks: Iterable[tuple[Any, list[str]]],
        k: int,
        metric: str,
        own: Mapping[str, int],
    ) -> runs.Run:
        """Search chunk by chunk; a query does not find the document of its own name, where ``own`` has its row."""
        names: list[str] = []
        best = TopK(np.empty((len(query_ids), 0), np.float32), np.empty((len(query_ids), 0), np.int64), None)
        for docs, chunk in chunks:
            itself = np.full((len(query_ids), 1), -1)
            for place, name in enumerate(chunk):
                if name in own:
                    itself[own[name]] = place
            found = topk(asked, docs, min(k, len(chunk)), metric=metric, exclude=itself)
            ids = checks.host_array(found.ids, "ids")
            placed = np.where(ids < 0, -1, ids + len(names))
            best = _better(best, TopK(checks.host_array(found.scores, "scores"), placed, None), k)
            names += chunk
        self.results = runs.of(best, names, query_ids)
        return self.results


def _better(a: TopK, b: TopK, k: int) -> TopK:
    """The k best of both, ties to those of ``a``."""
    scores, ids = np.concatenate([a.scores, b.scores], axis=1), np.concatenate([a.ids, b.ids], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return TopK(np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1), None)


def _write(path: Path, embeddings: Any, names: Sequence[str]) -> None:
    with path.open("wb") as file:
        np.savez(file, embeddings=checks.vectors(embeddings, "embeddings"), ids=np.array(names, dtype=str))


def _read(path: str) -> tuple[Any, list[str]]:
    try:
        with np.load(path, allow_pickle=False) as held:
            return held["embeddings"], held["ids"].tolist()
    except (ValueError, EOFError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} must hold embeddings that ExactSearch.encode wrote; it does not") from None

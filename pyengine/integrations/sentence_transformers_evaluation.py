"""The evaluator and the mining of hard negatives of sentence-transformers, whose searches make no score matrix.

`InformationRetrievalEvaluator` is a subclass of the library's; `patch` of `sentence_transformers` also gives its
`compute_all_metrics` to the library's class, and so to the evaluators of sparse models and NanoBEIR. Scores are those
of the specification; a score function that is not the library's cosine, product or distance is left to the library.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from pyengine.inputs.sparse_rows import SparseRows
from pyengine.integrations import faiss as exact_faiss
from pyengine.integrations import sentence_transformers_parts as parts
from pyengine.types import F32, I64

EVALUATION = parts.library("sentence_transformer.evaluation.information_retrieval")
Base: Any = EVALUATION.InformationRetrievalEvaluator
SIMILARITIES = {"cosine": "cosine", "dot": "dot", "euclidean": "l2"}  # the names of a model's
CUTS = ("mrr_at_k", "ndcg_at_k", "accuracy_at_k", "precision_recall_at_k", "map_at_k")


def compute_all_metrics(
    self: Any, model: Any, corpus_model: Any = None, corpus_embeddings: Any = None, output_path: str | None = None
) -> dict[str, Any]:
    """The metrics for each score function: of the best documents by score, equal ones by ascending corpus id."""
    metrics = {name: _metric(function) for name, function in self.score_functions.items()}
    if None in metrics.values():
        own = parts.REPLACED.get("compute_all_metrics", Base.compute_all_metrics)
        return own(self, model, corpus_model, corpus_embeddings, output_path)  # type: ignore[no-any-return]
    prompts = {"prompt_name": self.query_prompt_name, "prompt": self.query_prompt}
    queries = parts.matrix(self.embed_inputs(model, self.queries, encode_fn_name="query", **prompts))
    k = max(max(getattr(self, cut)) for cut in CUTS)
    best = dict.fromkeys(metrics, (np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)))
    ranks = self.get_corpus_id_ranks().numpy()
    for start, rows in _chunks(self, model if corpus_model is None else corpus_model, corpus_embeddings):
        order = np.argsort(ranks[start : start + len(rows)])  # so that the smaller of equal rows is the smaller id
        rows = rows.take(order) if isinstance(rows, SparseRows) else rows[order]
        for name, metric in metrics.items():
            found = parts.search(queries, rows, min(k, len(rows)), str(metric))
            places = start + order[np.asarray(found.ids)]
            best[name] = _merged(best[name], (parts.scored(found, str(metric)), places), ranks, k)
    hits = {name: _hits(self, *each) for name, each in best.items()}
    if self.write_predictions and output_path is not None:
        _write_predictions(self, hits, output_path)
    return _reported(self, hits)


class InformationRetrievalEvaluator(Base):
    """The library's, with its arguments and metrics, and exact: it keeps the best documents of each query, and never
    holds the scores of all."""

    compute_all_metrics = compute_all_metrics
    compute_metrices = compute_all_metrics


def mine_hard_negatives(*arguments: Any, **named: Any) -> Any:
    """The library's, with its arguments, with an exact search for the candidates, with or without ``use_faiss``; faiss
    need not be there. Without it, the similarity of a model that is neither cosine nor product is left to the library.
    The progress bar says FAISS all the same."""
    own = parts.own("mine_hard_negatives")
    call = inspect.signature(own).bind(*arguments, **named)
    call.apply_defaults()
    if not call.arguments["use_faiss"] and _metric(call.arguments["model"].similarity) not in ("cosine", "dot"):
        return own(*call.args, **call.kwargs)
    call.arguments["use_faiss"] = True
    with _exact_faiss():
        return own(*call.args, **call.kwargs)


@contextmanager
def _exact_faiss() -> Iterator[None]:
    """Within the block ``import faiss`` gives a module with our `IndexFlatIP` alone."""
    before = {name: sys.modules[name] for name in ("faiss",) if name in sys.modules}
    module: Any = ModuleType("faiss")
    module.__spec__, module.IndexFlatIP = ModuleSpec("faiss", None), exact_faiss.IndexFlatIP
    sys.modules["faiss"] = module
    try:
        yield
    finally:
        del sys.modules["faiss"]
        sys.modules.update(before)


def _metric(function: Any) -> str | None:
    """What a score function, or the ``similarity`` of one of the library's models, is here."""
    owner = getattr(function, "__self__", None)
    if owner is not None and getattr(function, "__module__", "").startswith("sentence_transformers."):
        return SIMILARITIES.get(owner.similarity_fn_name)
    return parts.metric_of(function)


def _chunks(self: Any, model: Any, embeddings: Any) -> Iterator[tuple[int, Any]]:
    """The documents' embeddings, as many at a time as the evaluator says, and the number of the first."""
    from tqdm import trange

    size = self.corpus_chunk_size
    prompts = {"prompt_name": self.corpus_prompt_name, "prompt": self.corpus_prompt}
    whole = None if embeddings is None else parts.matrix(embeddings)
    for start in trange(0, len(self.corpus), size, desc="Corpus Chunks", disable=not self.show_progress_bar):
        stop = min(start + size, len(self.corpus))
        if whole is None:
            yield (
                start,
                parts.matrix(self.embed_inputs(model, self.corpus[start:stop], encode_fn_name="document", **prompts)),
            )
        else:
            yield start, whole.take(np.arange(start, stop)) if isinstance(whole, SparseRows) else whole[start:stop]


def _merged(best: tuple[F32, I64], more: tuple[F32, I64], ranks: I64, k: int) -> tuple[F32, I64]:
    """Of scores and places [Q, any] the k best, equal ones by the ranks of their ids."""
    scores = np.concatenate([best[0], more[0]], axis=1)
    places = np.concatenate([best[1], more[1]], axis=1)
    order = np.lexsort((ranks[places], -scores))[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)


def _hits(self: Any, scores: F32, places: I64) -> list[list[dict[str, Any]]]:
    rows = zip(places.tolist(), scores.tolist())
    return [[{"corpus_id": self.corpus_ids[at], "score": score} for at, score in zip(*row)] for row in rows]


def _write_predictions(self: Any, hits: dict[str, Any], output_path: str) -> None:
    os.makedirs(output_path, exist_ok=True)
    for name, found in hits.items():
        path = os.path.join(output_path, self.predictions_file.replace(".jsonl", f"_{name}.jsonl"))
        with open(path, "w", encoding="utf-8") as file:
            for query_id, query, results in zip(self.queries_ids, self.queries, found):
                file.write(json.dumps({"query_id": query_id, "query": query, "results": results}) + "\n")


def _reported(self: Any, hits: dict[str, Any]) -> dict[str, Any]:
    """The metrics of the hits, logged as the library does."""
    EVALUATION.logger.info(f"Queries: {len(self.queries)}")
    EVALUATION.logger.info(f"Corpus: {len(self.corpus)}\n")
    scores = {name: self.compute_metrics(found) for name, found in hits.items()}
    for name in self.score_function_names:
        EVALUATION.logger.info(f"Score-Function: {name}")
        self.output_scores(scores[name])
    return scores

"""The searches of `sentence_transformers.util`, without score matrices."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from pyengine import checks
from pyengine.indexes.index import DenseIndex
from pyengine.indexes.sparse_index import SparseIndex
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.integrations import sentence_transformers_parts as parts
from pyengine.types import I64, TopK

Hits: TypeAlias = list[list[dict[str, int | float]]]


def semantic_search(
    query_embeddings: Any,
    corpus_embeddings: Any,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: Callable[..., Any] | None = None,
) -> Hits:
    """For each query the ``top_k`` best of the corpus, as dictionaries with ``corpus_id`` and ``score``, best first.

    Parameters
    ----------
    query_embeddings, corpus_embeddings : [Q, D] and [N, D], or [D] for one query
        Tensors (dense, or sparse COO), arrays, or lists of either or of numbers. The corpus may be a `DenseIndex` or a
        `SparseIndex`, whose ids are then the ``corpus_id``.
    score_function : cos_sim (default), dot_score or euclidean_sim of the library
        Any other is handed to the library's own `semantic_search`.

    Sparse rows are scored as `pyengine.sparse_topk` does; for cos_sim they are first divided by their lengths, in
    float64, and rounded to float32.
    """
    metric = "cosine" if score_function is None else parts.metric_of(score_function)
    if metric is None:
        own = parts.own("semantic_search")
        return own(  # type: ignore[no-any-return]
            query_embeddings, corpus_embeddings, query_chunk_size, corpus_chunk_size, top_k, score_function
        )
    queries = parts.matrix(query_embeddings)
    packed = isinstance(corpus_embeddings, (DenseIndex, SparseIndex))
    corpus = corpus_embeddings if packed else parts.matrix(corpus_embeddings)
    n_queries, n_docs = len(queries), len(corpus)
    if n_queries == 0 or n_docs == 0:
        return [[] for _ in range(n_queries)]
    return _hits(parts.search(queries, corpus, min(checks.positive_int(top_k, "top_k"), n_docs), metric), metric)


def semantic_search_pyengine(
    query_embeddings: Any, corpus_embeddings: Any = None, corpus_index: Any = None, top_k: int = 10,
    output_index: bool = False,
) -> tuple[Hits, float] | tuple[Hits, float, SparseIndex]:  # fmt: skip
    """Sparse embeddings by dot product, in the form of the library's `semantic_search_seismic` and the like: the hits,
    the seconds that the search took, and, where ``output_index``, the index, which may be given the next time.

    Embeddings are sparse COO tensors [n, V], scipy matrices, `SparseRows` or lists of dicts {term: weight}. Raises
    ValueError unless exactly one of ``corpus_embeddings`` and ``corpus_index`` is given.
    """
    if (corpus_embeddings is None) == (corpus_index is None):
        raise ValueError("one of corpus_embeddings and corpus_index must be given, and not both")
    if corpus_index is None:
        rows = SparseRows.of(corpus_embeddings, name="corpus_embeddings")
        corpus_index = SparseIndex(rows.n_terms)
        corpus_index.add(rows)
    start = perf_counter()
    queries = SparseRows.of(query_embeddings, corpus_index.n_terms, name="query_embeddings")
    hits = _hits(parts.search(queries, corpus_index, checks.positive_int(top_k, "top_k"), "dot"), "dot")
    seconds = perf_counter() - start
    return (hits, seconds, corpus_index) if output_index else (hits, seconds)


def paraphrase_mining_embeddings(
    embeddings: Any,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Callable[..., Any] | None = None,
) -> list[list[float | int]]:
    """The pairs [score, i, j], i < j, of which one is among the ``top_k`` nearest of the other: the ``max_pairs`` best,
    best first, equal ones by i and j. Arguments as for `semantic_search`."""
    metric = "cosine" if score_function is None else parts.metric_of(score_function)
    if metric is None:
        own = parts.own("paraphrase_mining_embeddings")
        return own(  # type: ignore[no-any-return]
            embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
        )
    rows = parts.matrix(embeddings)
    if len(rows) < 2:
        return []
    own_row = np.arange(len(rows))[:, None]
    found = parts.search(rows, rows, min(checks.positive_int(top_k, "top_k"), len(rows) - 1), metric, exclude=own_row)
    scores, ids = parts.scored(found, metric), np.asarray(found.ids)
    listed = ids >= 0
    first, second = np.minimum(ids, own_row)[listed], np.maximum(ids, own_row)[listed]
    _, once = np.unique(first * len(rows) + second, return_index=True)  # both ways round, to the bit the same
    first, second, scores = first[once], second[once], scores[listed][once]
    best = np.lexsort((second, first, -scores))[:max_pairs]
    return [[float(scores[at]), int(first[at]), int(second[at])] for at in best]


def community_detection(
    embeddings: Any,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Communities of at least ``min_community_size`` embeddings, the largest first: a centre, then those whose cosine
    with it is at least ``threshold``, best first. None is in two. ``show_progress_bar`` needs tqdm."""
    rows = parts.matrix(embeddings)
    if len(rows) < max(1, min_community_size):
        return []
    index = DenseIndex(rows.shape[1])
    index.add(rows)
    starts: Any = range(0, len(rows), batch_size)
    if show_progress_bar:
        from tqdm.auto import tqdm

        starts = tqdm(starts, desc="Finding clusters")
    near: list[tuple[int, I64]] = []
    for start in starts:
        found = index.range_search(rows[start : start + batch_size], float(np.float32(threshold)))
        lists = np.split(np.asarray(found.ids), np.asarray(found.offsets)[1:-1])
        near += [(start + i, ids) for i, ids in enumerate(lists) if len(ids) >= min_community_size]
    return _apart(near, len(rows), min_community_size)


def _apart(near: list[tuple[int, I64]], count: int, least: int) -> list[list[int]]:
    """Of overlapping communities the larger keeps what they share."""
    taken, kept = np.zeros(count, bool), []
    for centre, members in sorted(near, key=lambda each: -len(each[1])):
        left = members[~taken[members]]
        if not taken[centre] and len(left) >= least:
            kept.append([centre, *left[left != centre].tolist()])
            taken[kept[-1]] = True
    return sorted(kept, key=len, reverse=True)


def _hits(found: TopK, metric: str) -> Hits:
    scores = parts.scored(found, metric).tolist()
    ids = (found.ids.cpu() if checks.is_torch(found.ids) else found.ids).tolist()
    return [[{"corpus_id": id_, "score": score} for id_, score in zip(*row) if id_ >= 0] for row in zip(ids, scores)]

"""The searches of `sentence_transformers.util`, exact and without score matrices: the same arguments and results.

    import pyengine.integrations.sentence_transformers as exact_util

    hits = exact_util.semantic_search(query_embeddings, corpus_embeddings, top_k=10)

or, for code that is not yours, ``with exact_util.patched():`` (also `patch` and `unpatch`). A corpus that is searched
often is packed once: a `pyengine.DenseIndex` of its vectors is taken in the place of ``corpus_embeddings``.

Read against sentence-transformers 6.2. Different from it, everywhere here: ties go to the smaller id; scores are those
of the float64 specification, rounded to float32, and do not depend on the chunk sizes, which are ignored; an embedding
with NaN or inf is a ValueError that names the row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from pyengine import checks
from pyengine.dense import topk
from pyengine.index import DenseIndex
from pyengine.sparse import sparse_topk
from pyengine.sparse_index import SparseIndex
from pyengine.sparse_rows import SparseRows
from pyengine.types import I64, TopK

LIBRARY = "sentence-transformers"
Hits: TypeAlias = list[list[dict[str, int | float]]]
METRICS = {  # the names of the library's score functions
    "cos_sim": "cosine",
    "pytorch_cos_sim": "cosine",
    "dot_score": "dot",
    "euclidean_sim": "l2",
}
PATCHED = ("semantic_search", "paraphrase_mining_embeddings", "community_detection")
_replaced: dict[str, Any] = {}  # by name, the library's functions while it is patched


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
    metric = "cosine" if score_function is None else _metric(score_function)
    if metric is None:
        own = _library("semantic_search")
        return own(  # type: ignore[no-any-return]
            query_embeddings, corpus_embeddings, query_chunk_size, corpus_chunk_size, top_k, score_function
        )
    queries = _matrix(query_embeddings)
    corpus = corpus_embeddings if _packed(corpus_embeddings) else _matrix(corpus_embeddings)
    n_queries, n_docs = len(queries), len(corpus)
    if n_queries == 0 or n_docs == 0:
        return [[] for _ in range(n_queries)]
    return _hits(_search(queries, corpus, min(checks.positive_int(top_k, "top_k"), n_docs), metric), metric)


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
    hits = _hits(_search(queries, corpus_index, checks.positive_int(top_k, "top_k"), "dot"), "dot")
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
    metric = "cosine" if score_function is None else _metric(score_function)
    if metric is None:
        own = _library("paraphrase_mining_embeddings")
        return own(  # type: ignore[no-any-return]
            embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
        )
    rows = _matrix(embeddings)
    if len(rows) < 2:
        return []
    own_row = np.arange(len(rows))[:, None]
    found = _search(rows, rows, min(checks.positive_int(top_k, "top_k"), len(rows) - 1), metric, exclude=own_row)
    scores, ids = _scored(found, metric), np.asarray(found.ids)
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
    rows = _matrix(embeddings)
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
        parts = np.split(np.asarray(found.ids), np.asarray(found.offsets)[1:-1])
        near += [(start + i, ids) for i, ids in enumerate(parts) if len(ids) >= min_community_size]
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


def patch() -> None:
    """Put these functions in the place of the library's wherever its modules hold them. Twice is once."""
    if _replaced:
        return
    for name in PATCHED:
        _replaced[name] = _library(name)
        _swap(_replaced[name], globals()[name])


def unpatch() -> None:
    """Put the library's own functions back."""
    for name in list(_replaced):
        _swap(globals()[name], _replaced.pop(name))


@contextmanager
def patched() -> Iterator[None]:
    """`patch` within the block, unless it was patched before."""
    before = bool(_replaced)
    patch()
    try:
        yield
    finally:
        if not before:
            unpatch()


def _swap(old: Any, new: Any) -> None:
    modules = [each for name, each in list(sys.modules.items()) if name.split(".")[0] == "sentence_transformers"]
    for module in modules:
        for name in [name for name, value in vars(module).items() if value is old]:
            setattr(module, name, new)


def _library(name: str) -> Any:
    """The library's own function."""
    if name in _replaced:
        return _replaced[name]
    try:
        from sentence_transformers import util
    except ModuleNotFoundError as error:
        raise ImportError(
            "this needs sentence-transformers, which is not installed: run 'pip install sentence-transformers'"
        ) from error
    return getattr(util, name)


def _metric(score_function: Callable[..., Any]) -> str | None:
    """What a score function of the library is here; None for another, or one that is not its own."""
    module, name = (getattr(score_function, each, "") for each in ("__module__", "__name__"))
    return METRICS.get(name) if module.split(".")[0] == "sentence_transformers" else None


def _packed(corpus: Any) -> bool:
    return isinstance(corpus, (DenseIndex, SparseIndex))


def _matrix(embeddings: Any) -> Any:
    """As the engine takes them: an array or a tensor [n, D], or `SparseRows`."""
    if isinstance(embeddings, (list, tuple)) and embeddings and all(checks.is_torch(each) for each in embeddings):
        torch = sys.modules["torch"]
        embeddings = torch.stack(list(embeddings))
    if isinstance(embeddings, SparseRows):
        return embeddings
    if checks.is_torch(embeddings) and embeddings.is_sparse:
        return SparseRows.of(embeddings if embeddings.dim() == 2 else embeddings[None], name="embeddings")
    rows = embeddings if checks.is_torch(embeddings) else np.asarray(embeddings)
    return rows[None] if rows.ndim == 1 and rows.shape[0] else rows


def _search(queries: Any, corpus: Any, k: int, metric: str, exclude: Any = None) -> TopK:
    if isinstance(corpus, DenseIndex):
        if corpus.metric != metric:
            raise ValueError(f"corpus_embeddings must be an index with metric {metric!r}; got {corpus.metric!r}")
        return corpus.search(queries, k, exclude=exclude)
    if isinstance(corpus, SparseIndex):
        if metric != "dot":
            raise ValueError(
                f"corpus_embeddings must be dense for this score function; got a SparseIndex, for {metric!r}"
            )
        return corpus.search(queries, k, exclude=exclude)
    if not isinstance(queries, SparseRows) and not isinstance(corpus, SparseRows):
        queries = queries.to(checks.device_of(corpus) or "cpu") if checks.is_torch(queries) else queries
        return topk(queries, corpus, k, metric=metric, exclude=exclude)
    return sparse_topk(_sparse(queries, metric), _sparse(corpus, metric), k, exclude=exclude)


def _sparse(rows: Any, metric: str) -> SparseRows:
    if metric == "l2":
        raise ValueError("score_function must be cos_sim or dot_score for sparse embeddings; got euclidean_sim")
    if not isinstance(rows, SparseRows):
        dense = checks.host_array(rows, "embeddings").astype(np.float32, copy=False)
        lengths, (_, terms) = np.count_nonzero(dense, axis=1), np.nonzero(dense)
        rows = SparseRows(np.concatenate([[0], np.cumsum(lengths)]), terms, dense[dense != 0], dense.shape[1])
    if metric == "dot":
        return rows  # type: ignore[no-any-return]
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    values = rows.values.astype(np.float64)
    lengths = np.sqrt(np.bincount(owner, values**2, minlength=len(rows)))
    return SparseRows(rows.indptr, rows.indices, (values / lengths[owner]).astype(np.float32), rows.n_terms)


def _scored(found: TopK, metric: str) -> Any:
    """The scores as the library has them: distances are negative, and not squared."""
    scores = np.asarray(found.scores.cpu() if checks.is_torch(found.scores) else found.scores)
    return -np.sqrt(scores) if metric == "l2" else scores


def _hits(found: TopK, metric: str) -> Hits:
    scores = _scored(found, metric).tolist()
    ids = (found.ids.cpu() if checks.is_torch(found.ids) else found.ids).tolist()
    return [[{"corpus_id": id_, "score": score} for id_, score in zip(*row) if id_ >= 0] for row in zip(ids, scores)]

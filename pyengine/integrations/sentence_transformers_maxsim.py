"""MaxSim of sentence-transformers: `util.maxsim` and its kin, and the scorers that multi-vector losses train with.

The library's rules hold: results are float32 tensors on the documents' device; without a mask, rows of zeros in padded
embeddings are padding; a document without tokens scores -1e9, with a warning; a query mask of numbers weights tokens.

Different from the library: scores are those of the float64 specification, rounded once (what is not float32 is
converted to it first), and do not depend on ``chunk_elements``, which is ignored; a token with NaN or inf is a
ValueError; a mask of one row serves all rows of pairs too; in a list nothing is behind an item's end, whatever a mask
says (in the library that depends on ``chunk_elements``). XTR's scorers stay the library's own: its top k over all
tokens of a batch needs the similarities that MaxSim does without.

Documents that are scored often are packed once: `maxsim` takes a `pyengine.Ragged` or a `MultiVectorIndex` of them. Who
wants the best of many documents asks `MultiVectorIndex.search`, which looks at most of them once, in int8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pyengine import maxsim as scored_all
from pyengine import maxsim_pairs as scored_pairs
from pyengine.indexes.multi_vector import MultiVectorIndex
from pyengine.inputs.ragged import Ragged
from pyengine.integrations import sentence_transformers_parts as parts
from pyengine.integrations.sentence_transformers_tokens import Side, device_of, side, stacked
from pyengine.types import F32, I64

EMPTY = -1e9  # of a document without tokens
BLOCK = 1 << 22  # numbers of documents in lists, or with padding, that are put together at a time: 16 MiB


def maxsim(
    a: Any,
    b: Any,
    a_mask: Any = None,
    b_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: Any = None,
) -> Any:
    """Tensor float32 [n, m]: the MaxSim of every query with every document.

    Parameters
    ----------
    a, b : [n, L, D], a list of n [L_i, D], or one [L, D]
        Queries and documents: tensors or arrays of real numbers. ``b`` may be a `Ragged`, or a `MultiVectorIndex` that
        does not normalize, without a mask, whose documents are in the order of its ids.
    a_mask, b_mask : [n, L] or [1, L], a list of n [L_i], or [L] for one
        Tokens of 0 or False take part in nothing; other numbers in ``a_mask`` multiply the maxima.
    length_normalize : divide by the number of query tokens
    device : where to compute, if not where the documents are

    With gradients, or tensors on an accelerator, this is `pyengine.torch.maxsim`. Raises ValueError for a mask of
    another width than the tokens', and as `pyengine.maxsim`.
    """
    return _scores(a, b, (a_mask, b_mask), length_normalize, device)


def maxsim_pairwise(
    a: Any,
    b: Any,
    a_mask: Any = None,
    b_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: Any = None,
) -> Any:
    """Tensor float32 [n]: the MaxSim of each query with the document of the same number. Arguments as for `maxsim`."""
    return _scores(a, b, (a_mask, b_mask), length_normalize, device, _same)


def mean_maxsim(
    a: Any,
    b: Any,
    a_mask: Any = None,
    b_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: Any = None,
) -> Any:
    """`maxsim` over the number of query tokens."""
    return _scores(a, b, (a_mask, b_mask), length_normalize, device)


def mean_maxsim_pairwise(
    a: Any,
    b: Any,
    a_mask: Any = None,
    b_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: Any = None,
) -> Any:
    """`maxsim_pairwise` over the number of query tokens."""
    return _scores(a, b, (a_mask, b_mask), length_normalize, device, _same)


def colbert_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Any:
    """Tensor float32 [Q, G * N]: `maxsim` of queries [Q, Lq, D] with G groups of N documents, [G, N, Ld, D] with a mask
    [G, N, Ld]; document n of group g is column ``g * N + n``."""
    docs, mask = stacked(documents_embeddings), documents_mask
    mask = None if mask is None else mask.reshape(-1, mask.shape[-1])
    return _scores(stacked(queries_embeddings), docs.flatten(0, 1), (queries_mask, mask), length_normalize)


def colbert_kd_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Any:
    """Tensor float32 [Q, N]: `maxsim` of each query with its own N documents, [Q, N, Ld, D]."""
    queries, docs, mask = stacked(queries_embeddings), stacked(documents_embeddings), documents_mask
    mask = None if mask is None else mask.reshape(-1, mask.shape[-1])
    count, width = docs.shape[:2]
    if len(queries) != count:
        raise ValueError(f"documents_embeddings must have a group for each of {len(queries)} queries; got {count}")

    def own(n_queries: int, n_docs: int) -> I64:
        return np.stack([np.arange(n_docs) // width, np.arange(n_docs)], axis=1)

    return _scores(queries, docs.flatten(0, 1), (queries_mask, mask), length_normalize, pairs_of=own).view(count, width)


def colbert_scores_pairwise(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Any:
    """Tensor float32 [n]: `maxsim_pairwise`."""
    masks = queries_mask, documents_mask
    return _scores(queries_embeddings, documents_embeddings, masks, length_normalize, pairs_of=_same)


def _scores(
    a: Any,
    b: Any,
    masks: tuple[Any, Any],
    mean: bool,
    device: Any = None,
    pairs_of: Callable[[int, int], I64] | None = None,
) -> Any:
    """The scores of all pairs, [n, m], or of those [P, 2] that ``pairs_of`` n queries and m documents says, [P]."""
    import torch

    packed = isinstance(b, (Ragged, MultiVectorIndex))
    queries, docs = side(a, masks[0], "a"), Side("b", b) if packed else side(b, masks[1], "b")
    home = device_of(b) or device_of(a) or torch.device("cpu")
    pairs = None if pairs_of is None else pairs_of(len(queries.rows), len(docs.rows))
    if not len(queries.rows) or not len(docs.rows):
        shape = (len(queries.rows), len(docs.rows)) if pairs is None else (0,)
        return torch.zeros(shape, device=home)
    where = home if device is None else torch.device(device)
    if where.type != "cpu" or parts.outside(a, b):
        scores = _by_torch(queries, docs, mean, where, pairs).to(home)
    else:
        scores = torch.from_numpy(_by_engine(queries, docs, mean, pairs)).to(home)
    return _with_empty(scores, queries, docs, mean, pairs)


def _by_engine(queries: Side, docs: Side, mean: bool, pairs: I64 | None) -> F32:
    tokens, weights = queries.part(slice(0, None)), queries.weights()
    options: dict[str, Any] = {"reduce": "mean" if mean and weights is None else "sum", "query_weights": weights}
    if isinstance(docs.rows, MultiVectorIndex):
        if docs.rows.normalize:
            raise ValueError("b must be an index with normalize=False: these are products, not cosines")
        index, ids = docs.rows, docs.rows.ids
        scores = (
            index.scores(tokens, **options)
            if pairs is None
            else index.pairs(tokens, np.stack([pairs[:, 0], ids[pairs[:, 1]]], axis=1), **options)
        )
    elif pairs is not None:
        scores = scored_pairs(tokens, _whole(docs), pairs, **options)
    else:
        scores = np.concatenate([scored_all(tokens, part, **options) for part in _blocks(docs, tokens.dim)], axis=1)
    if mean and weights is not None:
        counts = np.maximum(tokens.lengths, 1).astype(np.float32)
        scores = scores / (counts[:, None] if pairs is None else counts[pairs[:, 0]])
    found: F32 = scores
    return found


def _whole(docs: Side) -> Ragged:
    return docs.rows if isinstance(docs.rows, Ragged) else docs.part(slice(0, None))


def _blocks(docs: Side, dim: int) -> Iterator[Ragged]:
    """The documents, in parts that stay in a cache; whole where they lie as the engine takes them."""
    if isinstance(docs.rows, Ragged):
        yield docs.rows
        return
    count = len(docs.rows)
    tokens = sum(map(len, docs.rows))
    step = max(1, BLOCK * count // max(1, tokens * dim))
    for start in range(0, count, step):
        yield docs.part(slice(start, start + step))


def _by_torch(queries: Side, docs: Side, mean: bool, device: Any, pairs: I64 | None) -> Any:
    import torch

    from pyengine import torch as differentiable

    if isinstance(docs.rows, (Ragged, MultiVectorIndex)):
        raise ValueError("b must be tensors where there are gradients or accelerators; it is packed")
    if queries.weights() is not None:
        raise ValueError("a_mask must hold 0 and 1 where there are gradients or accelerators; it has other numbers")
    (tokens, real), (others, others_real) = queries.tensors(device), docs.tensors(device)
    return differentiable.maxsim(
        tokens, others, queries_mask=real, docs_mask=others_real, reduce="mean" if mean else "sum",
        pairs=None if pairs is None else torch.from_numpy(pairs).to(device),
    )  # fmt: skip


def _with_empty(scores: Any, queries: Side, docs: Side, mean: bool, pairs: I64 | None) -> Any:
    """With `EMPTY` as the score of documents without tokens, whatever the query."""
    import torch

    if isinstance(docs.rows, MultiVectorIndex):
        return scores.masked_fill(scores.isneginf(), EMPTY)
    empty = (docs.rows.lengths if isinstance(docs.rows, Ragged) else docs.lengths()) == 0
    if not empty.any():
        return scores
    from transformers.utils import logging

    logging.get_logger(__name__).warning_once(f"Some documents have no tokens to score: their score is {EMPTY:.0e}.")
    fill = EMPTY / np.maximum(queries.lengths(), 1) if mean else np.full(len(queries.rows), EMPTY)
    where, score = (empty[None], fill[:, None]) if pairs is None else (empty[pairs[:, 1]], fill[pairs[:, 0]])
    device = scores.device
    return torch.where(torch.from_numpy(where).to(device), torch.from_numpy(score).float().to(device), scores)


def _same(n_queries: int, n_docs: int) -> I64:
    if n_queries != n_docs:
        raise ValueError(f"a and b must have as many items, to be scored in pairs; got {n_queries} and {n_docs}")
    return np.stack([np.arange(n_queries)] * 2, axis=1)

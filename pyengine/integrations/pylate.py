"""PyLate's scores on the engine, exact and differentiable, on the CPU too: a back end beside its "flash" and "lik".

    import pyengine as pe

    pe.patch_pylate()  # losses, evaluators, `rank.rerank` and `retrieve` of PyLate now score by pyengine

While it is patched, ``backend="pyengine"`` and the environment variable PYLATE_SCORES_BACKEND=pyengine, read on every
call, insist on it; "auto", the default, tries it first and takes PyLate's own way after `PyengineUnsupported` (float64,
empty or mixed tensors, other devices); "torch", "flash" and "lik" mean what they mean in PyLate. An index for
`retrieve.ColBERT` is in `pyengine.integrations.pylate_index`.

Read against PyLate 1.6. As there, a mask multiplies products by 0, so that a pad, of similarity 0, wins over tokens
whose similarities are all negative; scores have the type of the tensors. Different: see `DIFFERENCES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyengine import torch as engine
from pyengine.integrations import parts
from pyengine.integrations.parts import PyengineUnsupported as PyengineUnsupported
from pyengine.searches.maxsim import maxsim_topk

LIBRARY = "pylate"
DIFFERENCES = (
    "scores are those of the float64 specification, rounded once to the type of the tensors, or under autocast float32",
    "ties go to the smaller id or the earlier document",
    "NaN or inf in a token is a ValueError",
    "float64 tensors are left to PyLate",
    "rerank's scores are float32 also for embeddings of 16 bits; its lists must be of equal lengths",
)
VARIABLE = "PYLATE_SCORES_BACKEND"


def is_available() -> bool:
    """Whether there are kernels for CPU or CUDA tensors."""
    return parts.missing("cpu") is None or parts.missing("cuda") is None


def colbert_scores_pyengine(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
) -> Tensor:
    """All pairs: [Q, N] of queries [Q, Lq, D] and documents [N, Ld, D] with masks [Q, Lq] and [N, Ld], bool or weights.
    Raises `PyengineUnsupported` for what is PyLate's."""
    return _scores(queries_embeddings, documents_embeddings, queries_mask, documents_mask, dims=3)


def colbert_kd_scores_pyengine(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
) -> Tensor:
    """Each query with its own documents [Q, N, Ld, D] and their masks [Q, N, Ld]: [Q, N]. As above."""
    return _scores(queries_embeddings, documents_embeddings, queries_mask, documents_mask, dims=4)


def colbert_scores_pairwise_pyengine(queries_embeddings: Any, documents_embeddings: Any) -> Tensor:
    """The i-th query with the i-th document: [n] of [n, Lq, D] and [n, Ld, D], or of lists of [L_i, D]."""
    if len(queries_embeddings) != len(documents_embeddings):
        raise PyengineUnsupported("pyengine takes as many queries as documents")
    (queries, queries_mask), (docs, docs_mask) = map(_padded, (queries_embeddings, documents_embeddings))
    parts.check_trainable(queries, docs, dims=3)
    alone = None if docs_mask is None else docs_mask.unsqueeze(1)
    scores = engine.maxsim(queries, docs.unsqueeze(1), queries_mask=queries_mask, docs_mask=alone)
    return scores.squeeze(1).to(queries.dtype)


def colbert_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    backend: str | None = None,
) -> Tensor:
    """`pylate.scores.colbert_scores`, which also takes ``backend="pyengine"`` and whose "auto" begins with it."""
    given = queries_embeddings, documents_embeddings, queries_mask, documents_mask
    return _dispatched("colbert_scores", colbert_scores_pyengine, map(_tensor, given), given, backend)


def colbert_kd_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    backend: str | None = None,
) -> Tensor:
    """`pylate.scores.colbert_kd_scores`, likewise."""
    given = queries_embeddings, documents_embeddings, queries_mask, documents_mask
    return _dispatched("colbert_kd_scores", colbert_kd_scores_pyengine, map(_tensor, given), given, backend)


def colbert_scores_pairwise(queries_embeddings: Any, documents_embeddings: Any, backend: str | None = None) -> Tensor:
    """`pylate.scores.colbert_scores_pairwise`, likewise."""
    given = queries_embeddings, documents_embeddings
    return _dispatched("colbert_scores_pairwise", colbert_scores_pairwise_pyengine, given, given, backend)


def rerank(
    documents_ids: Sequence[Sequence[int | str]], queries_embeddings: Any, documents_embeddings: Any, device: Any = None
) -> list[list[dict[str, Any]]]:
    """`pylate.rank.rerank`: the documents of each query as dictionaries with ``id`` and ``score``, best first.

    ``queries_embeddings`` are Q arrays [Lq, D], ``documents_embeddings`` Q lists of arrays [Ld, D], tensors or NumPy.
    As in PyLate, the documents of a query are padded to the longest of them by zeros, which can win. ``device`` is
    ignored: the engine chooses, and the answer is the same.
    """
    if not len(documents_ids) and not len(queries_embeddings) and not len(documents_embeddings):
        return []
    queries = parts.sets_of(queries_embeddings, "queries_embeddings")
    lists = [list(each) for each in documents_embeddings]
    sizes, named = ([len(each) for each in side] for side in (lists, documents_ids))
    if len(queries) != len(lists) or named != sizes:
        got = f"{len(queries)} queries, lists of {named[:9]} ids and of {sizes[:9]} documents"
        raise ValueError(f"each query must have a list of ids and one of as many documents; got {got}")
    docs = parts.padded_as_zeros(lists, queries.dim)
    ends = np.cumsum(sizes)
    own = [np.arange(end - size, end) for end, size in zip(ends, sizes)]
    found = maxsim_topk(queries, docs, max(sizes, default=0) or 1, candidates=own)
    return [
        [{"id": ids[doc - start], "score": score} for doc, score in zip(*row) if doc >= 0]
        for ids, start, *row in zip(documents_ids, ends - sizes, found.ids.tolist(), found.scores.tolist())
    ]


def patch() -> None:
    """Put these functions in the place of PyLate's wherever its modules hold them. Twice is once."""
    _patch.patch()


def unpatch() -> None:
    """Put PyLate's own functions back."""
    _patch.unpatch()


def patched() -> AbstractContextManager[None]:
    """`patch` within the block, unless it was patched before."""
    return _patch.patched()


def _replacements() -> parts.Pairs:
    scores, rank = (parts.library(f"pylate.{module}", LIBRARY) for module in ("scores.colbert", "rank.rank"))
    parts.library("pylate.losses", LIBRARY)  # whose default arguments are replaced, too
    ours = (colbert_scores, colbert_kd_scores, colbert_scores_pairwise)
    return [*((getattr(scores, each.__name__), each) for each in ours), (rank.rerank, rerank)]


_patch = parts.Patch("pylate", _replacements)


def _dispatched(name: str, ours: Callable[..., Tensor], taken: Any, given: Any, backend: str | None) -> Tensor:
    """Scores by ``ours`` of what is ``taken``, or by PyLate's function of what was ``given``."""
    chosen = (os.environ.get(VARIABLE, "auto") if backend is None else backend).lower()
    if chosen in ("auto", "pyengine"):
        try:
            return ours(*taken)
        except PyengineUnsupported:
            if chosen == "pyengine":
                raise
    own = _patch.own(getattr(parts.library("pylate.scores.colbert", LIBRARY), name))
    return own(*given, backend=backend)  # type: ignore[no-any-return]


def _scores(queries: Tensor, docs: Tensor, queries_mask: Tensor | None, docs_mask: Tensor | None, dims: int) -> Tensor:
    parts.check_trainable(queries, docs, dims)
    queries, asked = _masked(queries, queries_mask)
    docs, offered = _masked(docs, docs_mask)
    if offered is not None:  # of the tokens that the mask makes zeros one stands for all
        offered = offered.scatter(-1, (~offered).to(torch.int8).argmax(-1, keepdim=True), True)
    scores = engine.maxsim(queries, docs, queries_mask=asked, docs_mask=offered)
    return scores.to(torch.promote_types(queries.dtype, docs.dtype))


def _masked(tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Tokens times their mask, and bool, where that is not 0."""
    if mask is None:
        return tokens, None
    if mask.shape != tokens.shape[:-1] or mask.requires_grad or mask.is_complex():
        raise PyengineUnsupported(f"pyengine takes real masks of the tokens' shape; got {tuple(mask.shape)}")
    return tokens * mask.unsqueeze(-1), mask != 0


def _padded(rows: Any) -> tuple[Tensor, Tensor | None]:
    """Sets of tokens as a tensor [n, L, D], and bool [n, L], which of them are tokens; None for all."""
    if isinstance(rows, (Tensor, np.ndarray)):
        return _tensor(rows), None
    tensors = [_tensor(row) for row in rows]
    if not tensors or any(each.dim() != 2 or not len(each) for each in tensors):
        raise PyengineUnsupported("pyengine takes lists of tensors [L, D] with tokens")
    if len({each.shape[1] for each in tensors}) > 1 or len({each.dtype for each in tensors}) > 1:
        raise PyengineUnsupported("pyengine takes tensors of one dimension and type")
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    lengths = torch.tensor([len(each) for each in tensors], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]


def _tensor(value: Any) -> Any:
    """A tensor as it is, and whatever else PyLate takes as one; None stays None."""
    if value is None or isinstance(value, Tensor):
        return value
    return parts.library("pylate.utils.tensor", LIBRARY).convert_to_tensor(value)

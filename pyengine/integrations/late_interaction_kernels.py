"""The names of late-interaction-kernels, exact, and on the CPU too: `maxsim`, `maxsim_pairs`, `maxsim_varlen` and
`retrieve`, with its arguments and results.

    from pyengine.integrations.late_interaction_kernels import maxsim, retrieve

Read against late-interaction-kernels 0.4.5, which need not be installed. As there, masked tokens take part in nothing,
and a document without tokens scores 0. Different: see `DIFFERENCES`. Its `patch_pylate` and `patch_colpali_engine` are
`pyengine.patch_pylate` and `pyengine.patch_colpali_engine`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyengine import checks
from pyengine import torch as engine
from pyengine.inputs.ragged import Ragged
from pyengine.searches.maxsim import maxsim_topk

LIBRARY = "late-interaction-kernels"
DIFFERENCES = (
    "scores are those of the float64 specification, and gradients do not depend on threads; backward and chunk are"
    " ignored",
    "ties go to the smaller id",
    "any dimension and any number of tokens, on the CPU too",
    "NaN or inf in a token is a ValueError",
    "retrieve has neither largest nor sorted: the best come, best first",
)


def maxsim(
    Q: Tensor,
    D: Tensor,
    q_mask: Tensor | None = None,
    d_mask: Tensor | None = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
) -> Tensor:
    """Differentiable scores, float32 [Q, N], of queries [Q, Lq, D] and documents [N, Ld, D], or [Q, N, Ld, D] for each
    query its own; of one query or document [L, D] the result lacks that dimension."""
    one_query, one_doc = Q.dim() == 2, D.dim() == 2
    Q, q_mask = _sets(Q, q_mask)
    D, d_mask = _filled(*_sets(D, d_mask))
    scores = engine.maxsim(Q, D, queries_mask=q_mask, docs_mask=d_mask, normalize=normalize)
    scores = scores.squeeze(1) if one_doc else scores
    return scores.squeeze(0) if one_query else scores


def maxsim_pairs(
    Q: Tensor,
    D: Tensor,
    q_mask: Tensor | None = None,
    d_mask: Tensor | None = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
) -> Tensor:
    """The i-th query [n, Lq, D] with the i-th document [n, Ld, D]: float32 [n]."""
    own = None if d_mask is None else d_mask.unsqueeze(1)
    return maxsim(Q, D.unsqueeze(1), q_mask, own, normalize=normalize).squeeze(1)


def maxsim_varlen(
    Q_packed: Tensor,
    D_packed: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_d: Tensor,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
) -> Tensor:
    """All pairs, float32 [Q, N], of tokens [T, D] of which set i has those from ``cu_seqlens[i]`` to
    ``cu_seqlens[i + 1]``. The longest lengths are found here, and ignored as arguments."""
    queries, docs = _unpacked(Q_packed, cu_seqlens_q), _unpacked(D_packed, cu_seqlens_d)
    return maxsim(queries[0], docs[0], queries[1], docs[1])


def retrieve(
    Q: Tensor,
    D: Tensor,
    top_k: int,
    q_mask: Tensor | None = None,
    d_mask: Tensor | None = None,
    *,
    normalize: bool = True,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The min(top_k, N) best documents of each query: scores float32 and numbers int64 [Q, k], or [k] for a query
    [Lq, D], on the device of ``Q``. Nothing is differentiable."""
    one = Q.dim() == 2
    queries = Ragged.padded(*_sets(Q, q_mask), name="Q")
    docs = Ragged.padded(*_filled(*_sets(D, d_mask)), name="D")
    k = min(checks.positive_int(top_k, "top_k"), len(docs))
    found = maxsim_topk(queries, docs, max(k, 1), normalize=normalize)
    scores, ids = (torch.as_tensor(each, device=Q.device)[:, :k] for each in found[:2])
    return (scores[0], ids[0]) if one else (scores, ids)


def _sets(tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Tokens with the dimension of sets, and their mask likewise."""
    if tokens.dim() == 2:
        tokens = tokens.unsqueeze(0)
        mask = mask.unsqueeze(0) if mask is not None and mask.dim() == 1 else mask
    return tokens, None if mask is None else mask.bool()


def _filled(docs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A document without tokens gets one of zeros."""
    if mask is None or mask.any(dim=-1).all():
        return docs, mask
    empty = ~mask.any(dim=-1, keepdim=True)
    first = torch.arange(mask.shape[-1], device=mask.device) == 0
    return docs.masked_fill(empty.unsqueeze(-1), 0), mask | (empty & first)


def _unpacked(tokens: Tensor, offsets: Any) -> tuple[Tensor, Tensor]:
    """Tokens [T, D] as sets [n, L, D] with L of at least 1, and bool [n, L], which of them are tokens."""
    starts, lengths = offsets[:-1].long(), offsets.diff().long()
    longest = max(1, int(lengths.max())) if len(lengths) else 1
    places = torch.arange(longest, device=tokens.device)
    mask = places < lengths[:, None]
    padded = tokens.new_zeros((len(lengths), longest, tokens.shape[-1]))
    numbers = (starts[:, None] + places)[mask]
    return padded.masked_scatter(mask.unsqueeze(-1), tokens[numbers]), mask

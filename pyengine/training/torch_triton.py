"""The kernels of the torch operators `pyengine::maxsim` and `pyengine::maxsim_backward` on a GPU, by Triton.

Scores are the specification's, and winners and gradients have the bits of those on the CPU. float64 tensors and
"softmax", which needs exp, stay with `pyengine.training.torch_blocks`; so does everything where Triton is missing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pyengine.backends.triton import triton_refusals
from pyengine.training import torch_blocks, torch_maxsim
from pyengine.training.torch_blocks import Sets


def forward(
    queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    reduce: str, normalize: bool, temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`pyengine.training.torch_maxsim.forward`."""
    sets = Sets(queries, docs, queries_mask, docs_mask, pairs)
    if not _takes(queries, reduce):
        scores, winners, doc_winners = torch_maxsim.forward(*sets, reduce, normalize, temperature)
        types = (torch_blocks.place_type(tokens) for tokens in (docs, queries))
        return scores, winners.to(next(types)), doc_winners.to(next(types))
    from pyengine.kernels import maxsim_refine, maxsim_winners

    torch_maxsim.check(sets)
    query_of, doc_of = (column.contiguous() for column in pairs.unbind(1))
    with _on(queries):
        asked, offered = _padded(queries, queries_mask), _padded(docs, docs_mask)
        how = maxsim_refine.Scoring(reduce, normalize)
        found = maxsim_winners.scores(asked, offered, query_of, doc_of, how)
    return found.scores, found.winners, found.doc_winners


def backward(
    gradient: Tensor, queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    winners: Tensor, doc_winners: Tensor, reduce: str, normalize: bool, temperature: float, wants_queries: bool,
    wants_docs: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`pyengine.training.torch_maxsim.backward`."""
    sets, wanted = Sets(queries, docs, queries_mask, docs_mask, pairs), (wants_queries, wants_docs)
    if not _takes(queries, reduce):
        return torch_maxsim.backward(gradient, *sets, winners, doc_winners, reduce, normalize, temperature, *wanted)
    from pyengine.kernels import maxsim_backward

    with _on(queries):
        vectors = sets.vectors(normalize, torch.float32) if normalize else sets  # the kernels convert what they load
        return torch_maxsim.maxima_backward(
            gradient, sets, vectors, winners, doc_winners, reduce, normalize, wanted, maxsim_backward.add_choices
        )


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Launches are on the device of a tensor."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _takes(tokens: Tensor, reduce: str) -> bool:
    return reduce != "softmax" and tokens.dtype != torch.float64 and triton_refusals.missing() is None


def _padded(tokens: Tensor, mask: Tensor) -> Any:
    """Padded tokens [n, L, D] as the kernels take sets."""
    from pyengine.kernels import maxsim_refine, maxsim_winners
    from pyengine.kernels.token_values import TokenSets

    n_sets, length, dims = tokens.shape
    beyond = -dims % maxsim_winners.STEP.value  # zeros change no sum
    offsets = length * torch.arange(n_sets + 1, device=tokens.device)
    rows = tokens.detach().reshape(n_sets * length, dims).contiguous()
    rows = torch.nn.functional.pad(rows, (0, beyond)) if beyond else rows
    sets = TokenSets(rows, offsets, dims + beyond, length, mask=mask.reshape(-1).to(torch.int8))
    return sets._replace(norms=maxsim_refine.norms(sets))

"""The kernels of the torch operators `pyengine::maxsim` and `pyengine::maxsim_backward`, over padded tokens and masks.

Tensors of up to 32 bits on the CPU go to the extension. All others are computed by torch, a block of pairs at a time:
maxima by the specification's own sums, so that they have the same bits and the same winners, "softmax" by matrix
products in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pyengine import exact, reference
from pyengine.backends.torch_float64 import lane_sum
from pyengine.types import F32, I64

LANE_PRODUCTS = 1 << 18  # products of tokens by the specification at a time: eight lanes, and scratch, are 32 MiB
PRODUCTS = 1 << 20  # and those of matrix products, 8 MiB a tensor
CHOICES = 1 << 15  # winners whose rows are added up at a time


def wide(tokens: Tensor) -> torch.dtype:
    """What scores are returned in."""
    return torch.float64 if tokens.dtype == torch.float64 else torch.float32


def forward(
    queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    reduce: str, normalize: bool, temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Scores [P], winners int32 [P, Lq] or [P, 0], and doc_winners int32 [P, Ld] or [P, 0]: see `pyengine.torch`."""
    _check_finite(queries, queries_mask, "queries")
    _check_finite(docs, docs_mask, "docs")
    _check_pairs(pairs, len(queries), len(docs))
    sets = (queries, docs, queries_mask, docs_mask, pairs)
    kernels = _native(queries)
    if reduce == "softmax":
        none = pairs.new_empty((len(pairs), 0), dtype=torch.int32)
        return _softmax(*sets, normalize, temperature), none, none.clone()
    if kernels is not None:
        return _native_maxima(kernels, *sets, reduce, normalize)
    return _maxima(*sets, reduce, normalize)


def backward(
    gradient: Tensor, queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    winners: Tensor, doc_winners: Tensor, reduce: str, temperature: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients of queries and documents, of their shapes and dtypes. Each row is summed in the order of the pairs
    (of blocks of them), however many threads there are."""
    if reduce == "softmax":
        return _softmax_backward(gradient, queries, docs, queries_mask, docs_mask, pairs, temperature)
    query_of, doc_of = pairs.unbind(1)
    gradient = gradient.double()
    forth = gradient if reduce == "sum" else gradient / _counts(queries_mask)[query_of]
    if reduce != "symmetric":
        return _add_choices(queries, docs, query_of, doc_of, winners, forth)
    back = gradient / _counts(docs_mask)[doc_of]
    by_query = _add_choices(queries, docs, query_of, doc_of, winners, forth / 2)
    by_doc = _add_choices(docs, queries, doc_of, query_of, doc_winners, back / 2)
    return by_query[0] + by_doc[1], by_query[1] + by_doc[0]


def _native(tokens: Tensor) -> ModuleType | None:
    """The extension, where it takes these tokens."""
    return exact.native() if tokens.device.type == "cpu" and tokens.dtype != torch.float64 else None


def _counts(mask: Tensor) -> Tensor:
    """float64 [n]: the tokens of each row, 1 where there is none: what is divided by it is then not used."""
    return mask.sum(1).clamp(min=1).double()


def _check_finite(tokens: Tensor, mask: Tensor, name: str) -> None:
    if tokens.isfinite().all():
        return
    bad = (~tokens.isfinite().all(dim=2) & mask).nonzero()
    if len(bad):
        row, token = bad[0].tolist()
        raise ValueError(f"{name} must be finite; token {token} of row {row} holds NaN or inf")


def _check_pairs(pairs: Tensor, n_queries: int, n_docs: int) -> None:
    limits = pairs.new_tensor([n_queries, n_docs])
    bad = ((pairs < 0) | (pairs >= limits)).any(dim=1).nonzero()
    if len(bad):
        row = int(bad[0])
        got = f"{pairs[row].tolist()} in row {row}"
        raise ValueError(f"pairs must be of {n_queries} queries and {n_docs} documents, counted from 0; got {got}")


# --- Maxima by the extension ------------------------------------------------------------------------------------------


def _packed(kernels: ModuleType, tokens: Tensor, mask: Tensor) -> tuple[object, I64, I64]:
    """The tokens of padded rows for the extension, their offsets, and the place in its row of each."""
    real = mask.numpy()
    whole = bool(real.all())
    values = (tokens.flatten(0, 1) if whole else tokens[mask]).float().contiguous().numpy()
    offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))]).astype(np.int64)
    return _native_tokens(kernels, values, offsets), offsets, np.nonzero(real)[1]


def _native_tokens(kernels: ModuleType, values: F32, offsets: I64) -> object:
    return kernels.Tokens(kernels.Rows(values, "float32", values.shape[1]), offsets)


def _native_maxima(
    kernels: ModuleType, queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    reduce: str, normalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    query_of, doc_of = (np.ascontiguousarray(column) for column in pairs.numpy().T)
    packed_queries, *query_places = _packed(kernels, queries, queries_mask)
    packed_docs, *doc_places = _packed(kernels, docs, docs_mask)
    scores, winners, doc_winners = kernels.maxsim_pairs(
        packed_queries, packed_docs, query_of, doc_of, normalize=normalize, reduce=reduce, query_weights=None,
        doc_weights=None, bias=None, argmax=True, num_threads=torch.get_num_threads(),
    )  # fmt: skip
    rows = _padded(winners, queries_mask.numpy()[query_of], doc_of, *doc_places)
    if doc_winners is None:
        return torch.from_numpy(scores), rows, rows.new_empty((len(pairs), 0))
    return torch.from_numpy(scores), rows, _padded(doc_winners, docs_mask.numpy()[doc_of], query_of, *query_places)


def _padded(winners: np.ndarray, choosers: np.ndarray, chosen_of: I64, offsets: I64, places: I64) -> Tensor:
    """int32 [P, L]: the winners of the choosers, bool [P, L], as places in padded rows instead of numbers of tokens in
    their sets ``chosen_of`` [P]."""
    first = np.repeat(offsets[chosen_of], choosers.sum(axis=1))
    found = np.full(choosers.shape, -1, np.int32)
    any_token = winners >= 0
    winners[any_token] = places[(first + winners)[any_token]]
    found[choosers] = winners
    return torch.from_numpy(found)


def _native_choices(
    kernels: ModuleType, choosers: Tensor, chosen: Tensor, chooser_of: Tensor, chosen_of: Tensor, winners: Tensor,
    factors: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`_add_choices`. Padded rows are sets as they are, since nothing masked is a winner or has one."""
    sides = []
    for side in (choosers, chosen):
        values = side.flatten(0, 1).float().contiguous().numpy()
        sides.append(_native_tokens(kernels, values, side.shape[1] * np.arange(len(side) + 1)))
    gradients = kernels.maxsim_backward(
        *sides, chooser_of.contiguous().numpy(), chosen_of.contiguous().numpy(), winners.flatten().numpy(),
        factors.float().numpy(), None, torch.get_num_threads(),
    )  # fmt: skip
    first, second = (torch.from_numpy(each).to(choosers.dtype) for each in gradients)
    return first.view(choosers.shape), second.view(chosen.shape)


# --- Maxima by torch --------------------------------------------------------------------------------------------------


def _blocks(pairs: Tensor, products: int, queries: Tensor, docs: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The pairs, so few at a time that there are about as many products of tokens."""
    step = max(1, products // max(1, queries.shape[1] * docs.shape[1]))
    for start in range(0, len(pairs), step):
        part = slice(start, start + step)
        query_of, doc_of = pairs[part].unbind(1)
        yield part, query_of, doc_of


def _maxima(
    queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor, reduce: str, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    symmetric = reduce == "symmetric"
    scores = pairs.new_empty(len(pairs), dtype=torch.float64)
    winners = pairs.new_empty((len(pairs), queries.shape[1]), dtype=torch.int32)
    doc_winners = pairs.new_empty((len(pairs), docs.shape[1] if symmetric else 0), dtype=torch.int32)
    query_norms, doc_norms = (lane_sum(each, each).sqrt() for each in (queries, docs))
    for part, query_of, doc_of in _blocks(pairs, LANE_PRODUCTS, queries, docs):
        products = lane_sum(queries[query_of][:, :, None], docs[doc_of][:, None])  # [B, Lq, Ld]
        if normalize:
            norms = query_norms[query_of][:, :, None] * doc_norms[doc_of][:, None]
            products = torch.where(norms > 0, products / norms, 0.0)
        asked, offered = queries_mask[query_of], docs_mask[doc_of]
        score, winners[part] = _choose(products, asked, offered)
        if reduce != "sum":
            score = score / _counts(asked)
        if symmetric:
            back, doc_winners[part] = _choose(products.mT, offered, asked)
            score = (score + back / _counts(offered)) / 2
        score = score.masked_fill(~offered.any(1), -torch.inf)
        scores[part] = score.masked_fill(~asked.any(1), 0.0)
    return _rounded(scores, wide(queries)), winners, doc_winners


def _choose(products: Tensor, choosers: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The sums [B] of the maxima of products [B, L, M] over the chosen, in the order of the choosers, and where the
    maxima are: int32 [B, L], -1 for none."""
    offered = pad(products.masked_fill(~chosen[:, None], -torch.inf), (0, 1), value=-torch.inf)
    best, winner = offered.max(dim=2)  # the first, if there are several
    total = products.new_zeros(len(products))
    for maxima in best.masked_fill(~choosers, 0.0).unbind(1):
        total = total + maxima
    return total, winner.masked_fill(~choosers | (best == -torch.inf), -1).int()


def _rounded(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """float64 scores as `reference_maxsim.round_score` has them, if in float32."""
    if dtype == torch.float64:
        return scores + 0.0
    clamped = scores.clamp(-reference.FLOAT32_MAX, reference.FLOAT32_MAX).float() + 0.0
    return clamped.masked_fill(scores == -torch.inf, -torch.inf)


def _add_choices(
    choosers: Tensor, chosen: Tensor, chooser_of: Tensor, chosen_of: Tensor, winners: Tensor, factors: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of both sides [n, L, D]: each token of pair p's choosers whose winner is a token of its chosen gets
    factors[p], float64, times that token, and the other way round."""
    kernels = _native(choosers)
    if kernels is not None:
        return _native_choices(kernels, choosers, chosen, chooser_of, chosen_of, winners, factors)
    rows = choosers.flatten(0, 1), chosen.flatten(0, 1)
    gradients = [each.new_zeros(each.shape, dtype=torch.float64) for each in rows]
    pairs, tokens = (winners >= 0).nonzero(as_tuple=True)
    for start in range(0, len(pairs), CHOICES):
        pair, token = pairs[start : start + CHOICES], tokens[start : start + CHOICES]
        first = chooser_of[pair] * choosers.shape[1] + token
        second = chosen_of[pair] * chosen.shape[1] + winners[pair, token]
        for own, other, side in ((first, second, 0), (second, first, 1)):
            added = factors[pair, None] * rows[1 - side][other]
            gradients[side].index_put_((own,), added, accumulate=True)  # in float64, in this order
    return gradients[0].to(choosers.dtype).view(choosers.shape), gradients[1].to(chosen.dtype).view(chosen.shape)


# --- Softmax ----------------------------------------------------------------------------------------------------------


def unit(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens / |tokens| and 1 / |tokens| in float64, 0 where the norm is 0 or there is no token."""
    tokens = tokens.double().masked_fill(~mask[..., None], 0.0)
    norm = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    scale = torch.where(norm > 0, 1 / norm, 0.0)
    return tokens * scale, scale


def _softmax(
    queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor, normalize: bool,
    temperature: float,
) -> Tensor:  # fmt: skip
    """The mean over query tokens of sum_j softmax_j(s_ij / temperature) s_ij."""
    scores = pairs.new_empty(len(pairs), dtype=torch.float64)
    queries_64, docs_64 = (_float64(*each, normalize) for each in ((queries, queries_mask), (docs, docs_mask)))
    for part, query_of, doc_of in _blocks(pairs, PRODUCTS, queries, docs):
        asked, offered = queries_mask[query_of], docs_mask[doc_of]
        share, products = _shares(queries_64[query_of], docs_64[doc_of], offered, temperature)
        score = (share * products).sum(2).masked_fill(~asked, 0.0).sum(1) / _counts(asked)
        score = score.masked_fill(~offered.any(1), -torch.inf)
        scores[part] = score.masked_fill(~asked.any(1), 0.0)
    return _rounded(scores, wide(queries))


def _softmax_backward(
    gradient: Tensor, queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """d score / d s_ij = share_ij (1 + (s_ij - f_i) / temperature) / Lq, with f_i = sum_j share_ij s_ij."""
    queries_64, docs_64 = _float64(queries, queries_mask, False), _float64(docs, docs_mask, False)
    queries_out, docs_out = torch.zeros_like(queries_64), torch.zeros_like(docs_64)
    for part, query_of, doc_of in _blocks(pairs, PRODUCTS, queries, docs):
        asked, offered = queries_mask[query_of], docs_mask[doc_of]
        some_queries, some_docs = queries_64[query_of], docs_64[doc_of]
        share, products = _shares(some_queries, some_docs, offered, temperature)
        mean = (share * products).sum(2, keepdim=True)
        slope = torch.where(share > 0, share * (1 + (products - mean) / temperature), 0.0)
        factor = torch.where(offered.any(1), gradient[part].double(), 0.0) / _counts(asked)
        slope = (slope * factor[:, None, None]).masked_fill(~asked[..., None], 0.0)
        queries_out.index_put_((query_of,), slope @ some_docs, accumulate=True)
        docs_out.index_put_((doc_of,), slope.mT @ some_queries, accumulate=True)
    return queries_out.to(queries.dtype), docs_out.to(docs.dtype)


def _float64(tokens: Tensor, mask: Tensor, normalize: bool) -> Tensor:
    """The tokens, or their unit vectors, 0 where there is none."""
    return unit(tokens, mask)[0] if normalize else tokens.double().masked_fill(~mask[..., None], 0.0)


def _shares(queries: Tensor, docs: Tensor, offered: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """softmax_j(s_ij / temperature) over the document's tokens, 0 at the others, and s_ij: float64 [B, Lq, Ld]."""
    products = queries @ docs.mT
    largest = pad(products.masked_fill(~offered[:, None], -torch.inf), (0, 1), value=-torch.inf).amax(2, keepdim=True)
    power = ((products - largest) / temperature).exp().masked_fill(~offered[:, None], 0.0)
    return power / power.sum(2, keepdim=True).clamp(min=1.0), products  # the largest has power 1

"""The kernels of the torch operators `pyengine::maxsim` and `pyengine::maxsim_backward`, over padded tokens and masks.

Tensors of up to 32 bits on the CPU go to the extension. All others are computed by torch, a block of pairs at a time:
maxima by the specification's own sums, so that they have the same bits and the same winners, "softmax" by matrix
products in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

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
CACHED = 1 << 16  # numbers of tokens that are normalised at a time


class Sets(NamedTuple):
    """Padded tokens with their masks, and the pairs to score."""

    queries: Tensor  # [Q, Lq, D]
    docs: Tensor  # [N, Ld, D]
    queries_mask: Tensor  # bool [Q, Lq]
    docs_mask: Tensor  # bool [N, Ld]
    pairs: Tensor  # int64 [P, 2]

    def blocks(self, products: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """The pairs, and their queries and documents, so few at a time that they have about as many products."""
        step = max(1, products // max(1, self.queries.shape[1] * self.docs.shape[1]))
        for start in range(0, len(self.pairs), step):
            part = slice(start, start + step)
            query_of, doc_of = self.pairs[part].unbind(1)
            yield part, query_of, doc_of

    def vectors(self, normalize: bool, dtype: torch.dtype) -> Sets:
        """The tokens in this type, with ``normalize`` as unit vectors."""
        sides = ((self.queries, self.queries_mask), (self.docs, self.docs_mask))
        queries, docs = (_units(*each, dtype) if normalize else each[0].to(dtype) for each in sides)
        return self._replace(queries=queries, docs=docs)


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
    sets, kernels = Sets(queries, docs, queries_mask, docs_mask, pairs), _native(queries)
    if reduce == "softmax":
        none = pairs.new_empty((len(pairs), 0), dtype=torch.int32)
        return (
            _rounded(_softmax(sets.vectors(normalize, torch.float64), temperature), wide(queries)),
            none,
            none.clone(),
        )
    if kernels is not None:
        return _native_maxima(kernels, sets, reduce, normalize)
    score, winners, doc_winners = _maxima(sets, reduce, normalize)
    return _rounded(score, wide(queries)), winners, doc_winners


def backward(
    gradient: Tensor, queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    winners: Tensor, doc_winners: Tensor, reduce: str, normalize: bool, temperature: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients of queries and documents, of their shapes and dtypes. Each row is summed in the order of the pairs,
    or of blocks of them, however many threads there are."""
    gradient = gradient.double()
    sets = Sets(queries, docs, queries_mask, docs_mask, pairs)
    if reduce == "softmax":
        vectors = sets.vectors(normalize, torch.float64)
        gradients = _softmax_backward(gradient, vectors, temperature)
    else:
        vectors = sets.vectors(normalize, wide(queries))
        gradients = _maxima_backward(gradient, vectors, winners, doc_winners, reduce)
    if normalize:
        _project(gradients[0], queries, vectors.queries)
        _project(gradients[1], docs, vectors.docs)
    return gradients[0].to(queries.dtype), gradients[1].to(docs.dtype)


def _native(tokens: Tensor) -> ModuleType | None:
    """The extension, where it takes these tokens."""
    return exact.native() if tokens.device.type == "cpu" and tokens.dtype != torch.float64 else None


def _check_finite(tokens: Tensor, mask: Tensor, name: str) -> None:
    if tokens.sum().isfinite():  # much faster, and almost always enough
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


# --- Unit vectors -----------------------------------------------------------------------------------------------------


def _units(tokens: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The tokens / |tokens|, 0 where the norm is 0 or there is no token."""
    units = torch.empty(tokens.shape, dtype=dtype, device=tokens.device)
    for part, real, unit in _rows(tokens, mask[..., None], units):
        part = part.double().masked_fill(~real, 0.0)
        norm = torch.linalg.vector_norm(part, dim=1, keepdim=True)
        unit.copy_(part / norm.masked_fill(norm == 0, 1.0))
    return units


def _project(gradient: Tensor, tokens: Tensor, units: Tensor) -> None:
    """Turn gradients g at units u = x / |x| into those at tokens x, in place: (g - (g u) u) / |x|, 0 where u is."""
    for slope, part, unit in _rows(gradient, tokens, units):
        g, u = slope.double(), unit.double()
        norm = torch.linalg.vector_norm(part.double(), dim=1, keepdim=True)
        across = (g - (g * u).sum(1, keepdim=True) * u) / norm
        slope.copy_(across.masked_fill(~unit.any(1, keepdim=True), 0.0))


def _rows(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Views of all rows of tensors [n, L, D], so few at a time on the CPU that what is made of them stays cached."""
    flat = [each.flatten(0, 1) for each in tensors]
    step = max(1, CACHED // flat[0].shape[1] if flat[0].device.type == "cpu" else len(flat[0]))
    for start in range(0, len(flat[0]), step):
        yield [each[start : start + step] for each in flat]


# --- Maxima by the extension ------------------------------------------------------------------------------------------


def _native_maxima(kernels: ModuleType, sets: Sets, reduce: str, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    queries_mask, docs_mask = sets.queries_mask.numpy(), sets.docs_mask.numpy()
    query_of, doc_of = (np.ascontiguousarray(column) for column in sets.pairs.numpy().T)
    queries, *query_places = _packed(kernels, sets.queries, queries_mask)
    docs, *doc_places = _packed(kernels, sets.docs, docs_mask)
    scores, winners, doc_winners = kernels.maxsim_pairs(
        queries, docs, query_of, doc_of, normalize=normalize, reduce=reduce, query_weights=None, doc_weights=None,
        bias=None, argmax=True, num_threads=torch.get_num_threads(),
    )  # fmt: skip
    rows = _padded(winners, queries_mask[query_of], doc_of, *doc_places)
    if doc_winners is None:
        return torch.from_numpy(scores), rows, rows.new_empty((len(rows), 0))
    return torch.from_numpy(scores), rows, _padded(doc_winners, docs_mask[doc_of], query_of, *query_places)


def _packed(kernels: ModuleType, tokens: Tensor, mask: np.ndarray) -> tuple[Any, I64, I64]:
    """The tokens of padded rows for the extension, their offsets, and the place in its row of each."""
    padded = tokens.float().contiguous().numpy()
    values = padded.reshape(-1, padded.shape[2]) if mask.all() else padded[mask]
    offsets = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int64)
    return _native_tokens(kernels, values, offsets), offsets, np.nonzero(mask)[1]


def _native_tokens(kernels: ModuleType, values: F32, offsets: I64) -> Any:
    return kernels.Tokens(kernels.Rows(values, "float32", values.shape[1]), offsets)


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
        values = side.flatten(0, 1).contiguous().numpy()
        sides.append(_native_tokens(kernels, values, side.shape[1] * np.arange(len(side) + 1)))
    gradients = kernels.maxsim_backward(
        *sides, chooser_of.contiguous().numpy(), chosen_of.contiguous().numpy(), winners.flatten().numpy(),
        factors.float().numpy(), None, torch.get_num_threads(),
    )  # fmt: skip
    return torch.from_numpy(gradients[0]).view(choosers.shape), torch.from_numpy(gradients[1]).view(chosen.shape)


# --- Maxima by torch --------------------------------------------------------------------------------------------------


def _maxima(sets: Sets, reduce: str, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """float64 scores [P], and the winners, as the extension has them."""
    queries, docs, queries_mask, docs_mask, pairs = sets
    symmetric = reduce == "symmetric"
    scores = pairs.new_empty(len(pairs), dtype=torch.float64)
    winners = pairs.new_empty((len(pairs), queries.shape[1]), dtype=torch.int32)
    doc_winners = pairs.new_empty((len(pairs), docs.shape[1] if symmetric else 0), dtype=torch.int32)
    query_norms, doc_norms = (lane_sum(each, each).sqrt() for each in (queries, docs))
    for part, query_of, doc_of in sets.blocks(LANE_PRODUCTS):
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
        scores[part] = _without_tokens(score, asked, offered)
    return scores, winners, doc_winners


def _choose(products: Tensor, choosers: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The sums [B] of the maxima of products [B, L, M] over the chosen, in the order of the choosers, and where the
    maxima are: int32 [B, L], -1 for none."""
    offered = pad(products.masked_fill(~chosen[:, None], -torch.inf), (0, 1), value=-torch.inf)
    best, winner = offered.max(dim=2)  # the first, if there are several
    total = products.new_zeros(len(products))
    for maxima in best.masked_fill(~choosers, 0.0).unbind(1):
        total = total + maxima
    return total, winner.masked_fill(~choosers | (best == -torch.inf), -1).int()


def _counts(mask: Tensor) -> Tensor:
    """float64 [n]: the tokens of each row, 1 where there is none: what is divided by it is then not used."""
    return mask.sum(1).clamp(min=1).double()


def _without_tokens(scores: Tensor, asked: Tensor, offered: Tensor) -> Tensor:
    """The scores [B], -inf where the document has no tokens, and 0 where the query has none."""
    return scores.masked_fill(~offered.any(1), -torch.inf).masked_fill(~asked.any(1), 0.0)


def _rounded(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """float64 scores as `reference_maxsim.round_score` has them, if in float32."""
    if dtype == torch.float64:
        return scores + 0.0
    clamped = scores.clamp(-reference.FLOAT32_MAX, reference.FLOAT32_MAX).float() + 0.0
    return clamped.masked_fill(scores == -torch.inf, -torch.inf)


def _maxima_backward(
    gradient: Tensor, sets: Sets, winners: Tensor, doc_winners: Tensor, reduce: str
) -> tuple[Tensor, Tensor]:
    query_of, doc_of = sets.pairs.unbind(1)
    forth = gradient if reduce == "sum" else gradient / _counts(sets.queries_mask)[query_of]
    if reduce != "symmetric":
        return _add_choices(sets.queries, sets.docs, query_of, doc_of, winners, forth)
    back = gradient / _counts(sets.docs_mask)[doc_of]
    by_query = _add_choices(sets.queries, sets.docs, query_of, doc_of, winners, forth / 2)
    by_doc = _add_choices(sets.docs, sets.queries, doc_of, query_of, doc_winners, back / 2)
    return by_query[0].add_(by_doc[1]), by_query[1].add_(by_doc[0])


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
        own = chooser_of[pair] * choosers.shape[1] + token
        other = chosen_of[pair] * chosen.shape[1] + winners[pair, token]
        factor = factors[pair, None]
        gradients[0].index_put_((own,), factor * rows[1][other], accumulate=True)  # one after the other
        gradients[1].index_put_((other,), factor * rows[0][own], accumulate=True)
    return gradients[0].to(choosers.dtype).view(choosers.shape), gradients[1].to(chosen.dtype).view(chosen.shape)


# --- Softmax, of float64 vectors --------------------------------------------------------------------------------------


def _softmax(sets: Sets, temperature: float) -> Tensor:
    """float64 [P]: the mean over query tokens of sum_j softmax_j(s_ij / temperature) s_ij."""
    scores = sets.queries.new_empty(len(sets.pairs))
    for part, query_of, doc_of in sets.blocks(PRODUCTS):
        queries, docs, asked, offered = _gathered(sets, query_of, doc_of)
        share, products = _shares(queries, docs, offered, temperature)
        score = (share * products).sum(2).sum(1) / _counts(asked)
        scores[part] = _without_tokens(score, asked, offered)
    return scores


def _softmax_backward(gradient: Tensor, sets: Sets, temperature: float) -> tuple[Tensor, Tensor]:
    """d score / d s_ij = share_ij (1 + (s_ij - f_i) / temperature) / Lq, with f_i = sum_j share_ij s_ij."""
    gradients = torch.zeros_like(sets.queries), torch.zeros_like(sets.docs)
    for part, query_of, doc_of in sets.blocks(PRODUCTS):
        queries, docs, asked, offered = _gathered(sets, query_of, doc_of)
        share, products = _shares(queries, docs, offered, temperature)
        mean = (share * products).sum(2, keepdim=True)
        slope = torch.where(share > 0, share * (1 + (products - mean) / temperature), 0.0)
        factor = torch.where(offered.any(1), gradient[part], 0.0) / _counts(asked)
        slope = slope * factor[:, None, None]
        gradients[0].index_put_((query_of,), (slope @ docs).masked_fill(~asked[..., None], 0.0), accumulate=True)
        gradients[1].index_put_((doc_of,), slope.mT @ queries, accumulate=True)
    return gradients


def _gathered(sets: Sets, query_of: Tensor, doc_of: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tokens of pairs, 0 where there are none, [B, Lq, D] and [B, Ld, D], and their masks."""
    asked, offered = sets.queries_mask[query_of], sets.docs_mask[doc_of]
    queries = sets.queries[query_of].masked_fill(~asked[..., None], 0.0)
    return queries, sets.docs[doc_of].masked_fill(~offered[..., None], 0.0), asked, offered


def _shares(queries: Tensor, docs: Tensor, offered: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """softmax_j(s_ij / temperature) over the document's tokens, 0 at the others, and s_ij: float64 [B, Lq, Ld]."""
    products = queries @ docs.mT
    largest = pad(products.masked_fill(~offered[:, None], -torch.inf), (0, 1), value=-torch.inf).amax(2, keepdim=True)
    power = ((products - largest) / temperature).exp().masked_fill(~offered[:, None], 0.0)
    return power / power.sum(2, keepdim=True).clamp(min=1.0), products  # the largest has power 1

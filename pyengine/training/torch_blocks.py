"""MaxSim and its gradients in torch, on any device, a block of pairs at a time: for `torch_maxsim` where it has
no kernel.

Maxima are of the specification's own sums, so that they have its bits and its winners: float64 matrix products say
which of them could be maxima, and only these are made. "softmax" takes matrix products alone. Gradients are summed in
float64, one block after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyengine.backends.torch.torch_float64 import lane_sum, root
from pyengine.specification import reference

LANE_PRODUCTS = 1 << 18  # products of tokens that are compared at a time: 2 MiB a tensor
LANE_TERMS = 1 << 21  # and terms of the specification's sums, of 16 MiB a side
PRODUCTS = 1 << 20  # products for softmax, 8 MiB a tensor
CHOICES = 1 << 15  # winners whose rows are added up at a time
CACHED = 1 << 16  # numbers of tokens that are normalised at a time

Wanted = tuple[bool, bool]  # of which of two sides the gradient is wanted
Gradients = tuple["Tensor | None", "Tensor | None"]


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


def place_type(chosen: Tensor) -> torch.dtype:
    """What the winners among padded tokens [n, L, D] are kept as, until the backward pass."""
    return torch.int16 if chosen.is_cuda and chosen.shape[1] < 1 << 15 else torch.int32


def _units(tokens: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The tokens / |tokens|, 0 where the norm is 0 or there is no token."""
    units = torch.empty(tokens.shape, dtype=dtype, device=tokens.device)
    for part, real, unit in _rows(tokens, mask[..., None], units):
        values = part.double().masked_fill(~real, 0.0)  # a copy: float64 tokens are not converted
        unit.copy_(values.mul_(_scale(values)))
    return units


def project(gradient: Tensor, tokens: Tensor, units: Tensor) -> None:
    """Turn gradients g at units u = x / |x| into those at tokens x, in place: (g - (g u) u) / |x|, or 0."""
    for slope, part, unit in _rows(gradient, tokens, units):
        g, u = slope.double(), unit.double()
        along = (g * u).sum(1, keepdim=True)
        slope.copy_(g.addcmul_(along, u, value=-1).mul_(_scale(part.double())))


def _scale(rows: Tensor) -> Tensor:
    """1 / |row| of rows float64 [m, D], as [m, 1]; 0 where the norm is 0, or where what is no token is not finite."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where(norm > 0, 1 / norm, 0.0)


def _rows(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Views of all rows of tensors [n, L, D], so few at a time on the CPU that what is made of them stays cached."""
    flat = [each.flatten(0, 1) for each in tensors]
    step = max(1, CACHED // flat[0].shape[1] if flat[0].device.type == "cpu" else len(flat[0]))
    for start in range(0, len(flat[0]), step):
        yield [each[start : start + step] for each in flat]


def maxima(sets: Sets, reduce: str, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """float64 scores [P], and the winners, as the extension has them."""
    queries, docs, queries_mask, docs_mask, pairs = sets
    symmetric = reduce == "symmetric"
    scores = pairs.new_empty(len(pairs), dtype=torch.float64)
    winners = pairs.new_empty((len(pairs), queries.shape[1]), dtype=torch.int32)
    doc_winners = pairs.new_empty((len(pairs), docs.shape[1] if symmetric else 0), dtype=torch.int32)
    lengths = [root(lane_sum(each, each)) for each in (queries, docs)] if normalize else None
    sizes = queries.double().abs().sum(2), docs.double().abs().amax(2)
    for part, query_of, doc_of in sets.blocks(LANE_PRODUCTS):
        asked, offered = queries_mask[query_of], docs_mask[doc_of]
        norms = None if lengths is None else lengths[0][query_of][:, :, None] * lengths[1][doc_of][:, None]
        real = asked[:, :, None] & offered[:, None]
        reach = sizes[0][query_of][:, :, None] * sizes[1][doc_of][:, None]
        estimates = queries.index_select(0, query_of).double() @ docs.index_select(0, doc_of).double().mT
        possible = _possible(estimates, reach, norms, real, queries.shape[2], symmetric)
        products = _listed_products(sets, query_of, doc_of, possible, norms)
        score, winners[part] = _choose(products, asked, offered)
        if reduce != "sum":
            score = score / counts(asked)
        if symmetric:
            back, doc_winners[part] = _choose(products.mT, offered, asked)
            score = (score + back / counts(offered)) / 2
        scores[part] = _without_tokens(score, asked, offered)
    return scores, winners, doc_winners


def _possible(
    estimates: Tensor, reach: Tensor, norms: Tensor | None, real: Tensor, dim: int, symmetric: bool
) -> Tensor:
    """bool [B, Lq, Ld]: the real products that could be the maximum of a query token, or with ``symmetric`` of a
    document token.

    Sums of D terms in any two orders differ by at most 2 D u sum_k |q_k d_k|, u = 2^-53, beside what underflows; that
    sum is at most ``reach``, |q|_1 |d|_max, which takes no square that could underflow. Four times the bound covers all
    other roundings, that of the quotient by the norms among them. Where reach overflows, nothing is known.
    """
    tiny = dim * torch.finfo(torch.float64).tiny
    bound = reach * (4 * (dim + 8) * torch.finfo(torch.float64).eps) + tiny
    if norms is not None:
        estimates, bound = (torch.where(norms > 0, each / norms, 0.0) for each in (estimates, bound))
        bound = bound + tiny
    least, most = estimates - bound, estimates + bound
    known = least.abs() < torch.inf  # so that both are finite
    least = pad(least.masked_fill_(~(known & real), -torch.inf), (0, 1, 0, 1), value=-torch.inf)
    possible = ~known | (most >= least.amax(2, keepdim=True)[:, :-1])
    if symmetric:
        possible |= most >= least.amax(1, keepdim=True)[:, :, :-1]
    return possible & real


def _listed_products(sets: Sets, query_of: Tensor, doc_of: Tensor, listed: Tensor, norms: Tensor | None) -> Tensor:
    """float64 [B, Lq, Ld]: the specification's products that are listed, -inf elsewhere."""
    products = sets.queries.new_full(listed.shape, -torch.inf, dtype=torch.float64)
    places = listed.nonzero()
    for part in torch.split(places, max(1, LANE_TERMS // sets.queries.shape[2])):
        pair, i, j = part.unbind(1)
        product = lane_sum(sets.queries[query_of[pair], i], sets.docs[doc_of[pair], j])
        if norms is not None:
            norm = norms[pair, i, j]
            product = torch.where(norm > 0, product / norm, 0.0)
        products[pair, i, j] = product
    return products


def _choose(products: Tensor, choosers: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The sums [B] of the maxima of products [B, L, M] over the chosen, in the order of the choosers, and where the
    maxima are: int32 [B, L], -1 for none."""
    offered = pad(products.masked_fill(~chosen[:, None], -torch.inf), (0, 1), value=-torch.inf)
    best, winner = offered.max(dim=2)  # the first, if there are several
    total = products.new_zeros(len(products))
    for column in best.masked_fill(~choosers, 0.0).unbind(1):
        total = total + column
    return total, winner.masked_fill(~choosers | (best == -torch.inf), -1).int()


def counts(mask: Tensor) -> Tensor:
    """float64 [n]: the tokens of each row, 1 where there is none: what is divided by it is then not used."""
    return mask.sum(1).clamp(min=1).double()


def _without_tokens(scores: Tensor, asked: Tensor, offered: Tensor) -> Tensor:
    """The scores [B], -inf where the document has no tokens, and 0 where the query has none."""
    return scores.masked_fill(~offered.any(1), -torch.inf).masked_fill(~asked.any(1), 0.0)


def rounded(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """float64 scores as `reference_maxsim.round_score` has them, if in float32."""
    if dtype == torch.float64:
        return scores + 0.0
    clamped = scores.clamp(-reference.FLOAT32_MAX, reference.FLOAT32_MAX).float() + 0.0
    return clamped.masked_fill(scores == -torch.inf, -torch.inf)


def add_choices(
    choosers: Tensor, chosen: Tensor, chooser_of: Tensor, chosen_of: Tensor, winners: Tensor, factors: Tensor,
    wanted: Wanted,
) -> Gradients:  # fmt: skip
    """The gradients of both sides [n, L, D]: each token of pair p's choosers whose winner is a token of its chosen gets
    factors[p], float64, times that token, and the other way round."""
    sides = choosers, chosen
    rows = [side.flatten(0, 1) for side in sides]
    gradients = [each.new_zeros(each.shape if want else 0, dtype=torch.float64) for each, want in zip(rows, wanted)]
    pairs, tokens = (winners >= 0).nonzero(as_tuple=True)
    for start in range(0, len(pairs), CHOICES):
        pair, token = pairs[start : start + CHOICES], tokens[start : start + CHOICES]
        own = chooser_of[pair] * choosers.shape[1] + token
        other = chosen_of[pair] * chosen.shape[1] + winners[pair, token]
        factor = factors[pair, None]
        if wanted[0]:
            gradients[0].index_put_((own,), factor * rows[1][other], accumulate=True)  # one after the other
        if wanted[1]:
            gradients[1].index_put_((other,), factor * rows[0][own], accumulate=True)
    first, second = (
        gradient.to(side.dtype).view(side.shape) if want else None
        for gradient, side, want in zip(gradients, sides, wanted)
    )
    return first, second


def softmax(sets: Sets, temperature: float) -> Tensor:
    """float64 [P]: the mean over query tokens of sum_j softmax_j(s_ij / temperature) s_ij."""
    scores = sets.queries.new_empty(len(sets.pairs))
    for part, query_of, doc_of in sets.blocks(PRODUCTS):
        queries, docs, asked, offered = _gathered(sets, query_of, doc_of)
        share, products = _shares(queries, docs, offered, temperature)
        score = (share * products).sum(2).sum(1) / counts(asked)
        scores[part] = _without_tokens(score, asked, offered)
    return scores


def softmax_backward(gradient: Tensor, sets: Sets, temperature: float, wanted: Wanted) -> Gradients:
    """d score / d s_ij = share_ij (1 + (s_ij - f_i) / temperature) / Lq, with f_i = sum_j share_ij s_ij."""
    first, second = (torch.zeros_like(side) if want else None for side, want in zip(sets[:2], wanted))
    for part, query_of, doc_of in sets.blocks(PRODUCTS):
        queries, docs, asked, offered = _gathered(sets, query_of, doc_of)
        share, products = _shares(queries, docs, offered, temperature)
        mean = (share * products).sum(2, keepdim=True)
        slope = torch.where(share > 0, share * (1 + (products - mean) / temperature), 0.0)
        factor = torch.where(offered.any(1), gradient[part], 0.0) / counts(asked)
        slope = slope * factor[:, None, None]
        if first is not None:
            first.index_put_((query_of,), (slope @ docs).masked_fill(~asked[..., None], 0.0), accumulate=True)
        if second is not None:
            second.index_put_((doc_of,), slope.mT @ queries, accumulate=True)
    return first, second


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

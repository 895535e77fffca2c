"""What the tests of `pyengine.torch.maxsim` share: padded batches, and what float64 autograd makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.inputs.ragged import Ragged
from pyengine.specification import reference_maxsim
from pyengine.types import F32

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    from torch import Tensor

MAXIMA = ("sum", "mean", "symmetric")


@dataclass
class Batch:
    """Padded tokens with masks, and how they are scored."""

    queries: Any  # [Q, Lq, D]
    docs: Any  # [N, Ld, D]
    queries_mask: Any  # [Q, Lq]
    docs_mask: Any  # [N, Ld]
    reduce: str = "sum"
    normalize: bool = False

    def options(self) -> dict[str, Any]:
        temperature = 0.3 if self.reduce == "softmax" else None
        return {"reduce": self.reduce, "normalize": self.normalize, "temperature": temperature}

    def scores(self, **more: Any) -> Tensor:
        masks = {"queries_mask": self.queries_mask, "docs_mask": self.docs_mask}
        return pe.torch.maxsim(self.queries, self.docs, **(masks | self.options() | more))

    def specified(self) -> F32:
        sets = [
            Ragged.padded(tokens.detach().float().numpy(), mask.numpy())
            for tokens, mask in ((self.queries, self.queries_mask), (self.docs, self.docs_mask))
        ]
        return reference_maxsim.scores(*sets, reduce=self.reduce, normalize=self.normalize)

    def to(self, dtype: Any) -> Batch:
        """The same tokens as leaves of this type, and what is masked NaN."""
        tokens = ((self.queries, self.queries_mask), (self.docs, self.docs_mask))
        fresh = [each.detach().to(dtype).masked_fill(~mask[..., None], torch.nan) for each, mask in tokens]
        return replace(self, queries=fresh[0].requires_grad_(), docs=fresh[1].requires_grad_())


def batch(kind: str = "normal", dim: int = 33, reduce: str = "sum", normalize: bool = False, seed: int = 0) -> Batch:
    """Padding at the start, the middle and the end; a document and a query without tokens, and full ones."""
    rng = np.random.default_rng(seed)
    queries = torch.from_numpy(KINDS[kind](rng, (4, 6, dim)).astype(np.float32))
    docs = torch.from_numpy(KINDS[kind](rng, (7, 19, dim)).astype(np.float32))
    queries_mask, docs_mask = (torch.from_numpy(rng.random(shape) < 0.6) for shape in ((4, 6), (7, 19)))
    at = torch.arange(19)
    docs_mask[:5] = torch.stack([at < 11, at >= 4, (at < 3) | (at > 9), at < 0, at >= 0])
    queries_mask[1], queries_mask[2] = False, True
    return Batch(queries, docs, queries_mask, docs_mask, reduce, normalize).to(torch.float32)


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape),
    "equal": lambda rng, shape: np.broadcast_to(rng.standard_normal(shape[-1]), shape),
    "negative": lambda rng, shape: np.abs(rng.standard_normal(shape)) * (1 if shape[1] == 6 else -1),
    "zeros": lambda rng, shape: rng.standard_normal(shape) * rng.integers(0, 2, (*shape[:-1], 1)),
    "huge": lambda rng, shape: rng.standard_normal(shape) * 1e37,
    "tiny": lambda rng, shape: rng.standard_normal(shape) * 1e-40,
}


def assert_bits(got: Tensor, want: F32) -> None:
    assert got.dtype == torch.float32
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.detach().numpy().view(np.int32), want.view(np.int32))


def einsum(case: Batch) -> Tensor:
    """Scores [Q, N], 0 where a document has no tokens; of equal maxima the first is taken."""
    queries, docs = (
        each.masked_fill(~mask[..., None], 0.0)
        for each, mask in ((case.queries, case.queries_mask), (case.docs, case.docs_mask))
    )
    if case.normalize:
        queries, docs = unit(queries), unit(docs)
    products = torch.einsum("qid,njd->qnij", queries, docs)
    if case.reduce == "softmax":
        logits = (products / 0.3).masked_fill(~case.docs_mask[None, :, None], -torch.inf)
        parts = (torch.nan_to_num(logits.softmax(3)) * products).sum(3)
        score = (parts * case.queries_mask[:, None]).sum(2) / counts(case.queries_mask)[:, None]
    else:
        score = maxima(products, case.queries_mask[:, None], case.docs_mask[None], case.reduce != "sum")
        if case.reduce == "symmetric":
            back = maxima(products.mT, case.docs_mask[None], case.queries_mask[:, None], True)
            score = (score + back) / 2
    usable = case.queries_mask.any(1)[:, None] & case.docs_mask.any(1)[None]
    result: Tensor = torch.where(usable, score, 0.0)
    return result


def maxima(products: Tensor, choosers: Tensor, chosen: Tensor, mean: bool) -> Tensor:
    first = products.detach().masked_fill(~chosen[..., None, :], -torch.inf).argmax(3, keepdim=True)
    best = (products.gather(3, first)[..., 0] * choosers).sum(2)
    return best / counts(choosers) if mean else best


def counts(mask: Tensor) -> Tensor:
    return mask.sum(-1).clamp(min=1)


def unit(tokens: Tensor) -> Any:
    square = (tokens * tokens).sum(-1, keepdim=True)
    return tokens * torch.where(square > 0, square.clamp(min=1e-300).rsqrt(), 0.0)


def gradients(scores: Tensor, case: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Of a weighted sum of the scores that are finite."""
    loss = torch.where(scores > -torch.inf, scores, 0.0).double() * weights
    found: tuple[Tensor, Tensor] = torch.autograd.grad(loss.sum(), (case.queries, case.docs))
    return found


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    for one, other in zip(got, want):
        scale = other.double().abs().max().clamp(min=0.1)  # where cosines are constant, all is rounding
        torch.testing.assert_close(one.double() / scale, other.double() / scale, rtol=0, atol=tolerance)

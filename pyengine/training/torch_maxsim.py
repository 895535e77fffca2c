"""The kernels of the torch operators `pyengine::maxsim` and `pyengine::maxsim_backward`, over padded tokens and masks.

Tensors of up to 32 bits on the CPU go to the extension; all others, and "softmax", to `torch_blocks`, whose maxima
have the same bits and the same winners.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyengine.refining import exact
from pyengine.training import torch_blocks
from pyengine.training.torch_blocks import Gradients, Sets, Wanted, counts, wide
from pyengine.types import F32, I64

AddChoices = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Wanted], Gradients]
WINNERS = 1 << 20  # winners among tokens with gaps that are found at a time: with their places 16 MiB


def forward(
    queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    reduce: str, normalize: bool, temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Scores [P], winners int32 [P, Lq] or [P, 0], and doc_winners int32 [P, Ld] or [P, 0]: see `pyengine.torch`."""
    sets, kernels = Sets(queries, docs, queries_mask, docs_mask, pairs), _native(queries)
    check(sets)
    if reduce != "softmax" and kernels is not None:
        return _native_maxima(kernels, sets, reduce, normalize)
    if reduce == "softmax":
        winners, doc_winners = (pairs.new_empty((len(pairs), 0), dtype=torch.int32) for _ in range(2))
        scores = torch_blocks.softmax(sets.vectors(normalize, torch.float64), temperature)
    else:
        scores, winners, doc_winners = torch_blocks.maxima(sets, reduce, normalize)
    return torch_blocks.rounded(scores, wide(queries)), winners, doc_winners


def backward(
    gradient: Tensor, queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor,
    winners: Tensor, doc_winners: Tensor, reduce: str, normalize: bool, temperature: float, wants_queries: bool,
    wants_docs: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients of queries and documents, of their shapes and dtypes, [0] where not wanted. Each row is summed in
    the order of the pairs, or of blocks of them, however many threads there are."""
    sets = Sets(queries, docs, queries_mask, docs_mask, pairs)
    wanted = wants_queries, wants_docs
    if reduce == "softmax":
        vectors = sets.vectors(normalize, torch.float64)
        gradients = torch_blocks.softmax_backward(gradient.double(), vectors, temperature, wanted)
        return finished(gradients, sets, vectors, normalize)
    vectors = sets.vectors(normalize, wide(sets.queries))
    return maxima_backward(gradient, sets, vectors, winners, doc_winners, reduce, normalize, wanted, _add_choices)


def maxima_backward(
    gradient: Tensor, sets: Sets, vectors: Sets, winners: Tensor, doc_winners: Tensor, reduce: str, normalize: bool,
    wanted: Wanted, add: AddChoices,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`backward` of maxima of ``vectors``, where ``add`` does what `torch_blocks.add_choices` does."""
    (query_of, doc_of), gradient = sets.pairs.unbind(1), gradient.double()
    forth = gradient if reduce == "sum" else gradient / counts(sets.queries_mask)[query_of]
    if reduce != "symmetric":
        gradients = add(vectors.queries, vectors.docs, query_of, doc_of, winners, forth, wanted)
        return finished(gradients, sets, vectors, normalize)
    back = gradient / counts(sets.docs_mask)[doc_of]
    by_query = add(vectors.queries, vectors.docs, query_of, doc_of, winners, forth / 2, wanted)
    by_doc = add(vectors.docs, vectors.queries, doc_of, query_of, doc_winners, back / 2, wanted[::-1])
    first, second = (None if a is None or b is None else a.add_(b) for a, b in zip(by_query, by_doc[::-1]))
    return finished((first, second), sets, vectors, normalize)


def finished(gradients: Gradients, sets: Sets, vectors: Sets, normalize: bool) -> tuple[Tensor, Tensor]:
    """Gradients at ``vectors`` as those at the tokens of the sets, in their types."""
    sides = zip(gradients, sets[:2], vectors[:2])
    first, second = (_finished(*side, normalize) for side in sides)
    return first, second


def _finished(gradient: Tensor | None, tokens: Tensor, vectors: Tensor, normalize: bool) -> Tensor:
    if gradient is None:
        return tokens.new_empty(0)
    if normalize:
        torch_blocks.project(gradient, tokens, vectors)
    return gradient.to(tokens.dtype)


def _add_choices(
    choosers: Tensor, chosen: Tensor, chooser_of: Tensor, chosen_of: Tensor, winners: Tensor, factors: Tensor,
    wanted: Wanted,
) -> Gradients:  # fmt: skip
    """`torch_blocks.add_choices`."""
    choices = (choosers, chosen, chooser_of, chosen_of, winners, factors, wanted)
    kernels = _native(choosers)
    return torch_blocks.add_choices(*choices) if kernels is None else _native_choices(kernels, *choices)


def _native(tokens: Tensor) -> ModuleType | None:
    """The extension, where it takes these tokens."""
    return exact.native() if tokens.device.type == "cpu" and tokens.dtype != torch.float64 else None


def check(sets: Sets) -> None:
    """Raise ValueError for tokens with NaN or inf, and for pairs of what there is not."""
    _check_finite(sets.queries, sets.queries_mask, "queries")
    _check_finite(sets.docs, sets.docs_mask, "docs")
    _check_pairs(sets.pairs, len(sets.queries), len(sets.docs))


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


def _native_maxima(kernels: ModuleType, sets: Sets, reduce: str, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    masks = sets.queries_mask.numpy(), sets.docs_mask.numpy()
    packed = [_packed(kernels, *side) for side in zip((sets.queries, sets.docs), masks)]
    query_of, doc_of = (np.ascontiguousarray(column) for column in sets.pairs.numpy().T)
    shapes = [(len(query_of), mask.shape[1]) for mask in masks]
    if reduce != "symmetric":
        shapes[1] = len(query_of), 0

    def score(query_of: I64, doc_of: I64) -> tuple[F32, np.ndarray, np.ndarray | None]:
        return kernels.maxsim_pairs(  # type: ignore[no-any-return]
            *packed, query_of, doc_of, normalize=normalize, reduce=reduce, query_weights=None, doc_weights=None,
            bias=None, argmax=True, num_threads=torch.get_num_threads(),
        )  # fmt: skip

    if all(mask.all() for mask in masks):  # numbers of tokens are places
        scores, winners, doc_winners = score(query_of, doc_of)
        rows = [winners.reshape(shapes[0]), np.empty(shapes[1], np.int32)]
        if doc_winners is not None:
            rows[1] = doc_winners.reshape(shapes[1])
    else:
        scores, rows = np.empty(len(query_of), np.float32), [np.full(shape, -1, np.int32) for shape in shapes]
        tables = [_places(mask) for mask in masks]
        step = max(1, WINNERS // max(1, shapes[0][1] + shapes[1][1]))
        for part in (slice(start, start + step) for start in range(0, len(scores), step)):
            scores[part], winners, doc_winners = score(query_of[part], doc_of[part])
            _spread(winners, masks[0][query_of[part]], tables[1], doc_of[part], rows[0][part])
            if doc_winners is not None:
                _spread(doc_winners, masks[1][doc_of[part]], tables[0], query_of[part], rows[1][part])
    return torch.from_numpy(scores), torch.from_numpy(rows[0]), torch.from_numpy(rows[1])


def _packed(kernels: ModuleType, tokens: Tensor, mask: np.ndarray) -> Any:
    """The tokens of padded rows for the extension."""
    padded = tokens.float().contiguous().numpy()
    values = padded.reshape(-1, padded.shape[2]) if mask.all() else padded[mask]
    offsets = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int64)
    return _native_tokens(kernels, values, offsets)


def _places(mask: np.ndarray) -> np.ndarray:
    """int32 [n, L + 1]: the places of each row's tokens, then -1, so that token -1 has the place -1."""
    first = np.argsort(~mask, axis=1, kind="stable").astype(np.int32)
    first[np.arange(mask.shape[1]) >= mask.sum(axis=1, keepdims=True)] = -1
    return np.pad(first, ((0, 0), (0, 1)), constant_values=-1)


def _spread(winners: np.ndarray, choosers: np.ndarray, places: np.ndarray, chosen_of: I64, out: np.ndarray) -> None:
    """Write the winners of the choosers, bool [P, L], numbers of tokens of their sets ``chosen_of`` [P], to ``out``
    [P, L], -1 everywhere, as places in padded rows."""
    out[choosers] = winners
    out[:] = places[chosen_of[:, None], out]


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
    factors: Tensor, wanted: Wanted,
) -> Gradients:  # fmt: skip
    """`torch_blocks.add_choices`. Padded rows are sets as they are, since nothing masked is a winner or has one."""
    sides = []
    for side in (choosers, chosen):
        values = side.flatten(0, 1).contiguous().numpy()
        sides.append(_native_tokens(kernels, values, side.shape[1] * np.arange(len(side) + 1)))
    gradients = kernels.maxsim_backward(
        *sides, chooser_of.contiguous().numpy(), chosen_of.contiguous().numpy(), winners.flatten().numpy(),
        factors.float().numpy(), wants_choosers=wanted[0], wants_chosen=wanted[1], num_threads=torch.get_num_threads(),
    )  # fmt: skip
    first, second = (
        None if each is None else torch.from_numpy(each).view(side.shape)
        for each, side in zip(gradients, (choosers, chosen))
    )
    return first, second

"""colpali-engine's late interaction on the engine, exact and differentiable, on the CPU too.

    import pyengine as pe

    pe.patch_colpali_engine()  # its losses and every processor's `score_multi_vector` now score by pyengine

While it is patched, the environment variable COLPALI_SCORES_BACKEND=pyengine, read on every call, insists on it;
"auto", the default, tries it first and takes the library's own way after `PyengineUnsupported` (float64, empty or mixed
tensors, other devices); "torch" and "lik" mean what they mean in the library.

Read against colpali-engine 0.3.18. As there, pads are tokens of zeros that take part: a pad, of similarity 0, wins over
tokens whose similarities are all negative. Different: see `DIFFERENCES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyengine import maxsim
from pyengine import torch as engine
from pyengine.inputs import ragged
from pyengine.integrations import parts
from pyengine.integrations.parts import PyengineUnsupported as PyengineUnsupported

LIBRARY = "colpali-engine"
DIFFERENCES = (
    "scores are those of the float64 specification, rounded once to the type of the tensors, or under autocast float32",
    "of equal maxima the first gets the gradient, and not all of them equal parts",
    "NaN or inf in a token is a ValueError",
    "float64 tensors are left to the library, by maxsim_inbatch and maxsim_kd",
    "score_multi_vector ignores device",
)
VARIABLE = "COLPALI_SCORES_BACKEND"
MODULE = "colpali_engine.utils.maxsim"


def maxsim_inbatch(query: Tensor, doc: Tensor) -> Tensor:
    """All pairs: [Q, N] of queries [Q, Lq, D] and documents [N, Ld, D], padded by zeros; in their type."""
    return _dispatched("maxsim_inbatch", query, doc, dims=3)


def maxsim_kd(query: Tensor, doc: Tensor) -> Tensor:
    """Each query with its own documents [Q, N, Ld, D]: [Q, N]."""
    return _dispatched("maxsim_kd", query, doc, dims=4)


def score_multi_vector(
    qs: Tensor | Sequence[Tensor], ps: Tensor | Sequence[Tensor], batch_size: int = 128, device: Any = None
) -> Tensor:
    """The processors' `score_multi_vector`: float32 [Q, N] on the CPU, of queries and passages [n, L, D] or lists of
    [L_i, D].

    As there, passages are padded to the longest of their batch, so that ``batch_size`` matters where similarities are
    negative. Raises ValueError where there are no queries or no passages. Tensors that need gradients are
    left to the library, which scores them by `maxsim_inbatch`.
    """
    for name, given in (("qs", qs), ("ps", ps)):
        if len(given) == 0:
            raise ValueError(f"{name} must hold at least one set of tokens; got none")
    if torch.is_grad_enabled() and any(each.requires_grad for given in (qs, ps) for each in given):
        own: Callable[..., Tensor] = _patch.own(_processor().score_multi_vector)
        return own(qs, ps, batch_size, device)
    queries = ragged.tokens(qs, "qs")
    batches: list[Any] = [ps[start : start + batch_size] for start in range(0, len(ps), batch_size)]
    return torch.from_numpy(np.asarray(maxsim(queries, parts.padded_as_zeros(batches, queries.dim))))


def patch() -> None:
    """Put these functions in the place of the library's wherever its modules hold them. Twice is once."""
    _patch.patch()


def unpatch() -> None:
    """Put the library's own functions back."""
    _patch.unpatch()


def patched() -> AbstractContextManager[None]:
    """`patch` within the block, unless it was patched before."""
    return _patch.patched()


def _replacements() -> parts.Pairs:
    module = parts.library(MODULE, LIBRARY)
    scorers = [(getattr(module, each.__name__), each) for each in (maxsim_inbatch, maxsim_kd)]
    return [*scorers, (_processor().score_multi_vector, score_multi_vector)]


def _processor() -> Any:
    return parts.library("colpali_engine.utils.processing_utils", LIBRARY).BaseVisualRetrieverProcessor


_patch = parts.Patch("colpali_engine", _replacements)


def _dispatched(name: str, query: Tensor, doc: Tensor, dims: int) -> Tensor:
    chosen = os.environ.get(VARIABLE, "auto").lower()
    if chosen in ("auto", "pyengine"):
        try:
            parts.check_trainable(query, doc, dims)
            return engine.maxsim(query, doc).to(query.dtype)
        except PyengineUnsupported:
            if chosen == "pyengine":
                raise
    own: Callable[..., Tensor] = _patch.own(getattr(parts.library(MODULE, LIBRARY), name))
    return own(query, doc)

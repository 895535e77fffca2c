"""Result and exchange types. Shape letters: Q queries, N documents, D dimensions, K results."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]


class TopK(NamedTuple):
    """The k best documents of each query, best first, ties by smaller id.

    ``scores`` float32 [Q, K], ``ids`` int64 [Q, K], ``certified`` bool [Q]: True where the row is proven
    equal to the specification. Places that no document can fill hold id -1 and score -inf (+inf for ``l2``).
    NumPy arrays, or torch tensors on the device of the input when the queries were a tensor.
    """

    scores: Any
    ids: Any
    certified: Any


class Ranges(NamedTuple):
    """Every document that reaches a threshold: query q owns ``offsets[q]:offsets[q + 1]``, best first, ties by
    smaller id.

    ``scores`` float32 [M], ``ids`` int64 [M], ``offsets`` int64 [Q+1]. NumPy arrays, or torch tensors on the device of
    the input when the queries were a tensor.
    """

    scores: Any
    ids: Any
    offsets: Any


class Alignment(NamedTuple):
    """Which document token answers each query token: ``tokens`` int64 [Lq] (the first of the best, -1 where there is
    none), ``scores`` float32 [Lq] their products. Torch tensors on the device of the query when that was a tensor."""

    tokens: Any
    scores: Any


class TermContributions(NamedTuple):
    """What each shared term adds to a sparse score, the largest first: ``terms`` int64 [S], ``contributions``
    float32 [S]."""

    terms: I64
    contributions: F32


class Candidates(NamedTuple):
    """What a backend proposes: ragged rows per query, and a bound on everything it left out.

    ``rows`` int64 [M] are row numbers of the store, each at most once per query and never a masked one; query q
    owns ``rows[offsets[q]:offsets[q + 1]]``. ``estimates`` float32 [M] are the proposer's own scores.
    ``dropped`` float64 [Q] is an upper bound on the *rank score* (the score, or minus the distance for ``l2``,
    bias included) of every allowed document that is not listed, unless it is certainly above the problem's ``ceiling``:
    -inf when nothing was left out, +inf when the proposer cannot tell.
    """

    rows: I64
    offsets: I64
    estimates: F32
    dropped: F64


class Attempt(NamedTuple):
    """What a proposal comes to, once its candidates are refined and the best selected: ``scores`` float32 [Q, K] and
    ``ids`` int64 [Q, K] as in `TopK`, and what was ``dropped``, float64 [Q], as in `Candidates`."""

    scores: F32
    ids: I64
    dropped: F64

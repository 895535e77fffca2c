"""Token pooling: fewer tokens a document, each the mean of some that are alike, and some dropped.

Clavié, Chaffin and Adams, "Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via Token
Pooling", arXiv 2409.14683.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Any, NamedTuple

import numpy as np

from pyengine.inputs import ragged
from pyengine.inputs.ragged import Ragged
from pyengine.refining import exact
from pyengine.types import F32, F64, I64, Bool


class Pooling(NamedTuple):
    """What was removed: token t of the documents, ``before`` in all, became part of token ``owner[t]`` (int64) of the
    ``after`` that there are now, with which its cosine is ``cosine[t]`` (float32; 0 for a token of zeros). One that was
    dropped has owner -1 and cosine 0."""

    before: int
    after: int
    owner: I64
    cosine: F32

    @property
    def dropped(self) -> int:
        """How many tokens were dropped."""
        return int(np.count_nonzero(self.owner < 0))

    def __str__(self) -> str:
        kept = self.owner >= 0
        alone = int((np.bincount(self.owner[kept], minlength=self.after) == 1).sum())
        said = f"{self.before:,} tokens became {self.after:,}, of which {alone:,} are as they were"
        if self.dropped:
            said += f"; {self.dropped:,} were dropped"
        if not kept.any():
            return said
        cosine = self.cosine[kept]
        return f"{said}; cosine with what it became: {cosine.mean():.3f} on average, {cosine.min():.3f} at least"


class Pooler:
    """`pool_tokens` of documents that come in pieces, with one report of all of them."""

    def __init__(self, factor: Any, name: str = "factor") -> None:
        real = isinstance(factor, (int, float, np.integer, np.floating)) and not isinstance(factor, bool)
        if not real or not 1 <= factor < inf:
            raise ValueError(f"{name} must be a number of 1 or more; got {factor!r}")
        self._factor = float(factor)
        self._documents, self._after = 0, 0  # so far
        self._owners, self._cosines = [np.empty(0, np.int64)], [np.empty(0, np.float32)]

    @exact.arithmetic()
    def __call__(self, docs: Ragged, drop: Bool | None = None) -> Ragged:
        """What is left of these documents, less the tokens of which ``drop`` [T] is True."""
        values = docs.values if drop is None else np.where(drop[:, None], np.float32(0), docs.values)
        ragged.finite(values, docs.offsets, "docs", self._documents)
        dropped = np.zeros(len(values), bool) if drop is None else drop
        kept = docs.without(dropped)
        owner, first = _owners(kept, self._factor)
        pooled = Ragged(_means(kept.values, owner, first[-1]), first)
        owners, cosines = np.full(len(dropped), -1, np.int64), np.zeros(len(dropped), np.float32)
        owners[~dropped] = owner + self._after
        cosines[~dropped] = (_units(kept.values) * _units(pooled.values)[owner]).sum(axis=1)
        self._owners.append(owners)
        self._cosines.append(cosines)
        self._documents, self._after = self._documents + len(docs), self._after + first[-1]
        return pooled

    @property
    def pooling(self) -> Pooling:
        """What was removed so far."""
        owner = np.concatenate(self._owners)
        return Pooling(len(owner), self._after, owner, np.concatenate(self._cosines))


def pool_tokens(docs: Any, factor: float = 1, drop: Any = None) -> tuple[Ragged, Pooling]:
    """Documents of ceil(L / factor) tokens instead of L: groups of tokens that are alike become their mean.

    Groups are merged two at a time, those first whose tokens have the largest mean cosine (average linkage). Means are
    taken in float64, are not normalised, and stand in the order of their first tokens. `pyengine.MultiVectorIndex.add`
    does the same with ``pool`` and ``drop``.

    Parameters
    ----------
    docs : Ragged, list of arrays [L_i, D], or array [n, L, D]
    factor : float of 1 or more
    drop : bool [T], one per token in their order, or list of n arrays [L_i]
        True for tokens that are dropped before L is counted, such as punctuation: with token ids at hand,
        ``np.isin(token_ids, punctuation)``. They may hold NaN or inf. A document may lose all of its tokens.

    Returns
    -------
    (Ragged of n documents, what was merged and dropped)

    Raises
    ------
    ValueError, TypeError
        One sentence naming the argument.
    ImportError
        SciPy is not installed, and the factor is not 1.
    """
    pooler, given = Pooler(factor), ragged.tokens(docs, "docs")
    return pooler(given, ragged.marks(drop, "drop", given.lengths)), pooler.pooling


def _owners(docs: Ragged, factor: float) -> tuple[I64, list[int]]:
    """int64 [T]: the new token that each becomes part of; and the offsets of the documents among the new ones."""
    owner, first = np.empty(len(docs.values), np.int64), [0]
    for row, doc in enumerate(docs):
        low, high = docs.offsets[row : row + 2]
        count = ceil(len(doc) / factor)
        owner[low:high] = first[-1] + _groups(_units(doc), count)
        first.append(first[-1] + count)
    return owner, first


def _units(rows: F32) -> F64:
    """float64 [n, D]: their directions; zeros for a row of zeros."""
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    units: F64 = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return units


def _groups(units: F64, count: int) -> I64:
    """int64 [L]: the number of each row's group, of ``count``, in the order of their first rows."""
    length = len(units)
    if count == length:
        return np.arange(length)
    from scipy.cluster.hierarchy import linkage

    apart = np.maximum(0, 1 - units @ units.T)[np.triu_indices(length, 1)]
    merges = linkage(apart, "average")[: length - count, :2].astype(np.int64)
    root = np.arange(length + len(merges))
    for merged, (left, right) in reversed(list(enumerate(merges, length))):  # a group before those that it was made of
        root[left] = root[right] = root[merged]
    _, first, group = np.unique(root[:length], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def _means(rows: F32, owner: I64, count: int) -> F32:
    """float32 [count, D]: the means of the rows of each group."""
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner, minlength=count)
    starts = np.cumsum(sizes) - sizes
    if not count:
        return np.empty((0, rows.shape[1]), np.float32)
    sums = np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64)
    means: F32 = (sums / sizes[:, None]).astype(np.float32)
    return means

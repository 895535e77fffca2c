"""Token pooling: fewer tokens a document, each the mean of some that are alike.

Clavié, Chaffin and Adams, "Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via Token
Pooling", arXiv 2409.14683.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Any, NamedTuple

import numpy as np

from pyengine import ragged
from pyengine.ragged import Ragged
from pyengine.types import F32, F64, I64


class Pooling(NamedTuple):
    """What `pool_tokens` merged: token t of the documents, ``before`` in all, became part of token ``owner[t]`` (int64)
    of the ``after`` that there are now, with which its cosine is ``cosine[t]`` (float32; 0 for a token of zeros)."""

    before: int
    after: int
    owner: I64
    cosine: F32

    def __str__(self) -> str:
        alone = int((np.bincount(self.owner, minlength=self.after) == 1).sum())
        said = f"{self.before:,} tokens became {self.after:,}, of which {alone:,} are as they were"
        if not self.before:
            return said
        return (
            f"{said}; cosine with what it became: {self.cosine.mean():.3f} on average, {self.cosine.min():.3f} at least"
        )


def pool_tokens(docs: Any, factor: float) -> tuple[Ragged, Pooling]:
    """Documents of ceil(L / factor) tokens instead of L: groups of tokens that are alike become their mean.

    Groups are merged two at a time, those first whose tokens have the largest mean cosine (average linkage). Means are
    taken in float64, are not normalised, and stand in the order of their first tokens.

    Parameters
    ----------
    docs : Ragged, list of arrays [L_i, D], or array [n, L, D]
    factor : float of 1 or more

    Returns
    -------
    (Ragged of n documents, what was merged)

    Raises
    ------
    ValueError, TypeError
        One sentence naming the argument.
    ImportError
        SciPy is not installed.
    """
    if isinstance(factor, bool) or not isinstance(factor, (int, float, np.number)) or not 1 <= factor < inf:
        raise ValueError(f"factor must be a number of 1 or more; got {factor!r}")
    given = ragged.tokens(docs, "docs")
    ragged.finite(given.values, given.offsets, "docs")
    owner, first = np.empty(len(given.values), np.int64), [0]
    for row, doc in enumerate(given):
        low, high = given.offsets[row : row + 2]
        count = ceil(len(doc) / factor)
        owner[low:high] = first[-1] + _groups(_units(doc), count)
        first.append(first[-1] + count)
    pooled = Ragged(_means(given.values, owner, first[-1]), first)
    cosine = (_units(given.values) * _units(pooled.values)[owner]).sum(axis=1)
    return pooled, Pooling(len(owner), first[-1], owner, cosine.astype(np.float32))


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

"""k-means by our own search: an assignment is an exact top-1, so centroids are the same bits from every instruction set
and any number of threads."""

from __future__ import annotations

from math import isqrt

import numpy as np

from pyengine.searches import dense
from pyengine.types import F32, I64

MOST = 1 << 16  # centroids, whose numbers are uint16
ROUNDS = 4  # more take off 1% of the squared error
SEED = 2112_01488


def count_for(n_rows: int) -> int:
    """As many centroids as ColBERTv2 takes (arXiv 2112.01488): the power of two below 16 sqrt(n), and no more than
    there are rows."""
    most = min(16 * isqrt(n_rows), n_rows, MOST)
    return 1 << most.bit_length() - 1 if most else 0


def nearest(rows: F32, centroids: F32) -> I64:
    """int64 [n]: the nearest centroid of each row by Euclidean distance, the first where several are."""
    if not len(rows):
        return np.empty(0, np.int64)
    return np.asarray(dense.topk(rows, centroids, 1, metric="l2").ids[:, 0])


def kmeans(rows: F32, count: int) -> F32:
    """float32 [count, D]: Lloyd's algorithm over finite rows [n, D], n >= count, from rows drawn by a fixed seed. A
    centroid that no row is nearest to stays where it is."""
    drawn = np.random.default_rng(SEED).choice(len(rows), count, replace=False)
    centroids = rows[np.sort(drawn)]
    for _ in range(ROUNDS):
        owner = nearest(rows, centroids)
        order = np.argsort(owner, kind="stable")
        taken, starts, sizes = np.unique(owner[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64)
        centroids[taken] = sums / sizes[:, None]
    return centroids

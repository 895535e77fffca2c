"""Exact nearest neighbours in scikit-learn's shape, by Euclidean, squared Euclidean and cosine distance.

    from pyengine.integrations.sklearn import NearestNeighbors

    distances, places = NearestNeighbors(n_neighbors=10, metric="cosine").fit(X).kneighbors(queries)

Read against scikit-learn 1.9. The classes are scikit-learn's own with another engine: parameters, graphs, pipelines and
``clone`` are those of the library, ``n_jobs`` are threads (None: OMP_NUM_THREADS, else all cores), and what the engine
has not (other metrics, sparse matrices, trees) the library computes itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyengine import checks
from pyengine.indexes.index import DenseIndex
from pyengine.integrations import parts
from pyengine.types import F32, F64, I64

LIBRARY = "scikit-learn"
neighbors = parts.library("sklearn.neighbors", LIBRARY)
validation = parts.library("sklearn.utils.validation", LIBRARY)
issparse = parts.library("scipy.sparse", LIBRARY).issparse
DIFFERENCES = (
    "dense X is rounded to float32, and distances (float64) come from scores of the float64 specification, rounded to "
    "float32",
    "ties go to the smaller index",
    "algorithm and leaf_size change nothing",
    "X=None leaves out the point itself, whatever copies it has",
)
METRICS = {"euclidean": "l2", "l2": "l2", "sqeuclidean": "l2", "cosine": "cosine"}
NeighborsBase = parts.library("sklearn.neighbors._base", LIBRARY).NeighborsBase
_Neighbors: Any = neighbors.NearestNeighbors
_Transformer: Any = neighbors.KNeighborsTransformer
OTHERS = (neighbors.KDTree, neighbors.BallTree, NeighborsBase)  # what else may be fitted


class _Engine:
    """What replaces the library's own fit and searches."""

    def _fit(self: Any, X: Any, y: Any = None) -> Any:
        self._index = None
        metric = "euclidean" if self.metric == "minkowski" and self.p == 2 else self.metric
        known = isinstance(metric, str) and metric in METRICS and not self.metric_params
        if not known or issparse(X) or isinstance(X, OTHERS):
            return super()._fit(X, y)  # type: ignore[misc]
        rows = validation.validate_data(self, X, dtype=np.float32, order="C")
        self.effective_metric_, self.effective_metric_params_ = metric, dict[str, Any]()
        self._fit_X, self._fit_method, self._tree = rows, "brute", None
        self._index = DenseIndex(rows.shape[1], metric=METRICS[metric])
        self._index.add(rows)
        self.n_samples_fit_ = len(rows)
        return self

    def kneighbors(self: Any, X: Any = None, n_neighbors: Any = None, return_distance: bool = True) -> Any:
        """(distances float64 [n, k], indices int64 [n, k]) of the nearest, or the indices alone. Without X the
        neighbours of each fitted point, itself left out. ValueError for more neighbours than there are."""
        validation.check_is_fitted(self)
        if self._index is None:
            return super().kneighbors(X, n_neighbors, return_distance)  # type: ignore[misc]
        rows, itself = self._queries(X)
        count = checks.positive_int(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors")
        if count > self.n_samples_fit_ - (itself is not None):
            given = f"n_neighbors = {count}, n_samples_fit = {self.n_samples_fit_}, n_samples = {len(rows)}"
            raise ValueError(f"Expected n_neighbors {'<=' if itself is None else '<'} n_samples_fit, but {given}")
        found = self._index.search(rows, count, exclude=itself, num_threads=_threads(self.n_jobs))
        return (self._distances(found.scores), found.ids) if return_distance else found.ids

    def radius_neighbors(
        self: Any,
        X: Any = None,
        radius: Any = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:
        """(distances, indices), each an object array [n] of arrays: what is not farther than the radius (one, or
        one for each row), by index, or nearest first with ``sort_results``; or the indices alone."""
        validation.check_is_fitted(self)
        if self._index is None:
            return super().radius_neighbors(X, radius, return_distance, sort_results)  # type: ignore[misc]
        if sort_results and not return_distance:
            raise ValueError("return_distance must be True if sort_results is True.")
        rows, itself = self._queries(X)
        limits = np.broadcast_to(np.asarray(self.radius if radius is None else radius, np.float64), len(rows))
        found = self._index.range_search(
            rows, self._thresholds(limits), exclude=itself, num_threads=_threads(self.n_jobs)
        )
        owner = np.repeat(np.arange(len(rows)), np.diff(found.offsets))
        order = np.arange(len(owner)) if sort_results else np.lexsort((found.ids, owner))
        distances = self._distances(found.scores)[order]
        near = distances <= limits[owner]
        ends = np.cumsum(np.bincount(owner[near], minlength=len(rows)))[:-1]
        indices = _split(found.ids[order][near], ends)
        return (_split(distances[near], ends), indices) if return_distance else indices

    def _queries(self: Any, X: Any) -> tuple[Any, I64 | None]:
        """float32 [n, D], and of fitted points their own indices [n, 1]."""
        if X is None:
            return self._fit_X, np.arange(self.n_samples_fit_)[:, None]
        rows = validation.validate_data(self, X, dtype=np.float32, order="C", reset=False, accept_sparse="csr")
        return (rows.toarray() if issparse(rows) else rows), None

    def _distances(self: Any, scores: Any) -> F64:
        values: F64 = np.asarray(scores, np.float64)
        if self.effective_metric_ == "cosine":
            return 1.0 - values
        return values if self.effective_metric_ == "sqeuclidean" else np.sqrt(values)

    def _thresholds(self: Any, radii: F64) -> F32:
        """Scores that everything within these radii reaches, and little more: rounded, and one step away."""
        with np.errstate(over="ignore"):
            if self.effective_metric_ == "cosine":
                bounds: F32 = np.nextafter((1.0 - radii).astype(np.float32), np.float32(-np.inf))
                return bounds
            squares = radii if self.effective_metric_ == "sqeuclidean" else radii * np.abs(radii)
            bounds = np.nextafter(squares.astype(np.float32), np.float32(np.inf))
            return bounds


class NearestNeighbors(_Engine, _Neighbors):
    """`sklearn.neighbors.NearestNeighbors`: fit(X), kneighbors, kneighbors_graph, radius_neighbors and
    radius_neighbors_graph."""


class KNeighborsTransformer(_Engine, _Transformer):
    """`sklearn.neighbors.KNeighborsTransformer`: fit(X), and transform(X) to the sparse graph of neighbours that
    estimators with ``metric="precomputed"`` take."""


def _threads(n_jobs: int | None) -> int | None:
    if n_jobs is None:
        return None
    from joblib import effective_n_jobs

    return int(effective_n_jobs(n_jobs))


def _split(values: Any, ends: I64) -> Any:
    """An object array of the parts."""
    parts = np.empty(len(ends) + 1, object)
    for place, part in enumerate(np.split(values, ends)):
        parts[place] = part
    return parts

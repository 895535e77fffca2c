"""Exact nearest neighbours in scikit-learn's shape, for distances euclidean, squared and cosine.

    from pyengine.integrations.sklearn import NearestNeighbors

    distances, places = NearestNeighbors(n_neighbors=10, metric="cosine").fit(X).kneighbors(queries)

Read against scikit-learn 1.9. The classes are scikit-learn's own, with another engine: parameters, graphs, pipelines,
``clone`` and errors are those of the library, and ``n_jobs`` are threads (None: OMP_NUM_THREADS, else all cores).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.index import DenseIndex
from pyengine.types import F64, I64

try:
    from sklearn import neighbors
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise ImportError("this needs scikit-learn, which is not installed: run 'pip install scikit-learn'") from error

LIBRARY = "scikit-learn"
DIFFERENCES = (
    "X is rounded to float32, and distances (float64) come from scores of the float64 specification, rounded to float32",
    "ties go to the smaller index; neighbours within a radius always come sorted",
    "metric is minkowski with p=2, euclidean, l2, sqeuclidean or cosine; another is a ValueError",
    "sparse X is a TypeError; algorithm and leaf_size change nothing",
    "X=None leaves out the point itself, also where it has more copies than neighbours are asked for",
)
METRICS = {"euclidean": "l2", "l2": "l2", "sqeuclidean": "l2", "cosine": "cosine"}


class _Engine:
    """What replaces the library's own fit and searches."""

    def _fit(self: Any, X: Any, y: Any = None) -> Any:
        rows = validate_data(self, X, dtype=np.float32, order="C")
        self.effective_metric_ = _effective(self.metric, self.p, self.metric_params)
        self.effective_metric_params_: dict[str, Any] = {}
        self._fit_method, self._tree = "brute", None
        self._index = DenseIndex(rows.shape[1], metric=METRICS[self.effective_metric_])
        self._index.add(rows)
        self.n_samples_fit_ = len(rows)
        return self

    @property
    def _fit_X(self: Any) -> Any:
        """Under this name the library's functions look for the fitted points."""
        return self._index.vectors(self._index.ids)

    def kneighbors(self: Any, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        """(distances float64 [n, k], indices int64 [n, k]) of the nearest, or the indices alone. Without X the
        neighbours of each fitted point, itself left out. ValueError for more neighbours than there are."""
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
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:
        """(distances, indices), each an object array [n] of arrays: what is not farther than the radius, nearest
        first; or the indices alone."""
        if sort_results and not return_distance:
            raise ValueError("return_distance must be True if sort_results is True.")
        rows, itself = self._queries(X)
        limit = float(self.radius if radius is None else radius)
        found = self._index.range_search(
            rows, self._threshold(limit), exclude=itself, num_threads=_threads(self.n_jobs)
        )
        distances = self._distances(found.scores)
        near = distances <= limit
        ends = np.concatenate([[0], np.cumsum(near)])[found.offsets][1:-1]
        indices = _split(found.ids[near], ends, len(rows))
        return (_split(distances[near], ends, len(rows)), indices) if return_distance else indices

    def _queries(self: Any, X: Any) -> tuple[Any, I64 | None]:
        """float32 [n, D], and of fitted points their own indices [n, 1]."""
        check_is_fitted(self)
        if X is None:
            return self._fit_X, np.arange(self.n_samples_fit_)[:, None]
        return validate_data(self, X, dtype=np.float32, order="C", reset=False), None

    def _distances(self: Any, scores: Any) -> F64:
        values: F64 = np.asarray(scores, np.float64)
        if self.effective_metric_ == "cosine":
            return 1.0 - values
        return values if self.effective_metric_ == "sqeuclidean" else np.sqrt(values)

    def _threshold(self: Any, radius: float) -> float:
        """A score that everything within the radius reaches, and little more: rounded away from it twice."""
        if self.effective_metric_ == "cosine":
            return float(np.nextafter(np.float32(1.0 - radius), np.float32(-math.inf)))
        squared = radius if self.effective_metric_ == "sqeuclidean" else radius * abs(radius)
        with np.errstate(over="ignore"):
            return float(np.nextafter(np.float32(squared), np.float32(math.inf)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.sparse = False
        return tags


class NearestNeighbors(_Engine, neighbors.NearestNeighbors):  # type: ignore[misc, unused-ignore]
    """`sklearn.neighbors.NearestNeighbors`: fit(X), kneighbors, kneighbors_graph, radius_neighbors and
    radius_neighbors_graph."""


class KNeighborsTransformer(_Engine, neighbors.KNeighborsTransformer):  # type: ignore[misc, unused-ignore]
    """`sklearn.neighbors.KNeighborsTransformer`: fit(X), and transform(X) to the sparse graph of neighbours that
    estimators with ``metric="precomputed"`` take."""


def _effective(metric: Any, p: Any, params: Any) -> str:
    if params:
        raise ValueError(f"metric_params must be None; got {params!r}")
    if metric == "minkowski" and p == 2:
        return "euclidean"
    if not isinstance(metric, str) or metric not in METRICS:
        got = f"{metric!r} with p={p!r}" if metric == "minkowski" else repr(metric)
        raise ValueError(f"metric must be 'minkowski' with p=2, {', '.join(map(repr, METRICS))}; got {got}")
    return metric


def _threads(n_jobs: int | None) -> int | None:
    if n_jobs is None:
        return None
    from joblib import effective_n_jobs

    return int(effective_n_jobs(n_jobs))


def _split(values: Any, ends: I64, count: int) -> Any:
    parts = np.empty(count, object)
    for place, part in enumerate(np.split(values, ends)):
        parts[place] = part
    return parts

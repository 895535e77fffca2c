"""A pytest plugin: our classes in the place of those that `sklearn.neighbors` offers."""

from __future__ import annotations

import sklearn.neighbors

from pyengine.integrations import sklearn as face

sklearn.neighbors.NearestNeighbors = face.NearestNeighbors
sklearn.neighbors.KNeighborsTransformer = face.KNeighborsTransformer

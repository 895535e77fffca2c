"""How `MultiVectorIndex` keeps tokens: stores of `pyengine.DenseIndex`, and ColBERTv2's residual codes."""

from __future__ import annotations

import numpy as np

from pyengine import checks
from pyengine.indexes import stores
from pyengine.indexes.arrays import DiskArray, GrowingArray
from pyengine.indexes.kmeans import nearest
from pyengine.indexes.row_store import Arrays
from pyengine.indexes.stores import FLOAT32_MAX, Coding, Form, Store, padded
from pyengine.inputs.rows import Rows, bfloat16_values, to_bfloat16
from pyengine.refining import exact
from pyengine.types import F32

RESIDUALS = {"residual1": 1, "residual2": 2, "residual4": 4}
CODECS = (*stores.PLAIN, "int8", "binary", *RESIDUALS)
SHORT = {"f32": "float32", "bf16": "bfloat16"}


class Residual(Form, Coding):
    """u bits a dimension and 4 bytes a token: the number of its centroid, and what is left as u bit planes with a step
    (arXiv 2112.01488, but each token has a step of its own). No norm: a kernel that needs it finds it on the way.

    The vectors themselves, or beside float32 vectors what a fast search scans in their place.
    """

    keeps_norms = False

    def __init__(self, dim: int, planes: int) -> None:
        super().__init__(dim)
        self.planes = planes

    def arrays(self) -> dict[str, GrowingArray]:
        return {
            "planes": GrowingArray(np.uint8, (self.planes * padded(self.dim) // 8,)),
            "step": GrowingArray(np.uint16),
            "centroid": GrowingArray(np.uint16),
            "centroids": GrowingArray(np.float32, (self.dim,)),
        }

    def encode(self, rows: F32, kept: Arrays) -> Arrays:
        """Its arrays for these finite rows, by the centroids that are kept. Whatever these are, no sum overflows."""
        centroids: F32 = kept["centroids"]
        owner = nearest(rows, centroids)
        left = np.clip(rows - centroids[owner], -FLOAT32_MAX, FLOAT32_MAX)
        planes, step, _, _ = exact.pack_planes(left, self.planes, checks.thread_count(None))
        room = (FLOAT32_MAX - np.abs(centroids).max(axis=1, initial=0).astype(np.float64)) / (1 << self.planes)
        highest = (room.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)  # bfloat16, rounded down
        return {
            "planes": planes,
            "step": np.minimum(to_bfloat16(step), highest[owner]),  # bits of positive floats are in their order
            "centroid": owner.astype(np.uint16),
        }

    def rows(self, arrays: Arrays) -> Rows:
        return Rows(
            "residual", arrays["planes"], self.dim, arrays["step"], self.planes, arrays["centroid"], arrays["centroids"]
        )

    def codes(self, arrays: Arrays) -> Rows:
        return self.rows(arrays)

    def flaw(self, heads: Arrays) -> str | None:
        if not np.isfinite(heads["centroids"]).all():
            return "centroids of finite numbers"
        if not np.isfinite(bfloat16_values(heads["step"])).all():
            return "steps of finite numbers"
        if (heads["centroid"] >= len(heads["centroids"])).any():
            return f"numbers of its {len(heads['centroids'])} centroids"
        return None


def make(name: str, originals: str | None, dim: int, directory: str | None = None) -> Store:
    """The store of tokens for a codec: see `pyengine.indexes.stores.make`."""
    if checks.choice(name, "codec", CODECS) not in RESIDUALS:
        return stores.make(name, originals, dim, directory)
    stores.check_originals(originals)
    stores.check_extension(name)
    codes = Residual(dim, RESIDUALS[name])
    if originals is None:
        return Store(name, codes)
    store = Store(name, Form(dim), codes)
    if originals == "disk":
        store.arrays["rows"] = DiskArray(np.float32, (dim,), directory)
    return store

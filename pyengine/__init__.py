"""pyengine: exact similarity search, the same bits from every backend, at quantised speed."""

from pyengine.backends.registry import backends, use_backend
from pyengine.dense import topk
from pyengine.index import DenseIndex
from pyengine.loading import load
from pyengine.types import TopK

__all__ = ["DenseIndex", "TopK", "backends", "load", "topk", "use_backend"]
__version__ = "0.1.0"

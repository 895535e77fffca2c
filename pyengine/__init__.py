"""pyengine: exact similarity search, the same bits from every backend, at quantised speed."""

from typing import TYPE_CHECKING, Any

from pyengine.backends.registry import backends, use_backend
from pyengine.bm25 import BM25, bm25
from pyengine.dense import topk, topk_both
from pyengine.fuse import fuse
from pyengine.index import DenseIndex
from pyengine.lexicon import lexicon_head
from pyengine.loading import load
from pyengine.maxsim import maxsim, maxsim_align, maxsim_candidates, maxsim_pairs, maxsim_topk
from pyengine.multi_vector import MultiVectorIndex
from pyengine.pooling import Pooling, pool_tokens
from pyengine.ragged import Ragged
from pyengine.ranges import range_search
from pyengine.ranks import rank_of
from pyengine.sliced import sliced_topk
from pyengine.sliced_rows import SlicedRows
from pyengine.sparse import explain_terms, sparse_topk
from pyengine.sparse_index import SparseIndex
from pyengine.sparse_rows import SparseRows
from pyengine.text import Analyzer
from pyengine.types import Alignment, Ranges, TermContributions, TopK

if TYPE_CHECKING:
    from pyengine import torch as torch

__all__ = [
    "BM25",
    "Alignment",
    "Analyzer",
    "DenseIndex",
    "MultiVectorIndex",
    "Pooling",
    "Ragged",
    "Ranges",
    "SlicedRows",
    "SparseIndex",
    "SparseRows",
    "TermContributions",
    "TopK",
    "backends",
    "bm25",
    "explain_terms",
    "fuse",
    "lexicon_head",
    "load",
    "maxsim",
    "maxsim_align",
    "maxsim_candidates",
    "maxsim_pairs",
    "maxsim_topk",
    "pool_tokens",
    "range_search",
    "rank_of",
    "sliced_topk",
    "sparse_topk",
    "topk",
    "topk_both",
    "use_backend",
]
__version__ = "0.1.0"


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """`pyengine.torch` is imported when it is first used, since that imports torch."""
        if name != "torch":
            raise AttributeError(f"module 'pyengine' has no attribute {name!r}")
        from importlib import import_module

        return import_module("pyengine.torch")

"""pyengine: exact similarity search, the same bits from every backend, at quantised speed."""

from typing import TYPE_CHECKING, Any

from pyengine.backends.registry import backends, use_backend
from pyengine.fuse import fuse
from pyengine.indexes.index import DenseIndex
from pyengine.indexes.loading import load
from pyengine.indexes.multi_vector import MultiVectorIndex
from pyengine.indexes.pooling import Pooling, pool_tokens
from pyengine.indexes.sparse_index import SparseIndex
from pyengine.inputs.ragged import Ragged
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.lexical.bm25 import BM25, bm25
from pyengine.lexical.lexicon import lexicon_head
from pyengine.lexical.text import Analyzer
from pyengine.searches.dense import topk, topk_both
from pyengine.searches.maxsim import maxsim, maxsim_align, maxsim_candidates, maxsim_pairs, maxsim_topk
from pyengine.searches.ranges import range_search
from pyengine.searches.ranks import rank_of
from pyengine.searches.sliced import sliced_topk
from pyengine.searches.sparse import explain_terms, sparse_topk
from pyengine.types import Alignment, Ranges, TermContributions, TopK

if TYPE_CHECKING:
    from pyengine import torch as torch
    from pyengine.integrations.colpali_engine import patch as patch_colpali_engine  # noqa: F401
    from pyengine.integrations.colpali_engine import patched as patched_colpali_engine  # noqa: F401
    from pyengine.integrations.colpali_engine import unpatch as unpatch_colpali_engine  # noqa: F401
    from pyengine.integrations.faiss import from_faiss, to_faiss  # noqa: F401
    from pyengine.integrations.pylate import patch as patch_pylate  # noqa: F401
    from pyengine.integrations.pylate import patched as patched_pylate  # noqa: F401
    from pyengine.integrations.pylate import unpatch as unpatch_pylate  # noqa: F401
    from pyengine.integrations.sentence_transformers import patch as patch_sentence_transformers  # noqa: F401
    from pyengine.integrations.sentence_transformers import patched as patched_sentence_transformers  # noqa: F401
    from pyengine.integrations.sentence_transformers import unpatch as unpatch_sentence_transformers  # noqa: F401

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


# Imported when first used, since that imports torch or another library: name -> module, and what of it ("": itself).
_LATER = {
    "torch": ("pyengine.torch", ""),
    "from_faiss": ("pyengine.integrations.faiss", "from_faiss"),
    "to_faiss": ("pyengine.integrations.faiss", "to_faiss"),
    **{
        f"{verb}_{library}": (f"pyengine.integrations.{library}", verb)
        for library in ("colpali_engine", "pylate", "sentence_transformers")
        for verb in ("patch", "unpatch", "patched")
    },
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """What `_LATER` names."""
        if name not in _LATER:
            raise AttributeError(f"module 'pyengine' has no attribute {name!r}")
        from importlib import import_module

        module, attribute = _LATER[name]
        return getattr(import_module(module), attribute) if attribute else import_module(module)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})

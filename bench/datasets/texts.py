"""From texts to rows: by words (BM25), by an encoder of the user's, or by a model of sentence-transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pyengine import checks
from pyengine.evaluate import Document
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.lexical import text_search
from pyengine.lexical.bm25 import BM25
from pyengine.lexical.text import Analyzer
from pyengine.types import F32

Encoder = Callable[[list[str]], Any]


def by_words(docs: Sequence[Document], queries: Sequence[str]) -> tuple[SparseRows, SparseRows]:
    """BM25 impacts of documents, and the weights of queries. Stems where PyStemmer is installed, else whole words."""
    try:
        analyze = Analyzer()
    except ImportError:
        analyze = Analyzer(None)
    model = BM25.fit(map(analyze, text_search.joined(docs)))
    return model.docs, model.queries(map(analyze, queries))


def encoder_of(name: str) -> Encoder:
    """The function ``module:function``, looked for in this folder too: ``encode(texts) -> array [n, D]``."""
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise ValueError(f"--encoder must be module:function; got {name!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), function)
    except ImportError as error:
        raise ValueError(f"--encoder {name}: the module cannot be imported ({error})") from None
    except AttributeError:
        raise ValueError(f"--encoder {name}: the module {module} has no {function}") from None
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(found):
        raise ValueError(f"--encoder {name} must be a function of a list of texts; got a {type(found).__name__}")
    encoder: Encoder = found
    return encoder


def encoded(encode: Encoder, texts: list[str], name: str) -> F32:
    """float32 [n, D]: what the encoder makes of the texts, checked."""
    vectors = checks.vectors(encode(texts), f"the vectors of {name}")
    if len(vectors) != len(texts):
        raise ValueError(f"{name} must return a row for each of {len(texts)} texts; got {len(vectors)}")
    return vectors

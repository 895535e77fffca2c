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
        found = getattr(import_module(module), function, None)
    except Exception as error:  # of its code, whatever it is
        raise ValueError(f"--encoder {name}: the module cannot be imported ({_said(error)})") from None
    finally:
        sys.path.remove(str(Path.cwd()))
    if found is None:
        raise ValueError(f"--encoder {name}: the module {module} has no {function}")
    if not callable(found):
        raise ValueError(f"--encoder {name} must be a function of a list of texts; got a {type(found).__name__}")
    encoder: Encoder = found
    return encoder


def encoded(encode: Encoder, texts: list[str], name: str, kind: str) -> F32:
    """float32 [n, D]: what the encoder makes of the texts, checked. ``kind`` is what they are, "documents". ValueError
    or TypeError in a sentence with the name of the encoder, and the number of the text that it is about."""
    try:
        made = encode(texts)
    except Exception as error:  # the encoder's, whatever it is
        raise ValueError(f"{name} fails at {_place(encode, texts, kind)}: {_said(error)}") from None
    vectors = checks.vectors(made, f"the vectors that {name} makes of {kind}")
    if len(vectors) != len(texts):
        raise ValueError(f"{name} must return a row for each of {len(texts)} {kind}; got {len(vectors)}")
    checks.finite(vectors, f"the vectors that {name} makes of {kind}")
    return vectors


def _place(encode: Encoder, texts: list[str], kind: str) -> str:
    """The text at which it fails, as far as halves, and halves of these, tell."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        if _fails(encode, texts[low:middle]):
            high = middle
        elif _fails(encode, texts[middle:high]):
            low = middle
        else:
            return f"the texts {low} to {high - 1} of the {kind} together"
    return f"text {low} of the {kind}, counted from 0"


def _fails(encode: Encoder, texts: list[str]) -> bool:
    try:
        encode(texts)
    except Exception:  # as in `encoded`
        return True
    return False


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

"""What `pyengine search` does with texts: read them and the questions, search by words or vectors, fuse both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pyengine import checks, evaluate
from pyengine.evaluate import Document
from pyengine.lexical.bm25 import BM25
from pyengine.lexical.text import Analyzer
from pyengine.searches.sparse import sparse_topk
from pyengine.types import F32, TopK

JSONL = (".jsonl", ".jsonl.gz")
TEXTS = (".txt", ".md", ".rst")
DEPTH = 100  # results of each ranking that is fused, at least
ABOVE_ZERO = float(np.finfo(np.float32).smallest_subnormal)


def is_text(path: Path) -> bool:
    """Whether that is read as texts, not as vectors."""
    return path.is_dir() or path.name.endswith(JSONL)


def read_documents(path: Path) -> dict[str, Document]:
    """By name: the lines of a JSONL file, of a BEIR folder's corpus, or the texts in a folder and below it."""
    if path.is_file() or any((path / f"corpus{suffix}").is_file() for suffix in JSONL):
        found = evaluate.load_corpus(path)
    else:
        files = sorted(each for each in path.rglob("*") if each.suffix.lower() in TEXTS and each.is_file())
        found = {each.relative_to(path).as_posix(): Document("", _read(each)) for each in files}
    if not found:
        raise ValueError(f"{path} must hold documents: a line of JSON each, or files {', '.join(TEXTS)}; it has none")
    return found


def read_questions(given: str) -> dict[str, str]:
    """By name: the lines of a JSONL file, of a text file, or the question itself."""
    path = Path(given)
    if (given.endswith(JSONL) or path.suffix.lower() in TEXTS) and not path.is_file():
        raise FileNotFoundError(f"{given} is missing: a file of queries")
    if given.endswith(JSONL):
        found = evaluate.load_queries(path)
    elif path.suffix.lower() in TEXTS:
        lines = [line.strip() for line in _read(path).splitlines()]
        found = {str(number): line for number, line in enumerate(lines, 1) if line}
    else:
        found = {"1": given} if given.strip() else {}
    if not found:
        raise ValueError(f"queries must be a text, or a file of queries, a line each; {given!r} has none")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} must be text in UTF-8") from None


def joined(docs: Iterable[Document]) -> list[str]:
    """Title and text of each document."""
    return [f"{doc.title} {doc.text}".strip() for doc in docs]


def by_words(
    docs: Iterable[Document], queries: Iterable[str], k: int, *, language: str | None, backend: str, threads: int | None
) -> TopK:
    """BM25 (Lucene's, k1 = 0.9, b = 0.4) over titles and texts. Documents without a word of the query are left out."""
    analyze = Analyzer(language)
    model = BM25.fit(map(analyze, joined(docs)))
    asked = model.queries(map(analyze, queries))
    return sparse_topk(asked, model.docs, k, threshold=ABOVE_ZERO, backend=backend, num_threads=threads)


def embed(model: Path, docs: Iterable[Document], queries: Iterable[str]) -> tuple[F32, F32]:
    """Vectors of documents and queries, by a model of sentence-transformers in a folder."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        remedy = "pip install sentence-transformers, or give --vectors"
        raise ImportError(f"--model needs the package sentence-transformers: {remedy}") from None
    encoder = SentenceTransformer(str(model), local_files_only=True)
    texts = joined(docs), list(queries)
    rows = (encoder.encode(each, convert_to_numpy=True, show_progress_bar=False) for each in texts)
    vectors, asked = (checks.vectors(each, "the model's vectors") for each in rows)
    return vectors, asked

"""Text for the benchmark of sparse search: term counts and what BM25 makes of them, by Lucene's formula with k1 0.9 and
b 0.4. Real text is SciFact's: lower-case words, without stop words or stems, which do not matter for speed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pyengine
from bench.workloads import sparse_data
from bench.workloads.sparse_data import I32
from pyengine import evaluate
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.types import F64

K1, B = 0.9, 0.4
SCIFACT = Path(pyengine.__file__).parent / "data" / "scifact"


@dataclass(frozen=True)
class Documents:
    """Documents to be searched by inner product: ``rows`` with their weights. Those of text have the ``counts`` of
    their terms, int32 [P], too, and real ones the queries ``asked`` of them."""

    rows: SparseRows
    counts: I32 | None = None
    asked: SparseRows | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: slice) -> Documents:
        """Consecutive documents."""
        begins = self.rows.indptr[[rows.start, min(rows.stop, len(self))]]
        return Documents(self.rows.part(rows), None if self.counts is None else self.counts[slice(*begins)])

    def texts(self) -> Iterator[str]:
        """Documents as words: term 7 is "t7"."""
        if self.counts is None:
            raise ValueError("counts must be given for texts; got None")
        for first, last in zip(self.rows.indptr[:-1], self.rows.indptr[1:]):
            yield " ".join(f"t{term}" for term in np.repeat(self.rows.indices[first:last], self.counts[first:last]))


def impacts(rows: SparseRows, counts: I32) -> SparseRows:
    """Those rows weighted by BM25, the rarity of terms included: a query weighs 1 for each of its terms."""
    row = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    lengths = np.bincount(row, counts, len(rows))
    frequency = np.bincount(rows.indices, minlength=rows.n_terms)
    rarity = np.log1p((len(rows) - frequency + 0.5) / (frequency + 0.5))
    norm: F64 = K1 * (1 - B + B * lengths / lengths.mean())
    weights = rarity[rows.indices] * counts / (counts + norm[row])
    return SparseRows(rows.indptr, rows.indices, weights, rows.n_terms)


def made_up(n_docs: int) -> Documents:
    """By Zipf's law."""
    rows, counts = sparse_data.documents(n_docs, sparse_data.TEXT)
    return Documents(impacts(rows, counts), counts)


def unweighted(queries: SparseRows) -> SparseRows:
    """The same terms, each of weight 1."""
    return SparseRows(queries.indptr, queries.indices, None, queries.n_terms)


def scifact() -> Documents:
    """SciFact's titles and abstracts, and its queries. Raises FileNotFoundError where it is missing."""
    corpus, asked = evaluate.load_corpus(SCIFACT), evaluate.load_queries(SCIFACT)
    words = [_words(f"{document.title} {document.text}") for document in corpus.values()]
    terms = {word: term for term, word in enumerate(dict.fromkeys(word for text in words for word in text))}
    rows, counts = _counted([[terms[word] for word in text] for text in words], len(terms))
    known = [[terms[word] for word in _words(text) if word in terms] for text in asked.values()]
    return Documents(impacts(rows, counts), counts, unweighted(_counted(known, len(terms))[0]))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _counted(texts: list[list[int]], n_terms: int) -> tuple[SparseRows, I32]:
    """The terms of each text and how often each is there."""
    found = [np.unique(np.array(text, np.int64), return_counts=True) for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(terms) for terms, _ in found])])
    rows = SparseRows(offsets, np.concatenate([terms for terms, _ in found]), None, n_terms)
    return rows, np.concatenate([counts for _, counts in found]).astype(np.int32)

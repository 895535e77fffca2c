"""BM25 over texts that come and go, for `pyengine.integrations.documents`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from pyengine.indexes.sparse_index import SparseIndex
from pyengine.lexical.bm25 import BM25
from pyengine.lexical.text import Analyzer
from pyengine.types import Bool, TopK

ABOVE_ZERO = float(np.finfo(np.float32).smallest_subnormal)  # the score of a document that shares a word with the query
NOTHING = TopK(np.empty((1, 0), np.float32), np.empty((1, 0), np.int64), np.ones(1, bool))


class Lexicon(NamedTuple):
    """BM25 of the texts of one state."""

    analyze: Analyzer
    model: BM25
    postings: SparseIndex

    def search(self, text: str, k: int, kept: Bool | None) -> TopK:
        """The k best of those kept, bool [N], that share a word with the text."""
        query = self.model.queries([self.analyze(text)])
        if not query.nnz:  # nor has a store without words any
            return NOTHING
        return self.postings.search(query, min(k, len(self.postings)), mask=kept, threshold=ABOVE_ZERO)


class Words:
    """The words of numbered texts, each split once, and the lexicon of all, made when it is asked for."""

    def __init__(self, language: str | None) -> None:
        self.language = language
        self._analyze: Analyzer | None = None  # until it is needed: it may need PyStemmer
        self._words: dict[int, list[str]] = {}
        self._lexicon: Lexicon | None = None

    def changed(self, gone: Iterable[int]) -> None:
        """The texts are others now, and these numbers are no more."""
        self._lexicon = None
        for number in gone:
            self._words.pop(number, None)

    def lexicon(self, numbers: Iterable[int], text: Callable[[int], str]) -> Lexicon:
        """That of the texts with these numbers."""
        if self._lexicon is None:
            analyze = self._analyze = self._analyze or Analyzer(self.language)
            every = list(numbers)
            for number in every:
                if number not in self._words:
                    self._words[number] = list(map(sys.intern, analyze(text(number))))
            model = BM25.fit([self._words[number] for number in every])
            index = SparseIndex(max(1, model.docs.n_terms))
            if model.docs.nnz:
                index.add(model.docs, every)
            self._lexicon = Lexicon(analyze, model, index)
        return self._lexicon

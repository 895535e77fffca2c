"""BM25 as sparse rows: impacts of terms in documents, idf as weights of queries, so that the inner product is the score
(Robertson and Zaragoza, 2009; variants by Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.lexical.term_counts import Vocabulary, checked_vocabulary, counted
from pyengine.types import F64, I64

VARIANTS = ("lucene", "robertson", "atire", "bm25l", "bm25+")


@dataclass(frozen=True, eq=False)
class BM25:
    """What `BM25.fit` made of a corpus.

    ``docs`` are the impacts of its N documents, ``idf`` float64 [n_terms] the weights of terms (0 for one that no
    document has), ``vocabulary`` the term ids of words, None where terms are ids already.

    With tf the count of a term in a document of l terms, L the mean of l, and r = 1 - b + b l / L:

    | variant | impact | idf |
    |---|---|---|
    | lucene | tf / (tf + k1 r) | log(1 + (N - df + 0.5) / (df + 0.5)) |
    | robertson | the same | log((N - df + 0.5) / (df + 0.5)), 0 where that is negative |
    | atire | (k1 + 1) tf / (tf + k1 r) | log(N / df) |
    | bm25l | (k1 + 1) (tf / r + delta) / (k1 + tf / r + delta) - z | log((N + 1) / (df + 0.5)) |
    | bm25+ | that of atire | log((N + 1) / df) |

    bm25l and bm25+ have something for terms that a document lacks, too: z = (k1 + 1) delta / (k1 + delta), and delta.
    It is taken off everywhere, so that rows are sparse: all scores of a query are smaller by the same, and the order is
    that of the variant. ``lucene`` has exact lengths, where Lucene rounds them to a byte.
    """

    docs: SparseRows
    idf: F64
    vocabulary: Mapping[str, int] | None

    @classmethod
    def fit(
        cls,
        corpus: Any,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        delta: float = 0.5,
        variant: str = "lucene",
        vocabulary: Vocabulary = None,
    ) -> BM25:
        """Count terms, and weigh them.

        Parameters
        ----------
        corpus : iterable of N documents
            Lists of terms, or dicts {term: count}; a term is a word, or an int >= 0, which then is its id. Or term
            counts as `SparseRows`, scipy or torch sparse rows [N, V]. No count may be negative.
        k1, delta : real >= 0
        b : real, 0 .. 1
        variant : "lucene", "robertson", "atire", "bm25l" or "bm25+"
        vocabulary : list of words, or dict {word: id}
            Words that are not in it are left out, also of lengths. By default, all words in the order in which they
            come.

        Raises TypeError or ValueError in one sentence that names the argument, and the row.
        """
        limits = {"k1": (k1, math.inf), "b": (b, 1.0), "delta": (delta, math.inf)}
        k1, b, delta = (_between(value, name, most) for name, (value, most) in limits.items())
        checks.choice(variant, "variant", VARIANTS)
        known = checked_vocabulary(vocabulary)
        n_terms = None if known is None else max(known.values(), default=0) + 1
        counts, words = counted(corpus, "corpus", known, n_terms)
        df = np.bincount(counts.indices, minlength=counts.n_terms)
        impacts = SparseRows(counts.indptr, counts.indices, _impacts(counts, k1, b, delta, variant), counts.n_terms)
        return cls(impacts, _idf(df, len(counts), variant), words)

    def queries(self, queries: Any) -> SparseRows:
        """The rows of queries, in any of the forms of a corpus: idf times count, rounded to float32. Terms that no
        document has are left out; sparse rows must have as many terms as the documents."""
        counts, _ = counted(queries, "queries", self.vocabulary, self.docs.n_terms)
        return SparseRows(counts.indptr, counts.indices, counts.values * self.idf[counts.indices], counts.n_terms)


def bm25(
    corpus: Any,
    k1: float = 0.9,
    b: float = 0.4,
    variant: str = "lucene",
    *,
    delta: float = 0.5,
    vocabulary: Vocabulary = None,
) -> SparseRows:
    """The impacts of the documents by BM25: ``BM25.fit(..).docs``, where arguments and errors are described. Queries
    need the idf of the same corpus: keep the `BM25` for them, and for the words' ids."""
    return BM25.fit(corpus, k1=k1, b=b, delta=delta, variant=variant, vocabulary=vocabulary).docs


def _impacts(counts: SparseRows, k1: float, b: float, delta: float, variant: str) -> F64:
    """[P]: the impacts, in the order of the counts."""
    lengths = np.bincount(np.repeat(np.arange(len(counts)), counts.lengths), counts.values, len(counts))
    mean = float(lengths.mean()) if counts.nnz else 1.0
    relative = np.repeat(1 - b + b * (lengths / mean), counts.lengths)
    tf = counts.values.astype(np.float64)
    if variant == "bm25l":
        c = tf / relative
        absent = (k1 + 1) * delta / (k1 + delta) if delta > 0 else 0.0
        return (k1 + 1) * (c + delta) / (k1 + c + delta) - absent
    impact = tf / (tf + k1 * relative)
    return impact if variant in ("lucene", "robertson") else (k1 + 1) * impact


IDF: dict[str, Callable[[int, int], float]] = {
    "lucene": lambda df, n: math.log(1 + (n - df + 0.5) / (df + 0.5)),
    "robertson": lambda df, n: max(0.0, math.log((n - df + 0.5) / (df + 0.5))),
    "atire": lambda df, n: math.log(n / df),
    "bm25l": lambda df, n: math.log((n + 1) / (df + 0.5)),
    "bm25+": lambda df, n: math.log((n + 1) / df),
}


def _idf(df: I64, n_docs: int, variant: str) -> F64:
    """[V]: one logarithm for each frequency that occurs; 0 for terms that no document has."""
    frequencies, which = np.unique(df, return_inverse=True)
    return np.array([IDF[variant](int(each), n_docs) if each else 0.0 for each in frequencies])[which]


def _between(value: Any, name: str, most: float) -> float:
    array = checks.host_array(value, name)
    if array.shape != () or array.dtype.kind not in "fiu" or not (np.isfinite(array) and 0 <= array <= most):
        wanted = "a finite number, 0 or above" if most == math.inf else f"a number from 0 to {most:g}"
        raise ValueError(f"{name} must be {wanted}; got {value!r}")
    return float(array)

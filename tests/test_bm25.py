"""BM25's impacts and query weights: the formulas in plain Python, bm25s, and what is refused."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.lexical.bm25 import VARIANTS
from pyengine.specification import reference_sparse

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]

CORPUS = [["cat", "purrs", "cat"], ["dog", "bites", "cat"], [], ["dog"]]
documents = st.lists(st.lists(st.sampled_from("abcdef"), max_size=7), min_size=1, max_size=8)


def impact(tf: float, relative: float, k1: float, delta: float, variant: str) -> float:
    """The formulas as they are published, less what a document gets for a term that it lacks."""
    if variant in ("lucene", "robertson"):
        return tf / (tf + k1 * relative)
    if variant == "bm25l":
        c, nothing = tf / relative, (k1 + 1) * delta / (k1 + delta) if delta else 0.0
        return (k1 + 1) * (c + delta) / (k1 + c + delta) - nothing
    return (k1 + 1) * (tf / (tf + k1 * relative))


def idf(df: int, n: int, variant: str) -> float:
    return {
        "lucene": lambda: math.log(1 + (n - df + 0.5) / (df + 0.5)),
        "robertson": lambda: max(0.0, math.log((n - df + 0.5) / (df + 0.5))),
        "atire": lambda: math.log(n / df),
        "bm25l": lambda: math.log((n + 1) / (df + 0.5)),
        "bm25+": lambda: math.log((n + 1) / df),
    }[variant]()


def by_word(rows: SparseRows, words: dict[str, int]) -> list[dict[str, Any]]:
    names = {number: word for word, number in words.items()}
    return [{names[int(term)]: weight for term, weight in zip(*row)} for row in rows]


@given(documents, documents, st.sampled_from(VARIANTS), st.sampled_from([0.0, 0.9, 2.0]), st.sampled_from([0, 0.4, 1]))
def test_impacts_and_weights_are_the_formulas(
    corpus: list[list[str]], asked: list[list[str]], variant: str, k1: float, b: float
) -> None:
    model = pe.BM25.fit(corpus, k1=k1, b=b, variant=variant)
    words = dict(model.vocabulary or {})
    assert list(words) == list(dict.fromkeys(word for row in corpus for word in row))
    mean = sum(map(len, corpus)) / len(corpus)
    for row, found in zip(corpus, by_word(model.docs, words)):
        relative = 1 - b + b * (len(row) / mean) if row else 1.0
        weights = {word: np.float32(impact(tf, relative, k1, 0.5, variant)) for word, tf in Counter(row).items()}
        assert found == {word: weight for word, weight in weights.items() if weight != 0}
    df = Counter(word for row in corpus for word in set(row))
    for row, found in zip(asked, by_word(model.queries(asked), words)):
        weights = {
            word: np.float32(tf * idf(df[word], len(corpus), variant)) for word, tf in Counter(row).items() if df[word]
        }
        assert found == {word: weight for word, weight in weights.items() if weight != 0}


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_those_of_bm25s(variant: str) -> None:
    """To float32 rounding, of which each library has another one."""
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(0)
    corpus = [[f"w{word}" for word in rng.zipf(1.3, rng.integers(1, 60)) % 500] for _ in range(300)]
    asked = [[f"w{word}" for word in rng.zipf(1.3, 8) % 600] for _ in range(40)]
    model = pe.BM25.fit(corpus, k1=1.2, b=0.75, delta=0.7, variant=variant)
    peer = bm25s.BM25(k1=1.2, b=0.75, delta=0.7, method=variant)
    peer.index(corpus, show_progress=False)
    found = reference_sparse.scores(model.queries(asked), model.docs)
    for row, words in zip(found, asked):
        known = [word for word in words if word in peer.vocab_dict]
        expected = peer.get_scores(known) if known else np.zeros(len(corpus))
        if variant in ("bm25l", "bm25+"):  # which bm25s keeps apart, and adds
            expected = expected - sum(peer.nonoccurrence_array[peer.vocab_dict[word]] for word in known)
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


def test_every_form_of_a_corpus_is_the_same_corpus() -> None:
    scipy_sparse = pytest.importorskip("scipy.sparse")
    model = pe.BM25.fit(CORPUS)
    words = dict(model.vocabulary or {})
    ids = [[words[word] for word in row] for row in CORPUS]
    counts = np.array([[row.count(number) for number in range(len(words))] for row in ids])
    forms: list[Any] = [
        iter(CORPUS), [tuple(row) for row in CORPUS], [Counter(row) for row in CORPUS], ids,
        [np.array(row, np.int32) for row in ids], [Counter(row) for row in ids], scipy_sparse.csr_array(counts),
        scipy_sparse.coo_matrix(counts), SparseRows.of(scipy_sparse.csr_array(counts)),
    ]  # fmt: skip
    for form in forms:
        found = pe.bm25(form)
        assert found.n_terms == model.docs.n_terms
        for name in ("indptr", "indices", "values"):
            np.testing.assert_array_equal(getattr(found, name), getattr(model.docs, name))
    by_id = pe.BM25.fit(ids)
    assert by_id.vocabulary is None
    for form in ([[0, 99, 1, 0]], [{0: 2, 1: 1, 99: 7}]):
        np.testing.assert_array_equal(
            by_id.queries(form).values, model.queries([["cat", "zebra", "purrs", "cat"]]).values
        )


def test_a_vocabulary_says_which_words_count() -> None:
    model = pe.BM25.fit(CORPUS, vocabulary=["zebra", "dog", "cat"])
    assert model.docs.n_terms == 3
    assert [row[0].tolist() for row in model.docs] == [[2], [1, 2], [], [1]]
    only = [[word for word in row if word in ("dog", "cat")] for row in CORPUS]
    expected = pe.BM25.fit(only, vocabulary={"zebra": 0, "dog": 1, "cat": 2})
    np.testing.assert_array_equal(model.docs.values, expected.docs.values)
    assert model.idf[0] == 0  # no document has it
    assert model.queries([["zebra", "bites"], ["dog"]]).lengths.tolist() == [0, 1]


def test_a_search() -> None:
    model = pe.BM25.fit(CORPUS)
    found = reference_sparse.topk(model.queries([["cat"], ["dog", "bites"], ["horse"]]), model.docs, 2)
    assert found.ids.tolist() == [[0, 1], [1, 3], [0, 1]]
    nothing = pe.BM25.fit([[], []])
    assert (len(nothing.docs), nothing.docs.nnz, nothing.queries([["cat"]]).nnz) == (2, 0, 0)
    assert len(pe.BM25.fit([]).docs) == 0


WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ("cat", {}, TypeError, "corpus must be lists of terms, dicts {term: count}, or sparse rows of counts; got a str"),
    ({"cat": 1}, {}, TypeError, "corpus must be lists of terms"),
    (None, {}, TypeError, "corpus must be lists of terms, dicts {term: count}, or sparse rows of counts; got a None"),
    (np.ones((2, 3)), {}, TypeError, "corpus must be SparseRows, a scipy sparse matrix"),
    ([["cat"], "dog"], {}, TypeError, "corpus must hold lists of terms, or dicts of their counts; row 1 is a str"),
    ([["cat"], [], [7]], {}, TypeError, "corpus must hold terms that are all words; row 2 holds 7"),
    ([["cat", None]], {}, TypeError, "row 0 holds None"),
    ([[True]], {}, TypeError, "row 0 holds True"),
    ([[], [3, 4], [5, "cat"]], {}, TypeError, "corpus must hold terms that are all ids (integers); row 2 holds 'cat'"),
    ([[2], [3, -1]], {}, ValueError, "corpus must hold term ids from 0 to 2^31 - 2; row 1 holds -1"),
    ([[2], [], [2**70]], {}, ValueError, "corpus must hold term ids from 0 to 2^31 - 2; row 2 holds 11805"),
    ([{"cat": [1, 2], "dog": 1}], {}, TypeError, "corpus.counts must be an array of numbers"),
    ([[2]], {"vocabulary": ["cat"]}, TypeError, "corpus must hold terms that are all words; row 0 holds 2"),
    ([{"cat": 1}, {"cat": -2}], {}, ValueError, "corpus must hold counts of 0 or above; row 1 holds -2"),
    ([{"cat": np.nan}], {}, ValueError, "corpus must be finite in float32; row 0 holds NaN"),
    ([{"cat": "many"}], {}, TypeError, "corpus.values must hold real numbers"),
    (CORPUS, {"k1": -1}, ValueError, "k1 must be a finite number, 0 or above; got -1"),
    (CORPUS, {"k1": np.nan}, ValueError, "k1 must be a finite number, 0 or above; got nan"),
    (CORPUS, {"b": 1.5}, ValueError, "b must be a number from 0 to 1; got 1.5"),
    (CORPUS, {"delta": None}, ValueError, "delta must be a finite number, 0 or above; got None"),
    (CORPUS, {"variant": "bm25"}, ValueError, "variant must be one of 'lucene', 'robertson', 'atire', 'bm25l'"),
    (CORPUS, {"vocabulary": "cat"}, TypeError, "vocabulary must be a list of words or a dict of their ids; got a str"),
    (CORPUS, {"vocabulary": ["cat", 1]}, TypeError, "vocabulary must hold words and, if a dict, their ids"),
    (CORPUS, {"vocabulary": {"cat": -1}}, TypeError, "vocabulary must hold words and, if a dict, their ids"),
    (CORPUS, {"vocabulary": ["cat", "cat"]}, ValueError, "vocabulary must give each of its 2 words an id of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("corpus", "options", "error", "message"), WRONG, ids=lambda value: None)
def test_wrong_arguments_are_named(corpus: Any, options: Any, error: type[Exception], message: str) -> None:
    for function in (pe.bm25, pe.BM25.fit):
        with pytest.raises(error, match=re.escape(message)):
            function(corpus, **options)


def test_queries_are_in_the_terms_of_the_corpus() -> None:
    with pytest.raises(TypeError, match=re.escape("queries must hold terms that are all ids (integers); row 0 holds")):
        pe.BM25.fit([[1, 2]]).queries([["cat"]])
    with pytest.raises(TypeError, match=re.escape("queries must hold terms that are all words; row 1 holds 3")):
        pe.BM25.fit(CORPUS).queries([["cat"], [3]])
    with pytest.raises(ValueError, match="queries must have 5 terms; got 9"):
        pe.BM25.fit([[4]]).queries(SparseRows([0, 1], [8], None, 9))

"""Analysis of text, and reading of texts and questions."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

import pyengine as pe
from pyengine.lexical.text import ENGLISH, WORD

TEXT = "The Runners were RUNNING in the fields: 2 foxes, 10 geese -- and it's snow_white naïveté!"


def test_english_terms() -> None:
    pytest.importorskip("Stemmer")
    analyze = pe.Analyzer()
    assert analyze(TEXT) == ["runner", "run", "field", "fox", "10", "gees", "snow_whit", "naïveté"]
    assert analyze("") == analyze("the of, a!") == []
    assert analyze("İ\ud800\n\0") == []  # odd characters are no words
    assert pe.Analyzer(stop_words=["FOXES"])("The foxes ran") == ["the", "ran"]


def test_other_languages() -> None:
    pytest.importorskip("Stemmer")
    assert pe.Analyzer("german")("Die Häuser der Häusern") == ["die", "haus", "der", "haus"]
    with pytest.raises(ValueError, match=r"language must be None or one of arabic, .*; got 'klingon'"):
        pe.Analyzer("klingon")


def test_words_as_they_are_need_no_stemmer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    assert pe.Analyzer(None)("The Foxes, a fox") == ["the", "foxes", "fox"]
    for stop_words in (["the"], {"THE": 1}, iter(["the"])):
        assert pe.Analyzer(None, stop_words)("The Foxes, a fox") == ["foxes", "fox"]
    with pytest.raises(ImportError, match=re.escape("PyStemmer: pip install 'pyengine-search[text]'")):
        pe.Analyzer()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pe.Analyzer(None)(7), "text must be a str; got a int"),  # type: ignore[arg-type]
        (lambda: pe.Analyzer(None, "the"), "stop_words must be a list of words; got 'the'"),
        (lambda: pe.Analyzer(None, 7), "stop_words must be a list of words; got 7"),  # type: ignore[arg-type]
        (lambda: pe.Analyzer(None, [1]), "stop_words must be a list of words; got [1]"),  # type: ignore[list-item]
    ],
)
def test_wrong_arguments_are_named(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_every_stop_word_is_a_word() -> None:
    assert all(WORD.fullmatch(word) and word == word.lower() for word in ENGLISH)
    assert len(ENGLISH) == 122

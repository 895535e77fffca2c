"""Text analysis: from text to terms. Stems are PyStemmer's (Snowball; Porter, 2001)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

WORD = re.compile(r"\w\w+")
LUCENE = """
    an and are as at be but by for if in into is it no not of on or such that the their then there these they this to
    was will with
"""
SNOWBALL = """
    about above after again against all am an and any are as at be because been before being below between both but by
    could did do does doing down during each few for from further had has have having he her here hers herself him
    himself his how if in into is it its itself me more most my myself no nor not of off on once only or other ought
    our ours ourselves out over own same she should so some such than that the their theirs them themselves then there
    these they this those through to too under until up very was we were what when where which while who whom why with
    would you your yours yourself yourselves
"""
# Both lists less single letters, which are no words here, and contractions, of which texts give the parts.
ENGLISH = frozenset(LUCENE.split()) | frozenset(SNOWBALL.split())


class Analyzer:
    """Words of two characters or more (``\\w\\w+``) in lower case, without stop words, stemmed. Called with a text, it
    gives the list of its terms.

    Parameters
    ----------
    language : str or None
        A stemmer of PyStemmer: "english", "german", ..; None leaves words as they are.
    stop_words : words or None
        Left out before stemming, compared in lower case. None: those of English with language "english" (Lucene's and
        Snowball's lists together), else none.

    ImportError, with the remedy, without PyStemmer.
    """

    def __init__(self, language: str | None = "english", stop_words: Iterable[str] | None = None) -> None:
        given = (ENGLISH if language == "english" else ()) if stop_words is None else stop_words
        words = None if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
        if words is None or not all(isinstance(word, str) for word in words):
            raise TypeError(f"stop_words must be a list of words; got {given!r}")
        self.stop_words = frozenset(word.lower() for word in words)
        self._stem = None if language is None else _stemmer(language)

    def __call__(self, text: str) -> list[str]:
        if not isinstance(text, str):
            raise TypeError(f"text must be a str; got a {type(text).__name__}")
        words = [word for word in WORD.findall(text.lower()) if word not in self.stop_words]
        return words if self._stem is None else self._stem.stemWords(words)


def _stemmer(language: Any) -> Any:
    try:
        import Stemmer
    except ImportError:
        raise ImportError("stems need the package PyStemmer: pip install 'pyengine-search[text]'") from None
    known = Stemmer.algorithms()
    if language not in known:
        raise ValueError(f"language must be None or one of {', '.join(sorted(known))}; got {language!r}")
    return Stemmer.Stemmer(language)

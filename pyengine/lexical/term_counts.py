"""Counts of terms as `SparseRows`: of lists of words, dicts, and sparse matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from pyengine import checks
from pyengine.inputs.sparse_rows import SparseRows, build
from pyengine.types import I64

Vocabulary = Mapping[str, int] | Iterable[str] | None
FORMS = "lists of terms, dicts {term: count}, or sparse rows of counts"
LARGEST = 2**31 - 1  # terms


class TermCounts(NamedTuple):
    """``rows`` have the counts; ``words`` the ids of words, None where terms are ids already."""

    rows: SparseRows
    words: Mapping[str, int] | None


class _Flat(NamedTuple):
    """The terms of all rows one after the other, how many each row has, and their counts."""

    terms: list[Any]
    lengths: list[int]
    counts: list[Any]


def checked_vocabulary(vocabulary: Any) -> dict[str, int] | None:
    """The ids of a vocabulary's words."""
    if vocabulary is None:
        return None
    if isinstance(vocabulary, str) or not isinstance(vocabulary, Iterable):
        raise TypeError(f"vocabulary must be a list of words or a dict of their ids; got a {type(vocabulary).__name__}")
    words = list(vocabulary)
    ids = list(vocabulary.values()) if isinstance(vocabulary, Mapping) else list(range(len(words)))
    odd = [each for each in words if not isinstance(each, str)] + [i for i in ids if type(i) is not int or i < 0]
    if odd:
        raise TypeError(f"vocabulary must hold words and, if a dict, their ids, integers of 0 or above; got {odd[0]!r}")
    if len({*words}) < len(words) or len({*ids}) < len(ids):
        raise ValueError(f"vocabulary must give each of its {len(words)} words an id of its own; some are there twice")
    return dict(zip(words, ids))


def counted(rows: Any, name: str, words: Mapping[str, int] | None = None, n_terms: int | None = None) -> TermCounts:
    """The counts of the terms of each row. With ``n_terms`` given, terms are those in ``words``, or ids below it, and
    others are left out; else all words are taken and numbered as they come."""
    if isinstance(rows, SparseRows) or hasattr(rows, "shape"):
        found = SparseRows.of(rows, n_terms, name)
    elif isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise TypeError(f"{name} must be {FORMS}; got a {type(rows).__name__}")
    else:
        flat = _flat(rows, name)
        ids, words = _numbered(flat, name, words, n_terms)
        found = _summed(flat, ids, name, n_terms)
    negative = np.flatnonzero(found.values < 0)
    if negative.size:
        row = int(np.searchsorted(found.indptr, negative[0], side="right")) - 1
        raise ValueError(f"{name} must hold counts of 0 or above; row {row} holds {found.values[negative[0]]:g}")
    return TermCounts(found, words)


def _flat(rows: Iterable[Any], name: str) -> _Flat:
    flat = _Flat([], [], [])
    for number, row in enumerate(rows):
        if isinstance(row, (str, bytes)) or not isinstance(row, (Mapping, Sequence, np.ndarray)):
            got = f"row {number} is a {type(row).__name__}"
            raise TypeError(f"{name} must hold lists of terms, or dicts of their counts; {got}")
        flat.terms.extend(row)
        flat.lengths.append(len(row))
        flat.counts.extend(row.values() if isinstance(row, Mapping) else repeat(1, len(row)))
    return flat


def _numbered(
    flat: _Flat, name: str, words: Mapping[str, int] | None, n_terms: int | None
) -> tuple[I64, Mapping[str, int] | None]:
    """The id of each term, -1 for what is left out; and of the words."""
    growing = words is None and n_terms is None and (not flat.terms or isinstance(flat.terms[0], str))
    wanted, forms = ((str,), "words") if growing or words is not None else ((int, np.integer), "ids (integers)")
    if not all(issubclass(kind, wanted) and kind is not bool for kind in set(map(type, flat.terms))):
        row, term = _first(flat, lambda each: not isinstance(each, wanted) or isinstance(each, bool))
        raise TypeError(f"{name} must hold terms that are all {forms}; row {row} holds {term!r}")
    if growing:
        words = {word: number for number, word in enumerate(dict.fromkeys(flat.terms))}
    if words is not None:
        return np.fromiter(map(words.get, flat.terms, repeat(-1)), np.int64, len(flat.terms)), words
    if flat.terms and not (min(flat.terms) >= 0 and max(flat.terms) < LARGEST):
        row, term = _first(flat, lambda each: not 0 <= each < LARGEST)
        raise ValueError(f"{name} must hold term ids from 0 to 2^31 - 2; row {row} holds {term}")
    ids = np.array(flat.terms, np.int64)
    return (ids if n_terms is None else np.where(ids < n_terms, ids, -1)), None


def _first(flat: _Flat, odd: Callable[[Any], bool]) -> tuple[int, Any]:
    """The first term that is odd, and its row."""
    place = next(place for place, term in enumerate(flat.terms) if odd(term))
    return int(np.searchsorted(np.cumsum(flat.lengths), place, side="right")), flat.terms[place]


def _summed(flat: _Flat, ids: I64, name: str, n_terms: int | None) -> SparseRows:
    """Each row's counts of those ids that are not -1."""
    kept = ids >= 0
    before = np.concatenate([[0], np.cumsum(kept)])  # how many are kept of the terms before each
    indptr = before[np.concatenate([[0], np.cumsum(flat.lengths)]).astype(np.int64)]
    counts = checks.host_array(flat.counts, f"{name}.counts")
    n_terms = int(ids.max(initial=0)) + 1 if n_terms is None else n_terms
    return build(indptr, ids[kept], counts[kept], n_terms, name)

"""TREC's text formats: judgements ``query 0 document grade``, runs ``query Q0 document place score tag``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyengine.evaluate import Qrels
from pyengine.types import I64


def read_qrels(path: Path) -> Qrels:
    """The judgements, by query and document."""
    found: Qrels = {}
    for number, words in _lines(path):
        try:
            query, _, document, grade = words
            found.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise ValueError(f"{path}, line {number}: expected query, iteration, document and an integer") from None
    return found


def read_run(path: Path, doc_ids: list[str], query_ids: list[str]) -> I64:
    """int64 [Q, C]: the documents of each query by falling score, ties in the order of the file; -1 where there are no
    more. Queries that nobody asks for are left out; an unknown document is a ValueError."""
    row_of = {name: row for row, name in enumerate(doc_ids)}
    hits: dict[str, list[tuple[float, int]]] = {name: [] for name in query_ids}
    for number, words in _lines(path):
        try:
            query, _, document, _, score, _ = words
            hit = -float(score), row_of[document]
        except ValueError:
            raise ValueError(f"{path}, line {number}: expected query, Q0, document, place, score and tag") from None
        except KeyError:
            raise ValueError(f"{path}, line {number}: the document {words[2]!r} is not in the collection") from None
        if query in hits:
            hits[query].append(hit)
    run = np.full((len(query_ids), max(map(len, hits.values()), default=0)), -1, np.int64)
    for row, name in enumerate(query_ids):
        best = sorted(hits[name], key=lambda hit: hit[0])
        run[row, : len(best)] = [document for _, document in best]
    return run


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The words of each line that has any."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} must be text in UTF-8") from None
    return [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]

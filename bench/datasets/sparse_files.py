"""Sparse rows in files: JSONL with a dict of weights a line, as SPLADE and Pyserini write them, and CIFF."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.datasets import ciff
from pyengine.inputs.sparse_rows import SparseRows

KEYS = ("_id", "id", "docid")


class Named(NamedTuple):
    """Sparse rows by names: ``weights[i]`` maps words to weights, for the row called ``ids[i]``."""

    ids: list[str]
    weights: list[dict[str, float]]


def read(path: Path) -> Named:
    """The rows of a .jsonl, .jsonl.gz or .ciff file."""
    return Named(*ciff.read(path)) if path.suffix == ".ciff" else read_jsonl(path)


def read_jsonl(path: Path) -> Named:
    """A JSON object a line: ``_id``, ``id`` or ``docid``, and ``vector``, a dict {term: weight}."""
    ids, weights = [], []
    for number, record in _records(path):
        name = next((record[key] for key in KEYS if key in record), None)
        vector = record.get("vector")
        if name is None or not (isinstance(vector, dict) and all(map(_is_number, vector.values()))):
            raise ValueError(f"{path}, line {number}: expected an object with an id and a vector {{term: number}}")
        ids.append(str(name))
        weights.append(vector)
    return Named(ids, weights)


def ordered(rows: Named, ids: list[str], where: Path) -> Named:
    """These rows in the order of the ``ids``; ValueError where one has none."""
    of = dict(zip(rows.ids, rows.weights))
    missing = next((name for name in ids if name not in of), None)
    if missing is not None:
        raise ValueError(f"{where} must have sparse rows for all; {missing!r} has none")
    return Named(ids, [of[name] for name in ids])


def joined(docs: Named, queries: Named) -> tuple[SparseRows, SparseRows]:
    """Both over the vocabulary of the documents, in the order in which its words come; queries lose the other words."""
    terms: dict[str, int] = {}
    for row in docs.weights:
        for word in row:
            terms.setdefault(word, len(terms))
    made = [_rows(each.weights, terms) for each in (docs, queries)]
    return made[0], made[1]


def _rows(weights: list[dict[str, float]], terms: dict[str, int]) -> SparseRows:
    known = [[(terms[word], value) for word, value in row.items() if word in terms] for row in weights]
    offsets = np.cumsum([0, *map(len, known)])
    flat = [pair for row in known for pair in row]
    indices = np.array([term for term, _ in flat], np.int64)
    return SparseRows(offsets, indices, np.array([value for _, value in flat], np.float64), max(1, len(terms)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    found, number = [], 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    found.append((number, json.loads(line)))
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ValueError(f"{path} must be a whole gzip file; it is damaged") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} must be text in UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError(f"{path}, line {number}: expected a JSON object") from None
    wrong = next((number for number, record in found if not isinstance(record, dict)), None)
    if wrong is not None:
        raise ValueError(f"{path}, line {wrong}: expected a JSON object")
    return found

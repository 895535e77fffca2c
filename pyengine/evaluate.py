"""Retrieval quality: collections in the BEIR layout, and metrics by ir_measures.

A BEIR folder holds ``corpus.jsonl`` or ``corpus.jsonl.gz``, ``queries.jsonl`` and ``qrels/<split>.tsv`` (Thakur et
al., arXiv 2104.08663).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyengine.integrations import runs
from pyengine.integrations.runs import Qrels as Qrels
from pyengine.types import TopK


class Document(NamedTuple):
    title: str
    text: str


def load_corpus(path: Path) -> dict[str, Document]:
    """The documents by id, in the order of the file: that of a folder, or itself."""
    if path.is_dir():
        plain = path / "corpus.jsonl"
        path = plain if plain.exists() else path / "corpus.jsonl.gz"
    return {record["_id"]: Document(record.get("title") or "", record["text"]) for record in _records(path)}


def load_queries(path: Path) -> dict[str, str]:
    """The texts of the queries by id, in the order of the file: that of a folder, or itself."""
    path = path / "queries.jsonl" if path.is_dir() else path
    return {record["_id"]: record["text"] for record in _records(path)}


def load_qrels(folder: Path, split: str = "test") -> Qrels:
    """The judgements of one split."""
    path = folder / "qrels" / f"{split}.tsv"
    qrels: Qrels = {}
    for number, line in _lines(path):
        if number == 1:  # the names of the columns
            continue
        try:
            query, doc, grade = line.split("\t")
            qrels.setdefault(query, {})[doc] = int(grade)
        except ValueError:
            raise ValueError(f"{path}, line {number}: expected query-id, corpus-id and score between tabs") from None
    return qrels


def _records(path: Path) -> Iterator[dict[str, Any]]:
    seen = set()
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not (isinstance(record, dict) and all(isinstance(record.get(key), str) for key in ("_id", "text"))):
            raise ValueError(f"{path}, line {number}: expected a JSON object with the strings '_id' and 'text'")
        if record["_id"] in seen:
            raise ValueError(f"{path}, line {number}: the _id {record['_id']!r} was there before")
        seen.add(record["_id"])
        yield record


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: a BEIR folder holds corpus.jsonl, queries.jsonl, qrels/<split>.tsv"
        )
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\n")


def require() -> None:
    """ImportError, with the remedy, if `metrics` could not be computed."""
    if find_spec("ir_measures") is None:
        raise ImportError("metrics need the package ir_measures: pip install 'pyengine-search[eval]'")


def metrics(result: TopK, doc_ids: Sequence[str], query_ids: Sequence[str], qrels: Qrels) -> dict[str, float]:
    """nDCG@10, Recall@100 and MRR@10, each the mean over all judged queries; one that was not searched counts 0.

    ``doc_ids`` [N] and ``query_ids`` [Q] name the rows of the corpus and of the result. ImportError without the
    package ir_measures.
    """
    require()
    from ir_measures import RR, R, calc_aggregate, nDCG

    places = np.arange(result.ids.shape[1], dtype=np.float32)  # which say all that counts, whatever the metric
    run = runs.of(result._replace(scores=np.broadcast_to(-places, result.ids.shape)), doc_ids, query_ids)
    measures = {"nDCG@10": nDCG @ 10, "Recall@100": R @ 100, "MRR@10": RR @ 10}
    values = calc_aggregate(measures.values(), qrels, run)
    return {name: float(values[measure]) for name, measure in measures.items()}

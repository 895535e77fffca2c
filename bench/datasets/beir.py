"""A folder with a collection: texts in BEIR's layout (Thakur et al., arXiv 2104.08663), vectors, tokens, sparse rows,
judgements, a run. `opening` lists the names of the files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.datasets import sparse_files, texts, trec, vectors
from bench.datasets.collection import Collection, Rows, numbered
from bench.datasets.sparse_files import Named
from pyengine import evaluate
from pyengine.evaluate import Document, Qrels
from pyengine.inputs.ragged import Ragged
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.lexical import text_search
from pyengine.types import F32

KINDS = ("docs", "queries")
SPARSE = (".sparse.jsonl", ".sparse.jsonl.gz", ".ciff")


class Texts(NamedTuple):
    docs: dict[str, Document]
    queries: dict[str, str]


def read_folder(
    folder: Path, split: str = "test", encoder: str | None = None, model: Path | None = None, metric: str = "cosine"
) -> Collection:
    """Everything that the folder holds. ValueError or FileNotFoundError naming the file that is wrong or missing."""
    written = _texts(folder)
    if written is None and (encoder or model):
        raise ValueError(f"--encoder and --model need texts: {folder} has no corpus.jsonl and queries.jsonl")
    named = [_sparse(folder, kind) for kind in KINDS]
    if None in named and named != [None, None]:
        raise FileNotFoundError(f"{folder / (KINDS[named.index(None)] + SPARSE[0])} is missing beside the other")
    forms: list[list[Any]] = [[_dense(folder, kind), _tokens(folder, kind)] for kind in KINDS]
    names = [_names(folder, kind, at, written, named, forms) for at, kind in enumerate(KINDS)]
    for kind, those in zip(KINDS, names):
        twice = next((name for name, count in Counter(those).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"{folder} must have {kind} with names of their own; {twice!r} is there twice")
    if written is not None and (encoder or model):
        for form, vectors_of in zip(forms, _encoded(written, encoder, model)):
            form[0] = vectors_of
    sparse = _sparse_rows(folder, written, named, names)
    for kind, form, rows, wanted in zip(KINDS, forms, sparse, names):
        _same_lengths(folder, kind, [*form, rows], len(wanted))
    run = trec.read_run(folder / "run.trec", *names) if (folder / "run.trec").is_file() else None
    docs, queries = (Rows(form[0], form[1], rows) for form, rows in zip(forms, sparse))
    queries = replace(queries, run=run)
    return Collection(folder.name, docs, queries, names[0], names[1], _qrels(folder, split, names[1]), metric)


def _texts(folder: Path) -> Texts | None:
    if not any((folder / f"corpus{suffix}").is_file() for suffix in text_search.JSONL):
        return None
    return Texts(evaluate.load_corpus(folder), evaluate.load_queries(folder))


def _dense(folder: Path, kind: str) -> F32 | None:
    path = _one_of(folder, kind, vectors.SUFFIXES)
    return None if path is None else vectors.read(path)


def _tokens(folder: Path, kind: str) -> Ragged | None:
    values, offsets = folder / f"{kind}.tokens.npy", folder / f"{kind}.offsets.npy"
    if not values.is_file():
        return None
    if not offsets.is_file():
        raise FileNotFoundError(f"{offsets} is missing: where the tokens of each row begin, int [n + 1]")
    return Ragged(vectors.read(values), vectors.read_npy(offsets))


def _sparse(folder: Path, kind: str) -> Named | None:
    path = _one_of(folder, kind, SPARSE)
    return None if path is None else sparse_files.read(path)


def _sparse_rows(
    folder: Path, written: Texts | None, named: list[Named | None], names: list[list[str]]
) -> tuple[SparseRows | None, SparseRows | None]:
    """Those of files, in the order of the names; else what BM25 makes of texts."""
    docs, queries = named
    if docs is not None and queries is not None:
        in_order = (sparse_files.ordered(each, wanted, folder) for each, wanted in zip((docs, queries), names))
        return sparse_files.joined(*in_order)
    if written is None:
        return None, None
    return texts.by_words(list(written.docs.values()), list(written.queries.values()))


def _encoded(written: Texts, encoder: str | None, model: Path | None) -> tuple[F32, F32]:
    if model is not None:
        return text_search.embed(model, written.docs.values(), written.queries.values())
    assert encoder is not None
    encode = texts.encoder_of(encoder)
    name = f"--encoder {encoder}"
    docs = texts.encoded(encode, text_search.joined(written.docs.values()), name, "documents")
    return docs, texts.encoded(encode, list(written.queries.values()), name, "queries")


def _names(
    folder: Path, kind: str, at: int, written: Texts | None, named: list[Named | None], forms: list[list[Any]]
) -> list[str]:
    """Those of ids.json, of the texts, of the sparse rows, or numbers."""
    path, key, sparse = folder / "ids.json", ("doc_ids", "query_ids")[at], named[at]
    if path.is_file():
        try:
            return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))[key]]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} must be a JSON object with the lists doc_ids and query_ids") from None
    if written is not None:
        return list(written[at])
    if sparse is not None:
        return sparse.ids
    there = [len(form) for form in forms[at] if form is not None]
    if not there:
        raise FileNotFoundError(f"{folder} holds no {kind}: expected texts, {kind}.npy, {kind}.tokens.npy or others")
    return numbered(there[0])


def _same_lengths(folder: Path, kind: str, forms: list[Any], count: int) -> None:
    for form, what in zip(forms, ("vectors", "bags of tokens", "sparse rows")):
        if form is not None and len(form) != count:
            raise ValueError(f"{folder} must have as many {what} as {kind}, {count}; got {len(form)}")


def _qrels(folder: Path, split: str, query_ids: list[str]) -> Qrels | None:
    if (folder / "qrels").is_dir():
        found = evaluate.load_qrels(folder, split)
    elif (folder / "qrels.txt").is_file():
        found = trec.read_qrels(folder / "qrels.txt")
    else:
        return None
    kept = {query: found[query] for query in query_ids if query in found}
    if not kept:
        raise ValueError(f"{folder}: none of the {len(query_ids)} queries is judged")
    return kept


def _one_of(folder: Path, kind: str, suffixes: tuple[str, ...]) -> Path | None:
    return next((path for path in (folder / f"{kind}{suffix}" for suffix in suffixes) if path.is_file()), None)

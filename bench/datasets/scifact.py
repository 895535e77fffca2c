"""SciFact as pyengine brings it: dense vectors and BM25 for all abstracts and claims, tokens for some of both."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from bench.datasets import texts
from bench.datasets.collection import Collection, Rows
from pyengine import evaluate
from pyengine.demos import demo_maxsim, demo_sparse
from pyengine.types import I64


def scifact() -> Collection:
    """5,183 abstracts and 300 claims; the part with tokens has 165 and 80. Raises FileNotFoundError where the data are
    not installed."""
    folder = demo_sparse.DATA
    ids = json.loads((folder / "emb" / "ids.json").read_text(encoding="utf-8"))
    doc_ids, query_ids = ids["doc_ids"], ids["query_ids"]
    corpus, claims = evaluate.load_corpus(folder), evaluate.load_queries(folder)
    sparse = texts.by_words([corpus[name] for name in doc_ids], [claims[name] for name in query_ids])
    docs, queries = (np.load(folder / "emb" / f"{kind}_dense_f32.npy") for kind in ("doc", "query"))
    qrels = {query: grades for query, grades in evaluate.load_qrels(folder).items() if query in claims}
    whole = Collection(
        "scifact", Rows(docs, sparse=sparse[0]), Rows(queries, sparse=sparse[1]), doc_ids, query_ids, qrels
    )
    return replace(whole, part=_with_tokens(whole))


def _with_tokens(whole: Collection) -> Collection:
    tokens = demo_maxsim.load()
    docs = whole.docs.take(_places(tokens.doc_ids, whole.doc_ids))
    queries = whole.queries.take(_places(tokens.query_ids, whole.query_ids))
    return Collection(
        "scifact-tokens",
        replace(docs, tokens=tokens.docs),
        replace(queries, tokens=tokens.queries),
        tokens.doc_ids,
        tokens.query_ids,
        {query: (whole.qrels or {})[query] for query in tokens.query_ids},
    )


def _places(names: list[str], among: list[str]) -> I64:
    place = {name: row for row, name in enumerate(among)}
    return np.array([place[name] for name in names], np.int64)

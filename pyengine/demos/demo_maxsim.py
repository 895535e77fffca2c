"""The demo's second part: late interaction over token vectors of some SciFact abstracts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pyengine as pe
from pyengine import evaluate, heatmap
from pyengine.backends import registry
from pyengine.demos.demo_backends import compare
from pyengine.specification import reference_maxsim
from pyengine.types import F32

DATA = Path(__file__).parent.parent / "data" / "scifact_tokens"
DENSE = Path(__file__).parent.parent / "data" / "scifact"
K = 10
COMPARED = 3  # claims by which backends are compared: the specification takes seconds for each
EXAMPLE = "179"  # the claim whose alignment is drawn
WHOLE = "On the 1,000 abstracts that these are from: MaxSim 0.813, dense 0.786."


class Tokens(NamedTuple):
    """Token vectors with the names of their rows."""

    docs: pe.Ragged
    queries: pe.Ragged
    doc_ids: list[str]
    query_ids: list[str]


def load() -> Tokens:
    """165 abstracts and 80 claims, 128 dimensions."""
    ids = json.loads((DATA / "ids.json").read_text(encoding="utf-8"))
    docs = np.load(DATA / "doc_codes_i8.npy").astype(np.float32) * np.float32(ids["scale"])
    return Tokens(
        pe.Ragged(docs, np.load(DATA / "doc_offsets.npy")),
        pe.Ragged(np.load(DATA / "query_tokens_f16.npy"), np.load(DATA / "query_offsets.npy")),
        ids["doc_ids"],
        ids["query_ids"],
    )


def run(console: Console, picture: Path) -> bool:
    """Print this part; whether every backend present returned the bits of the specification."""
    tokens = load()
    console.rule("Late interaction (MaxSim)")
    console.print(
        f"[bold]SciFact, token by token[/bold]: {len(tokens.docs):,} abstracts of {len(tokens.docs.values):,} tokens, "
        f"{len(tokens.queries)} claims, {tokens.docs.dim} dimensions"
    )
    found = pe.maxsim_topk(tokens.queries, tokens.docs, K)
    show_quality(console, tokens, found)
    show_alignment(console, tokens, found, picture)
    return compare_backends(console, tokens)


def show_quality(console: Console, tokens: Tokens, found: pe.TopK) -> None:
    """nDCG@10 beside that of dense vectors, of the same abstracts for the same claims."""
    judged = evaluate.load_qrels(DENSE)
    qrels = {query: judged[query] for query in tokens.query_ids}
    docs, queries = dense_rows(tokens)
    table = Table("", "nDCG@10", "MRR@10")
    for name, result in (("MaxSim", found), ("dense, cosine", pe.topk(queries, docs, K))):
        values = evaluate.metrics(result, tokens.doc_ids, tokens.query_ids, qrels)
        table.add_row(name, f"{values['nDCG@10']:.3f}", f"{values['MRR@10']:.3f}")
    console.print(table, WHOLE, sep="\n")


def dense_rows(tokens: Tokens) -> tuple[F32, F32]:
    """The dense vectors of the same abstracts [N, D] and claims [Q, D]."""
    ids = json.loads((DENSE / "emb" / "ids.json").read_text(encoding="utf-8"))
    place = {key: {name: row for row, name in enumerate(ids[key])} for key in ("doc_ids", "query_ids")}
    docs, queries = (np.load(DENSE / "emb" / f"{kind}_dense_f32.npy") for kind in ("doc", "query"))
    return (
        docs[[place["doc_ids"][name] for name in tokens.doc_ids]],
        queries[[place["query_ids"][name] for name in tokens.query_ids]],
    )


def show_alignment(console: Console, tokens: Tokens, found: pe.TopK, picture: Path) -> None:
    """Which tokens of the best abstract a claim matches: a picture, or lines where matplotlib is missing."""
    claim = tokens.query_ids.index(EXAMPLE)
    best = int(found.ids[claim, 0])
    query, doc = tokens.queries[claim], tokens.docs[best]
    texts = evaluate.load_queries(DENSE)[EXAMPLE], evaluate.load_corpus(DENSE)[tokens.doc_ids[best]].title
    console.print(Text(texts[0], "bold"), Text(f"{found.scores[claim, 0]:.4f} {texts[1]}"), sep="\n")
    if heatmap.available():
        heatmap.save(picture, query, doc, title=f"{texts[0]}\n{texts[1]}")
        console.print(Text(f"Which of its tokens each token of the claim matches: {picture}"))
        return
    console.print(Text(heatmap.text(query, doc)), soft_wrap=True)
    console.print("A line per token of the claim, a column per token or two of the abstract; last the token that it")
    console.print("matches, and their product. As a picture: pip install 'pyengine-search[plot]'", markup=False)


def compare_backends(console: Console, tokens: Tokens) -> bool:
    """Some of the claims, on each backend."""
    queries = tokens.queries.take(np.arange(COMPARED))
    return compare(
        console,
        partial(pe.maxsim_topk, queries, tokens.docs, K),
        partial(reference_maxsim.topk, queries, tokens.docs, K),
        {name: missing(name) for name in registry.names()},
        f"{COMPARED} claims, k = {K}",
    )


def missing(name: str) -> str | None:
    """Why that backend cannot score tokens here; None where it can."""
    backend = registry.of_family(name, "maxsim")
    reason: str | None = "it has nothing for late interaction" if backend is None else backend.missing()
    return reason

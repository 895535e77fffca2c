"""The demo's third part: words. BM25 over the texts of SciFact, and its fusion with the dense vectors."""

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
from pyengine import evaluate
from pyengine.demos.demo_backends import compare
from pyengine.lexical import text_search
from pyengine.specification import reference_sparse

DATA = Path(__file__).parent.parent / "data" / "scifact"
K = 100
EXAMPLE = "36"  # the claim of which words are shown
MEASURES = ("nDCG@10", "Recall@100", "MRR@10")


class Texts(NamedTuple):
    """Documents and queries as texts, by name."""

    docs: dict[str, evaluate.Document]
    queries: dict[str, str]


def load() -> Texts:
    """5,183 abstracts and 300 claims."""
    return Texts(evaluate.load_corpus(DATA), evaluate.load_queries(DATA))


def run(console: Console) -> bool:
    """Print this part; whether every backend present returned the bits of the specification."""
    console.rule("Words (BM25), and both")
    try:
        analyze = pe.Analyzer()
    except ImportError as error:
        console.print(Text(f"Not shown: {error}"))
        return True
    texts = load()
    model = pe.BM25.fit(map(analyze, text_search.joined(texts.docs.values())))
    queries = model.queries(map(analyze, texts.queries.values()))
    index = pe.SparseIndex(model.docs.n_terms)
    index.add(model.docs)
    found = index.search(queries, k=K)
    console.print(f"[bold]SciFact, word by word[/bold]: {model.docs.nnz:,} impacts of {model.docs.n_terms:,} stems")
    console.print(Text(repr(index), no_wrap=True, overflow="ignore"), soft_wrap=True)
    show_quality(console, texts, found)
    show_words(console, texts, model, queries, found)
    return compare(
        console,
        partial(index.search, queries, k=K),
        partial(reference_sparse.topk, queries, model.docs, K),
        {name: reason for name, _, reason in pe.backends("sparse")},
        f"{len(queries)} claims, k = {K}",
    )


def show_quality(console: Console, texts: Texts, found: pe.TopK) -> None:
    """The measures of BM25, of the dense vectors, and of both, fused by reciprocal ranks."""
    qrels = {query: grades for query, grades in evaluate.load_qrels(DATA).items() if query in texts.queries}
    dense = dense_search(texts)
    table = Table("", *MEASURES)
    for name, result in (("BM25", found), ("dense, cosine", dense), ("both, RRF", pe.fuse([dense, found]))):
        values = evaluate.metrics(result, list(texts.docs), list(texts.queries), qrels)
        table.add_row(name, *(f"{values[measure]:.3f}" for measure in MEASURES))
    console.print(table)


def dense_search(texts: Texts) -> pe.TopK:
    """The same search by dense vectors."""
    ids = json.loads((DATA / "emb" / "ids.json").read_text(encoding="utf-8"))
    vectors = {}
    for kind, names in (("query", texts.queries), ("doc", texts.docs)):
        place = {name: row for row, name in enumerate(ids[f"{kind}_ids"])}
        vectors[kind] = np.load(DATA / "emb" / f"{kind}_dense_f32.npy")[[place[name] for name in names]]
    return pe.topk(vectors["query"], vectors["doc"], K)


def show_words(console: Console, texts: Texts, model: pe.BM25, queries: pe.SparseRows, found: pe.TopK) -> None:
    """What each word of a claim adds to the score of its best abstract."""
    claim = list(texts.queries).index(EXAMPLE)
    best = int(found.ids[claim, 0])
    query, doc = queries.part(slice(claim, claim + 1)), model.docs.part(slice(best, best + 1))
    terms, contributions = pe.explain_terms(query, doc)
    stems = list(model.vocabulary or ())
    words = ", ".join(f"{stems[term]} {share:.2f}" for term, share in zip(terms, contributions))
    title = list(texts.docs.values())[best].title
    console.print(
        Text(texts.queries[EXAMPLE], "bold"), Text(f"{found.scores[claim, 0]:.4f} {title}\n({words})"), sep="\n"
    )

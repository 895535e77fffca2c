"""The demo: exact search over SciFact's 5,183 abstracts, judged, and compared bit for bit on every backend; then the
same with a vector per token, and by words."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pyengine as pe
from pyengine import evaluate
from pyengine.demos import demo_maxsim, demo_sparse
from pyengine.demos.demo_backends import compare
from pyengine.specification import reference

DATA = Path(__file__).parent.parent / "data" / "scifact"
EXAMPLES = ("130", "179", "36")  # claims: an easy one, one with two judged abstracts, one where the best is third
K = 100
SHOWN = 3
SNIPPET = 180
PICTURE = Path("maxsim-alignment.png")


def run(console: Console, picture: Path = PICTURE) -> bool:
    """Print the demo, and draw an alignment where matplotlib is installed; whether every backend present returned the
    bits of the specification."""
    evaluate.require()
    docs = np.load(DATA / "emb" / "doc_dense_f32.npy")  # [N, D]
    queries = np.load(DATA / "emb" / "query_dense_f32.npy")  # [Q, D]
    ids = json.loads((DATA / "emb" / "ids.json").read_text(encoding="utf-8"))
    qrels = evaluate.load_qrels(DATA)

    index = pe.DenseIndex(docs.shape[1], metric="cosine")
    index.add(docs)
    result = index.search(queries, k=K)
    console.print(f"[bold]SciFact[/bold]: {len(docs):,} abstracts, {len(queries)} claims, {docs.shape[1]} dimensions")
    console.print(Text(repr(index), no_wrap=True, overflow="ignore"), soft_wrap=True)

    show_examples(console, result, ids["doc_ids"], ids["query_ids"], qrels)
    console.rule("Quality over all claims")
    for name, value in evaluate.metrics(result, ids["doc_ids"], ids["query_ids"], qrels).items():
        console.print(f"{name:11} {value:.3f}")
    equal = compare(
        console,
        partial(index.search, queries, k=K),
        partial(reference.topk, queries, docs, K, index.metric),
        {name: reason for name, _, reason in pe.backends()},
        f"{len(queries)} queries, k = {K}",
    )
    by_tokens = demo_maxsim.run(console, picture)
    return demo_sparse.run(console) and by_tokens and equal


def show_examples(
    console: Console, result: pe.TopK, doc_ids: list[str], query_ids: list[str], qrels: evaluate.Qrels
) -> None:
    """The first hits of a few claims; judged-relevant ones are marked."""
    corpus, claims = evaluate.load_corpus(DATA), evaluate.load_queries(DATA)
    for query in EXAMPLES:
        console.rule("Claim")
        console.print(Text(claims[query], "bold"))
        table = Table.grid(padding=(0, 1))
        row = query_ids.index(query)
        for score, doc in zip(result.scores[row, :SHOWN], result.ids[row, :SHOWN]):
            title, text = corpus[doc_ids[doc]]
            relevant = qrels[query].get(doc_ids[doc], 0) > 0
            hit = Text.assemble((title, "green" if relevant else ""), "\n", (text[:SNIPPET] + " ...", "dim"))
            table.add_row(f"{score:.4f}", "[green]relevant[/green]" if relevant else "", hit)
        console.print(table)

"""The demo: exact search over SciFact's 5,183 abstracts, judged, and compared bit for bit on every backend."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pyengine as pe
from pyengine import checks, evaluate, reference
from pyengine.types import F32

DATA = Path(__file__).parent / "data" / "scifact"
EXAMPLES = ("130", "179", "36")  # claims: an easy one, one with two judged abstracts, one where the best is third
K = 100
SHOWN = 3
SNIPPET = 180
RUNS = 5
PATIENCE = 1.0  # seconds of timed runs after which no further one starts


def run(console: Console) -> bool:
    """Print the demo; whether every backend present returned the bits of the specification."""
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
    return compare_backends(console, index, queries, docs)


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


def compare_backends(console: Console, index: pe.DenseIndex, queries: F32, docs: F32) -> bool:
    """Time the search on each backend and compare it with the specification, which is computed once."""
    console.rule("The same search on every backend")
    table = Table("backend", "time", "ids", "scores")
    with console.status("the specification, in float64 NumPy"):
        started = perf_counter()
        expected = reference.topk(queries, docs, K, index.metric)
        table.add_row("specification", milliseconds(perf_counter() - started), "", "")
    all_equal = True
    missing = []
    for name, available, reason in pe.backends():
        if not available:
            missing.append(Text(f"{name}: {reason}"))
            continue
        with console.status(name):
            found, seconds = timed(partial(index.search, queries, k=K, backend=name))
        same_ids = np.array_equal(found.ids, expected.ids)
        same_scores = np.array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))
        all_equal &= same_ids and same_scores
        table.add_row(name, milliseconds(seconds), verdict(same_ids), verdict(same_scores))
    console.print(table, *missing, sep="\n")
    if missing:
        console.print(Text(f"pip of this environment: {Path(sys.executable).parent / 'pip'}"), soft_wrap=True)
    console.print(f"{len(queries)} queries, k = {K}, {checks.thread_count(None)} threads; the median of a few runs.")
    return all_equal


def timed(search: Callable[[], pe.TopK]) -> tuple[pe.TopK, float]:
    """The result, and the median time of a few runs after this first one, which imports and warms up."""
    result = search()
    seconds: list[float] = []
    while len(seconds) < RUNS and sum(seconds) < PATIENCE:
        started = perf_counter()
        search()
        seconds.append(perf_counter() - started)
    return result, median(seconds)


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms"


def verdict(equal: bool) -> str:
    return "[green]same bits[/green]" if equal else "[red]DIFFERENT[/red]"

"""The commands of ``pyengine``: info, demo, search, eval, bench, ablate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

import pyengine
from pyengine import evaluate
from pyengine.__main__ import facts
from pyengine.command_line import command_bench, command_search
from pyengine.command_line import command_parts as parts
from pyengine.demos import demo as demonstration

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Docs = Annotated[Path, typer.Argument(help="Document vectors, .npy [N, D].", exists=True, dir_okay=False)]
Queries = Annotated[Path, typer.Argument(help="Query vectors, .npy [Q, D].", exists=True, dir_okay=False)]


def show_version(wanted: bool) -> None:
    if wanted:
        parts.console.print(pyengine.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="The version, and no more.")
    ] = False,
) -> None:
    """Exact similarity search: the same bits from every backend."""


@app.command()
def info() -> None:
    """Versions, instruction sets, and every backend with the reason why it is missing."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts().items():
        table.add_row(name, Text(value))
    parts.console.print(table)
    backends = Table("backend", "state", title="Backends", title_justify="left")
    for status in pyengine.backends():
        backends.add_row(status.name, Text(status.reason or "available", "yellow" if status.reason else "green"))
    parts.console.print(backends)


@app.command()
def demo(
    heatmap: Annotated[
        Path, typer.Option(help="Where to draw an alignment, if matplotlib is installed.")
    ] = demonstration.PICTURE,
) -> None:
    """Search SciFact's abstracts by dense vectors, token by token and by words, on every backend; compare the bits."""
    if not demonstration.run(parts.console, heatmap):
        raise typer.Exit(1)


app.command()(command_search.search)
app.command(context_settings=command_bench.PASSED_ON, add_help_option=False)(command_bench.bench)
app.command(context_settings=command_bench.PASSED_ON, add_help_option=False)(command_bench.ablate)
app.command(context_settings=command_bench.PASSED_ON, add_help_option=False)(command_bench.report)


@app.command("eval")
def evaluation(
    folder: Annotated[Path, typer.Argument(help="A folder in the BEIR layout.", exists=True, file_okay=False)],
    docs: Docs,
    queries: Queries,
    ids: Annotated[
        Path,
        typer.Argument(help="JSON with the lists doc_ids and query_ids, in row order.", exists=True, dir_okay=False),
    ],
    split: Annotated[str, typer.Option(help="Which judgements: qrels/SPLIT.tsv.")] = "test",
    k: Annotated[int, typer.Option(help="Results per query.", min=100)] = 100,
    metric: parts.Metric = "cosine",
    backend: parts.Backend = "auto",
    store: parts.Store = "int8",
    threads: parts.Threads = None,
    output: parts.Output = None,
) -> None:
    """nDCG@10, Recall@100 and MRR@10 of a search, over all judged queries."""
    evaluate.require()
    qrels = evaluate.load_qrels(folder, split)
    vectors, asked = parts.read_vectors(docs), parts.read_vectors(queries)
    doc_ids, query_ids = parts.read_ids(ids, len(vectors), len(asked), both=True)
    searched = len(qrels.keys() & set(query_ids))
    if searched == 0:
        raise ValueError(f"none of the query ids in {ids} is judged in the split {split!r} of {folder}")
    result = parts.find(vectors, asked, k, metric, backend, store, threads)
    if output is not None:
        parts.write(output, result, doc_ids, query_ids, metric)
    for name, value in evaluate.metrics(result, doc_ids, query_ids, qrels).items():
        parts.console.print(f"{name:11} {value:.4f}")
    parts.console.print(f"{searched} of {len(qrels)} judged queries were searched.")

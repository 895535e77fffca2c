"""The commands of ``pyengine``: info, demo, search, eval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pyengine
from pyengine import checks, evaluate
from pyengine import demo as demonstration
from pyengine.__main__ import facts
from pyengine.types import F32, TopK

OUTPUTS = (".npz", ".run", ".trec")
SHOWN = 5  # queries of which `search` prints the results

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)


def checked_output(path: Path | None) -> Path | None:
    """Refuse what could not be written before the search, not after it."""
    if path is not None and path.suffix not in OUTPUTS:
        raise ValueError(f"--output must end in {', '.join(OUTPUTS)}; got {path}")
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"--output must lie in a folder that exists; got {path}")
    return path


Docs = Annotated[Path, typer.Argument(help="Document vectors, .npy [N, D].", exists=True, dir_okay=False)]
Queries = Annotated[Path, typer.Argument(help="Query vectors, .npy [Q, D].", exists=True, dir_okay=False)]
Metric = Annotated[str, typer.Option(help="cosine, dot or l2.")]
Backend = Annotated[str, typer.Option(help="auto, or a name that 'pyengine info' lists.")]
Store = Annotated[str, typer.Option(help="int8 or float32: what is scanned. The answers are the same bits.")]
Threads = Annotated[int | None, typer.Option(help="Threads; OMP_NUM_THREADS, else all cores, by default.")]
Output = Annotated[
    Path | None,
    typer.Option(
        help="Write .npz (scores, ids = row numbers, certified), or a TREC run as .run or .trec.",
        callback=checked_output,
    ),
]


def show_version(wanted: bool) -> None:
    if wanted:
        console.print(pyengine.__version__)
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
    console.print(table)
    backends = Table("backend", "state", title="Backends", title_justify="left")
    for status in pyengine.backends():
        backends.add_row(status.name, Text(status.reason or "available", "yellow" if status.reason else "green"))
    console.print(backends)


@app.command()
def demo(
    heatmap: Annotated[
        Path, typer.Option(help="Where to draw an alignment, if matplotlib is installed.")
    ] = demonstration.PICTURE,
) -> None:
    """Search SciFact's abstracts by dense vectors and token by token, on every backend, and compare the bits."""
    if not demonstration.run(console, heatmap):
        raise typer.Exit(1)


@app.command()
def search(
    docs: Docs,
    queries: Queries,
    k: Annotated[int, typer.Option(help="Results per query.")] = 10,
    metric: Metric = "cosine",
    backend: Backend = "auto",
    store: Store = "int8",
    threads: Threads = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            help="Names: .npy or .json list for the documents, or .json with doc_ids and query_ids.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    output: Output = None,
) -> None:
    """The k best documents of each query, printed or written."""
    vectors, asked = read_vectors(docs), read_vectors(queries)
    doc_ids, query_ids = read_ids(ids, len(vectors), len(asked))
    result = find(vectors, asked, k, metric, backend, store, threads)
    if output is not None:
        write(output, result, doc_ids, query_ids, metric)
        return
    for query, scores, rows in zip(query_ids[:SHOWN], result.scores, result.ids):
        table = Table("", "document", metric, title=Text(f"query {query}"), title_justify="left")
        for place, (score, row) in enumerate(zip(scores, rows), 1):
            if row >= 0:
                table.add_row(str(place), Text(doc_ids[row]), f"{score:.6g}")
        console.print(table)
    if len(query_ids) > SHOWN:
        console.print(f"The first {SHOWN} of {len(query_ids)} queries; --output keeps them all.")


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
    metric: Metric = "cosine",
    backend: Backend = "auto",
    store: Store = "int8",
    threads: Threads = None,
    output: Output = None,
) -> None:
    """nDCG@10, Recall@100 and MRR@10 of a search, over all judged queries."""
    evaluate.require()
    qrels = evaluate.load_qrels(folder, split)
    vectors, asked = read_vectors(docs), read_vectors(queries)
    doc_ids, query_ids = read_ids(ids, len(vectors), len(asked), both=True)
    searched = len(qrels.keys() & set(query_ids))
    if searched == 0:
        raise ValueError(f"none of the query ids in {ids} is judged in the split {split!r} of {folder}")
    result = find(vectors, asked, k, metric, backend, store, threads)
    if output is not None:
        write(output, result, doc_ids, query_ids, metric)
    for name, value in evaluate.metrics(result, doc_ids, query_ids, qrels).items():
        console.print(f"{name:11} {value:.4f}")
    console.print(f"{searched} of {len(qrels)} judged queries were searched.")


def find(docs: F32, queries: F32, k: int, metric: str, backend: str, store: str, threads: int | None) -> TopK:
    index = pyengine.DenseIndex(docs.shape[1], metric=metric, store=store, backend=backend)
    index.add(docs)
    return index.search(queries, k, num_threads=threads)


def read_vectors(path: Path) -> F32:
    """The rows of a .npy file, as float32 [n, D]."""
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError):
        raise ValueError(f"{path} must be a .npy file with an array of numbers") from None
    return checks.vectors(array, str(path))


def read_ids(path: Path | None, n_docs: int, n_queries: int, both: bool = False) -> tuple[list[str], list[str]]:
    """The names of the documents and of the queries: row numbers where none are given, unless ``both`` must be."""
    try:
        if path is None:
            named = {}
        elif path.suffix == ".npy":
            named = np.load(path).tolist()
        else:
            named = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, EOFError):
        named = None
    if isinstance(named, list):
        named = {"doc_ids": named}
    if not isinstance(named, dict) or (both and not {"doc_ids", "query_ids"} <= named.keys()):
        wanted = "a JSON object with doc_ids and query_ids"
        raise ValueError(f"{path} must be {wanted}" + ("" if both else ", or a .npy or .json list of document ids"))
    return names(named, "doc_ids", n_docs, path), names(named, "query_ids", n_queries, path)


def names(named: dict[str, Any], key: str, n_rows: int, path: Path | None) -> list[str]:
    given = named.get(key, [*range(n_rows)])
    if not isinstance(given, list) or len(given) != n_rows or len({*map(str, given)}) != n_rows:
        raise ValueError(f"{path}: {key} must be a list that names the {n_rows} rows, each by a name of its own")
    return [str(name) for name in given]


def write(path: Path, result: TopK, doc_ids: list[str], query_ids: list[str], metric: str) -> None:
    if path.suffix == ".npz":
        np.savez(path, **result._asdict())
    else:
        evaluate.write_trec(path, result, doc_ids, query_ids, metric)

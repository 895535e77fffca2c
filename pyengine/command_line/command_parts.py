"""What the commands of ``pyengine`` share: options, reading of arrays and names, a search, writing of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

import pyengine
from pyengine import checks
from pyengine.integrations import runs
from pyengine.types import F32, TopK

OUTPUTS = (".npz", ".run", ".trec")
console = Console(highlight=False)


def checked_output(path: Path | None) -> Path | None:
    """Refuse what could not be written before the search, not after it."""
    if path is not None and path.suffix not in OUTPUTS:
        raise ValueError(f"--output must end in {', '.join(OUTPUTS)}; got {path}")
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"--output must lie in a folder that exists; got {path}")
    return path


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
    """As .npz or as a TREC run. Smaller scores are better for the ``metric`` l2 alone."""
    if path.suffix == ".npz":
        np.savez(path, **result._asdict())
    else:
        runs.write(path, runs.of(result, doc_ids, query_ids, metric))

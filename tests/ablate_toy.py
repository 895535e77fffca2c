"""A small collection with everything that an ablation reads, and a grid of six cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.ablation import journal
from bench.datasets.collection import Collection, Rows
from pyengine.inputs.ragged import Ragged
from pyengine.inputs.sparse_rows import SparseRows

N_DOCS, N_QUERIES, DIM = 300, 8, 16
GRID = """
title = "toy"
baseline = "dense"
seconds = 0.002

[[cells]]
name = "dense"
family = "dense"
k = 10

[[cells]]
name = "prefix"
family = "dense"
dims = [8, 99]
k = 10

[[cells]]
name = "words"
family = "sparse"
k = 10

[[cells]]
name = "hybrid"
family = "hybrid"
fusion = ["rrf", "convex"]
store = "float32"
depth = 50

[[claims]]
name = "smaller"
says = "Half of the dimensions take half of the memory"
source = "arithmetic"
cell = "prefix-dims=8"
against = "dense"
measure = "memory_bytes"
figure = "cell / against"
at_most = 0.7

[[claims]]
name = "longer"
says = "More dimensions find more"
source = "nobody"
cell = "prefix-dims=99"
measure = "recall"
figure = "cell"
at_least = 1
"""


def collection() -> Collection:
    """Vectors, tokens, sparse rows, a run and judgements: query i is about document i."""
    rng = np.random.default_rng(3)
    docs = rng.standard_normal((N_DOCS, DIM)).astype(np.float32)
    queries = docs[:N_QUERIES] + 0.3 * rng.standard_normal((N_QUERIES, DIM)).astype(np.float32)
    terms = rng.random((N_DOCS, 40)) * (rng.random((N_DOCS, 40)) < 0.3)
    bags = [rng.standard_normal((3 + row % 4, DIM)).astype(np.float32) for row in range(N_DOCS)]
    sparse = [_sparse(terms), _sparse(terms[:N_QUERIES])]
    run = np.argsort(-(queries @ docs.T), axis=1)[:, :20].astype(np.int64)
    return Collection(
        "toy",
        Rows(docs, Ragged.of(bags), sparse[0]),
        Rows(queries, Ragged.of(bags[:N_QUERIES]), sparse[1], run),
        [f"d{row}" for row in range(N_DOCS)],
        [f"q{row}" for row in range(N_QUERIES)],
        {f"q{row}": {f"d{row}": 1} for row in range(N_QUERIES)},
    )


def _sparse(dense: np.ndarray) -> SparseRows:
    rows, columns = np.nonzero(dense)
    return SparseRows(np.searchsorted(rows, np.arange(len(dense) + 1)), columns, dense[rows, columns], dense.shape[1])


TOY = collection()


def written(folder: Path) -> Path:
    """The dense vectors and judgements in a folder, with texts for the sparse rows, and the grid beside it."""
    data = folder / "toy"
    data.mkdir()
    np.save(data / "docs.npy", TOY.docs.dense)  # type: ignore[arg-type]
    np.save(data / "queries.npy", TOY.queries.dense)  # type: ignore[arg-type]
    for name, ids, words in (("corpus", TOY.doc_ids, 9), ("queries", TOY.query_ids, 4)):
        told = enumerate(ids)
        records = [{"_id": each, "text": " ".join(f"w{row % (7 + at)}" for at in range(words))} for row, each in told]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    (data / "qrels.txt").write_text("".join(f"q{row} 0 d{row} 1\n" for row in range(N_QUERIES)))
    (folder / "grid.toml").write_text(GRID)
    return folder


def arguments(folder: Path, out: str = "out") -> list[str]:
    return ["--data", str(folder / "toy"), "--grid", str(folder / "grid.toml"), "--out", str(folder / out)]


def rows_of(folder: Path, out: str = "out") -> list[dict[str, Any]]:
    return journal.read(folder / out / "cells.csv")

"""Made-up results of bench.ablate and bench.run, with hostile names, for the tests of bench.report."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.ablation import journal

HOSTILE = "</script><script>document.title='stolen'</script><b>&amp;|$x_1$"
CEILINGS = (
    "1 thread(s): copies in GB/s read and written: 9.0 of 64 MiB; reads 20.0 GB/s of 64 MiB, 10.0 GB/s of 2048 MiB "
    "(9.0 in 4 KiB pages), float32 GEMM 100 Gop/s, bf16 not measured, int8 products in Gop/s: avx2 500, amx 5,000; "
    "2 thread(s): reads 15.0 GB/s of 2048 MiB (9.0 in 4 KiB pages), float32 GEMM 190 Gop/s, bf16 1,500, int8 products "
    "in Gop/s: not measured"
)
MACHINE = {
    "date": "2026-01-02", "cpu": "A <processor>", "cores": 2, "memory_gib": 8, "isa": "amx", "versions": "numpy 2",
    "commit": "abc", "changed_settings": "",
}  # fmt: skip


def cell(name: str, family: str, ndcg: float | None, p50: float, n_bytes: int, **more: Any) -> dict[str, Any]:
    row = dict.fromkeys(journal.COLUMNS) | {"cell": name, "family": family, "candidates": "none", "store": "float32"}
    row |= {"backend": "auto", "threads": 1, "k": 10, "collection": "toy", "n_docs": 1000, "n_queries": 5}
    row |= {"status": "ok", "reason": "", "exactness": "exact", "recall": 0.9, "ndcg_10": ndcg, "memory_bytes": n_bytes}
    return row | {"b1_p50_ms": p50, "b1_p95_ms": 2 * p50, "b1_p99_ms": 3 * p50, "queries_per_s": 1000 / p50} | more


CELLS = [
    cell("slow", "dense", 0.7, 8.0, 4_000_000),
    cell("slow-small", "dense", 0.7, 20.0, 1_000_000),
    cell("middle", "sparse", 0.65, 1.0, 2_000_000),
    cell("middle-small", "sparse", 0.648, 0.9, 500_000),
    cell("fast", "hybrid", 0.3, 0.1, 9_000_000),
    *(cell(f"prefix-{dims}", "dense", 0.2, dims / 100, 100_000_000, dims=dims) for dims in (8, 16, 32)),
    cell("tokens", "maxsim", None, 2.0, 100, collection=HOSTILE),
    dict.fromkeys(journal.COLUMNS) | {"cell": "gone", "family": "dense", "status": "missing", "reason": "no <faiss>"},
]


def ablation(folder: Path, cells: Sequence[Mapping[str, Any]] = CELLS) -> Path:
    """A folder as bench.ablate leaves it."""
    (folder / "queries").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"title": "toy", **MACHINE}))
    _written(folder / "cells.csv", journal.COLUMNS, cells)
    for row in cells:
        if row["status"] == "ok":
            seconds = row["b1_p50_ms"] / 1000 * np.linspace(0.5, 3, 40)
            np.savez_compressed(folder / "queries" / f"{row['cell']}.npz", batch1=seconds.astype(np.float32))
    claim = {
        "claim": "c",
        "verdict": "holds",
        "figure": "2",
        "published": ">= 1.5",
        "says": "It <i>is</i> twice as fast",
    }
    _written(folder / "claims.csv", tuple(claim), [claim])
    return folder


def race(contestant: str, role: str, n_queries: int, p50: float, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "table": "search", "workload": f"n1k-d8-q{n_queries}-k10", "n_docs": 1000, "dim": 8, "n_queries": n_queries,
        "k": 10, "metric": "cosine", "data": "clustered", "contestant": contestant, "role": role, "threads": 1,
        "exact": role == "ours", "recall": 1.0, "p20_ms": p50, "p50_ms": p50, "p80_ms": p50, "cpu_ms": p50,
        "vs_best_peer": 4.0 if role == "ours" else 1.0, "gb_per_s": 5.0 / p50, "gop_per_s": 5.0 * n_queries / p50,
        "of_ceiling": 0.5, "note": "", **MACHINE, "ceilings": CEILINGS,
    }  # fmt: skip
    return row | more


RACES = [
    *(race("pyengine-int8", "ours", count, 0.5 * count) for count in (1, 10, 100)),
    *(race(HOSTILE, "peer", count, 2.0 * count**0.5) for count in (1, 10, 100)),
    race("pyengine-int8", "ours", 10, 3.0, threads=2),
    race("late", "peer", 1, 1.0) | dict.fromkeys(("p20_ms", "p50_ms", "p80_ms", "exact")) | {"note": "not installed"},
]


def run(path: Path, rows: Sequence[Mapping[str, Any]] = RACES) -> Path:
    """A CSV as bench.run leaves it."""
    return _written(path, tuple(rows[0]), rows)


def _written(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path

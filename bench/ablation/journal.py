"""The results of a grid in a folder, which a killed run leaves whole and a later one continues.

| file | what |
|---|---|
| manifest.json | what was measured where: hashes of grid and data, versions, machine, commit, sizes, the grid itself |
| cells.csv | a row for each finished cell: `COLUMNS` |
| queries/CELL.npz | seconds of every call, ``batch1`` and ``batch32``; values of each measure, one per judged query |
| claims.csv | verdicts, where the grid has claims: written at the end |
| lock | had by the run that writes here |
| scratch | of a run: what it keeps on the disk meanwhile |

A row is written, and flushed to the disk, after the file of its queries; a row that a kill cut off is dropped. The rows
of cells that were missing something, or that failed, go when the folder is opened again: they are tried again.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ablation.cells import Cell
from bench.racing import files

SETTINGS = tuple(field.name for field in fields(Cell) if field.name != "name")
MEASURED = {
    "collection": "what was searched; only rows of one collection compare",
    "n_docs": "documents",
    "n_queries": "queries",
    "status": "ok; missing: it cannot run here; failed",
    "reason": "why it is not ok, in a sentence",
    "exactness": "exact, same, ids, certified or approximate: `measures.exactness`",
    "recall": "share of the exact float32 top k of its family that it found, by ids: another that ties is none of them",
    "ndcg_10": "nDCG@10 over the judged queries, as the next; empty without judgements, or where k is smaller",
    "mrr_10": "reciprocal rank of the first relevant document among ten",
    "r_k": "share of the relevant documents among the k",
    "map_50": "average precision among fifty",
    "ndcg_10_change": "nDCG@10 less that of the cell `against`",
    "p_value": "of that difference: paired randomisation test, 10,000 draws, two-sided, not corrected for many cells",
    "b1_p50_ms": "milliseconds a call of one query, wall time, 50th percentile; so too p95 and p99",
    "b1_p95_ms": "",
    "b1_p99_ms": "",
    "b1_cpu_ms": "the same, processor time, median",
    "b1_cpu_ratio": "processor time by that of the cell `against`, median over calls that took turns",
    "b1_calls": "how many calls: of fewer than 100 (20), p99 (p95) is little else than the slowest",
    "b32_p50_ms": "the same of 32 queries a call",
    "b32_p95_ms": "",
    "b32_p99_ms": "",
    "b32_cpu_ms": "",
    "b32_cpu_ratio": "",
    "b32_calls": "",
    "queries_per_s": "queries by wall time at that batch size, median call",
    "build_s": "seconds to build what is searched, wall time",
    "build_cpu_s": "the same, processor time",
    "memory_bytes": "kept in memory for a search",
    "disk_bytes": "of what a later search needs, saved",
}
COLUMNS = ("cell", *SETTINGS, *MEASURED)
MUST_AGREE = {  # entries of the manifest -> what differs, in words
    "grid_hash": "another grid",
    "data_hash": "other data",
    "cpu": "another processor",
    "cores": "another number of cores",
    "versions": "other versions of libraries",
    "commit": "another commit",
}
JUDGE = "ir_measures "
Value = str | int | float | None


@contextmanager
def opened(out: Path, manifest: Mapping[str, Any]) -> Iterator[Journal]:
    """The results under ``out``, begun or continued, while nobody else writes there. ValueError in a sentence where
    somebody does, or where other things are there."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder; {out} is a file")
    known = ("manifest.json", "queries", "lock")
    if out.exists() and not (out / known[0]).exists() and any(each.name not in known for each in out.iterdir()):
        raise ValueError(f"--out must be empty or hold results of this grid; {out} has other things in it")
    (out / "queries").mkdir(parents=True, exist_ok=True)
    with files.alone(out / "lock") as alone:
        if not alone:
            raise ValueError(f"another run is writing to {out}: wait until it ends, or choose another --out")
        yield Journal(out, manifest)


class Journal:
    """The results under ``out``, of which `opened` has made sure. ``again`` says which cells could not run before."""

    def __init__(self, out: Path, manifest: Mapping[str, Any]) -> None:
        self.out = out
        path = out / "manifest.json"
        text = json.dumps(_agreed(path, manifest) if path.exists() else manifest, indent=1).encode()
        if not path.exists() or path.read_bytes() != text:
            files.write(path, text)
        self.rows, self.again = _recovered(out / "cells.csv")

    @property
    def done(self) -> set[str]:
        """The cells that have a row."""
        return {str(row["cell"]) for row in self.rows}

    def queries_of(self, cell: str) -> Path:
        return self.out / "queries" / f"{cell}.npz"

    def append(self, row: Mapping[str, Value], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep a finished cell, on the disk when this returns."""
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
            files.write(self.queries_of(str(row["cell"])), buffer.getvalue())
        with (self.out / "cells.csv").open("ab") as file:
            file.write(_text([[_shown(row.get(name)) for name in COLUMNS]]))
            file.flush()
            os.fsync(file.fileno())
        self.rows.append({name: row.get(name) for name in COLUMNS})

    def write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> Path:
        """Another table, whole."""
        files.write(self.out / name, _text([columns, *([_shown(each) for each in row] for row in rows)]))
        return self.out / name


def whole(path: Path) -> tuple[bytes, bool]:
    """The lines of a table that are there to their ends, and whether a kill or a full disk cut off one more."""
    kept = path.read_bytes()
    end = kept.rfind(b"\n") + 1
    return kept[:end], end < len(kept)


def read(path: Path) -> list[dict[str, Value]]:
    """The rows of a cells.csv, as far as they are `whole`: numbers as numbers, None where a field is empty. ValueError
    where it is damaged."""
    lines = _lines(path)
    try:
        return [{name: _value(name, text) for name, text in zip(COLUMNS, line)} for line in lines[1:]]
    except ValueError as error:
        raise ValueError(f"{path} must be the table of an ablation; it is damaged: {error}") from None


def _lines(path: Path) -> list[list[str]]:
    """The heading and the rows, as texts."""
    try:
        lines = list(csv.reader(io.StringIO(whole(path)[0].decode())))
    except (UnicodeDecodeError, csv.Error):
        lines = []
    if not lines or tuple(lines[0]) != COLUMNS or any(len(line) != len(COLUMNS) for line in lines):
        raise ValueError(f"{path} must be the table of an ablation; it is damaged, or of another version")
    return lines


def _text(lines: Iterable[Sequence[Value]]) -> bytes:
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerows(lines)
    return made.getvalue().encode()


TEXTS = frozenset(
    {"cell", "family", "candidates", "store", "originals", "fusion", "normalize", "backend", "against"}
    | {"collection", "status", "reason", "exactness"}
)
WHOLE = frozenset(
    {"dims", "lists", "probes", "links", "ef", "code_bytes", "bits", "project", "depth", "threads", "k"}
    | {"n_docs", "n_queries", "memory_bytes", "disk_bytes", "b1_calls", "b32_calls"}
)


def _value(name: str, text: str) -> Value:
    if not text:
        return "" if name == "reason" else None
    if name in TEXTS:
        return text
    return int(text) if name in WHOLE else float(text)


def _shown(value: Value) -> Value:
    return f"{value:.6g}" if isinstance(value, float) else value


def _recovered(path: Path) -> tuple[list[dict[str, Value]], list[str]]:
    """The rows of cells that ran, and the names of those that could not. The table is left with the former; what a kill
    left of a line is cut off, and a table that is not there is begun."""
    if not path.exists() or not whole(path)[0]:
        files.write(path, _text([COLUMNS]))
    heading, *lines = _lines(path)
    status = COLUMNS.index("status")
    ran = _text([heading, *(line for line in lines if line[status] == "ok")])
    if ran != path.read_bytes():
        files.write(path, ran)
    return read(path), [line[0] for line in lines if line[status] != "ok"]


def _agreed(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The old manifest, with the versions of now. ValueError where something else is measured, or elsewhere."""
    try:
        old: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        differing = next((words for key, words in MUST_AGREE.items() if not _agree(key, old[key], manifest[key])), None)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} must be the manifest of an ablation; it is damaged: choose another --out") from None
    if differing is not None:
        raise ValueError(f"{path.parent} holds results of {differing}: choose another --out, or remove it")
    return {**old, "versions": manifest["versions"]}


def _agree(key: str, old: Any, new: Any) -> bool:
    """Libraries may be added, for cells that lacked them; what judges all cells may not."""
    if key != "versions":
        return bool(old == new)
    before, now = (set(each.split(", ")) for each in (old, new))
    return before <= now and not any(each.startswith(JUDGE) for each in now - before)

"""Results as `bench.ablate` and `bench.run` leave them."""

from __future__ import annotations

import csv
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bench.ablation import journal

Value = str | int | float | bool | None
Row = Mapping[str, Any]
NEEDED = (
    *("table", "workload", "n_docs", "dim", "n_queries", "k", "contestant", "role", "threads", "exact", "recall"),
    *("p20_ms", "p50_ms", "p80_ms", "gb_per_s", "gop_per_s", "note", "date", "cpu", "cores", "isa", "ceilings"),
)
TEXTS = frozenset(
    {"table", "workload", "metric", "data", "letter", "lengths", "kind", "contestant", "role", "version", "exactness"}
    | {"ratio_to", "bound", "note", "date", "cpu", "isa", "versions", "commit", "changed_settings", "ceilings"}
)
MACHINE = ("date", "cpu", "cores", "memory_gib", "isa", "commit", "changed_settings", "versions", "ceilings")


@dataclass(frozen=True)
class Ablation:
    """A folder of `bench.ablate`: its cells, seconds of every call of one query by cell, and verdicts on claims. The
    ``warning`` says what was left out."""

    path: Path
    manifest: Mapping[str, Any]
    rows: Sequence[Row]
    latencies: Mapping[str, NDArray[Any]]
    claims: Sequence[Row]
    warning: str = ""

    @property
    def machine(self) -> dict[str, Value]:
        return {name: self.manifest.get(name) for name in MACHINE}

    @property
    def finished(self) -> list[Row]:
        return [row for row in self.rows if row["status"] == "ok"]

    @property
    def collections(self) -> dict[str, list[Row]]:
        """The finished cells by what they searched: only those of one collection compare."""
        names = dict.fromkeys(str(row["collection"]) for row in self.finished)
        return {name: [row for row in self.finished if row["collection"] == name] for name in names}


@dataclass(frozen=True)
class Run:
    """A CSV of `bench.run --save`."""

    path: Path
    rows: Sequence[Row]

    @property
    def machine(self) -> dict[str, Value]:
        return {name: self.rows[0].get(name) for name in MACHINE}

    @property
    def timed(self) -> list[Row]:
        return [row for row in self.rows if row["p50_ms"]]


Results = Ablation | Run


def read(path: Path) -> Results:
    """The results at ``path``, a folder of `bench.ablate` or a CSV of `bench.run`. ValueError or OSError in one
    sentence."""
    if path.is_dir():
        return _ablation(path)
    if not path.exists():
        raise FileNotFoundError(f"results must be folders of bench.ablate or CSV files of bench.run; {path} is missing")
    return _run(path)


def _ablation(folder: Path) -> Ablation:
    if not (folder / "cells.csv").is_file() or not (folder / "manifest.json").is_file():
        raise ValueError(f"{folder} must be a folder that bench.ablate made; it has no cells.csv or no manifest.json")
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise ValueError(f"{folder / 'manifest.json'} must be the manifest of an ablation; it is damaged")
    rows = [_finite(row) for row in journal.read(folder / "cells.csv")]
    if not rows:
        raise ValueError(f"{folder} must have results; none of its cells has finished")
    claims = _lines(folder / "claims.csv") if (folder / "claims.csv").exists() else []
    return Ablation(folder, manifest, rows, dict(_latencies(folder, rows)), claims, _warning(folder / "cells.csv"))


def _warning(path: Path) -> str:
    cut = journal.whole(path)[1]
    return f"{path}: the last line is cut off, and left out; bench.ablate measures its cell again" if cut else ""


def _latencies(folder: Path, rows: Sequence[Row]) -> list[tuple[str, NDArray[Any]]]:
    """Of the cells whose files are there: they are an addition, without which the rest still says what it says."""
    paths = {str(row["cell"]): folder / "queries" / f"{row['cell']}.npz" for row in rows if row["status"] == "ok"}
    found = []
    for cell, path in paths.items():
        if path.is_file():
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    found.append((cell, np.asarray(arrays["batch1"], np.float64)))
            except (ValueError, KeyError, OSError, EOFError, BadZipFile, zlib.error):
                raise ValueError(
                    f"{path} must be the calls of a cell; it is damaged: without the file all else is told"
                ) from None
    return [(cell, seconds) for cell, seconds in found if seconds.size and np.all(seconds > 0)]


def _run(path: Path) -> Run:
    lines = _lines(path)
    missing = [name for name in NEEDED if not lines or name not in lines[0]]
    if missing:
        raise ValueError(
            f"{path} must be a CSV of bench.run --save with at least a row; it has no {missing[0]}"
            if lines
            else f"{path} must be a CSV of bench.run --save with at least a row; it has none"
        )
    return Run(path, [{name: _value(name, text) for name, text in line.items()} for line in lines])


def _lines(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as texts."""
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        heading, *lines = list(reader) or [[]]
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{path} must be a CSV file in UTF-8; it is damaged, or something else") from None
    if any(len(line) != len(heading) for line in lines):
        raise ValueError(f"{path} must have {len(heading)} fields in every line; it is damaged, or cut off")
    return [dict(zip(heading, line)) for line in lines]


def _value(name: str, text: str) -> Value:
    if name in TEXTS:
        return text
    if text in ("", "True", "False"):
        return None if not text else text == "True"
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and "." not in text else number


def _finite(row: Row) -> dict[str, Value]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}

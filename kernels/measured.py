"""Which of the backends with kernels for GPUs was measured to be the faster one: `measured.csv`, which
`python -m bench.gpu --save-table` writes. What is not in it was not measured. Pure Python."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("measured.csv")
COLUMNS = ("chip", "family", "shape", "backend", "times", "gpu", "date")  # backend was so many times as fast
BATCHES = {16: "few queries", 256: "a batch"}  # up to so many
SHORT = 128  # results, up to which lists are short


def shape(n_queries: int, k: int) -> str:
    """The class of a search: what decides whether reading, multiplying or selecting takes its time."""
    queries = next((name for most, name in BATCHES.items() if n_queries <= most), "many queries")
    return f"{queries}, {'short' if k <= SHORT else 'long'} lists"


def key(line: Mapping[str, str]) -> tuple[str, str, str]:
    return line["chip"], line["family"], line["shape"]


def lines() -> list[dict[str, str]]:
    with open(TABLE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@cache
def table() -> dict[tuple[str, str, str], str]:
    """The faster backend by chip, family and `shape`."""
    return {key(line): line["backend"] for line in lines()}


def faster(chip: str, family: str, n_queries: int, k: int) -> str | None:
    """The name of the faster backend, None where that was not measured."""
    return table().get((chip, family, shape(n_queries, k)))

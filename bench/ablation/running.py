"""A grid over a collection, cell by cell: build, compare, time, keep."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ablation import measures, stages
from bench.ablation.cells import Cell
from bench.ablation.grid import Grid
from bench.ablation.journal import Journal, Value
from bench.ablation.stages import Built
from bench.datasets.collection import Collection
from bench.ours.contestants import Unavailable
from bench.racing.timing import Samples
from pyengine import evaluate
from pyengine.types import F64, TopK

Result = tuple[dict[str, Value], dict[str, NDArray[Any]]]


class Runner:
    """Measures cells of one grid; what they share (exact answers, the cell they are compared with) is made once."""

    def __init__(self, grid: Grid, collection: Collection, folder: Path) -> None:
        self.grid, self.collection, self.folder = grid, collection, folder
        self._truths: dict[Any, TopK] = {}
        self._other: tuple[str, Built, dict[str, F64]] | None = None  # the last one compared with

    def measure(self, cell: Cell) -> Result:
        """Its row and its arrays. What cannot run, or fails, has a reason instead of figures."""
        row: dict[str, Value] = {"cell": cell.name, **{k: v for k, v in asdict(cell).items() if k != "name"}}
        try:
            measured, arrays = self._measured(cell)
            return row | {"status": "ok", "reason": ""} | measured, arrays
        except Unavailable as error:
            return row | {"status": "missing", "reason": _sentence(error)}, {}
        except (ValueError, TypeError, RuntimeError, MemoryError, AssertionError) as error:
            return row | {"status": "failed", "reason": f"{type(error).__name__}: {_sentence(error)}"}, {}

    def _measured(self, cell: Cell) -> Result:
        collection = self.collection.holding(*stages.forms(cell))
        started, cpu = time.perf_counter(), time.process_time()
        built = stages.build(cell, collection, self.folder)
        row: dict[str, Value] = {
            "collection": collection.name, "n_docs": len(collection.docs), "n_queries": len(collection.queries),
            "build_s": time.perf_counter() - started, "build_cpu_s": time.process_time() - cpu,
            "memory_bytes": built.memory, "disk_bytes": self._disk(built),
        }  # fmt: skip
        found, truth = built.search(collection.queries, cell.k), self._truth(cell, collection)
        row |= {"exactness": measures.exactness(found, truth), "recall": measures.recall(found, truth)}
        judged, other = self._judged(cell, found, collection), self._compared(cell, collection)
        row |= {name: float(values.mean()) for name, values in judged.items()}
        arrays: dict[str, NDArray[Any]] = {name: values.astype(np.float32) for name, values in judged.items()}
        if other is not None and "ndcg_10" in judged and "ndcg_10" in other[2]:
            theirs = other[2]["ndcg_10"]
            row["ndcg_10_change"] = float((judged["ndcg_10"] - theirs).mean())
            row["p_value"] = measures.significance(judged["ndcg_10"], theirs, self.grid.seed)
        searches = {"own": (built.search, cell.k)}
        if other is not None:
            searches["other"] = (other[1].search, self.grid.cell(other[0]).k)
        for size in measures.BATCHES:
            samples = measures.clock(searches, collection.queries, size, self.grid.seconds)
            row |= _times(size, min(size, len(collection.queries)), samples)
            arrays[f"batch{size}"] = np.array(samples["own"].wall, np.float32)
        return row, arrays

    def _compared(self, cell: Cell, collection: Collection) -> tuple[str, Built, dict[str, F64]] | None:
        """The name, the search and the quality of the cell that this one is compared with, over the same collection;
        None where it names none, or that cannot run on it."""
        if cell.against is None:
            return None
        key = f"{cell.against} of {collection.name}"
        if self._other is None or self._other[0] != key:
            other = self.grid.cell(cell.against)
            self._other = None  # before another takes the memory
            try:
                if any(collection.lacks(form) for form in stages.forms(other)):
                    return None
                built = stages.build(other, collection, self.folder)
            except Unavailable:
                return None
            found = built.search(collection.queries, other.k)
            self._other = key, built, self._judged(other, found, collection)
        return cell.against, *self._other[1:]

    def _judged(self, cell: Cell, found: TopK, collection: Collection) -> dict[str, F64]:
        if not collection.qrels:
            return {}
        try:
            evaluate.require()
        except ImportError:
            return {}
        return measures.quality(found.ids, cell.k, collection)

    def _truth(self, cell: Cell, collection: Collection) -> TopK:
        key = (collection.name, cell.family, cell.k)
        if cell.family == "hybrid":
            key += (cell.fusion, cell.normalize, cell.weight, cell.depth)  # type: ignore[assignment]
        if key not in self._truths:
            self._truths[key] = measures.exact(cell, collection)
        return self._truths[key]

    def _disk(self, built: Built) -> int:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            return measures.disk_bytes(built, Path(folder) / "saved")


def _times(size: int, asked: int, samples: dict[str, Samples]) -> dict[str, Value]:
    timed = measures.Timed(samples["own"], samples.get("other"))
    found = measures.percentiles(timed.own) | {"cpu_ratio": timed.cpu_ratio, "calls": len(timed.own.wall)}
    row: dict[str, Value] = {f"b{size}_{name}": value for name, value in found.items()}
    return row | {"queries_per_s": asked / timed.own.percentile(50)}


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """For what a run lays on a disk, on that of the results: the system's folder for such things may be memory.
    What a kill left of it goes with the next run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(grid: Grid, collection: Collection, journal: Journal, done: Callable[[dict[str, Value]], object]) -> None:
    """Every cell that has no row yet; ``done`` is called with each row. OSError where a disk is full."""
    with _scratch(journal.out / "scratch") as folder:
        runner = Runner(grid, collection, folder)
        for cell in grid.cells:
            if cell.name not in journal.done:
                row, arrays = runner.measure(cell)
                journal.append(row, arrays)
                done(row)

"""The table by which backend="auto" chooses between CUDA and Triton (`pyengine.kernels.measured`), from what was
measured of both in the same heats."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence

from bench.gpus.gpu_contestants import BACKENDS
from bench.gpus.gpu_report import Run, pairs
from pyengine.kernels import measured
from pyengine.kernels.chips import chip_of

TABLE = measured.TABLE


def entries(runs: Sequence[Run]) -> list[dict[str, str]]:
    """A line of the table for each family and class of shapes, by the geometric mean of its workloads."""
    lines = []
    for run in runs:
        ratios: dict[str, list[float]] = {}
        for pair in pairs(run.rows):
            work = pair.cuda.workload
            ratios.setdefault(measured.shape(work.n_queries, work.k), []).append(math.log(pair.times))
        for shape, logs in ratios.items():
            times = math.exp(sum(logs) / len(logs))
            lines.append(
                {
                    "chip": chip_of(run.machine.capability).name,
                    "family": run.family,
                    "shape": shape,
                    "backend": BACKENDS[times > 1],
                    "times": f"{max(times, 1 / times):.2f}",
                    "gpu": run.machine.cpu,
                    "date": run.machine.date,
                }
            )
    return lines


def save(runs: Sequence[Run]) -> None:
    """Write what was measured in the place of what the table said of it."""
    fresh = {measured.key(line): line for line in entries(runs)}
    kept = {measured.key(line): line for line in measured.lines()} | fresh
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, measured.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept[each] for each in sorted(kept))
    measured.table.cache_clear()

"""A row of the results: one contestant at one workload, and every figure of it by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bench.racing.gate import Verdict
from bench.racing.timing import Samples
from bench.workloads.shapes import Workload

Value = str | int | float | bool | None
SPEEDS = (
    "rounds", "p20_ms", "p50_ms", "p80_ms", "cpu_ms", "ms_per_query", "vs_best_peer", "ratio", "gb_per_s", "gop_per_s",
    "of_ceiling", "joules",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One contestant at one workload. Without ``samples`` it was not timed, and ``note`` says why; ``failed`` where
    that is a fault of ours. ``role`` is "ours", "peer" or "yardstick" (the same bytes, merely moved)."""

    table: str
    workload: Workload
    contestant: str
    threads: int
    role: str = "peer"
    verdict: Verdict | None = None
    samples: Samples | None = None
    speedup: float | None = None  # over the fastest peer
    ratio: float | None = None  # of the time per query to that of `ratio_to`
    ratio_to: str = ""
    n_bytes: int = 0  # that must be read (and written, where that is the work)
    operations: int = 0
    floor: float | None = None  # seconds, by the ceilings of the machine
    bound: str = ""  # what that floor is of: "memory" or "compute"
    extra_bytes: int | None = None
    bytes_per_vector: float | None = None
    version: str = ""
    exactness: str = ""  # what the contestant promises
    note: str = ""
    failed: bool = False

    @property
    def wrong(self) -> bool:
        """Whether this is a reason not to believe in the rest: an answer of ours that is not right, or none."""
        refused = self.verdict is not None and not self.verdict.exact and self.role == "ours"
        return self.failed or refused

    def all_ms(self) -> list[float]:
        """Of every round that it took part in."""
        return [round(seconds * 1e3, 6) for seconds in self.samples.wall] if self.samples else []

    def columns(self) -> dict[str, Value]:
        """Every figure by name, None where there is none."""
        return {
            "table": self.table,
            "workload": self.workload.name,
            **dataclasses.asdict(self.workload),
            "contestant": self.contestant,
            "role": self.role,
            "threads": self.threads,
            "version": self.version,
            "exactness": self.exactness,
            "exact": None if self.verdict is None else self.verdict.exact,
            "recall": None if self.verdict is None else round(self.verdict.recall, 4),
            "same_ranks": None if self.verdict is None else round(self.verdict.ranks, 4),
            **self._speeds(),
            "ratio_to": self.ratio_to or None,
            "n_bytes": self.n_bytes or None,
            "operations": self.operations or None,
            "floor_ms": _scaled(self.floor, 1e3),
            "bound": self.bound or None,
            "extra_mb": _scaled(self.extra_bytes, 1e-6),
            "bytes_per_vector": _scaled(self.bytes_per_vector, 1),
            "note": self.note,
        }

    def _speeds(self) -> dict[str, Value]:
        if self.samples is None:
            return dict.fromkeys(SPEEDS)
        p20, p50, p80 = (self.samples.percentile(percent) for percent in (20, 50, 80))
        return {
            "rounds": len(self.samples.wall),
            "p20_ms": _scaled(p20, 1e3),
            "p50_ms": _scaled(p50, 1e3),
            "p80_ms": _scaled(p80, 1e3),
            "cpu_ms": _scaled(self.samples.cpu_median(), 1e3),
            "ms_per_query": _scaled(p50, 1e3 / self.workload.n_queries) if self.workload.n_queries else None,
            "vs_best_peer": _scaled(self.speedup, 1),
            "ratio": _scaled(self.ratio, 1),
            "gb_per_s": _scaled(self.n_bytes or None, 1e-9 / p50),
            "gop_per_s": _scaled(self.operations or None, 1e-9 / p50),
            "of_ceiling": _scaled(self.floor, 1 / p50),
            "joules": _scaled(self.samples.joules(), 1),
        }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 4)

"""Tables of bench.run, --base and bench.ablate: as wide as the terminal, whole where there is none."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

from rich.console import Console

from bench import ablate
from bench.ablation import journal
from bench.racing import base, terminal, write_tables
from bench.racing.gate import Verdict
from bench.racing.row import Row
from bench.racing.timing import Samples
from bench.workloads import shapes
from bench.workloads.shapes import Workload

WORKLOAD = shapes.named("n200k-d768-q1024-k1000", Workload())
ROWS = [
    Row("search", WORKLOAD, name, 1, "peer", Verdict(True, 1.0, ""), Samples([1.2345] * 3, [1.1] * 3, [0, 1, 2]),
        1.5, 2.5, "n200k-q1024", 10**10, 10**12, 0.5, "memory", 10**9, 1234.5)
    for name in ("sentence-transformers", "pyengine-float32@avx512")
]  # fmt: skip


def printed(show: Callable[[Console], object], width: int) -> str:
    """What is shown on a screen of that width, in which every line fits."""
    screen = Console(width=width, file=io.StringIO())
    show(screen)
    told: str = screen.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, told.splitlines())) <= width
    return told


def words(told: str) -> set[str]:
    """What is in the cells of a table."""
    lines = (line for line in told.splitlines() if line[:1] in ("│", "┃"))
    return {each.strip() for line in lines for each in re.split("[│┃]", line)} - {""}


def races(screen: Console) -> None:
    screen.print(write_tables.table(ROWS, "Search", screen))


@pytest.mark.parametrize("width", [50, 80, 100, 139, 140, 180])
def test_races(width: int) -> None:
    """With fewer columns, but never with a figure that is cut, or torn apart."""
    told, whole = printed(races, width), printed(races, terminal.WIDE)
    assert {"contestant", "p50 ms", "1,234"} <= words(told)
    assert words(told) <= words(whole)
    assert {WORKLOAD.name, "sentence-transformers"} <= words(told)
    assert {heading for key, heading in write_tables.SHOWN.items() if key != "joules"} <= words(whole)
    assert "no room for" not in whole


def cells(screen: Console) -> None:
    row: dict[str, Any] = dict.fromkeys(journal.COLUMNS, 1234.5) | {"status": "ok", "exactness": "approximate"}
    missing = row | {"cell": "gone", "status": "missing", "reason": "no faiss"}
    ablate.show(screen, [row | {"cell": "hybrid-fusion=convex-normalize=minmax"}, missing])


@pytest.mark.parametrize("width", [70, 100, 139, 180])
def test_cells(width: int) -> None:
    told, whole = printed(cells, width), printed(cells, terminal.WIDE)
    assert {"hybrid-fusion=convex-normalize=minmax", "recall", "p50 ms", "1,234"} <= words(told)
    assert set(ablate.SHOWN.values()) <= words(whole)
    assert ("on disk" in words(told)) == (width >= 180)
    assert "gone (missing): no faiss" in told


def verdicts(screen: Console) -> None:
    lines = [
        base.Line("n200k-d768-q32-k100", "pyengine-int8", 22.5, 24.0, base.Difference(1.07, 1.02, 1.11)),
        base.Line("n200k-d768-q32-k100", "pyengine-topk", note="base: the base has none"),
    ]
    screen.print(base.table(lines, "HEAD~3", screen))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_verdicts(width: int) -> None:
    told = printed(verdicts, width)
    assert {"n200k-d768-q32-k100", "pyengine-int8"} <= words(told)
    assert all(word in told for word in ("faster", "[1.02,", "compared:"))
    assert ("HEAD~3 ms" in words(told)) == (width >= 80)


def test_without_a_terminal_tables_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for terminal_there, width in ((False, terminal.WIDE), (True, 80)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda there=terminal_there: there, raising=False)
        assert terminal.console().width == width


def test_columns_without_a_figure_take_no_room() -> None:
    """Without judgements, and without a cell to compare with."""
    screen = Console(width=300, record=True)
    row: dict[str, Any] = {"cell": "a", "status": "ok", "recall": 1.0, "b1_p50_ms": 0.5, "ndcg_10": None}
    ablate.show(screen, [row, row | {"cell": "b", "build_s": 0.0}])
    told = screen.export_text()
    assert all(heading in told for heading in ("recall", "p50 ms", "build s"))
    assert "nDCG@10" not in told
    assert "x other" not in told

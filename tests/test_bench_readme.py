"""README's speed tables are what the results say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from bench import readme

HEAD = [
    "table",
    "workload",
    "contestant",
    "exact",
    "p50_ms",
    "ms_per_query",
    "bytes_per_vector",
    "note",
    "cpu",
    "isa",
    "commit",
]
WORKLOAD = "n200k-d768-q1-k100"
ROWS = [
    ["k", WORKLOAD, "faiss", "False", "1.0"],
    ["search", WORKLOAD, "pyengine-int8", "True", "12.96"],
    ["search", WORKLOAD, "torch", "False", "1234.5"],
    ["search", WORKLOAD, "scann", "", ""],
    ["search", "n9-d1-q1-k1", "torch", "False", "1.0"],
]
MARKED = "before\n<!-- bench:dense a.csv -->\nold\n<!-- /bench -->\nafter\n"


def write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *([*row, *[""] * (8 - len(row)), "Chip", "amx", "abc"] for row in rows)])


def test_the_readme_agrees_with_the_results() -> None:
    """If this fails, run `python -m bench.readme`, or find out who changed a figure by hand."""
    text = readme.README.read_text(encoding="utf-8")
    assert text.count("<!-- bench:") == len(readme.LAYOUTS)
    assert readme.rewritten(text) == text
    assert readme.main(["--check"]) == 0


def test_a_table_has_figures_dashes_and_gaps(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    lines = readme.rewritten(MARKED, tmp_path).splitlines()
    assert lines[4] == "| 1, 100 | **13.0** ✓ | | | | 1,234 | | | | | - |"
    assert len(lines) == 9
    assert "a.csv" in lines[6]
    assert "Chip, amx, commit abc" in lines[6]
    assert readme.rewritten("\n".join(lines), tmp_path) == "\n".join(lines)


def test_new_results_take_the_place_of_old_ones_where_they_have_the_workloads(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "new.csv", [[*ROWS[1][:4], "11.0"]])
    write(tmp_path / "other.csv", ROWS[4:])
    assert "| 1, 100 | **11.0** ✓ |" in readme.rewritten(MARKED, tmp_path, "new.csv")
    assert "<!-- bench:dense new.csv -->" in readme.rewritten(MARKED, tmp_path, "new.csv")
    assert readme.rewritten(MARKED, tmp_path, "other.csv") == readme.rewritten(MARKED, tmp_path)


def test_every_file_that_a_line_is_from_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "b.csv", [*ROWS, ["search", "n1m-d768-q1-k100", "torch", "False", "9.0"]])
    write(tmp_path / "c.csv", ROWS)
    made = readme.rewritten(MARKED.replace("a.csv", "a.csv b.csv c.csv"), tmp_path)
    (told,) = (line for line in made.splitlines() if line.startswith("<sub>"))
    assert [name in told for name in ("a.csv", "b.csv", "c.csv")] == [True, True, False]


def test_who_is_not_installed_keeps_the_readme_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = ["search", WORKLOAD, "svs", "", "", "", "", "pip install scalable-vs (No module named 'svs')"]
    copy = tmp_path / "README.md"
    copy.write_text(MARKED)
    monkeypatch.setattr(readme, "README", copy)
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "new.csv", [*ROWS, absent])
    assert readme.main(["new.csv"]) == 1
    assert copy.read_text() == MARKED
    assert capsys.readouterr().err == (
        "bench.readme: README.md stays as it is: svs missing: pip install scalable-vs, "
        "or --partial to write the tables without\n"
    )
    assert readme.main(["new.csv", "--partial"]) == 0
    made = copy.read_text()
    assert "SVS" not in made
    assert "| ScaNN |" in made  # who was there, and too slow, keeps the dash
    assert readme.main(["--check"]) == 0
    write(tmp_path / "new.csv", [*ROWS, absent, ["search", "n9-d1-q1-k1", "svs", "True", "1.0"]])
    assert readme.main(["new.csv"]) == 0  # there it could run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MARKED.replace("a.csv", "none.csv"), "none.csv cannot be read"),
        (MARKED.replace("a.csv", "bad.csv"), "has no contestant, exact"),
        (MARKED.replace("dense", "images"), "a marker is bench:dense|maxsim|sparse FILE.csv; got 'images a.csv'"),
        (MARKED.replace(" a.csv", ""), "got 'dense'"),
        (MARKED.replace("/bench", ""), "must have its <!-- /bench -->"),
    ],
)
def test_what_cannot_be_made_is_a_sentence(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    (tmp_path / "bad.csv").write_text("table,workload\n1,2\n")
    with pytest.raises(ValueError) as error:  # noqa: PT011 (compared below)
        readme.rewritten(text, tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_check_sees_a_figure_that_was_changed_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(re.sub(r"\*\*[\d.]+\*\* ✓", "**0.1** ✓", readme.README.read_text(encoding="utf-8"), count=1))
    monkeypatch.setattr(readme, "README", copy)
    assert readme.main(["--check"]) == 1
    assert "is not what bench/results says" in capsys.readouterr().err
    assert readme.main([]) == 0
    assert readme.main(["--check"]) == 0

"""bench.report: what it reads, says, draws and refuses. A browser looks at the page in test_report_browser.py."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")

from bench import report
from bench.reporting import curves, drawing, figures, interactive, page, pictures, reading, tables, words
from bench.reporting.drawing import Axis, Figure
from tests import report_toy
from tests.report_toy import CELLS, HOSTILE

DENSE = [row for row in CELLS if row["collection"] == "toy"]


@pytest.fixture
def results(tmp_path: Path) -> list[reading.Results]:
    paths = [report_toy.ablation(tmp_path / "toy"), report_toy.run(tmp_path / "run.csv")]
    return [reading.read(path) for path in paths]


def drawn(results: list[reading.Results]) -> dict[str, Figure]:
    return {each.key: each for group in page.drawn(results) for each in group}


class Parts(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def test_the_page_has_every_part_and_asks_nobody_for_anything(results: list[reading.Results]) -> None:
    groups = page.drawn(results)
    parts = Parts(page.html(results, groups, "// plotly"))
    tags = [tag for tag, _ in parts.tags]
    assert (
        tags.count("figure")
        == sum(map(len, groups))
        == len(re.findall("pareto|latency|roofline|scaling", str(drawn(results).keys())))
    )
    assert tags.count("table") == 4  # two collections, claims, one table of the run
    assert tags.count("dl") == 2
    assert not {"link", "img", "iframe"} & set(tags)
    assert not any("src" in attributes or "href" in attributes for _, attributes in parts.tags)
    keys = {attributes.get("id") for tag, attributes in parts.tags if attributes.get("class") == "plot"}
    data = json.loads(parts.scripts[0])
    assert {each["key"] for each in data["figures"]} == keys
    assert len(data["advice"]) == 2


def test_hostile_names_are_text(results: list[reading.Results]) -> None:
    text = page.html(results, page.drawn(results), "")
    assert "<script>document" not in text
    assert "<b>" not in text
    assert sum(tag == "script" for tag, _ in Parts(text).tags) == 3
    names = [trace["name"] for each in json.loads(Parts(text).scripts[0])["figures"] for trace in each["data"]]
    assert not any("<b>" in name for name in names)
    assert any("&lt;b&gt;&amp;amp;" in name for name in names)
    told = tables.markdown(list(tables.of_run(results[1])))  # type: ignore[arg-type]
    assert "<script>" not in told
    assert len({line.count(" | ") for line in told.splitlines() if line.startswith("| ")}) == 1


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        (0.1, "nothing that was measured is so fast"),
        (0.2, "“fast”"),
        (1.8, "“middle-small”"),
        (2, "“middle”"),
        (16, "“slow”"),
    ],
)
def test_advice_takes_the_best_that_keeps_the_budget(budget: float, named: str) -> None:
    said = words.at_budget(words.advice(DENSE), budget)
    assert named in said.partition(" With ")[0]


def test_of_equals_the_smallest_is_advised_and_a_saving_is_told() -> None:
    assert "“slow-small” (dense, float32): nDCG@10 0.700" in words.at_budget(words.advice(DENSE), 40)
    assert "With 500 kB, “middle-small” is within 1 %" in words.at_budget(words.advice(DENSE), 3)


def test_advice_goes_by_the_percentile_and_without_judgements_by_recall() -> None:
    assert "“middle”" in words.at_budget(words.advice(DENSE, "b1_p50_ms"), 1)
    assert "“middle”" not in words.at_budget(words.advice(DENSE, "b1_p99_ms"), 1)
    assert "recall of the exact top k 0.900" in words.at_budget(words.advice([CELLS[-2]]), 10)


def test_advice_of_cells_without_times() -> None:
    assert words.advice([{**CELLS[0], "b1_p95_ms": None}]) == [(0.0, "no cell has been timed.")]


def test_races_say_how_often_ours_is_right_and_how_fast(tmp_path: Path) -> None:
    rows = [*report_toy.RACES, report_toy.race("pyengine-x", "ours", 5, 1.0, exact=False, vs_best_peer=0.5)]
    run = reading.read(report_toy.run(tmp_path / "a.csv", rows))
    assert words.races(run) == [  # type: ignore[arg-type]
        "Search: 4 of 5 answers exact to the bit; our fastest is 0.5 to 4 times as fast as the best peer."
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (0.0004, "4.0e-04"), (0.0123, "0.0123"), (9.999, "10"), (99.95, "100"), (1234.5, "1,234")],
)
def test_numbers_are_short(value: float, told: str) -> None:
    assert words.short(value) == told


def test_a_frontier_is_what_nothing_beats() -> None:
    points = [(3.0, 0.5), (1.0, 0.2), (1.0, 0.3), (2.0, 0.3), (4.0, 0.9), (5.0, 0.9)]
    assert curves.frontier(points) == [(1.0, 0.3), (3.0, 0.5), (4.0, 0.9)]
    assert curves.frontier([]) == []


def test_slopes_are_those_of_the_data(results: list[reading.Results]) -> None:
    found = drawn(results)
    names = {each.family: each.name for each in found["scaling-1-dense_topk-n_queries"].series}
    assert "slope 1.00" in names["pyengine-int8"]
    assert "slope 0.50" in names[HOSTILE]
    (prefixes,) = found["scaling-cells-cells-dim"].series
    assert prefixes.x == [8, 16, 32]
    assert "slope 1.00" in prefixes.name
    assert found["scaling-1-dense_topk-threads"].series[0].x == [1, 2]


def test_ceilings_are_read_from_their_words() -> None:
    assert figures.ceilings(report_toy.CEILINGS) == {
        1: {"reads": {"64": 20, "2048": 10}, "peaks": {"float32": 100, "int8 avx2": 500, "int8 amx": 5000}},
        2: {"reads": {"2048": 15}, "peaks": {"float32": 190, "bf16": 1500}},
    }
    assert figures.ceilings("") == {}


def test_the_words_are_those_of_bench_ceilings() -> None:
    from bench.limits.ceilings import Ceilings

    limits = Ceilings(
        3, ((1 << 26, 2e10), (1 << 28, 1.5e10)), 1e10, 1e11, {"avx2": 5e11}, "avx2", ((1 << 26, 9e9),), 2e12
    )
    found = figures.ceilings(limits.describe())[3]
    assert found == {"reads": {"64": 20, "256": 15}, "peaks": {"int8 avx2": 500, "float32": 100, "bf16": 2000}}
    by_isa = {"float32": {"avx2": 6e10, "avx512": 1e11}, "bf16": {"avx512": 2e11, "amx": 2e12}}
    peaks = figures.ceilings(replace(limits, by_isa=by_isa).describe())[3]["peaks"]
    assert peaks == {
        "float32 avx2": 60, "float32 avx512": 100, "bf16 avx512": 200, "bf16 amx": 2000, "int8 avx2": 500,
    }  # fmt: skip


def test_a_roofline_has_a_roof_for_every_peak_and_points_at_their_place(results: list[reading.Results]) -> None:
    series = {each.name: each for each in drawn(results)["roofline-1-t1"].series}
    roofs = {each.name for each in series.values() if each.style == "roof"}
    assert roofs == {"float32 100", "int8 avx2 500", "int8 amx 5,000"}
    for each in series.values():
        if each.style == "roof":
            assert each.y == [min(each.y[-1], 10 * x) for x in each.x]
    assert list(series["pyengine-int8"].x) == pytest.approx([1, 10, 100])


def test_roofs_that_lie_together_have_one_label() -> None:
    peaks = {"int8 avx2": 679.0, "float32": 94.0, "int8 avx512": 826.0, "bf16 amx": 971.0, "int8 amx": 6247.0}
    assert figures._labelled(peaks) == [
        ("float32 94", 94), ("", 679), ("", 826), ("int8 avx2 679, avx512 826, bf16 amx 971", 971),
        ("int8 amx 6,247", 6247),
    ]  # fmt: skip


def test_the_machine_is_described_with_what_it_can_do(results: list[reading.Results]) -> None:
    card = page._machine(results[1])
    for name, value in (
        ("reads, 1 thread(s)", "20 GB/s of 64 MiB, 10 GB/s of 2048 MiB"),
        ("float32 Gop/s, 1 thread(s)", "100"),
        ("int8 Gop/s, 1 thread(s)", "avx2 500, amx 5,000"),
        ("bf16 Gop/s, 2 thread(s)", "1,500"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in card
    assert "copies in GB/s" not in card


def test_boxes_are_percentiles_of_the_calls(results: list[reading.Results]) -> None:
    boxes = {box.name: box for box in drawn(results)["latency-0-0"].boxes}
    assert boxes["middle"].at[50] == pytest.approx(1.75, rel=1e-6)
    assert next(iter(boxes)) == "prefix-8"
    assert "40 calls" in boxes["middle"].hover


def test_families_differ_in_colour_or_shape_and_keep_theirs() -> None:
    looks = drawing.looks([f"f{at}" for at in range(42)])
    assert len({(look.colour, look.shape) for look in looks.values()}) == 43
    assert page.looks_of([])["dense"] == page.looks_of([[Figure("", "", Axis(""), Axis(""), "")]])["dense"]


@pytest.mark.parametrize("values", [[0.001, 4000], [5, 7], [0.35, 1.1], [9.8, 10.1], [1, 30], [2.0], [0.0], []])
def test_ticks_cover_the_axis(values: list[float]) -> None:
    found = drawing.ticks(Axis(""), values)
    low, high = drawing.span(values, log=True)
    assert all(low <= each <= high for each in found)
    assert 3 <= len(found) <= 10 or not any(values)
    assert found == sorted(found)
    assert not any(values) or min(found) <= max(values) <= 10 * max(found)


def test_figures_are_json_and_long_names_are_broken(results: list[reading.Results]) -> None:
    look = page.looks_of(page.drawn(results))
    for each in drawn(results).values():
        made = interactive.figure(each, look)
        assert json.loads(json.dumps(made, allow_nan=False))["data"]
        assert all(len(trace.get("x", trace["y"])) == len(trace["y"]) for trace in made["data"])


def test_pictures_have_the_same_series(results: list[reading.Results], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = list(drawn(results).values())
    written = pictures.save(found, page.looks_of(page.drawn(results)), tmp_path / "figures")
    assert {path.name for path in written} == {f"{each.key}.{end}" for each in found for end in ("png", "svg")}
    assert all(path.stat().st_size > 1000 for path in written)
    svg = (tmp_path / "figures" / "pareto-time-0-0.svg").read_text()
    assert all(f">{family}<" in svg for family in ("dense", "sparse", "hybrid", "best of all"))
    assert "$x_1$" in (tmp_path / "figures" / "roofline-1-t1.svg").read_text()


def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    given = [str(report_toy.ablation(tmp_path / "toy")), str(report_toy.run(tmp_path / "run.csv"))]
    out, markdown = tmp_path / "page.html", tmp_path / "table.md"
    assert report.main([*given, "-o", str(out), "--markdown", str(markdown)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\nwrote {markdown}\n"
    assert "Plotly" in out.read_text()
    assert "| slow | dense | exact | 10 | 0.900 | 0.700 |" in markdown.read_text()
    assert not list(tmp_path.glob("*.part"))


def broken(folder: Path, what: str) -> Path:
    """Results of which a part is damaged."""
    if what == "empty folder":
        folder.mkdir()
    elif what == "no cells":
        report_toy.ablation(folder, [])
    elif what == "manifest":
        (report_toy.ablation(folder) / "manifest.json").write_text("{")
    elif what == "calls":
        (report_toy.ablation(folder) / "queries" / "slow.npz").write_bytes(b"PK")
    elif what == "no zip":
        (report_toy.ablation(folder) / "queries" / "slow.npz").write_bytes(b"x")
    elif what == "damaged":
        path = report_toy.ablation(folder) / "cells.csv"
        path.write_bytes(path.read_bytes()[:-40] + b"\n")
    elif what == "cut off":
        path = report_toy.ablation(folder, CELLS[:1]) / "cells.csv"
        path.write_bytes(path.read_bytes()[:-40])
    elif what == "other csv":
        folder.write_text("a,b\n1,2\n")
    elif what == "binary":
        folder.write_bytes(bytes(range(256)))
    elif what == "no rows":
        folder.write_text("")
    elif what == "ragged":
        folder.write_text(report_toy.run(folder).read_text() + "1,2\n")
    return folder


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "is missing"),
        ("empty folder", "must be a folder that bench.ablate made"),
        ("no cells", "none of its cells has finished"),
        ("manifest", "manifest.json must be the manifest of an ablation"),
        ("calls", "slow.npz must be the calls of a cell; it is damaged: without the file all else is told"),
        ("no zip", "slow.npz must be the calls of a cell; it is damaged: without the file all else is told"),
        ("damaged", "cells.csv must be the table of an ablation"),
        ("cut off", "none of its cells has finished"),
        ("other csv", "must be a CSV of bench.run --save with at least a row; it has no table"),
        ("binary", "must be a CSV file in UTF-8"),
        ("no rows", "must be a CSV of bench.run --save with at least a row; it has none"),
        ("ragged", "fields in every line"),
    ],
)
def test_bad_results_are_one_sentence(what: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(broken(tmp_path / "given", what)), "-o", str(tmp_path / "page.html")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_a_line_that_a_kill_cut_off_is_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "plotly", lambda: "")
    folder = report_toy.ablation(tmp_path / "toy", CELLS[:3])
    table = folder / "cells.csv"
    whole = table.read_bytes()
    for cut in (1, 40, len(whole.splitlines(keepends=True)[-1]) - 1):
        table.write_bytes(whole[:-cut])
        assert report.main([str(folder), "-o", str(tmp_path / "page.html")]) == 0
        told = capsys.readouterr()
        said = "the last line is cut off, and left out; bench.ablate measures its cell again"
        assert told.err == f"bench.report: {table}: {said}\n"
        assert "slow-small" in (tmp_path / "page.html").read_text()
        assert ">middle<" not in (tmp_path / "page.html").read_text()
    table.write_bytes(whole)
    assert report.main([str(folder), "-o", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().err == ""
    assert ">middle<" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("out", "said"), [("there/page.html", "there is missing"), ("", "must be a file"), ("toy/x/y", "x is missing")]
)
def test_where_it_cannot_write_it_says_so(
    out: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "plotly", lambda: "")
    assert report.main([str(report_toy.ablation(tmp_path / "toy")), "-o", str(tmp_path / out)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_full_disk_keeps_the_page_that_was_there(tmp_path: Path) -> None:
    """In a process that may write files of 1,000 bytes, as if the disk were full after them."""
    pytest.importorskip("plotly")
    out, given = tmp_path / "page.html", report_toy.ablation(tmp_path / "toy")
    out.write_text("before")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    command: list[Any] = [sys.executable, "-B", "-m", "bench.report", given, "-o", out]
    root = Path(report.__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 2
    assert done.stderr.startswith("bench.report: File too large: ")
    assert done.stderr.count("\n") == 1
    assert out.read_text() == "before"
    assert not list(tmp_path.glob("*.part"))


def test_missing_packages_are_one_sentence(
    results: list[reading.Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install plotly"):
        page.plotly()
    with pytest.raises(ImportError, match="pip install matplotlib"):
        pictures.save([], {}, tmp_path)

"""The page of bench.report in Chromium: it loads, draws, toggles, advises, and fits. `make test-report` installs what
this needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

from bench import report  # noqa: E402
from tests import report_toy  # noqa: E402
from tests.report_toy import HOSTILE  # noqa: E402

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
SHOWN = "key => document.getElementById(key).data.map(trace => [trace.meta, trace.visible !== false])"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    given = [str(report_toy.ablation(folder / "toy")), str(report_toy.run(folder / "run.csv"))]
    assert report.main([*given, "-o", str(folder / "page.html")]) == 0
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """A function that opens the page in a window like that; what the console says, and what is asked for beside the
    page, fails the test."""
    said: list[str] = []
    contexts = []

    def go(**window: Any) -> Any:
        contexts.append(browser.new_context(**window))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not _own(request.url, address) else None)
        page.goto(address)
        page.wait_for_selector(".plot:not(:has(.main-svg .xy))", state="detached", timeout=20_000)
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == []


def _own(url: str, address: str) -> bool:
    return url == address or url.startswith(("data:", "blob:"))


def test_it_loads_and_every_plot_is_drawn(opened: Any) -> None:
    page = opened()
    for plot in page.query_selector_all(".plot"):
        drawn = plot.query_selector_all(".scatterlayer path.point, .scatterlayer path.js-line, .boxlayer path.box")
        assert drawn, plot.get_attribute("id")
        assert plot.query_selector_all(".xtick text"), plot.get_attribute("id")
    assert page.title() == "Search measured: toy, run"
    assert HOSTILE in page.inner_text("main")


def test_a_family_is_hidden_and_shown_in_the_plots_of_its_section(opened: Any) -> None:
    page = opened()
    box = page.locator("[data-family=sparse]")
    for shown in (False, True):
        box.set_checked(shown)
        for key in ("pareto-time-0-0", "latency-0-0"):
            traces = page.evaluate(SHOWN, key)
            assert {visible for family, visible in traces if family == "sparse"} == {shown}
            assert all(visible for family, visible in traces if family != "sparse")


def test_a_hostile_family_has_its_box_too(opened: Any) -> None:
    page = opened()
    page.locator("fieldset", has_text=HOSTILE).get_by_label(HOSTILE).uncheck()
    traces = page.evaluate(SHOWN, "roofline-1-t1")
    assert {family for family, visible in traces if not visible} == {HOSTILE}


def test_the_budget_changes_the_advice(opened: Any) -> None:
    page = opened()
    said = page.locator(".advice").first
    for budget, named in (
        ("0.01", "nothing that was measured"),
        ("3", "“middle”"),
        ("16", "“slow”"),
        ("100", "“slow-small”"),
    ):
        page.fill("#budget", budget)
        assert named in said.inner_text()
        assert page.locator(".budget").first.inner_text() == budget
    page.fill("#budget", "3")
    page.select_option("#percentile", "b1_p50_ms")
    assert "half of the queries" in said.inner_text()
    page.fill("#budget", "")
    assert "half of the queries" in said.inner_text()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_is_wider_than_a_narrow_window(opened: Any, width: int) -> None:
    page = opened(viewport={"width": width, "height": 700}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for plot in page.query_selector_all(".plot .main-svg"):
        assert plot.bounding_box()["width"] <= width


def test_nothing_is_cut_off_on_paper(opened: Any) -> None:
    page = opened(viewport={"width": 700, "height": 900})
    page.emulate_media(media="print")
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") == 700
    assert page.evaluate("Math.max(...[...document.querySelectorAll('table')].map(each => each.scrollWidth))") <= 700


def test_a_plot_keeps_its_height_when_the_window_changes(opened: Any) -> None:
    """A phone that is turned: boxes have a row each, whatever the window's size."""
    page = opened(viewport={"width": 390, "height": 800})
    heights = "[...document.querySelectorAll('.plot')].map(plot => plot._fullLayout.height)"
    before = page.evaluate(heights)
    page.set_viewport_size({"width": 800, "height": 390})
    page.wait_for_timeout(500)
    assert page.evaluate("[...document.querySelectorAll('.plot')].every(plot => plot._fullLayout.width > 700)")
    wide = page.evaluate(heights)
    assert all(there <= was for there, was in zip(wide, before))
    assert min(wide) > 120
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(500)
    assert page.evaluate(heights) == before


def test_names_leave_room_for_figures_on_a_phone(opened: Any) -> None:
    page = opened(viewport={"width": 390, "height": 800}, is_mobile=True, has_touch=True)
    figures = page.locator("table").first.locator("tbody tr").first.locator("td.number")
    assert figures.first.bounding_box()["x"] < 250
    page.locator(".wide").first.evaluate("each => each.scrollLeft = 200")
    assert page.locator("table").first.locator("tbody td").first.bounding_box()["x"] < 30  # the name stays


def test_paper_has_everything_in_its_width(opened: Any) -> None:
    page = opened(viewport={"width": 1200, "height": 900})
    widths = "[...document.querySelectorAll('.plot')].map(plot => plot._fullLayout.width)"
    before = page.evaluate(widths)
    assert page.locator("details li").first.is_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details li").first.is_visible()
    assert set(page.evaluate(widths)) == {690}
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(widths) == before


def paper_of(page: Any) -> set[str]:
    return set(page.evaluate("[...document.querySelectorAll('.plot')].map(plot => plot.layout.paper_bgcolor)"))


def test_plots_are_dark_where_the_reader_is_and_white_on_paper(opened: Any) -> None:
    page = opened(color_scheme="dark")
    assert paper_of(page) == {"#16181c"}
    for asked in ({"media": "print"}, {"media": "screen", "color_scheme": "light"}):
        page.emulate_media(**asked)
        page.wait_for_timeout(500)
        assert paper_of(page) == {"#ffffff"}
    assert len(page.pdf()) > 20_000


def test_tables_are_sorted_by_a_heading(opened: Any) -> None:
    page = opened()
    for times, names in ((1, ["prefix-8", "fast"]), (2, ["slow-small", "slow"])):
        for _ in range(times):
            page.locator("th", has_text="p50 ms").first.get_by_role("button").click()
        cells = page.locator("table").first.locator("tbody tr td:first-child").all_inner_texts()
        assert cells[:2] == names
        page.reload()


@pytest.mark.parametrize("format", ["png", "svg"])
def test_a_figure_is_downloaded(opened: Any, format: str) -> None:
    page = opened(accept_downloads=True)
    with page.expect_download() as found:
        page.locator(f"button[data-plot=pareto-time-0-0][data-format={format}]").click()
    path = Path(found.value.path())
    assert found.value.suggested_filename == f"pareto-time-0-0.{format}"
    assert path.read_bytes().startswith(b"\x89PNG" if format == "png" else b"<svg")

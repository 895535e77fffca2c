"""The pages on other libraries: every Python block of a page runs, all of them in one process, and the examples are
short. A page names the distributions that it needs in its first line: <!-- needs: faiss-cpu, numpy -->."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FACES = ROOT / "pyengine" / "integrations"
PAGES = sorted((FACES / "pages").glob("*.md"))
NEEDS = re.compile(r"<!-- needs: (.*) -->")
CAPTION = re.compile(r"\W*(Before|After)\b")
LINES = 10


class Block(NamedTuple):
    caption: str  # Before or After; "" for another
    first: int  # its first line's place in the page, from 0
    lines: list[str]


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page. A caption counts for the next of them."""
    found: list[Block] = []
    caption, inside = "", False
    for place, line in enumerate(text.splitlines()):
        if inside and line.startswith("```"):
            inside = False
        elif inside:
            found[-1].lines.append(line)
        elif line.startswith("```python"):
            found.append(Block(caption, place + 1, []))
            caption, inside = "", True
        elif match := CAPTION.match(line):
            caption = match[1]
    return found


def missing(text: str) -> list[str]:
    """Those of the distributions that a page needs that are not installed."""
    match = NEEDS.match(text)
    assert match, "the first line must be <!-- needs: ... -->"
    absent = []
    for name in filter(None, map(str.strip, match[1].split(","))):
        try:
            version(name)
        except PackageNotFoundError:
            absent.append(name)
    return absent


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_are_short(page: Path) -> None:
    found = {block.caption: block for block in blocks(page.read_text(encoding="utf-8"))}
    assert {"Before", "After"} <= set(found), f"{page.name} must show what was before, and what comes after"
    for caption in ("Before", "After"):
        assert 0 < sum(map(bool, map(str.strip, found[caption].lines))) <= LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_run(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    absent = missing(text)
    if absent:
        pytest.skip(f"needs {', '.join(absent)}: pip install {' '.join(absent)}")
    lines = [""] * len(text.splitlines())  # every line in its place, so that a traceback names it
    for block in blocks(text):
        lines[block.first : block.first + len(block.lines)] = block.lines
    program = tmp_path / f"{page.stem}_page.py"
    program.write_text("\n".join(lines), encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    offline = {"HF_HUB_OFFLINE": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    variables = {**os.environ, "PYTHONPATH": path, **offline}
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr


def test_blocks_of_a_page() -> None:
    text = "# A\n**Before**\n\n```python\nx = 1\ny = 2\n```\n```sh\nls\n```\n## After\n"
    text += "```python\n\n```\n```python\nz\n```\n"
    assert blocks(text) == [Block("Before", 4, ["x = 1", "y = 2"]), Block("After", 12, [""]), Block("", 15, ["z"])]
    assert missing("<!-- needs: pytest, no-such-distribution -->\n") == ["no-such-distribution"]
    assert missing("<!-- needs:  -->\n") == []

"""Counts the tests of each face, and writes the compatibility matrix at the end of a full run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.integrations import matrix, published

_passed: Counter[str] = Counter()  # by file, relative to the root
_inherited: Counter[str] = Counter()  # of these, tests that a library's class brought along


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    """One more of the file's, and of the library's where the function is not written there."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.passed:
        file = report.nodeid.split("::")[0]
        _passed[file] += 1
        written = getattr(getattr(item, "function", None), "__module__", "tests")
        _inherited[file] += not written.startswith("tests")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    every = {str(path.relative_to(matrix.ROOT)) for path in matrix.files()}
    chosen = session.config.option.keyword or session.config.option.markexpr
    if exitstatus != 0 or chosen or not every <= set(_passed):
        return
    own = _inherited + published.PASSED
    matrix.write(_by_face(_passed + published.PASSED), _by_face(own))


def _by_face(files: Counter[str]) -> Counter[str]:
    faces: Counter[str] = Counter()
    for file, count in files.items():
        faces[matrix.face_of(Path(file).name)] += count
    return faces

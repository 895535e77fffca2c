"""Counts the tests of each face, and writes the compatibility matrix at the end of a full run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.integrations import matrix, published
from tests.integrations.plugins import without_models as without_models  # before anything imports colpali_engine


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Counts())  # a conftest's own hooks would see the tests beside it only


class Counts:
    """How many tests passed, by file relative to the root, and how many of them a library's class brought along."""

    def __init__(self) -> None:
        self.ran: set[str] = set()  # also the files of which every test was skipped
        self.passed: Counter[str] = Counter()
        self.inherited: Counter[str] = Counter()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        outcome = yield
        report = outcome.get_result()
        file = report.nodeid.split("::")[0]
        self.ran.add(file)
        if report.when == "call" and report.passed:
            self.passed[file] += 1
            written = getattr(getattr(item, "function", None), "__module__", "tests")
            self.inherited[file] += not written.startswith("tests")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        every = {str(path.relative_to(matrix.ROOT)) for path in matrix.files()}
        chosen = session.config.option.keyword or session.config.option.markexpr
        if exitstatus == 0 and not chosen and every <= self.ran:
            theirs = published.PASSED
            matrix.write(_by_face(self.passed + theirs), _by_face(self.inherited + theirs))


def _by_face(files: Counter[str]) -> Counter[str]:
    faces: Counter[str] = Counter()
    for file, count in files.items():
        faces[matrix.face_of(file)] += count
    return faces

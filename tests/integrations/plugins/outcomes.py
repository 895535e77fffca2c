"""A pytest plugin: writes what became of every test to the file that PYENGINE_OUTCOMES names, as JSON {node id: passed,
failed or skipped}. A test whose set-up or tear-down failed has failed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    Path(os.environ["PYENGINE_OUTCOMES"]).write_text(json.dumps(_outcomes), encoding="utf-8")

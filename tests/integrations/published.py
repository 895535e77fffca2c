"""The tests that a library publishes in its source distribution, run in a process of their own against our face:

    def test_the_librarys_own() -> None:
        run(published("pylate"), ["tests/test_scores.py"], "patched_pylate")

where ``plugins/patched_pylate.py`` is a module whose import puts our functions in the place of the library's. None of
their code is kept here: it comes by pip, once, into the environment's folder.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = Path(__file__).parent / "plugins"
CACHE = Path(sys.prefix) / "published"
SECONDS = 280
PASSED: Counter[str] = Counter()  # by the test file that asked, how many of a library's own tests passed


def published(distribution: str, installed: str | None = None) -> Path:
    """The folder of a distribution's sources, of the version that is installed; skips the test where they cannot be
    had, with the reason."""
    folder = _sources(distribution, installed or version(distribution))
    if isinstance(folder, str):
        pytest.skip(f"the sources of {distribution} cannot be had: {folder}")
    return folder


@functools.cache
def _sources(distribution: str, release: str) -> Path | str:
    """Where they are, or why they are not there."""
    target = CACHE / f"{distribution}-{release}"
    if target.exists():
        return target
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        command = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", scratch]
        answer = _python("pip", *command, f"{distribution}=={release}")
        archives = list(Path(scratch).glob("*.tar.gz"))
        if not archives:
            return next((line for line in answer.splitlines() if line.startswith("ERROR")), "no source distribution")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(scratch, filter="data")
        next(path for path in Path(scratch).iterdir() if path.is_dir()).rename(target)
    return target


def run(
    sources: Path, tests: Sequence[str], plugin: str, different: Mapping[str, str] | None = None, options: str = ""
) -> None:
    """Run files (or node ids) of the sources with one of `plugins` in force.

    At least one test must pass, and exactly those that ``different`` names must fail: {node id or its beginning: the
    difference that is the reason}. ``options`` are further ones for pytest, like "-k words". Skips where the sources
    lack the first file.
    """
    first = tests[0].split("::")[0]
    if not (sources / first).exists():
        pytest.skip(f"{sources.name} has no {first}")
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = Path(scratch) / "outcomes.json"
        command = [
            "-q",
            "-p",
            "outcomes",
            "-p",
            plugin,
            "-p",
            "no:cacheprovider",
            "-o",
            "addopts=",
            f"--rootdir={sources}",
        ]
        output = _python("pytest", *command, *options.split(), *tests, folder=sources, PYENGINE_OUTCOMES=str(outcomes))
        found: dict[str, str] = json.loads(outcomes.read_text(encoding="utf-8")) if outcomes.exists() else {}
    different = different or {}
    passed = [name for name, outcome in found.items() if outcome == "passed"]
    failed = [name for name, outcome in found.items() if outcome == "failed"]
    assert passed, f"none of {tests} passed:\n{output}"
    surprises = [name for name in failed if not name.startswith(tuple(different))]
    assert not surprises, f"{len(surprises)} of the library's tests failed: {surprises}\n{output}"
    stale = [name for name in different if not any(each.startswith(name) for each in failed)]
    assert not stale, f"{stale} are said to differ, and passed or did not run"
    PASSED[os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[0]] += len(passed)


def _python(module: str, *arguments: str, folder: Path = ROOT, **variables: str) -> str:
    """What ``python -m module`` prints, both streams together. It asks no hub for models."""
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(filter(None, (str(PLUGINS), str(ROOT), before)))
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment = {**os.environ, **offline, "PYTHONPATH": path, **variables}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, env=environment, timeout=SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.stdout

"""The tests that sentence-transformers publishes of what we stand in for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyengine.integrations import sentence_transformers as face
from tests.integrations.published import published, run

pytest.importorskip("sentence_transformers")
NAMES = re.compile(r"\b(" + "|".join([*face.__all__, "InformationRetrievalEvaluator", "mine_hard_negatives"]) + r")\b")


def test_its_own() -> None:
    """Its release 6.2.0 has tests of merging models alone. Should one have more, they run."""
    sources = published("sentence-transformers")
    tests = [path for path in sorted(sources.glob("tests/**/test_*.py")) if _about_us(path)]
    if not tests:
        pytest.skip(f"{sources.name} has no tests of what we stand in for")
    run(sources, [str(path.relative_to(sources)) for path in tests], "patched_sentence_transformers")


def _about_us(path: Path) -> bool:
    return bool(NAMES.search(path.read_text(encoding="utf-8")))

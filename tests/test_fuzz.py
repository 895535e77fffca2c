"""A short run of the fuzzer (`make fuzz` runs longer), and that what it finds is seen."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import TopK
from tests.fuzz import __main__ as fuzz
from tests.fuzz.searches import Wrong

ROOT = Path(__file__).parent.parent


def test_hostile_arrays_and_files_are_answered_as_specified_or_refused() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "200"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("200 cases (seeds 0 to 199)"), ran.stdout


def test_a_wrong_bit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = pe.topk

    @functools.wraps(right)  # the fuzzer looks at the signature
    def wrong(*args: Any, **arguments: Any) -> TopK:
        found = right(*args, **arguments)
        if found.scores.size:
            found.scores[-1, 0] = np.nextafter(found.scores[-1, 0], np.float32(9))
        return found

    monkeypatch.setattr(pe, "topk", wrong)
    with pytest.raises(Wrong, match="must be"):
        list(map(fuzz.run_case, range(1, 200, 4)))

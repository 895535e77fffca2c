"""The race of the faces with their originals: what is checked first, and what is said of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench import dropins
from bench.dropins import Result
from bench.limits import machine
from bench.ours.contestants import Unavailable
from bench.ours.dropins_faces import Calls, Duel, duels, same_scores


def fought(note: str = "", target: float | None = 2.0) -> Result:
    calls = Calls(lambda: 1, lambda: sum(range(20_000)), lambda face, original: note)
    return dropins.fight(Duel("face", "numpy", "work", target, lambda: calls), 0.01)


def test_a_duel() -> None:
    result = fought()
    assert result.times is not None
    assert result.times > 2
    assert result.columns()["met"] is True
    assert fought(target=1e9).columns()["met"] is False
    assert fought(target=None).columns()["met"] is None


def test_what_is_wrong_is_not_timed() -> None:
    result = fought("score 3 is not")
    assert (result.wrong, result.note, result.face, result.times) == (True, "score 3 is not", None, None)


def test_what_is_missing_is_no_fault() -> None:
    def missing() -> Calls:
        raise Unavailable("pip install it")

    def broken() -> Calls:
        raise KeyError("no")

    result = dropins.fight(Duel("face", "numpy", "work", None, missing), 0.01)
    assert (result.wrong, result.note) == (False, "pip install it")
    assert dropins.fight(Duel("face", "numpy", "work", None, broken), 0.01).wrong


def test_tables(tmp_path: Path) -> None:
    results = [fought(), fought("off")]
    sheet, page = dropins.save(results, machine.here(), 1, tmp_path)
    text = page.read_text()
    assert "| face | numpy" in text
    assert "| at least 2 times | yes |" in text
    assert "Not raced: face, numpy: off." in text
    with sheet.open() as file:
        assert [row["note"] for row in csv.DictReader(file)] == ["", "off"]


def test_scores_to_the_bit() -> None:
    true = np.array([1.0, 2.0], np.float32)
    assert same_scores(true, true + np.float32(1e-6), true) == ""
    assert "bits" in same_scores(np.nextafter(true, np.float32(9)), true, true)
    assert "something else" in same_scores(true, 2 * true, true)


def test_targets_of_the_project() -> None:
    told = {dropins.target_of(duel) for duel in duels()}
    assert told == {"", "within 1.05x", *(f"at least {times} times" for times in (4, 5, 10, 30, 50))}
    with pytest.raises(SystemExit):
        dropins.parse(["--only", "nothing"])

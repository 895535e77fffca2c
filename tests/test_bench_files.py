"""Files of results are written whole or not at all."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

import pytest

from bench.racing import files


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    files.write(tmp_path / "a.csv", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "a.csv", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_file_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for _ in range(2):
        with files.alone(path) as first, files.alone(path) as second:
            assert (first, second) == (True, False)
            assert path.exists()
        assert not path.exists()
    with files.alone(path) as first:
        path.unlink()
        with files.alone(path) as second:
            assert (first, second) == (True, True)  # who took it away is to blame


def test_who_opens_a_file_that_is_taken_away_does_not_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lock = tmp_path / "lock", fcntl.flock

    def late(file: IO[str], how: int) -> None:
        path.unlink()  # the other one ends between the opening and the lock
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with files.alone(path) as got:
        assert not got

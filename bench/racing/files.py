"""Files that are written whole or not at all (a full disk, or a kill, leaves what was there), and by one process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write(path: Path, content: bytes) -> None:
    """Put it there, on the disk when this returns. OSError where that fails; the old file is then as it was."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether nobody else has that file, which is there meanwhile. It is had until the block, or the process, ends, be
    it by a kill, which leaves the file to whoever comes next."""
    with path.open("a") as file:
        got = _locked(file, path)
        try:
            yield got
        finally:
            if got:
                path.unlink(missing_ok=True)


def _locked(file: IO[str], path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())  # it may have been taken away
    except (BlockingIOError, FileNotFoundError):
        return False

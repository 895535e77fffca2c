"""Files that are written whole or not at all (a full disk, or a kill, leaves what was there), and by one process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    """Whether nobody else has that file, which is made where it is missing. It is had until the block, or the process,
    ends, be it by a kill."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            got = True
        except BlockingIOError:
            got = False
        yield got

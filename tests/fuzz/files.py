"""Hostile files: a saved index, altered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.values import Rng, pick

NUMBERS = (0, -1, 1, 7, 1 << 31, 1 << 40, 1 << 62, 1 << 63, 1 << 70, 1.5, -0.0, 1e308, float("nan"))
HOSTILE: tuple[Any, ...] = (
    *NUMBERS,
    None,
    True,
    "",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "\x00",
    [],
    {},
    [[]],
    [1 << 62, 1 << 62],
    "x" * 99,
)


def alter(rng: Rng, path: Path) -> None:
    """Change one of the files of the saved index."""
    kept = sorted(each for each in path.rglob("*") if each.is_file())
    pick(rng, (_flip, _flip, _cut, _grow, _overwrite, _manifest, _manifest, _swap, _remove))(rng, pick(rng, kept), kept)


def _flip(rng: Rng, file: Path, kept: list[Path]) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(int(pick(rng, (1, 1, 8)))):
        if content:  # mostly near the start, where the headers are
            at = int(rng.integers(min(len(content), int(pick(rng, (16, 128, len(content)))))))
            content[at] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)


def _cut(rng: Rng, file: Path, kept: list[Path]) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(rng.integers(len(content) + 1))])


def _grow(rng: Rng, file: Path, kept: list[Path]) -> None:
    with file.open("ab") as end:
        end.write(rng.bytes(int(pick(rng, (1, 8, 4096)))))


def _overwrite(rng: Rng, file: Path, kept: list[Path]) -> None:
    file.write_bytes(
        pick(rng, (b"", b"{}", b"[]", b"null", b"\x93NUMPY", b"\xff" * 64, b"[" * 100_000, rng.bytes(200)))
    )


def _swap(rng: Rng, file: Path, kept: list[Path]) -> None:
    shutil.copyfile(pick(rng, kept), file.with_name("other"))
    file.with_name("other").replace(file)


def _remove(rng: Rng, file: Path, kept: list[Path]) -> None:
    file.unlink()
    pick(rng, (lambda: None, file.mkdir, lambda: file.symlink_to(file)))()


def _manifest(rng: Rng, file: Path, kept: list[Path]) -> None:
    """Another value somewhere in the JSON, or a key less."""
    found = [each for each in kept if each.suffix == ".json"]
    if not found:
        return _flip(rng, file, kept)
    content = json.loads(found[0].read_text())
    places: list[tuple[Any, Any]] = []
    _places(content, places.append)
    inside, key = pick(rng, places)
    if isinstance(inside, dict) and rng.random() < 0.2:
        del inside[key]
    else:
        inside[key] = pick(rng, HOSTILE)
    found[0].write_text(json.dumps(content))


def _places(value: Any, visit: Callable[[tuple[Any, Any]], None]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(items):
        visit((value, key))
        _places(below, visit)

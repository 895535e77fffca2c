"""Arrays in a folder: written so that the folder always holds one whole state, read without trusting it.

    manifest.json              what is saved, and each array's file, dtype, shape, bytes and BLAKE2b hash
    data-<random>/<name>.npy   the arrays

A save writes a new data folder beside the old one and makes everything durable; then one rename of the manifest goes
from the old state to the new; then the old data is deleted. See DESIGN.md, "Life on disk".
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import mmap
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pyengine.indexes.arrays import aligned, blocks
from pyengine.types import I64

FORMAT = "pyengine "  # and the kind of index
VERSION = 1
MANIFEST = "manifest.json"
TEMPORARY = MANIFEST + ".tmp"
MAX_MANIFEST = 1 << 16  # bytes
DATA = re.compile(r"data-[0-9a-f]{16}")
FILE = re.compile(rf"({DATA.pattern})/[a-z0-9_]+\.npy")


def write(
    path: str, kind: str, facts: Mapping[str, Any], arrays: Mapping[str, tuple[NDArray[Any], I64 | None]]
) -> None:
    """Replace what the folder ``path`` holds by an index of this kind: its facts, and arrays [N, ..] or, where row
    numbers come with them, those rows of them."""
    _make_folder(path)
    with _alone(path):
        data = f"data-{secrets.token_hex(8)}"
        os.mkdir(os.path.join(path, data))
        try:
            entries = {name: _write_array(path, f"{data}/{name}.npy", *array) for name, array in arrays.items()}
            _sync_folder(os.path.join(path, data))
            content = {"format": FORMAT + kind, "version": VERSION, **facts, "arrays": entries}
            _write_manifest(path, content | {"blake2b": _content_hash(content)})
        finally:  # of the old data and the new, one is not in the manifest now
            _sweep(path)


def _make_folder(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.makedirs(path)
        _sync_folder(os.path.dirname(os.path.abspath(path)))
    if not os.path.isdir(path):
        raise ValueError(f"path must be a folder, or new; got {path!r}, which is a file")
    for name in os.listdir(path):
        ours = DATA.fullmatch(name) or name == TEMPORARY or (name == MANIFEST and _is_ours(path))
        if not ours:
            raise ValueError(f"path must be an empty folder, a saved index, or new; got {path!r}, which holds {name!r}")


def _is_ours(path: str) -> bool:
    with open(os.path.join(path, MANIFEST), "rb") as file:
        return b'"format": "' + FORMAT.encode() in file.read(MAX_MANIFEST)


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """One at a time may write there. A lock of the kernel's, which goes with the process."""
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write_array(path: str, name: str, array: NDArray[Any], rows: I64 | None) -> dict[str, Any]:
    """Write ``array``, or these rows of it, and return its entry of the manifest."""
    shape = (len(array) if rows is None else len(rows), *array.shape[1:])
    digest = hashlib.blake2b(digest_size=32)
    with open(os.path.join(path, name), "xb") as file, ThreadPoolExecutor(1) as pool:
        for part in _parts(array, rows, shape):
            hashing = pool.submit(digest.update, part)
            file.write(part)
            hashing.result()
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return _entry(array.dtype, shape, size) | {"file": name, "blake2b": digest.hexdigest()}


def _parts(array: NDArray[Any], rows: I64 | None, shape: tuple[int, ...]) -> Iterator[Any]:
    yield _header(array.dtype, shape)
    for block in blocks(shape[0], array.itemsize * math.prod(shape[1:])):
        part = array[block] if rows is None else array[rows[block]]
        yield np.ascontiguousarray(part).reshape(-1).view(np.uint8).data


def _write_manifest(path: str, content: Mapping[str, Any]) -> None:
    temporary = os.path.join(path, TEMPORARY)
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path)
    os.replace(temporary, os.path.join(path, MANIFEST))
    _sync_folder(path)


def _sweep(path: str) -> None:
    """Delete the data that the manifest does not name: the old, or what a failed or killed save left."""
    try:
        with open(os.path.join(path, MANIFEST), encoding="utf-8") as file:
            named = {FILE.sub(r"\1", entry["file"]) for entry in json.load(file)["arrays"].values()}
    except FileNotFoundError:
        named = set()
    for name in os.listdir(path):
        if DATA.fullmatch(name) and name not in named:
            shutil.rmtree(os.path.join(path, name), ignore_errors=True)


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The first bytes of an .npy file, format 1.0. There is one form for each dtype and shape, so that reading it is
    comparing it."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {tuple(map(int, shape))}, }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def _entry(dtype: np.dtype[Any], shape: tuple[int, ...], size: int) -> dict[str, Any]:
    return {"dtype": dtype.str, "shape": list(shape), "bytes": size}


def _content_hash(content: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=32).hexdigest()


class Saved:
    """A saved state, its files open: it stays readable while others save to the same folder.

    ``facts`` is the manifest, whose own hash is right; its values are not checked. Raises FileNotFoundError where
    nothing is saved, ValueError, naming the file, for what is damaged, foreign, or of a newer version.
    """

    def __init__(self, path: str) -> None:
        self._files = contextlib.ExitStack()
        self.manifest = os.path.join(path, MANIFEST)
        before = None
        while True:
            raw = _manifest_bytes(path)
            self.facts = _parsed(raw, self.manifest)
            try:
                self._open = {name: self._opened(path, name) for name in self.facts["arrays"]}
                return
            except FileNotFoundError as error:
                self.close()
                if raw == before:  # no save came between
                    raise ValueError(f"{error.filename} is missing, and {self.manifest} names it") from None
                before = raw
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self._files.close()

    def __enter__(self) -> Saved:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self, path: str, name: str) -> BinaryIO:
        entry = self.facts["arrays"][name]
        file = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not FILE.fullmatch(file):
            raise ValueError(f"{self.manifest} must name a file of its data for array {name!r}; got {file!r}")
        full = os.path.join(path, file)
        if os.path.realpath(full) != os.path.join(os.path.realpath(path), file):
            raise ValueError(f"{full} must be a file, not a link; got a link to {os.path.realpath(full)}")
        if not stat.S_ISREG(os.stat(full).st_mode):  # a pipe would wait
            raise ValueError(f"{full} must be a file; got something else")
        return self._files.enter_context(open(full, "rb", buffering=0))

    def array(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], mapped: bool, verify: bool
    ) -> NDArray[Any]:
        """An array, which must have this dtype and shape: in memory, or mapped and read-only."""
        file, entry = self._open[name], self.facts["arrays"][name]
        header = _header(dtype, shape)
        n_bytes = dtype.itemsize * math.prod(shape)
        expected = _entry(dtype, shape, len(header) + n_bytes)
        if {key: entry.get(key) for key in expected} != expected:
            raise ValueError(f"{self.manifest} must describe array {name!r} as {expected}; got {entry}")
        full, size = os.path.join(os.path.dirname(self.manifest), entry["file"]), os.fstat(file.fileno()).st_size
        if size != expected["bytes"]:
            raise ValueError(f"{full} is not whole: it must have {expected['bytes']} bytes, and has {size}")
        if file.read(len(header)) != header:
            raise ValueError(f"{full} was altered: it must begin as an array {dtype.str} of shape {shape}")
        array = _mapped(file, size, len(header), dtype, shape) if mapped and n_bytes else aligned(shape, dtype)
        content = array.reshape(-1).view(np.uint8)
        if not _read(file, header, content, load=not mapped, verify=verify, digest=entry.get("blake2b")):
            raise ValueError(f"{full} was altered: its hash is not that in {self.manifest}")
        return array


def _read(file: BinaryIO, header: bytes, content: NDArray[np.uint8], load: bool, verify: bool, digest: Any) -> bool:
    """Fill ``content`` from the file where it is to be loaded; whether it hashes to ``digest``, if that is asked."""
    found = hashlib.blake2b(header, digest_size=32)
    with ThreadPoolExecutor(1) as pool:
        for block in blocks(len(content), 1):
            if load and file.readinto(content[block].data) != block.stop - block.start:  # type: ignore[attr-defined]
                return False  # it became shorter just now
            if verify:
                pool.submit(found.update, content[block].data)
    return not verify or found.hexdigest() == digest


def _mapped(file: BinaryIO, size: int, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return np.frombuffer(mapping, dtype, offset=offset).reshape(shape)


def _manifest_bytes(path: str) -> bytes:
    manifest = os.path.join(path, MANIFEST)
    try:
        if not stat.S_ISREG(os.stat(manifest).st_mode):
            raise ValueError(f"{manifest} must be a file; got something else")
        with open(manifest, "rb") as file:
            return file.read(MAX_MANIFEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"path must be the folder of a saved index; there is no {manifest}") from None


def _parsed(raw: bytes, name: str) -> dict[str, Any]:
    """The manifest's content, after its own hash was compared."""
    try:
        content = json.loads(raw) if len(raw) <= MAX_MANIFEST else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not str(content.get("format")).startswith(FORMAT):
        raise ValueError(f"{name} must be the manifest of a saved index; got something else, or a damaged one")
    if content.get("version") != VERSION:
        got = content.get("version")
        raise ValueError(f"{name} must be of format version {VERSION}, which this pyengine reads; got {got!r}")
    digest = content.pop("blake2b", None)
    if _content_hash(content) != digest or not isinstance(content.get("arrays"), dict):
        raise ValueError(f"{name} was altered: its content does not fit its hash")
    return content

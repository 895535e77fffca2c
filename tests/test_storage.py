"""Saved indexes: whole after any kill, and readable for as long as this version of the format."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.indexes import storage
from tests.storage_cases import KILLED, KINDS, ON_DISK, STORES, Kind, dense, files, kinds, mapped, same, some

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison", "small_segments")]


FIXTURES = Path(__file__).parent / "fixtures"
IDS = [[23, 24, 27, 18], [11, 13, 20, 18]]  # of the fixtures' answer
SCORE_BITS = [[1116733440, 1115160576, 1114112000, 1111752704], [1122238464, 1121452032, 1118175232, 1117519872]]


@mapped
@some([*KINDS, *(dense(store, metric=metric) for store in STORES for metric in ("cosine", "l2"))])
@pytest.mark.parametrize("n_docs", [0, 1, 40])
def test_what_is_loaded_answers_as_what_was_saved(kind: Kind, n_docs: int, mmap: bool, tmp_path: Path) -> None:
    index = kind.empty()
    index.add(kind.docs[:n_docs])
    index.save(tmp_path / "new" / "index")
    same(kind, pe.load(tmp_path / "new" / "index", mmap), index)
    same(kind, pe.load(str(tmp_path / "new" / "index"), mmap, verify=not mmap), index)


@mapped
@kinds
def test_a_loaded_index_lives_on(kind: Kind, folder: Path, mmap: bool) -> None:
    index, loaded = kind.made(), pe.load(folder, mmap)
    for each in (index, loaded):
        each.add(kind.docs[:5])
        each.remove([0, 40, 41])
        each.add(kind.docs[7:8], ids=[3])
    same(kind, loaded, index)
    assert index.ids[-4:].tolist() == [42, 43, 44, 3]
    loaded.compact()
    same(kind, loaded, index)
    same(kind, pe.load(folder, mmap), kind.made())  # the files are as they were


@mapped
@kinds
def test_an_index_may_be_saved_where_it_was_loaded_from(kind: Kind, folder: Path, mmap: bool) -> None:
    loaded = pe.load(folder, mmap)
    loaded.save(folder)
    loaded.remove([0])
    loaded.save(folder)
    same(kind, pe.load(folder, mmap), loaded)
    assert len(list(folder.iterdir())) == 2  # one manifest, one folder of data


@mapped
@some([*KILLED, *ON_DISK])
def test_originals_on_disk_are_saved_and_mapped(kind: Kind, mmap: bool, tmp_path: Path) -> None:
    index = kind.empty()
    index.add(kind.docs)
    index.save(tmp_path)
    loaded = pe.load(tmp_path, mmap, directory=tmp_path)
    rows = loaded._contents.store.arrays["values" if kind.family == "sparse" else "rows"].view
    assert rows.flags.writeable == (kind not in ON_DISK and not mmap)
    same(kind, loaded, index)
    loaded.add(kind.docs)
    loaded.add(kind.docs[:1])
    index.add(iter([kind.docs, kind.docs[:1]]))
    same(kind, loaded, index)
    loaded.save(tmp_path)
    same(kind, pe.load(tmp_path), index)


@kinds
def test_an_npy_file_is_what_numpy_reads(folder: Path) -> None:
    for path in files(folder):
        if path.suffix == ".npy":
            array, raw = np.load(path, allow_pickle=False), path.read_bytes()
            assert storage._header(array.dtype, array.shape) == raw[: len(raw) - array.nbytes]


@mapped
@pytest.mark.parametrize("fixture", [f"dense_v1_{store}" for store in STORES])
def test_format_version_1_keeps_loading(fixture: str, mmap: bool) -> None:
    """Saved by pyengine 0.1.0: integers from a formula, of which documents 5 and 11 were removed."""
    index = pe.load(FIXTURES / fixture, mmap, verify=True)
    assert index.ids.tolist() == [30 - row for row in range(20) if row not in (5, 11)]
    found = index.search(np.array([[1, -2, 3, 0, 5], [2, 2, -1, 7, 1]]), 4)
    assert found.ids.tolist() == IDS
    assert found.scores.view(np.uint32).tolist() == SCORE_BITS
    index.add(np.ones((1, 5)))
    assert index.ids[-1] == 31


@kinds
def test_other_peoples_folders_are_left_alone(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"path must be an empty folder.* which holds 'letter.txt'"):
        kind.made().save(tmp_path)
    with pytest.raises(ValueError, match=r"path must be a folder, or new; got .*letter.txt', which is a file"):
        kind.made().save(tmp_path / "letter.txt")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(ValueError, match=r"path must be an empty folder.* which holds 'manifest.json'"):
        kind.made().save(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["letter.txt", "manifest.json", "other"]


@pytest.mark.parametrize("failing", ["fsync", "replace", "mkdir"])
@pytest.mark.parametrize("after", range(12))
@some(KILLED)
def test_a_save_that_fails_leaves_what_was_there(
    folder: Path, kind: Kind, failing: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = getattr(os, failing), after

    def full(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with suppress(OSError):
            kind.made(100).save(folder)
    loaded = pe.load(folder)
    same(kind, loaded, kind.made(100 if loaded.ids.min() >= 100 else 0))
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


@kinds
def test_saves_at_once_and_changes_meanwhile_leave_one_whole_state(kind: Kind, tmp_path: Path) -> None:
    index = kind.made()

    def change() -> None:
        for _ in range(60):
            index.add(kind.docs)
            index.remove(index.ids[-40:])

    def save() -> None:
        for _ in range(8):
            index.save(tmp_path)
            assert len(pe.load(tmp_path, mmap=True)) in (38, 78)
            loaded = pe.load(tmp_path)
            np.testing.assert_array_equal(loaded.ids[:38], index.ids[:38])

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(each) for each in (change, save, save)]:
            done.result()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@some(KILLED)
def test_kill_9_leaves_the_old_index_or_the_new_one(kind: Kind, tmp_path: Path) -> None:
    """200 times: a process that saves two states by turns is killed at a random moment."""
    rng, path = np.random.default_rng(17), tmp_path / "index"
    states = [kind.made(), kind.made(1000)]
    states[0].save(path)
    last, changes, longest = 0, 0, 0.01  # seconds
    for _ in range(200):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    for state in (states[1 - last], states[last]):
                        state.save(path)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        loaded = pe.load(path)
        found = int(loaded.ids.min() >= 1000)
        same(kind, loaded, states[found])
        changes += found != last
        longest *= 0.9 if found != last else 1.1  # however fast the disk is, about half of the kills come after a save
        last = found
    assert 20 < changes < 180
    states[0].save(path)
    assert len(list(path.iterdir())) == 2  # nothing is left of those that were killed


def test_where_nothing_is_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name in ("absent", "file", "folder"):
        with pytest.raises(FileNotFoundError, match="path must be the folder of a saved index"):
            pe.load(tmp_path / name)

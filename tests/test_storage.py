"""Saved indexes: whole after any kill, refused when damaged, and readable for as long as this version of the format."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import DenseIndex, MultiVectorIndex, SparseIndex, conformance
from pyengine.conformance import conformance_cases
from pyengine.indexes import sparse_store, storage
from pyengine.refining import exact
from pyengine.types import F32
from tests.sparse_model import V, drawn

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison", "small_segments")]
D = 8
RNG = np.random.default_rng(5)
DOCS: F32 = RNG.standard_normal((40, D)).astype(np.float32)
QUERIES: F32 = RNG.standard_normal((3, D)).astype(np.float32)
TOKENS: list[F32] = [RNG.standard_normal((length, D)).astype(np.float32) for length in [0, 1, 5, 2, 30, 1, 0, 3] * 5]
TERMS = [dict(zip(terms.tolist(), weights.tolist())) for terms, weights in drawn(40)]
ASKED = [{term: 1.0} for term in range(V)]  # the answers are the weights
FIXTURES = Path(__file__).parent / "fixtures"
IDS = [[23, 24, 27, 18], [11, 13, 20, 18]]  # of the fixtures' answer
SCORE_BITS = [[1116733440, 1115160576, 1114112000, 1111752704], [1122238464, 1121452032, 1118175232, 1117519872]]
STORES = ["float32", *(["int8"] if exact.native() else [])]
mapped = pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])


@dataclass(frozen=True)
class Kind:
    """A kind of index, and what to fill it with."""

    name: str
    empty: Callable[[], Any]
    docs: Any  # 40 of them
    queries: Any

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]

    def made(self, first: int = 0) -> Any:
        """38 documents."""
        index = self.empty()
        index.add(self.docs, ids=np.arange(first, first + 40)[::-1])
        index.remove([first + 3, first + 20])
        return index


def dense(store: str, originals: str | None = "ram", metric: str = "dot") -> Kind:
    made = partial(DenseIndex, D, metric, store, originals)
    return Kind(f"dense-{store}-{originals}-{metric}", made, DOCS, QUERIES)


def tokens(codec: str, originals: str | None = "ram") -> Kind:
    return Kind(f"tokens-{codec}-{originals}", partial(MultiVectorIndex, D, codec, originals), TOKENS, QUERIES[None])


def sparse(weights: str, originals: str = "ram") -> Kind:
    return Kind(f"sparse-{weights}-{originals}", partial(SparseIndex, V, weights, originals), TERMS, ASKED)


DENSE = [dense(store) for store in conformance_cases.stores() if store != "matrix"]
KINDS = [*DENSE, *map(sparse, sparse_store.WEIGHTS)]
ON_DISK = [sparse("uint8", "disk")]
if exact.native() is not None:
    KINDS += [tokens("float32"), tokens("int8"), tokens("residual2", None), tokens("residual1")]
    ON_DISK += [dense("int8", "disk"), tokens("int8", "disk"), tokens("residual2", "disk")]
OTHERS = [each for each in KINDS if each.name in ("tokens-int8-ram", "sparse-uint8-ram")]
KILLED = [dense(STORES[-1]), *OTHERS]
some = partial(pytest.mark.parametrize, "kind", ids=lambda kind: kind.name)
kinds = some(KINDS)


@pytest.fixture
def folder(kind: Kind, tmp_path: Path) -> Path:
    """A saved index."""
    kind.made().save(tmp_path / "index")
    return tmp_path / "index"


def same(kind: Kind, found: Any, want: Any) -> None:
    assert type(found) is type(want)
    for name in want.settings:
        assert getattr(found, name) == getattr(want, name)
    np.testing.assert_array_equal(found.ids, want.ids)
    conformance.same(found.search(kind.queries, 50), want.search(kind.queries, 50), "after loading")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


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


@mapped
@kinds
def test_a_truncated_or_longer_file_is_refused(folder: Path, mmap: bool) -> None:
    for path in files(folder):
        whole = path.read_bytes()
        lengths = {0, 1, 50, 127, 128, 129, len(whole) // 2, len(whole) - 1}
        for content in [*(whole[:length] for length in lengths if length < len(whole)), whole + b"\0"]:
            path.write_bytes(content)
            with pytest.raises(ValueError, match=path.name):
                pe.load(folder, mmap)
        path.write_bytes(whole)
    pe.load(folder, mmap)


@mapped
@kinds
def test_a_flipped_bit_is_noticed_or_harmless(folder: Path, kind: Kind, mmap: bool) -> None:
    rng, want = np.random.default_rng(9), kind.made()
    for _ in range(300):
        path = files(folder)[rng.integers(len(files(folder)))]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            loaded = pe.load(folder, mmap)
        except ValueError as error:
            named = path.name in str(error) or "manifest.json" in str(error)
        else:
            named = True
            assert mmap or path.name == "manifest.json", path
            if mmap:
                with suppress(ValueError):
                    loaded.search(kind.queries, 50)  # whatever it answers
            else:
                same(kind, loaded, want)  # a blank for another
        assert named
        path.write_bytes(whole)


@kinds
def test_mapped_arrays_full_of_garbage_do_not_crash(folder: Path, kind: Kind) -> None:
    """They are refused, at loading or at searching, or answer somehow."""
    for path in files(folder):
        if path.suffix == ".npy":
            whole = path.read_bytes()
            for garbage in (b"\xff", b"\x7f", b"\x80\x00", b"\xf0\x7f\x00\x00"):
                path.write_bytes(whole[:128] + (garbage * len(whole))[: len(whole) - 128])
                for precision in ("exact", "fast"):
                    with suppress(ValueError):
                        loaded = pe.load(folder, mmap=True)
                        loaded.search(kind.queries, 50, precision=precision)
                        loaded.search(kind.queries, 5, precision=precision, num_threads=3)
            path.write_bytes(whole)


Manifest = dict[str, Any]


def rewrite(folder: Path, change: Callable[[Manifest], object], arrays: dict[str, np.ndarray] | None = None) -> None:
    """Change the manifest, and arrays, with every hash made right again."""
    content = json.loads((folder / "manifest.json").read_text())
    del content["blake2b"]
    for name, array in (arrays or {}).items():
        content["arrays"][name] = storage._write_array(
            str(folder), content["arrays"][name]["file"].replace(".npy", "_new.npy"), array, None
        )
    change(content)
    content["blake2b"] = storage._content_hash(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def entry(name: str, **changed: Any) -> Callable[[Manifest], object]:
    return lambda content: content["arrays"][name].update(changed)


BAD_MANIFESTS: dict[str, tuple[Callable[[Manifest], object], str]] = {
    "newer": (lambda content: content.update(version=2), "must be of format version 1, .*; got 2"),
    "version text": (lambda content: content.update(version="1"), "must be of format version 1, .*; got '1'"),
    "foreign": (lambda content: content.update(format="faiss"), "must be the manifest of a saved index"),
    "no arrays": (lambda content: content.pop("arrays"), "was altered"),
    "arrays a list": (lambda content: content.update(arrays=[]), "was altered"),
    "an array less": (lambda content: content["arrays"].pop("norms"), "must list the arrays ids, rows, norms"),
    "an array more": (lambda content: content["arrays"].update(x=content["arrays"]["ids"]), "must list the arrays"),
    "an entry a number": (lambda content: content["arrays"].update(ids=3), "a file of its data for array 'ids'"),
    "out of the folder": (entry("ids", file="../ids.npy"), "must name a file of its data"),
    "out by a detour": (entry("ids", file="data-0123456789abcdef/../../x.npy"), "must name a file of its data"),
    "absolute": (entry("ids", file="/etc/passwd"), "must name a file of its data"),
    "a line more": (entry("ids", file="data-0123456789abcdef/ids.npy\n"), "must name a file of its data"),
    "no such file": (entry("ids", file="data-0123456789abcdef/ids.npy"), "ids.npy is missing"),
    "another dtype": (entry("norms", dtype="<i8"), "must describe array 'norms'"),
    "objects": (entry("norms", dtype="|O"), "must describe array 'norms'"),
    "another shape": (entry("rows", shape=[38, D + 1]), "must describe array 'rows'"),
    "an enormous shape": (entry("rows", shape=[1 << 62, D]), "must describe array 'rows'"),
    "enormous": (lambda content: content.update(documents=1 << 62), "must describe array 'ids'"),
    "fewer documents": (lambda content: content.update(documents=37), "must describe array 'ids'"),
    "documents below 0": (lambda content: content.update(documents=-1), "documents as an integer of 0 or more"),
    "documents no number": (lambda content: content.update(documents=38.0), "documents as an integer"),
    "documents a truth": (lambda content: content.update(documents=True), "documents as an integer"),
    "largest id too small": (lambda content: content.update(largest_id=38), "ids that are distinct and in 0 .. 38"),
    "largest id too large": (lambda content: content.update(largest_id=1 << 63), "largest_id as an integer"),
    "another dim": (lambda content: content.update(dim=D + 1), "must describe array 'rows'"),
    "an enormous dim": (lambda content: content.update(dim=1 << 40), "index that this pyengine knows; got dim"),
    "no dim": (lambda content: content.pop("dim"), "index that this pyengine knows; got dim"),
    "an unknown metric": (lambda content: content.update(metric="l7"), "index that this pyengine knows; got metric"),
    "an unknown store": (lambda content: content.update(store="pq"), "index that this pyengine knows; got store"),
    "unknown originals": (lambda content: content.update(originals="tape"), "this pyengine knows; got originals"),
}


BAD_OF_TOKENS: dict[str, tuple[Callable[[Manifest], object], str]] = {
    "another kind": (
        lambda content: content.update(format="pyengine CubicIndex"),
        "must describe a DenseIndex, MultiVectorIndex or SparseIndex; got 'CubicIndex'",
    ),
    "tokens below 0": (lambda content: content.update(tokens=-1), "give tokens as an integer of 0 or more; got -1"),
    "fewer tokens": (lambda content: content.update(tokens=200), "must describe array 'rows'"),
    "enormous": (lambda content: content.update(tokens=1 << 62), "must describe array 'rows'"),
    "fewer documents": (lambda content: content.update(documents=37), "must describe array 'ids'"),
    "an array less": (lambda content: content["arrays"].pop("offsets"), "must list the arrays ids, "),
    "offsets of another shape": (entry("offsets", shape=[38]), "must describe array 'offsets'"),
    "an unknown codec": (lambda content: content.update(codec="pq"), "index that this pyengine knows; got codec"),
}


def posting(**changed: Any) -> Callable[[Manifest], object]:
    """The same for the first array of the postings."""
    return lambda content: entry(min(name for name in content["arrays"] if name.startswith("postings_")), **changed)(
        content
    )


BAD_OF_TERMS: dict[str, tuple[Callable[[Manifest], object], str]] = {
    "no terms": (lambda content: content.update(n_terms=0), "index that this pyengine knows; got n_terms"),
    "more terms": (lambda content: content.update(n_terms=1 << 20), "must describe array 'terms'"),
    "other weights": (lambda content: content.update(weights="float16"), "must list the arrays ids, terms, values"),
    "unknown weights": (lambda content: content.update(weights="int4"), "index that this pyengine knows; got weights"),
    "fewer entries": (lambda content: content.update(entries=3), "must describe array 'terms'"),
    "no entries": (lambda content: content.pop("entries"), "must give entries as an integer of 0 or more; got None"),
    "fewer rows": (lambda content: content.update(documents=37), "must describe array 'ids'"),
    "no step": (lambda content: content["arrays"].pop("step"), "must list the arrays ids, terms, values"),
    "odd postings": (lambda content: content["arrays"].update(postings_x=3), "must name a file of its data"),
    "objects": (posting(dtype="|O"), "must list the arrays ids, terms, values"),
    "enormous": (posting(shape=[1 << 39]), "must describe array 'postings_|is not whole"),
    "no shape": (posting(shape=[-1]), "must list the arrays ids"),
}
BAD_OF = {"dense": BAD_MANIFESTS, "tokens": BAD_OF_TOKENS, "sparse": BAD_OF_TERMS}


@mapped
@pytest.mark.parametrize(
    ("kind", "case"),
    [(kind, case) for kind in [*DENSE, *OTHERS] for case in BAD_OF[kind.family]],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_manifest_made_by_hand_is_refused(folder: Path, kind: Kind, case: str, mmap: bool) -> None:
    change, says = BAD_OF[kind.family][case]
    rewrite(folder, change)
    with pytest.raises(ValueError, match=says) as caught:
        pe.load(folder, mmap)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


WHOLE = np.arange(38)
BAD_ARRAYS: dict[str, tuple[str, np.ndarray, str]] = {
    "ids twice": ("ids", WHOLE // 2, "ids that are distinct"),
    "ids twice, unsorted": ("ids", WHOLE[::-1] // 2, "ids that are distinct"),
    "a negative id": ("ids", WHOLE - 1, "ids that are distinct and in 0"),
    "a norm of NaN": ("norms", np.where(WHOLE == 7, np.nan, 1.0), "'norms' of finite numbers"),
    "an infinite norm": ("norms", np.where(WHOLE == 7, np.inf, 1.0), "'norms' of finite numbers"),
}
OFFSETS = np.cumsum([0, *(len(each) for row, each in enumerate(TOKENS) if 39 - row not in (3, 20))])
BAD_OFFSETS: dict[str, tuple[str, np.ndarray, str]] = {
    "offsets that fall": ("offsets", np.where(np.arange(39) == 7, 999, OFFSETS), "offsets that rise from 0 to its"),
    "offsets below 0": ("offsets", np.where(np.arange(39) == 7, -1, OFFSETS), "offsets that rise from 0 to its"),
    "offsets from 1": ("offsets", np.maximum(1, OFFSETS), "offsets that rise from 0 to its"),
    "offsets that end early": ("offsets", np.minimum(OFFSETS[-1] - 1, OFFSETS), "offsets that rise from 0 to its"),
}
BAD_TERMS: dict[str, tuple[str, Any, str]] = {
    "offsets that fall": ("offsets", (7, 99), "offsets that rise from 0 to its"),
    "a low of NaN": ("low", (7, np.nan), "'low' of finite numbers"),
}
BAD_POSTINGS: dict[str, tuple[str, Any, str]] = {
    "a scale of 0": ("postings_scale", (0, 0), "postings of its 38 rows .*must have scales above 0"),
    "an infinite scale": ("postings_scale", (0, np.inf), "postings of its 38 rows .*must have scales above 0"),
    "a residual below 0": ("postings_residual", (0, -1), "postings of its 38 rows .*must have scales above 0"),
    "a zero of 7": ("postings_zero", (0, 7), "postings of its 38 rows .*must have scales above 0"),
}
BAD_VALUES = {
    "dense": BAD_ARRAYS,
    "tokens": BAD_OFFSETS,
    "sparse": BAD_TERMS | (BAD_POSTINGS if exact.native() is not None else {}),
}


@mapped
@pytest.mark.parametrize(
    ("kind", "case"),
    [(kind, case) for kind in [*DENSE, *OTHERS] for case in BAD_VALUES[kind.family]],
    ids=lambda value: getattr(value, "name", value),
)
def test_values_that_no_index_saves_are_refused(folder: Path, kind: Kind, case: str, mmap: bool) -> None:
    name, values, says = BAD_VALUES[kind.family][case]
    if isinstance(values, tuple):  # a place, and what is put there
        (path,) = folder.rglob(f"{name}.npy")
        (place, value), values = values, np.load(path)
        values[place] = value
    rewrite(folder, lambda content: None, {name: values})
    with pytest.raises(ValueError, match=says):
        pe.load(folder, mmap)


@mapped
@pytest.mark.parametrize("what", ["a link", "a linked folder", "a pipe", "a folder", "nothing"])
@some(KILLED)
def test_only_files_of_the_folder_are_opened(folder: Path, tmp_path: Path, mmap: bool, what: str) -> None:
    path = next(path for path in files(folder) if path.name == "ids.npy")
    if what == "a linked folder":
        shutil.move(path.parent, tmp_path / "elsewhere")
        path.parent.symlink_to(tmp_path / "elsewhere")
    else:
        shutil.move(path, tmp_path / "elsewhere.npy")
    if what == "a link":
        path.symlink_to(tmp_path / "elsewhere.npy")
    if what == "a pipe":
        os.mkfifo(path)
    if what == "a folder":
        path.mkdir()
    with pytest.raises(ValueError, match=r"(must be a file|is missing)"):
        pe.load(folder, mmap)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 60_000, b"9" * 5000, b'{"format": 1e999}', b"\xff\xfe", b"[1]" * 40_000]
)
@some(KILLED)
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest.json must be the manifest of a saved index"):
        pe.load(folder)


def test_where_nothing_is_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name in ("absent", "file", "folder"):
        with pytest.raises(FileNotFoundError, match="path must be the folder of a saved index"):
            pe.load(tmp_path / name)

"""Saved indexes that were damaged, or made by hand, are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.indexes import storage
from pyengine.refining import exact
from tests.storage_cases import DENSE, KILLED, OTHERS, TOKENS, D, Kind, files, kinds, mapped, same, some

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison", "small_segments")]


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

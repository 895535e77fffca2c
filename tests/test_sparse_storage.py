"""Saved `SparseIndex`es: whole after any kill, mapped, refused when damaged."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import SparseIndex, SparseRows, conformance, exact_sparse, sparse_store, storage
from tests.sparse_model import QUERIES, V, drawn, kinds, listed, made, ordered

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison", "small_segments"),
]
mapped = pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])


OLD = {  # ids and score bits of the fixtures' answer
    "float32": (
        [[26, 21, 11, 18], [17, 27, 11, 26]],
        [[1097334784, 1093140480, 1092091904, 1089470464], [1065414569, 1043600404, 1042849921, 1041353812]],
    ),
    "uint8": (
        [[26, 21, 11, 18], [17, 27, 11, 26]],
        [[1097334784, 1093140480, 1092091904, 1089470464], [1065389897, 1043553962, 1042849921, 1041353812]],
    ),
}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same(found: SparseIndex, want: SparseIndex) -> None:
    assert found.ids.tolist() == want.ids.tolist()
    assert listed(found.rows(found.ids)) == listed(want.rows(want.ids))
    conformance.same(found.search(QUERIES, 30), want.search(QUERIES, 30), "after loading")


@kinds
@mapped
def test_what_is_loaded_lives_on(weights: str, originals: str, mmap: bool, tmp_path: Path) -> None:
    index = made(weights, originals)
    index.add(drawn(20))
    index.remove(range(0, 90, 3))
    index.save(tmp_path)
    loaded = pe.load(tmp_path, mmap, directory=tmp_path)
    assert (loaded.n_terms, loaded.weights, loaded.originals) == (V, weights, originals)
    assert loaded.stats().segments == (190,)
    same(loaded, index)
    for each in (index, loaded):
        each.add(drawn(40))
        each.add(drawn(2))
        each.replace(drawn(1, seed=3), [100])
    same(loaded, index)
    ordered(loaded)
    loaded.save(tmp_path)
    same(pe.load(tmp_path, mmap), index)
    assert len(list(tmp_path.iterdir())) == 2


def formula(n: int, first: int = 0) -> SparseRows:
    """Rows of the fixtures: row r has r % 5 terms."""
    rows = range(first, first + n)
    terms = [(3 * row + 7 * place) % 50 for row in rows for place in range(row % 5)]
    weights = [(row * place) % 7 - 1.25 for row in rows for place in range(row % 5)]
    return SparseRows(np.cumsum([0, *(row % 5 for row in rows)]), terms, weights, 50)


@mapped
@pytest.mark.parametrize("weights", OLD)
def test_format_version_1_keeps_loading(weights: str, mmap: bool) -> None:
    """Saved by pyengine 0.1.0, of which documents 25 and 19 were removed."""
    index = pe.load(Path(__file__).parent / "fixtures" / f"sparse_v1_{weights}", mmap, verify=True)
    assert index.ids.tolist() == [each for each in range(30, 10, -1) if each not in (25, 19)]
    every = np.arange(50)
    queries = SparseRows([0, 50, 100], np.tile(every, 2), np.concatenate([every % 5 - 1, 1 / (every + 1)]), 50)
    found = index.search(queries, 4)
    assert (found.ids.tolist(), found.scores.view(np.int32).tolist()) == OLD[weights]
    index.add(formula(1))
    assert index.ids[-1] == 31


def spread(n: int) -> SparseRows:
    """Rows of the fixture with postings: of two terms that many have, seven that some have, and others."""
    terms = [sorted({row % 3 and 1, 2 + row % 7, 9 + row * row % 90}) for row in range(n)]
    weights = [1 + row * term % 17 / 4 for row in range(n) for term in terms[row]]
    return SparseRows(np.cumsum([0, *map(len, terms)]), [term for own in terms for term in own], weights, 100)


@mapped
def test_postings_of_format_version_1_keep_loading(mmap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved by pyengine 0.1.0: one segment of `spread`, with ids 0, 2, 4 and so on. None is built."""
    if exact_sparse.native() is None:
        pytest.skip("without the extension no postings are read")
    monkeypatch.setattr(exact_sparse, "build", None)
    index = pe.load(Path(__file__).parent / "fixtures" / "sparse_v1_postings", mmap, verify=True)
    assert index.stats().segments == (1100,)
    every = np.arange(100)
    queries = SparseRows([0, 100, 103], [*every, 1, 5, 40], [*(every % 5 + 1), 1, 2, 3], 100)
    found = index.search(queries, 4)
    assert found.ids.tolist() == [[1460, 1180, 1390, 1894], [202, 742, 878, 2102]]
    bits = [[1113325568, 1112473600, 1112211456, 1112145920], [1103233024, 1100742656, 1100742656, 1100742656]]
    assert found.scores.view(np.int32).tolist() == bits
    docs = pe.sparse_topk(queries, spread(1100), 4, backend="numpy")
    assert (docs.ids * 2 == found.ids).all()
    assert (docs.scores == found.scores).all()


def test_a_mapped_load_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It maps every array, looks at ids and offsets, and builds nothing."""
    made().save(tmp_path)
    monkeypatch.setattr(exact_sparse, "build", None)
    right, looked = np.isfinite, [0]

    def looking(array: Any) -> Any:
        looked.append(np.size(array))
        return right(array)

    monkeypatch.setattr(np, "isfinite", looking)
    index = pe.load(tmp_path, mmap=True)
    assert max(looked) <= 200
    arrays = [*index._contents.store.arrays.values()]
    postings = [*index._contents.store.postings[0].arrays.values()]
    assert not any(array.flags.writeable for array in [*(each.view for each in arrays), *postings] if array.size)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kill_9_leaves_the_old_index_or_the_new_one(tmp_path: Path) -> None:
    """60 times: a process that saves two states by turns is killed at a random moment."""
    rng, path = np.random.default_rng(17), tmp_path / "index"
    states = [made("uint8"), made("uint8", docs=drawn(300, seed=5))]
    states[0].save(path)
    last, changes, longest = 0, 0, 0.02  # seconds
    for _ in range(60):
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
        found = int(len(loaded) == 300)
        same(loaded, states[found])
        changes += found != last
        longest *= 0.9 if found != last else 1.1  # however fast the disk is, about half of the kills come after a save
        last = found
    assert 5 < changes < 55
    states[0].save(path)
    assert len(list(path.iterdir())) == 2  # nothing is left of those that were killed


@mapped
def test_a_truncated_or_longer_file_is_refused(tmp_path: Path, mmap: bool) -> None:
    made("uint8").save(tmp_path)
    for path in files(tmp_path):
        whole = path.read_bytes()
        lengths = {length for length in (0, 1, 127, 128, 129, len(whole) // 2, len(whole) - 1) if length < len(whole)}
        for content in [*(whole[:length] for length in lengths), whole + b"\0"]:
            path.write_bytes(content)
            with pytest.raises(ValueError, match=path.name):
                pe.load(tmp_path, mmap)
        path.write_bytes(whole)
    pe.load(tmp_path, mmap)


@mapped
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path, mmap: bool) -> None:
    rng, want = np.random.default_rng(9), made("uint8")
    want.save(tmp_path)
    for _ in range(300):
        path = files(tmp_path)[rng.integers(len(files(tmp_path)))]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with suppress(ValueError):
            loaded = pe.load(tmp_path, mmap)
            assert mmap or path.name == "manifest.json", path
            if mmap:
                loaded.search(QUERIES, 50)  # whatever it answers
            else:
                same(loaded, want)  # a blank for another
        path.write_bytes(whole)


def test_mapped_arrays_full_of_garbage_do_not_crash(tmp_path: Path) -> None:
    """They are refused, at loading or at searching, or answer somehow."""
    for weights in sparse_store.WEIGHTS:
        made(weights).save(tmp_path)
        for path in files(tmp_path):
            if path.suffix != ".npy" or path.stem == "ids":
                continue
            whole = path.read_bytes()
            for garbage in (b"\xff", b"\x7f", b"\x80\x00", b"\xf0\x7f\x00\x00"):
                path.write_bytes(whole[:128] + (garbage * len(whole))[: len(whole) - 128])
                for threads in (1, 3):
                    with suppress(ValueError):
                        pe.load(tmp_path, mmap=True).search(QUERIES, 50, num_threads=threads)
            path.write_bytes(whole)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, with its hash made right again."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["blake2b"]
    change(content)
    path.write_text(json.dumps(content | {"blake2b": storage._content_hash(content)}))


BAD_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no terms": (lambda content: content.update(n_terms=0), "index that this pyengine knows; got n_terms"),
    "more terms": (lambda content: content.update(n_terms=1 << 20), "must describe array 'terms'"),
    "other weights": (lambda content: content.update(weights="float16"), "must list the arrays ids, terms, values"),
    "unknown weights": (lambda content: content.update(weights="int4"), "index that this pyengine knows; got weights"),
    "fewer entries": (lambda content: content.update(entries=3), "must describe array 'terms'"),
    "no entries": (lambda content: content.pop("entries"), "must give entries as an integer of 0 or more; got None"),
    "fewer rows": (lambda content: content.update(documents=199), "must describe array 'ids'"),
    "no step": (lambda content: content["arrays"].pop("step"), "must list the arrays ids, terms, values"),
    "odd postings": (lambda content: content["arrays"].update(postings_x=3), "must name a file of its data"),
    "objects": (
        lambda content: content["arrays"][posting(content)].update(dtype="|O"),
        "must list the arrays ids, terms, values",
    ),
    "enormous": (
        lambda content: content["arrays"][posting(content)].update(shape=[1 << 39]),
        "must describe array 'postings_|is not whole",
    ),
    "no shape": (lambda content: content["arrays"][posting(content)].update(shape=[-1]), "must list the arrays ids"),
}


def posting(content: dict[str, Any]) -> str:
    return next(str(name) for name in content["arrays"] if name.startswith("postings_"))


@mapped
@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_manifest_made_by_hand_is_refused(tmp_path: Path, case: str, mmap: bool) -> None:
    change, says = BAD_MANIFESTS[case]
    made("uint8").save(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(ValueError, match=says) as caught:
        pe.load(tmp_path, mmap)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@mapped
def test_offsets_that_fall_are_refused(tmp_path: Path, mmap: bool) -> None:
    made().save(tmp_path)
    path = next(tmp_path.rglob("offsets.npy"))
    raw = bytearray(path.read_bytes())
    raw[-9] = 99
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"offsets.npy was altered|must list offsets that rise from 0 to its \d+ entr"):
        pe.load(tmp_path, mmap)

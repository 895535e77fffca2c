"""Saved `SparseIndex`es, mapped and not. What holds for indexes of every kind is in test_storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import SparseIndex, SparseRows, conformance
from pyengine.refining import exact_sparse
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

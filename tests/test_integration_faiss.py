"""The face of faiss's flat indexes, beside faiss itself: the same ids and places, on vectors whose sums are exact."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest

from pyengine.integrations import faiss as face

faiss = pytest.importorskip("faiss")
RNG = np.random.default_rng(11)
D = 24
DOCS = RNG.permutation(2048)[:300].reshape(300, 1) * np.eye(1, D) + RNG.integers(-3, 4, (300, D))  # no two alike
DOCS = DOCS.astype(np.float32)
QUERIES = np.eye(7, D, dtype=np.float32) + np.eye(1, D, dtype=np.float32)
METRICS = [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2]
pytestmark = pytest.mark.usefixtures("poison")


def pair(metric: int, ids: Any = None) -> tuple[face.IndexFlat, Any]:
    """Ours and faiss's, of the same vectors."""
    ours, theirs = face.IndexFlat(D, metric), faiss.IndexFlat(D, metric)
    if ids is None:
        ours.add(DOCS)
        theirs.add(DOCS)
        return ours, theirs
    mapped = faiss.IndexIDMap2(theirs)
    ours.add_with_ids(DOCS, ids)
    mapped.add_with_ids(DOCS, ids)
    return ours, mapped


def same(ours: face.IndexFlat, theirs: Any, **arguments: Any) -> None:
    """Both find the same; where faiss's distances tie, its order is arbitrary, so that only distances count."""
    assert (ours.ntotal, ours.d, ours.metric_type) == (theirs.ntotal, theirs.d, theirs.metric_type)
    for k in (1, 5, ours.ntotal + 3):
        got, want = ours.search(QUERIES, k, **arguments), theirs.search(QUERIES, k, **arguments)
        np.testing.assert_array_equal(got[0], want[0])
        assert (got[0].dtype, got[1].dtype) == (np.float32, np.int64)
        for row in range(len(QUERIES)):
            once = [score for score in set(want[0][row]) if (want[0][row] == score).sum() == 1]
            apart = np.isin(want[0][row], once) & (np.arange(k) < k - 1)
            np.testing.assert_array_equal(got[1][row][apart], want[1][row][apart])
            assert k <= ours.ntotal or set(got[1][row]) == set(want[1][row])


@pytest.mark.parametrize("metric", METRICS)
def test_ids_are_places_that_move_up(metric: int) -> None:
    ours, theirs = pair(metric)
    same(ours, theirs)
    for gone in (np.array([0, 7, 299, 5000]), faiss.IDSelectorRange(10, 60), np.array([], np.int64)):
        assert ours.remove_ids(gone) == theirs.remove_ids(gone)
        same(ours, theirs)
    ours.add(DOCS[:4])
    theirs.add(DOCS[:4])
    same(ours, theirs)
    np.testing.assert_array_equal(ours.reconstruct_n(), theirs.reconstruct_n(0, theirs.ntotal))
    np.testing.assert_array_equal(ours.reconstruct_n(40, 9), theirs.reconstruct_n(40, 9))
    np.testing.assert_array_equal(ours.reconstruct_batch([3, 249, 3]), theirs.reconstruct_batch(np.array([3, 249, 3])))
    ours.reset()
    theirs.reset()
    same(ours, theirs)


@pytest.mark.parametrize("metric", METRICS)
def test_ids_that_are_given_stay(metric: int) -> None:
    ids = RNG.permutation(10_000)[:300].astype(np.int64)
    ours, theirs = pair(metric, ids)
    same(ours, theirs)
    assert ours.remove_ids(ids[20:40]) == theirs.remove_ids(ids[20:40]) == 20
    same(ours, theirs)
    np.testing.assert_array_equal(ours.reconstruct(int(ids[7])), theirs.reconstruct(int(ids[7])))
    with pytest.raises(ValueError, match="is not"):
        ours.reconstruct(int(ids[20]))


@pytest.mark.parametrize("metric", METRICS)
def test_selectors(metric: int) -> None:
    bitmap = np.packbits(np.arange(304) % 3 == 0, bitorder="little")
    listed = np.array([1, 5, 250, 9999])
    selectors = [
        faiss.IDSelectorRange(3, 90),
        faiss.IDSelectorBatch(listed),
        faiss.IDSelectorArray(listed),
        faiss.IDSelectorBitmap(bitmap),
        faiss.IDSelectorNot(faiss.IDSelectorRange(3, 290)),
    ]
    ours, theirs = pair(metric)
    for selector in selectors:
        same(ours, theirs, params=faiss.SearchParameters(sel=selector))
    same(ours, theirs, params=faiss.SearchParameters())
    with pytest.raises(TypeError, match=r"params must be faiss\.SearchParameters; got int"):
        ours.search(QUERIES, 1, params=7)


@pytest.mark.parametrize("metric", METRICS)
def test_ranges(metric: int) -> None:
    ours, theirs = pair(metric)
    ours.remove_ids(np.array([2, 3]))
    theirs.remove_ids(np.array([2, 3]))
    for threshold in (-1e30, 0.0, float(np.median(ours.search(QUERIES, 300)[0][:, :298])), 1e30):
        limits, distances, ids = ours.range_search(QUERIES, threshold)
        want = theirs.range_search(QUERIES, threshold)
        np.testing.assert_array_equal(limits, want[0])
        assert limits.dtype == want[0].dtype
        for start, stop in itertools.pairwise(limits):
            got = sorted(zip(ids[start:stop], distances[start:stop]))
            assert got == sorted(zip(want[2][start:stop], want[1][start:stop]))


def test_what_is_missing_and_what_is_not_finite() -> None:
    for metric in METRICS:
        ours, theirs = pair(metric)
        queries = QUERIES.copy()
        queries[2, 3] = np.nan
        for index in (ours, theirs):
            distances, ids = index.search(queries, 3)
            assert (ids[2] == -1).all()
            assert (distances[2] == (face.WORST if metric == faiss.METRIC_L2 else -face.WORST)).all()
        assert (ours.range_search(queries, 1.0)[0][2:4] == ours.range_search(queries, 1.0)[0][2]).all()
        np.testing.assert_array_equal(ours.search(queries, 3)[1][[0, 1, 3]], ours.search(QUERIES, 3)[1][[0, 1, 3]])
        with pytest.raises(ValueError, match="row 0"):
            ours.add(np.full((1, D), np.nan, np.float32))
        assert ours.ntotal == 300


def test_results_go_where_they_are_wanted() -> None:
    ours, _ = pair(faiss.METRIC_L2)
    distances, ids = np.empty((7, 4), np.float32), np.empty((7, 4), np.int64)
    found = ours.search(QUERIES, 4, D=distances, I=ids)
    assert found[0] is distances
    assert found[1] is ids
    np.testing.assert_array_equal(ids, ours.assign(QUERIES, 4))
    vector = np.empty(D, np.float32)
    np.testing.assert_array_equal(ours.reconstruct(5, vector), DOCS[5])
    np.testing.assert_array_equal(vector, DOCS[5])
    _, places, vectors = ours.search_and_reconstruct(QUERIES, 400)
    np.testing.assert_array_equal(vectors[:, :300], DOCS[places[:, :300]])
    assert np.isnan(vectors[:, 300:]).all()
    with pytest.raises(ValueError, match=r"D must be float32 of shape \(7, 4\); got float32 of shape \(7, 3\)"):
        ours.search(QUERIES, 4, D=np.empty((7, 3), np.float32))
    distances[:] = 7
    with pytest.raises(ValueError, match=r"I must be int64 of shape \(7, 4\); got int32 of shape \(7, 4\)"):
        ours.search(QUERIES, 4, D=distances, I=ids.astype(np.int32))
    assert (distances == 7).all()


def test_tensors_are_answered_with_tensors() -> None:
    torch = pytest.importorskip("torch")
    ours = face.IndexFlatIP(D)
    ours.add(torch.from_numpy(DOCS))
    distances, ids = ours.search(torch.from_numpy(QUERIES), 3)
    want = ours.search(QUERIES, 3)
    assert isinstance(distances, torch.Tensor)
    np.testing.assert_array_equal(distances.numpy(), want[0])
    np.testing.assert_array_equal(ids.numpy(), want[1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("named", [False, True])
def test_there_and_back(metric: int, named: bool) -> None:
    ours, theirs = pair(metric, np.arange(300, dtype=np.int64)[::-1] * 5 if named else None)
    same(face.from_faiss(theirs), theirs)
    there = face.to_faiss(ours)
    same(ours, there)
    same(face.from_faiss(there), theirs)


@pytest.mark.parametrize("kind", ["IVF4,Flat", "PCA8,IVF4,Flat"])
def test_inverted_lists_keep_the_ids_that_were_given(kind: str) -> None:
    theirs = faiss.index_factory(D, kind)
    theirs.train(DOCS)
    theirs.add_with_ids(DOCS, np.arange(300) * 3 + 5)
    theirs.remove_ids(np.array([5, 302]))
    faiss.extract_index_ivf(theirs).nprobe = 4
    ours = face.from_faiss(theirs)
    np.testing.assert_array_equal(ours.search(DOCS[1:40], 1)[1][:, 0], np.arange(1, 40) * 3 + 5)
    assert (ours.ntotal, theirs.ntotal) == (298, 298)
    if kind.startswith("IVF"):
        same(ours, theirs)


def test_faiss_that_is_missing_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (face.from_faiss, face.to_faiss):
        with pytest.raises(
            ImportError, match=r"^this needs faiss-cpu, which is not installed: run 'pip install faiss-"
        ):
            call(face.IndexFlat(D))


def test_bad_input_is_a_sentence() -> None:
    ours, _ = pair(faiss.METRIC_L2)
    for call, error, words in (
        (lambda: face.IndexFlat(D, 7), ValueError, "metric must be"),
        (lambda: face.IndexFlat(0), ValueError, "d must be"),
        (lambda: ours.add(DOCS[:, :3]), ValueError, "x must have 24 dimensions"),
        (lambda: ours.search(QUERIES[0], 1), ValueError, r"x must have shape \[n, D\]"),
        (lambda: ours.search(QUERIES, 0), ValueError, "k must be"),
        (lambda: ours.add_with_ids(DOCS, np.arange(300)), ValueError, "ids of this index are places"),
        (lambda: ours.add_with_ids(DOCS, None), TypeError, "ids must"),
        (lambda: ours.reconstruct(300), ValueError, "key must be below ntotal, 300"),
        (lambda: ours.reconstruct_n(299, 2), ValueError, "n0 and ni must lie within the 300 vectors"),
        (lambda: face.to_faiss(DOCS), TypeError, "index must be an IndexFlat of this module; got ndarray"),  # type: ignore[arg-type]
        (lambda: face.from_faiss(DOCS), TypeError, "index must be a faiss index; got ndarray"),
        (lambda: face.from_faiss(faiss.IndexFlat(D, faiss.METRIC_L1)), ValueError, "metric must be"),
    ):
        with pytest.raises(error, match=words):
            call()
    assert ours.ntotal == 300

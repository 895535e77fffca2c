"""Residual codes of tokens, and the centroids that they are residuals of."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import MultiVectorIndex, Ragged, conformance
from pyengine.backends import registry
from pyengine.indexes import kmeans, storage, token_store
from pyengine.indexes.codecs import CODECS, RESIDUALS
from pyengine.inputs.rows import Rows, bfloat16_values
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.specification import reference_maxsim as spec
from pyengine.types import F32

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison"),
    pytest.mark.skipif(exact.native() is None, reason="the extension is not built"),
]
residuals = pytest.mark.parametrize("codec", RESIDUALS)


def hostile(dim: int) -> F32:
    """Zeros, denormals, huge and tiny tokens, equal values, one value, and clusters among ordinary ones."""
    rng = np.random.default_rng(dim)
    rows = rng.standard_normal((300, dim)).astype(np.float32)
    rows[0], rows[1], rows[2], rows[3] = 0, 1e-45, -0.25, 6e4
    rows[4:10] *= 1e-5
    rows[10:16] = np.float32(1e-42) * np.round(rows[10:16] * 4)
    rows[16:20, 1:] = 0
    rows[20:120] = rows[rng.integers(120, 124, 100)] + np.float32(0.01) * rows[20:120]
    rows[124:130] *= np.float32(3e38) / np.abs(rows[124:130]).max()
    return rows


def index_of(rows: F32, codec: str = "residual2", originals: str | None = None, **options: Any) -> MultiVectorIndex:
    """An index of one-token documents."""
    index = MultiVectorIndex(rows.shape[1], codec, originals, **options)
    index.add(rows[:, None])
    return index


def kept_rows(index: MultiVectorIndex) -> Rows:
    contents = index._contents
    rows = contents.store.view(contents.store.heads(contents.n_rows), None).rows
    assert isinstance(rows, Rows)
    return rows


def centroids_of(index: MultiVectorIndex) -> F32:
    centroids: F32 = index._contents.store.share["centroids"]
    return centroids


def relative_error(rows: F32, codec: str) -> float:
    index = index_of(rows, codec)
    return float(np.linalg.norm(index.tokens(index.ids).values - rows) / np.linalg.norm(rows))


@residuals
@pytest.mark.parametrize("dim", [1, 3, 64, 65, 130, 200])
def test_kernels_decode_as_numpy_does(isa: str, codec: str, dim: int) -> None:
    rows = kept_rows(index_of(hostile(dim), codec))
    decoded = exact.decode(rows)
    np.testing.assert_array_equal(decoded.view(np.int32), rows[:].view(np.int32))
    assert np.isfinite(decoded).all()


@residuals
def test_a_vector_is_its_centroid_and_odd_steps(codec: str) -> None:
    rows = kept_rows(index_of(hostile(65), codec))
    assert rows.step is not None
    assert rows.centroid is not None
    assert rows.centroids is not None
    odd = Rows("planes", rows.data, 65, np.ones(300, np.float32), RESIDUALS[codec])[:].astype(np.float64)
    exactly = bfloat16_values(rows.step)[:, None] * odd + rows.centroids[rows.centroid]
    np.testing.assert_array_equal(rows[:], exactly.astype(np.float32))  # products are exact, and a sum is rounded once


@residuals
@pytest.mark.parametrize("originals", [None, "ram", "disk"])
def test_a_search_is_exact_on_hostile_tokens(isa: str, codec: str, originals: str | None) -> None:
    rows = hostile(65)
    docs = Ragged(rows, np.sort(np.r_[0, np.random.default_rng(1).integers(0, 301, 30), 300]))
    queries = Ragged(rows[100:140:3], [0, 5, 5, 6, 14])
    for normalize in (False, True):
        index = MultiVectorIndex(65, codec, originals, normalize)
        index.add(docs)
        kept = docs if originals else index.tokens(index.ids)
        want = spec.topk(queries, kept, 7, normalize=normalize)
        conformance.same(index.search(queries, 7, backend="cpu"), want, f"{codec}, {originals}")


def test_the_largest_floats_do_not_overflow() -> None:
    rng = np.random.default_rng(2)
    rows = rng.choice(np.array([3.4028235e38, -3.4028235e38, 1e38, 0, 1e-45], np.float32), (200, 5))
    for codec in RESIDUALS:
        for index in (index_of(rows, codec), MultiVectorIndex(5, codec, None)):
            if not len(index):
                index.train(rows[:3, None], centroids=2)  # far from most
                index.add(rows[:, None])
            assert np.isfinite(index.tokens(index.ids).values).all()


def test_more_bits_and_more_centroids_are_closer() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((1, 40, 64)) + 0.7 * rng.standard_normal((50, 40, 64))
    flat = rows.reshape(-1, 64).astype(np.float32)
    errors = [relative_error(flat, codec) for codec in RESIDUALS]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.4  # 0.60 of 0.57
    assert errors[-1] < 0.07
    wide, narrow = MultiVectorIndex(64, "residual1", None), MultiVectorIndex(64, "residual1", None)
    wide.train(rows, centroids=64)
    narrow.train(rows, centroids=2)
    for index in (wide, narrow):
        index.add(rows)
    off = [np.linalg.norm(each.tokens(each.ids).values - flat) for each in (wide, narrow)]
    assert off[0] < off[1]


def test_as_many_centroids_as_colbert_takes() -> None:
    counts = [kmeans.count_for(n) for n in (0, 1, 3, 100, 256, 1 << 17, 1 << 20, 1 << 40)]
    assert counts == [0, 1, 2, 64, 256, 4096, 16384, 65536]


def test_kmeans_is_lloyds_algorithm() -> None:
    rows = np.random.default_rng(4).integers(-3, 4, (200, 3)).astype(np.float32)  # many are equally near
    centroids = kmeans.kmeans(rows, 16)
    want = rows[np.sort(np.random.default_rng(kmeans.SEED).choice(200, 16, replace=False))]
    for _ in range(kmeans.ROUNDS):
        nearest = reference.topk(rows, want, 1, "l2").ids[:, 0]
        for c in np.unique(nearest):
            want[c] = rows[nearest == c].astype(np.float64).sum(axis=0) / (nearest == c).sum()
    np.testing.assert_array_equal(centroids, want)


def test_centroids_do_not_depend_on_isa_threads_or_pieces(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = hostile(33)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    want = centroids_of(index_of(rows))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    index = MultiVectorIndex(33, "residual2", None)
    index.add(iter([rows[:7, None], rows[7:8, None], rows[8:, None]]))
    np.testing.assert_array_equal(centroids_of(index), want)


def test_the_first_pieces_are_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "SAMPLE", 100)
    rows, read = hostile(8), []

    def chunks() -> Iterator[Any]:
        for start in range(0, 300, 60):
            read.append(start)
            yield rows[start : start + 60, None]

    index = MultiVectorIndex(8, "residual4", None)
    index.add(chunks())
    assert read == [0, 60, 120, 180, 240]
    np.testing.assert_array_equal(centroids_of(index), kmeans.kmeans(rows[:100], 64))
    assert len(index) == 300


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [0, 1], [1], [2, 0]])
def test_few_tokens_are_enough(lengths: list[int]) -> None:
    docs = [np.full((n, 3), [1, -2, 3], np.float32) for n in lengths]
    index = MultiVectorIndex(3, "residual1", None)
    index.add(docs)
    kept = index.tokens(index.ids)
    assert kept.lengths.tolist() == lengths
    assert (kept.values == [1, -2, 3]).all()  # a centroid, and nothing left
    queries = Ragged(np.ones((2, 3)), [0, 2])
    conformance.same(index.search(queries, 2), spec.topk(queries, kept, 2), str(lengths))
    index.add([np.eye(3)])
    assert len(centroids_of(index)) > 0


def test_later_documents_share_the_centroids() -> None:
    rows = hostile(16)
    index = index_of(rows[130:])
    before = centroids_of(index).copy()
    index.add(rows[:130, None])
    index.remove(index.ids[:100])
    index.compact()
    np.testing.assert_array_equal(centroids_of(index), before)


def test_training_beforehand() -> None:
    rows = hostile(16)
    index = MultiVectorIndex(16, "residual2", None)
    index.train(rows[None], centroids=8)
    assert (len(index), len(centroids_of(index))) == (0, 8)
    again = pickle.loads(pickle.dumps(index))
    for each in (index, again):
        each.add(rows[:, None])
        np.testing.assert_array_equal(centroids_of(each), kmeans.kmeans(rows, 8))


def test_a_failed_first_add_leaves_no_centroids() -> None:
    rows = hostile(4)
    index = MultiVectorIndex(4, "residual2", None)

    def failing() -> Iterator[Any]:
        yield rows[:50, None]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        index.add(failing())
    with pytest.raises(ValueError, match="docs must be finite in float32; token 0 of row 1 holds"):
        index.add([rows[:2], [[np.nan] * 4]])
    with pytest.raises(ValueError, match=r"^ids must be"):
        index.add([rows[:2], rows[:2]], ids=[3, 3])
    assert len(centroids_of(index)) == 0
    index.add(rows[130:, None])
    np.testing.assert_array_equal(centroids_of(index), kmeans.kmeans(rows[130:], 128))


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("originals", [None, "ram", "disk"])
def test_saved_and_loaded(tmp_path: Path, mmap: bool, originals: str | None) -> None:
    rows = hostile(20)
    index = index_of(rows, "residual2", originals)
    index.remove([5])
    index.save(tmp_path)
    again = pe.load(tmp_path, mmap=mmap)
    np.testing.assert_array_equal(centroids_of(again), centroids_of(index))
    for each in (index, again):
        each.add(rows[:9, None])
    queries = Ragged(rows[:9], [0, 4, 9])
    conformance.same(again.search(queries, 9), index.search(queries, 9), f"{mmap}, {originals}")


def test_an_untrained_index_is_saved_too(tmp_path: Path) -> None:
    MultiVectorIndex(4, "residual2", None).save(tmp_path)
    for mmap in (False, True):
        index = pe.load(tmp_path, mmap=mmap)
        index.add([np.eye(4)])
        assert len(centroids_of(index)) == 4


def altered(folder: Path, name: str, values: Any) -> None:
    """The array of that name with other values, as if the index had been saved so."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content.pop("blake2b")
    entry = storage._write_array(str(folder), f"{next(folder.glob('data-*')).name}/other_{name}.npy", values, None)
    content["arrays"][name] = entry
    if name == "centroids":
        content["centroids"] = len(values)
    path.write_text(json.dumps(content | {"blake2b": storage._content_hash(content)}, indent=1))


WRONG = {
    "centroids": (np.full((64, 4), np.nan, np.float32), "must list centroids of finite numbers; got others"),
    "centroid": (np.full(100, 64, np.uint16), "must list numbers of its 64 centroids; got others"),
    "step": (np.full(100, 0x7F80, np.uint16), "must list steps of finite numbers; got others"),
}


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_what_no_index_saves_is_refused(tmp_path: Path, name: str, mmap: bool) -> None:
    for originals in (None, "ram"):
        index_of(hostile(4)[:100], "residual2", originals).save(tmp_path)
        values, message = WRONG[name]
        altered(tmp_path, name, values)
        with pytest.raises(ValueError, match=message):
            pe.load(tmp_path, mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_manifest_without_centroids_is_refused(tmp_path: Path, mmap: bool) -> None:
    index_of(hostile(4)[:100]).save(tmp_path)
    path = tmp_path / "manifest.json"
    whole = json.loads(path.read_text())
    whole.pop("blake2b")
    fewer = {name: entry for name, entry in whole["arrays"].items() if name != "centroids"}
    for content, message in (
        (whole | {"arrays": fewer}, "must list the arrays .*, centroids.*; got others"),
        ({name: each for name, each in whole.items() if name != "centroids"}, "must give centroids as an integer"),
    ):
        path.write_text(json.dumps(content | {"blake2b": storage._content_hash(content)}, indent=1))
        with pytest.raises(ValueError, match=message):
            pe.load(tmp_path, mmap=mmap)
    altered_none = np.empty((0, 4), np.float32)
    path.write_text(json.dumps(whole | {"blake2b": storage._content_hash(whole)}, indent=1))
    altered(tmp_path, "centroids", altered_none)
    with pytest.raises(ValueError, match="must list numbers of its 0 centroids; got others"):
        pe.load(tmp_path, mmap=mmap)


def test_bytes_are_a_fourteenth() -> None:
    for codec, per_token in (("residual1", 16 + 4), ("residual2", 32 + 4), ("residual4", 64 + 4)):
        index = index_of(np.ones((10, 128), np.float32), codec)
        own = index._contents.store.nbytes(10) - centroids_of(index).nbytes
        assert own == 10 * per_token + 11 * 8  # offsets
    assert 4 * 128 / (32 + 4) > 14


@residuals
def test_beside_originals_codes_rank_and_the_plan_says_so(isa: str, codec: str) -> None:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((40, 32))
    rows = (centres[rng.integers(0, 40, 4000)] + 0.5 * rng.standard_normal((4000, 32))).astype(np.float32)
    docs = Ragged(rows, np.arange(0, 4001, 20))
    index = MultiVectorIndex(32, codec, "ram")
    index.add(docs)
    queries = Ragged(rows[:80] + np.float32(0.1), np.arange(0, 81, 8))
    want = spec.topk(queries, docs, 10)
    conformance.same(index.search(queries, 10, backend="cpu"), want, codec)
    fast = index.search(queries, 10, precision="fast", rescore=4, backend="cpu")
    assert not fast.certified.any()
    assert np.isin(fast.ids, want.ids).mean() > 0.9
    said = f"{RESIDUALS[codec]}-bit bounds are too loose to prune; originals are scanned"
    assert said in str(index.explain(queries, 10, backend="cpu"))
    assert said not in str(index.explain(queries, 10, precision="fast", backend="cpu"))


def test_every_backend_searches_residuals(engine: str) -> None:
    rows = hostile(20)[120:]
    docs, queries = Ragged(rows, np.arange(0, 181, 6)), Ragged(rows[:30], np.arange(0, 31, 3))
    index = MultiVectorIndex(20, "residual2", None)
    index.add(docs)
    if engine not in registry.FAMILIES["maxsim"]:
        pytest.skip("it has no MaxSim")
    want = spec.topk(queries, index.tokens(index.ids), 5)
    conformance.same(index.search(queries, 5, backend=engine), want, engine)


def test_bad_input_is_one_sentence() -> None:
    assert "residual3" not in CODECS
    index = MultiVectorIndex(4, "residual2", None)
    with pytest.raises(ValueError, match="docs must hold at least one token to train on; got none"):
        index.train([np.empty((0, 4))])
    with pytest.raises(ValueError, match="centroids must be at most 65536; got 65537"):
        index.train([np.eye(4)], centroids=65537)
    with pytest.raises(ValueError, match="centroids must be a positive integer"):
        index.train([np.eye(4)], centroids=0)
    with pytest.raises(ValueError, match="docs must be finite in float32; token 1 of row 2 holds"):
        index.train([np.eye(4), np.eye(4), np.full((2, 4), [[1], [np.inf]])])
    assert len(centroids_of(index)) == 0
    index.add([np.eye(4)])
    with pytest.raises(ValueError, match="train must come before documents are added; the index holds 1"):
        index.train([np.eye(4)])
    with pytest.raises(ValueError, match="train must be for a codec of residuals; got codec 'int8'"):
        MultiVectorIndex(4).train([np.eye(4)])
    with pytest.raises(ValueError, match="originals must be one of 'ram', 'disk', None; got 'tape'"):
        MultiVectorIndex(4, "residual2", "tape")

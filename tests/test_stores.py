"""Stores beyond float32 and int8 codes: what they keep, what that means, and that a search of it is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyengine import DenseIndex, backends, conformance
from pyengine.indexes import stores
from pyengine.inputs.rows import Rows, to_bfloat16
from pyengine.problems.problem import Codes, Documents
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison"),
    pytest.mark.skipif(exact.native() is None, reason="not built"),
]
metrics = pytest.mark.parametrize("metric", reference.METRICS)
LOSSY = [("float16", "ram"), ("bfloat16", "ram"), *((name, None) for name in ("int8", *stores.PLANES))]
DIMS = (1, 3, 64, 65, 130, 200)
lossy = pytest.mark.parametrize(("name", "originals"), LOSSY, ids=[name for name, _ in LOSSY])


def hostile(dim: int, seed: int = 0) -> F32:
    """Zeros, denormals, huge and tiny rows, rows of equal values, rows of one value, and ties among ordinary ones."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((90, dim)).astype(np.float32)
    rows[0], rows[1], rows[2], rows[3] = 0, 1e-45, -0.25, 6e4
    rows[4:10] *= 1e-5
    rows[10:16] = np.float32(1e-42) * np.round(rows[10:16] * 4)
    rows[16:20, 1:] = 0
    rows[20:40] = rows[rng.integers(40, 44, 20)]
    return rows


def documents(name: str, originals: str | None, rows: F32) -> Documents:
    store = stores.make(name, originals, rows.shape[1])
    store.append(rows)
    return store.documents()


@lossy
@pytest.mark.parametrize("dim", DIMS)
def test_kernels_decode_as_numpy_does(isa: str, name: str, originals: str | None, dim: int) -> None:
    rows = documents(name, originals, hostile(dim)).rows
    decoded = exact.decode(rows)
    np.testing.assert_array_equal(decoded.view(np.int32), rows[:].view(np.int32))
    assert np.isfinite(decoded).all()


def test_every_float16_is_decoded(isa: str) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = halves[np.isfinite(halves)].reshape(-1, 31)
    rows = Rows("float16", np.ascontiguousarray(every), 31)
    np.testing.assert_array_equal(exact.decode(rows).view(np.int32), every.astype(np.float32).view(np.int32))


def test_bfloat16_is_the_nearest_with_ties_to_even() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(1).integers(0, 0x7F7F0000, 20_000, dtype=np.uint32)
    bits[:2000] = bits[:2000] & 0xFFFF0000 | 0x8000  # halfway
    values = np.concatenate([bits.view(np.float32), -bits.view(np.float32)])
    want = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    np.testing.assert_array_equal(to_bfloat16(values), want)


@pytest.mark.parametrize("originals", ["ram", "disk"])
@pytest.mark.parametrize("dim", DIMS)
def test_one_pass_keeps_what_several_make(isa: str, dim: int, originals: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes, bounds, norms and vectors that `add` writes together are those that one makes of the rows apart."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    rows = np.concatenate([hostile(dim, seed) for seed in range(3)])
    store = stores.make("int8", originals, dim)
    for part in (rows[:1], rows[1:1], rows[1:8], rows[8:]):
        store.append(part)
    found = store.documents()
    assert isinstance(found.codes, Codes)
    kept = (found.codes.codes, found.codes.scale, found.codes.residual, found.norms, found.rows)
    for each, want in zip(kept, (*exact.quantize(rows, 1), exact.norms(rows, dim, 1), rows), strict=True):
        assert np.asarray(each).tobytes() == np.asarray(want).tobytes()


def test_of_rows_that_are_not_finite_the_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    rows, index = np.ones((1000, 3), np.float32), DenseIndex(3, "dot", backend="cpu")
    index.add(rows[:10])
    rows[[130, 700]], rows[999, 1] = np.inf, np.nan
    with pytest.raises(ValueError, match=r"^vectors must be finite in float32; row 130 holds"):
        index.add(rows)
    index.add(rows[:100])
    assert len(index) == 110


@metrics
@lossy
@pytest.mark.parametrize("dim", DIMS)
def test_a_search_is_exact_on_what_is_kept(isa: str, name: str, originals: str | None, dim: int, metric: str) -> None:
    rows, rng = hostile(dim), np.random.default_rng(2)
    kept = documents(name, originals, rows).vectors()
    index = DenseIndex(dim, metric, name, originals)
    index.add(rows[:50])
    index.add(rows[50:])
    queries = np.concatenate([kept[38:44], rng.standard_normal((4, dim)).astype(np.float32)])
    some: dict[str, Any] = {"mask": rng.random(90) < 0.6, "bias": rng.standard_normal(90), "dims": (dim + 1) // 2}
    for options in ({}, some):
        want = reference.topk(queries, kept, 20, metric, **options)
        conformance.same(index.search(queries, 20, **options, backend="cpu"), want, f"{name}, {len(options)} options")


@metrics
@lossy
def test_every_backend_searches_what_is_kept(engine: str, name: str, originals: str | None, metric: str) -> None:
    rows = hostile(65, seed=3)
    index = DenseIndex(65, metric, name, originals)
    index.add(rows)
    want = reference.topk(rows[40:48], documents(name, originals, rows).vectors(), 10, metric)
    conformance.same(index.search(rows[40:48], 10, backend=engine), want, name)


@pytest.mark.parametrize("name", ["int8", *stores.PLANES])
def test_codes_that_are_the_vectors_leave_rounding_only(isa: str, name: str) -> None:
    docs = documents(name, None, hostile(130))
    codes, vectors, norms = docs.codes, docs.vectors().astype(np.float64), docs.norms
    assert isinstance(codes, Codes)
    assert norms is not None
    ones = np.ones(len(docs), np.float32)
    kind = ("planes", codes.codes, 130, ones, codes.planes) if codes.planes else ("codes", codes.codes, 130, ones)
    integers = Rows(*kind)[:].astype(np.float64)
    units = np.divide(vectors, norms[:, None], out=np.zeros_like(vectors), where=norms[:, None] > 0)
    off = np.linalg.norm(units - codes.scale[:, None].astype(np.float64) * integers, axis=1)
    assert (off[norms > 0] <= codes.residual[norms > 0]).all()
    assert (codes.residual <= 1e-6).all()


def test_more_planes_are_closer() -> None:
    rows = np.random.default_rng(4).standard_normal((200, 768)).astype(np.float32)
    errors = []
    for name in stores.PLANES:
        kept = documents(name, None, rows).vectors()
        errors.append(np.linalg.norm(rows - kept) / np.linalg.norm(rows))
    assert np.allclose(errors, [0.603, 0.345, 0.194, 0.107], atol=0.005)  # Max's quantiser of a normal variable


def test_one_plane_keeps_signs_and_the_mean_magnitude() -> None:
    kept = documents("binary", None, np.array([[1, -3, 2, -0.0]], np.float32)).vectors()
    np.testing.assert_array_equal(kept, [[1.5, -1.5, 1.5, 1.5]])


@lossy
def test_what_a_store_cannot_hold_is_refused_and_changes_nothing(name: str, originals: str | None) -> None:
    index = DenseIndex(3, "dot", name, originals)
    index.add(np.eye(3))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"^vectors must be finite in float32; row 1 holds"):
            index.add([[1, 2, 3], [1, bad, 2]])
    assert len(index) == 3
    index.add(np.eye(3))
    assert len(index) == 6


@pytest.mark.parametrize(("name", "value"), [("float16", 65520.0), ("bfloat16", 3.4e38)])
def test_overflow_in_a_narrower_type_is_refused(name: str, value: float) -> None:
    index = DenseIndex(2, "dot", name)
    with pytest.raises(ValueError, match=f"^vectors must stay finite in {name}; row 1 holds a value beyond its range$"):
        index.add([[0, 1], [value, 0]])
    assert len(index) == 0


@pytest.mark.parametrize("name", ["int8", *stores.PLANES])
def test_the_largest_values_do_not_overflow(name: str) -> None:
    rows = np.array([[3.4028235e38, -3.4028235e38, 1e38], [1e-45, 0, -1e-45]], np.float32)
    kept = documents(name, None, rows).vectors()
    assert np.isfinite(kept).all()
    assert (np.sign(kept[0]) == np.sign(rows[0])).all()
    assert (np.abs(kept[1]) <= 2e-44).all()


@pytest.mark.parametrize("name", stores.PLAIN)
def test_a_store_without_codes_needs_its_vectors(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"^originals must be 'ram' for store '{name}', which keeps vectors and no codes; got None"
    ):
        DenseIndex(4, store=name, originals=None)


def test_bytes_are_counted() -> None:
    rows = np.ones((10, 128), np.float32)
    per_row = {"float16": 256 + 8, "bfloat16": 256 + 8, "int8": 128 + 20, "binary": 16 + 20, "residual4": 64 + 20}
    for name, want in per_row.items():
        store = stores.make(name, "ram" if name in stores.PLAIN else None, 128)
        store.append(rows)
        assert store.nbytes(10) == 10 * want


@metrics
@pytest.mark.parametrize("name", stores.PLANES)
def test_with_originals_a_search_is_exact_on_them(engine: str, name: str, metric: str) -> None:
    rows = hostile(65, seed=5)
    index = DenseIndex(65, metric, name)
    index.add(rows)
    want = reference.topk(rows[40:48], rows, 10, metric)
    conformance.same(index.search(rows[40:48], 10, backend=engine), want, name)
    fast = index.search(rows[40:48], 10, precision="fast", backend=engine)
    assert not fast.certified.any()


@pytest.mark.parametrize("name", stores.PLANES)
def test_residuals_of_planes_hold_and_the_plan_says_that_they_are_loose(isa: str, name: str) -> None:
    rows = hostile(130)
    index = DenseIndex(130, store=name)
    index.add(rows)
    assert "too loose" not in str(index.explain(rows[:2], 5, precision="fast", backend="cpu"))
    said = str(index.explain(rows[:2], 5, backend="cpu"))
    assert f"{stores.PLANES[name]}-bit bounds are too loose to prune; originals are scanned" in said
    docs = documents(name, "ram", rows)
    codes = docs.codes
    assert isinstance(codes, Codes)
    integers = Rows("planes", codes.codes, 130, np.ones(len(docs), np.float32), codes.planes)[:].astype(np.float64)
    norms = reference.norm(rows)[:, None]
    units = np.divide(rows, norms, out=np.zeros(rows.shape), where=norms > 0)
    off = np.linalg.norm(units - codes.scale[:, None].astype(np.float64) * integers, axis=1)
    assert (off <= codes.residual).all()
    assert (codes.residual[norms[:, 0] > 1e-30] < 1).all()


def test_codes_propose_nearly_the_best(isa: str) -> None:
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((2000, 128)).astype(np.float32)
    queries = rows[:50] + rng.standard_normal((50, 128)).astype(np.float32)
    want = reference.topk(queries, rows, 10).ids
    recall = []
    for name in stores.PLANES:
        index = DenseIndex(128, store=name)
        index.add(rows)
        found = index.search(queries, 10, precision="fast", backend="cpu").ids
        recall.append(np.mean([np.isin(a, b).mean() for a, b in zip(found, want)]))
    assert recall == sorted(recall)
    assert recall[0] > 0.3
    assert recall[-1] > 0.85


@metrics
@pytest.mark.parametrize("dim", [1, 3, 64, 65, 130, 513, 700])
def test_sign_vectors_meet_binary_codes_by_popcount(isa: str, dim: int, metric: str) -> None:
    rows, rng = hostile(dim), np.random.default_rng(7)
    rows[:, 0] *= 10.0 ** rng.uniform(-5, 5, 90).astype(np.float32)
    index = DenseIndex(dim, metric, "binary", None)
    index.add(rows)
    kept, bias = documents("binary", None, rows).vectors(), rng.standard_normal(90)
    for n_queries in (1, 4, 5, 9, 17, 33, 40):
        queries = np.copysign(rng.choice([0.3, 1, 7]), rng.standard_normal((n_queries, dim))).astype(np.float32)
        for options in ({}, {"bias": bias}, {"dims": (dim + 1) // 2}, {"mask": bias > 0}):
            want = reference.topk(queries, kept, 10, metric, **options)
            conformance.same(index.search(queries, 10, **options, backend="cpu"), want, f"{n_queries} queries")


def test_popcounts_with_thresholds_that_rise(isa: str) -> None:
    """Enough documents for a sample and many tiles, in an order that misleads."""
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((20_000, 96)).astype(np.float32)
    rows = rows[np.argsort(rows.sum(axis=1))]
    index = DenseIndex(96, "dot", "binary", None)
    index.add(rows)
    queries = np.sign(rng.standard_normal((6, 96))).astype(np.float32)
    want = reference.topk(queries, documents("binary", None, rows).vectors(), 10, "dot")
    conformance.same(index.search(queries, 10, backend="cpu"), want, "popcounts")


@pytest.mark.parametrize("backend", [each.name for each in backends() if each.available])
@pytest.mark.parametrize("name", ["int8", *stores.PLANES])
def test_an_empty_index_of_codes_finds_nothing(name: str, backend: str) -> None:
    found = DenseIndex(8, store=name, originals=None).search(np.ones((2, 8), np.float32), 3, backend=backend)
    assert (found.ids == -1).all()

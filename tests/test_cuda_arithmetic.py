"""The kernels' arithmetic against the specification: what one thread computes, compiled for the host, and whole kernels
in the emulator."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pyengine.backends.cuda import cuda_device, cuda_kernels
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.shared.dense_terms import Lengths, document_terms, scale_of
from pyengine.inputs import rows
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.dense_plan import tiles
from pyengine.problems.problem import Documents
from pyengine.specification import reference
from pyengine.types import F32
from tests import cuda_driver
from tests.cuda_driver import FakeDriver

FEW_TILE, _, WIDE_TILE = tiles(CHIPS["sm_90"], "i8")
ODD = np.array(
    [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 2.0**-126, 3.4028235e38, -3.4028235e38, np.inf, -np.inf], np.float32
)


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if cuda_driver.compiler() is None:
        pytest.skip("no C++ compiler")
    target = tmp_path_factory.mktemp("cuda") / "arithmetic.so"
    return ctypes.CDLL(
        str(cuda_driver.build(cuda_driver.SOURCES / "arithmetic.cpp", target, f"-I{cuda_driver.KERNELS}"))
    )


def call(function: Any, *arguments: NDArray[Any] | int) -> None:
    function(*(ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data) for a in arguments))


def test_sixteen_bits(arithmetic: ctypes.CDLL) -> None:
    """All 65,536 values of each kind."""
    bits, found = np.arange(1 << 16, dtype=np.uint16), np.empty(1 << 16, np.float32)
    call(arithmetic.of_bfloat16, bits, found, len(bits))
    assert (found.view(np.uint32) == rows.bfloat16_values(bits).view(np.uint32)).all()
    call(arithmetic.of_float16, bits, found, len(bits))
    want = rows.half_values(bits.view(np.float16))
    known = ~np.isnan(want)
    assert (found[known].view(np.uint32) == want[known].view(np.uint32)).all()
    assert np.isnan(found[~known]).all()


def test_the_nearest_of_sixteen_bits(arithmetic: ctypes.CDLL) -> None:
    """Of every value of 16 bits that is not too large, its neighbours in float32, and the middles between two."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    every = {"float16": rows.half_values(bits.view(np.float16)), "bfloat16": rows.bfloat16_values(bits)}
    for kind, values in every.items():
        values = np.sort(values[np.abs(values) < 1 << 15])
        middles = (values[1:].astype(np.float64) + values[:-1]) / 2
        some = np.concatenate([values, middles.astype(np.float32)])
        some = np.concatenate([some, np.nextafter(some, np.float32(np.inf)), np.nextafter(some, np.float32(-np.inf))])
        found = np.empty(len(some), np.uint16)
        call(getattr(arithmetic, f"to_{kind}"), some, found, len(some))
        want = some.astype(np.float16).view(np.uint16) if kind == "float16" else rows.to_bfloat16(some)
        assert (found == want).all()


def test_keys_rank_as_the_specification(arithmetic: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    rank = np.concatenate([ODD, rng.standard_normal(500).astype(np.float32).round(1), ODD])
    rank += np.float32(0)  # scores have no -0.0
    place = rng.permutation(len(rank)).astype(np.int32)
    place[0] = 0x7FFFFFFF
    keys, back = np.empty(len(rank), np.int64), np.empty(len(rank), np.float32)
    call(arithmetic.keys_of, rank, place, keys, back, len(rank))
    assert (back.view(np.uint32) == rank.view(np.uint32)).all()
    assert (np.argsort(-keys.astype(object)) == reference.best_first(rank, place.astype(np.int64))).all()
    decoded = cuda_kernels.decode(keys)
    assert (decoded[0] == rank).all()
    assert (decoded[1] == place).all()
    assert (keys > cuda_kernels.PAD).all()


def test_scores_are_rounded_once(arithmetic: ctypes.CDLL) -> None:
    rng = np.random.default_rng(1)
    scores = np.concatenate([
        rng.standard_normal(2000) * 10.0 ** rng.uniform(-50, 45, 2000), [0.0, -0.0, 1e300, -1e300, 1e-300, -1e-300],
        1 + 2.0**-24 + np.array([-1, 0, 1]) * 2.0**-50,
    ])  # fmt: skip
    found = np.empty(len(scores), np.float32)
    call(arithmetic.round_all, scores, found, len(scores))
    assert (found.view(np.uint32) == reference.round_score(scores).view(np.uint32)).all()


def test_thresholds_are_low_enough(arithmetic: ctypes.CDLL) -> None:
    """What lies strictly below one is a smaller float32 than k documents, whatever the unit of the scores."""
    rng = np.random.default_rng(2)
    kth = (rng.standard_normal(3000) * 10.0 ** rng.uniform(-38, 1, 3000)).astype(np.float32)
    centre = (rng.standard_normal(3000) * 10.0 ** rng.uniform(-38, 30, 3000)).astype(np.float32)
    found = np.empty(3000, np.float32)
    call(arithmetic.reach_all, kth, centre, found, 3000)
    unit = 10.0 ** rng.uniform(-3, 3, 3000)
    below = np.nextafter(found, np.float32(-np.inf)).astype(np.float64)
    shift = centre.astype(np.float64)
    assert (reference.round_score(unit * (below + shift)) < reference.round_score(unit * (kth + shift))).all()


def test_least_sums_are_low_enough(arithmetic: ctypes.CDLL) -> None:
    """The largest sum below one has an upper bound below the threshold; and not much is let through."""
    rng = np.random.default_rng(7)
    thresholds = (rng.choice([-1, 1], 4000) * 10.0 ** rng.uniform(-44, 10, 4000)).astype(np.float32)
    slacks = np.where(rng.random(4000) < 0.2, 0, 10.0 ** rng.uniform(-3, 8, 4000)).astype(np.float32)
    thresholds[:3], least = [np.inf, -np.inf, 2.0**-149], np.empty(4000, np.int32)
    call(arithmetic.least_sums, thresholds, slacks, least, 4000)
    assert least[:2].tolist() == [-(2**31)] * 2
    some = (least > -(2**31)) & (least < 2**31 - 1)
    upper, lower, zeros = (np.zeros(some.sum(), np.float32) for _ in range(3))
    call(arithmetic.sum_bounds_all, least[some] - np.int32(1), slacks[some], zeros, upper, lower, len(upper))
    assert (upper < thresholds[some]).all()
    away = thresholds[some].astype(np.float64) - slacks[some] - least[some]
    assert (away <= 4 + 2.0**-19 * (np.abs(thresholds[some]) + slacks[some])).all()


def test_postings_are_read_as_they_are_written(arithmetic: ctypes.CDLL) -> None:
    level, doc = np.meshgrid([-8192, -1, 0, 1, 8191, 8192], [0, 1, 16383])
    words = ((level.astype(np.int32) << 16).view(np.uint32) | (doc.astype(np.uint32) << 2)).ravel()
    levels, offsets = np.empty(len(words), np.int32), np.empty(len(words), np.int32)
    call(arithmetic.postings_all, words, levels, offsets, len(words))
    assert (levels == level.ravel()).all()
    assert (offsets == 4 * doc.ravel()).all()


def gpu() -> Gpu:
    return cuda_device.gpu_of(Documents(np.zeros((1, 1), np.float32)))


def vectors(count: int, dim: int) -> F32:
    """Of all magnitudes, with zeros, a huge and a tiny row, and one of a single value."""
    rng = np.random.default_rng(dim)
    made = (rng.standard_normal((count, dim)) * 10.0 ** rng.uniform(-18, 18, (count, 1))).astype(np.float32)
    made[1], made[2], made[3, 1:] = 0, 1e-42, 0
    return made


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("metric", cuda_kernels.METRICS)
@pytest.mark.parametrize("tile", [FEW_TILE, WIDE_TILE], ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_bounds_hold(arithmetic: ctypes.CDLL, metric: str, tile: Any, biased: bool) -> None:
    """Of all pairs: the float64 rank score lies between the bounds that the filter computes from the codes."""
    docs, queries = vectors(60, 70), vectors(7, 70)
    bias = np.random.default_rng(3).standard_normal(60) * 10.0 ** np.linspace(-9, 9, 60) if biased else None
    on, dims = gpu(), 67
    codes, scale, residual, norms = cuda_kernels.code_docs(on, on.array(docs), dims)
    exact = docs[:, :dims].astype(np.float64)
    assert np.allclose(norms, np.linalg.norm(exact, axis=1), rtol=1e-14, atol=0)
    known = document_terms(Lengths(norms, scale, residual, norms), False, bias, metric, dims)
    coded = cuda_kernels.code_queries(on, on.array(queries), on.array(known.units), metric, dims, tile, "int8")
    parts = [on.host(coded.parts).reshape(tile.parts, -1, 128)[each, :7].astype(np.int32) for each in (0, -1)]
    terms, made = np.ascontiguousarray(on.host(coded.terms)[:, :7]), on.host(codes).astype(np.int32)
    assert made.shape == (60, 128)
    assert not made[:, dims:].any()
    products = [np.ascontiguousarray(part @ made.T, dtype=np.int32) for part in parts]
    columns = np.zeros((5, 60), np.float32)
    columns[: len(known.columns)] = known.columns
    upper, lower = (np.empty((7, 60), np.float32) for _ in range(2))
    call(arithmetic.bound_codes, columns, terms, *products, upper, lower, 7, 60)

    unit, base = on.host(coded.scaling)[:7].T
    slack = scale_of(on.host(coded.scaling)[:7], dims).slack + unit * 2.0**-120
    assert np.allclose(on.host(coded.centre)[:7], base / unit, rtol=1e-7)
    scores = reference.unrounded_scores(queries[:, None, :dims], docs[None, :, :dims], metric, bias)
    rank = -scores if metric == "l2" else scores
    assert (rank <= (unit * upper.T + base + slack).T).all()
    assert (rank >= (unit * lower.T + base - slack).T).all()
    usual = np.arange(60) > 3
    if metric == "cosine" and not biased:
        assert (upper - lower)[:, usual].max() < (0.05 if tile is FEW_TILE else 0.1)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("metric", cuda_kernels.METRICS)
@pytest.mark.parametrize("tile", [FEW_TILE, WIDE_TILE], ids=str)
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_bounds_of_halves_hold(arithmetic: ctypes.CDLL, metric: str, tile: Any, kind: str) -> None:
    """The same for documents of 16 bits, of products that are summed in float32 as badly as may be."""
    decode: Any = rows.half_values if kind == "float16" else rows.bfloat16_values
    exact, queries, on, dims = vectors(60, 70), vectors(7, 70), gpu(), 67
    kept: Any = np.clip(exact, -6e4, 6e4).astype(np.float16) if kind == "float16" else rows.to_bfloat16(exact)
    docs = decode(kept)
    placed = on.array(kept, kind)
    norms = cuda_kernels.norms(on, placed, dims)
    assert np.allclose(norms, np.linalg.norm(docs[:, :dims].astype(np.float64), axis=1), rtol=1e-14, atol=0)
    bias = np.random.default_rng(3).standard_normal(60)
    known = document_terms(Lengths(norms), False, bias, metric, dims)
    coded = cuda_kernels.code_queries(on, on.array(queries), on.array(known.units), metric, dims, tile, kind)
    words = Array(coded.parts.owner, coded.parts.pointer, coded.parts.shape, "uint16", coded.parts.stride)
    bits = on.host(words).reshape(tile.parts, -1, 128)[:, :7]
    assert not bits[:, :, dims:].any()
    parts = [decode(each.view(np.float16) if kind == "float16" else each).astype(np.float64) for each in bits]
    upper, lower = (np.empty((7, 60), np.float32) for _ in range(2))
    wide = np.zeros((60, 128))
    wide[:, :dims] = docs[:, :dims]
    for worst in (-1, 1):  # each sum off by what the model of tensor cores allows
        off = [worst * dims * 2.0**-22 * (np.abs(part) @ np.abs(wide.T)) for part in parts]
        products = [(part @ wide.T + each).astype(np.float32) for part, each in zip(parts, off)]
        second = products[1] if tile.parts == 2 else np.zeros_like(products[0])
        columns = np.ascontiguousarray(known.columns)
        terms = np.ascontiguousarray(on.host(coded.terms)[:, :7])
        call(arithmetic.bound_halves, columns, terms, products[0], second, upper, lower, 7, 60)
        unit, base = on.host(coded.scaling)[:7].T
        slack = scale_of(on.host(coded.scaling)[:7], dims).slack + unit * 2.0**-120
        scores = reference.unrounded_scores(queries[:, None, :dims], docs[None, :, :dims], metric, bias)
        rank = -scores if metric == "l2" else scores
        assert not (rank > (unit * upper.T + base + slack).T).any()  # what has none passes
        assert not (rank < (unit * lower.T + base - slack).T).any()
        usual = np.isfinite(known.columns[1])
        assert usual.mean() > 0.8
        if metric == "cosine":
            assert (upper - lower)[:, usual].max() < (1e-3 if tile is FEW_TILE else 0.02)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("metric", cuda_kernels.METRICS)
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("dims", [1, 7, 8, 65])
def test_refined_scores_have_the_bits_of_the_specification(metric: str, kind: str, dims: int) -> None:
    rng, on, step = np.random.default_rng(dims), gpu(), None
    docs, queries = vectors(50, 66), vectors(4, 66)
    kept: NDArray[Any] = docs
    if kind == "float16":
        kept = np.clip(docs, -6e4, 6e4).astype(np.float16)
        docs = rows.half_values(kept)
    elif kind == "bfloat16":
        kept = rows.to_bfloat16(docs)
        docs = rows.bfloat16_values(kept)
    elif kind == "int8":
        kept, step = rng.integers(-128, 128, (50, 66), np.int8), rng.standard_normal(50).astype(np.float32)
        docs = kept.astype(np.float32) * step[:, None]
    bias = rng.standard_normal(50) if dims == 8 else None
    listed = [rng.permutation(50)[:count] for count in (0, 1, 33, 50)]
    counts = np.array([len(each) for each in listed], np.int32)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    scores = on.empty((84,), "float32")
    cuda_kernels.refine_pairs(
        on, on.array(queries), on.array(kept, kind), None if step is None else on.array(step),
        None if bias is None else on.array(bias), on.array(np.concatenate(listed).astype(np.int32)), on.array(starts),
        on.array(counts), scores, 50, metric, dims,
    )  # fmt: skip
    with np.errstate(over="ignore"):
        want = reference.scores(queries, docs, metric, bias, dims)
    expected = np.concatenate([want[q, each] for q, each in enumerate(listed)])
    assert (on.host(scores).view(np.uint32) == expected.view(np.uint32)).all()


def filled(on: Gpu, capacity: int, counts: list[int]) -> tuple[cuda_kernels.Pools, F32, NDArray[np.int32]]:
    """Pools of so many places, with bounds of which many are equal."""
    rng = np.random.default_rng(capacity)
    lower = rng.standard_normal((len(counts), capacity)).astype(np.float32).round(1)
    lower.flat[: len(ODD)] = ODD
    lower += np.float32(0)  # scores have no -0.0
    places = np.stack([rng.permutation(capacity * 2)[:capacity] for _ in counts]).astype(np.int32)
    pools = cuda_kernels.pools(on, len(counts), capacity)
    upper = lower + np.float32(0.25)
    return (
        pools._replace(
            rows=on.array(places), lower=on.array(lower), upper=on.array(upper),
            counts=on.array(np.array(counts, np.int32)),
        ),
        lower,
        places,
    )  # fmt: skip


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("capacity", [256, 1024])
@pytest.mark.parametrize("k", [1, 7, 250])
def test_tighten(capacity: int, k: int) -> None:
    """The threshold is that of the k-th largest lower bound, and what may reach it stays, in its order."""
    on, counts = gpu(), [0, 6, 250, capacity, capacity + 9]
    pools, lower, places = filled(on, capacity, counts)
    centre = on.array(np.linspace(-1, 1, len(counts), dtype=np.float32))
    launch: list[Array | int] = [pools.rows, pools.upper, pools.lower, pools.counts, pools.threshold, centre]
    on.launch("tighten", (len(counts), 1), cuda_kernels.SELECT_THREADS, *launch, capacity, k)
    kept, thresholds = on.host(pools.counts), on.host(pools.threshold)
    for q, count in enumerate(np.minimum(counts, capacity)):
        least = np.float32(-np.inf)
        if count >= k:
            kth = np.sort(lower[q, :count])[::-1][k - 1]
            away = np.float32(2.0**-21) * abs(kth + on.host(centre)[q]) if np.isfinite(kth) else np.float32(0)
            least = np.float32(np.float32(kth - away) - np.float32(2.0**-118))
        assert thresholds[q] == least
        stays = lower[q, :count] + np.float32(0.25) >= least
        assert kept[q] == stays.sum()
        assert (on.host(pools.rows)[q, : kept[q]] == places[q, :count][stays]).all()
        assert (on.host(pools.lower)[q, : kept[q]] == lower[q, :count][stays]).all()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("negate", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("k", [1, 40, 300])
def test_select(k: int, ordered: bool, negate: bool) -> None:
    """The best by score, then by place, as the specification sorts; ties at the edge are cut where it cuts them."""
    on, counts = gpu(), [0, 6, 250, 256]
    pools, scores, places = filled(on, 256, counts)
    order = np.random.default_rng(5).permutation(512).astype(np.int32)
    keys = cuda_kernels.select(on, pools.lower, pools, k, on.array(order) if ordered else None, negate)
    rank, place = cuda_kernels.decode(keys)
    for q, count in enumerate(counts):
        by = order[places[q, :count]] if ordered else places[q, :count]
        mine = (-scores if negate else scores)[q, :count] + np.float32(0)
        best = reference.best_first(mine, by.astype(np.int64))[:k]
        assert (keys[q, len(best) :] == cuda_kernels.PAD).all()
        assert (rank[q, : len(best)] == mine[best]).all()
        assert (place[q, : len(best)] == by[best]).all()


def test_a_write_beyond_an_allocation_is_seen(emulated: FakeDriver) -> None:
    on = gpu()
    pools, _, _ = filled(on, 256, [0])
    best = on.empty((1, 1), "int64")
    on.launch("select_best", (1, 1), 512, pools.lower, pools.rows, pools.counts, best, None, 256, 3, False)
    before = emulated.trouble
    del best
    assert (before, emulated.trouble) == ("", "a write beyond an allocation")
    emulated.forget()

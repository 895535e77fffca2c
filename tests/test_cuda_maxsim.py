"""Late interaction by the CUDA kernels, run by an emulator: bounds that hold in float64, answers of the specification
to the bit, nothing written where nothing is."""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_device, cuda_maxsim, cuda_maxsim_kernels, cuda_tokens
from pyengine.backends.shared import token_terms
from pyengine.conformance import rank_scores
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.maxsim_plan import CUDA_FORMS, cuda_tiles
from pyengine.problems.problem import Documents
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.searches import maxsim_request
from pyengine.searches.search import exact_search, fast_search
from pyengine.specification.reference import FLOAT32_MAX
from tests import cuda_driver, maxsim_cases
from tests.cuda_driver import FakeDriver
from tests.maxsim_cases import CASES, SCORINGS, SETS, Sets, available

check = partial(maxsim_cases.check, name="cuda")
pytestmark = pytest.mark.usefixtures("emulated", "poison")
BACKEND = registry.of_family("cuda", "maxsim")


def some(seed: int, count: int, longest: int) -> list[int]:
    """Lengths of documents, some of them 0."""
    lengths: list[int] = np.random.default_rng(seed).integers(0, longest + 1, count).tolist()
    return lengths


@pytest.mark.parametrize("sets", available(SETS), ids=str)
def test_answers_are_the_specification_s(sets: Sets) -> None:
    check(sets.problem())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(case: conformance.MaxSimCase) -> None:
    assert conformance.run(case, "cuda") == []


TILED = [  # lengths of queries, dimensions, and the kernel that the plan takes
    ([9, 3], 24, "maxsim_16_64"),
    ([30], 64, "maxsim_32_64"),
    ([32, 20, 9], 33, "maxsim_64_64"),
    ([100, 0, 28], 40, "maxsim_128_64"),
    ([40, 30, 0, 90, 50, 40], 20, "maxsim_256_64"),
    ([16], 128, "maxsim_16_128"),
    ([30, 2], 100, "maxsim_32_128"),
    ([64], 65, "maxsim_64_128"),
    ([120], 96, "maxsim_128_128"),
    ([250, 500], 72, "maxsim_256_128"),
    ([5, 30], 150, "maxsim_32_steps"),
    ([100, 140], 200, "maxsim_128_steps"),
]


@pytest.mark.parametrize(("lengths", "dim", "kernel"), TILED, ids=[each[2] for each in TILED])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles(
    lengths: list[int], dim: int, kernel: str, masked: bool, emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kernel, over several parts of a scan, several documents of a block and several tiles of a document."""
    monkeypatch.setattr(cuda_maxsim, "PLACES", 0)
    monkeypatch.setattr(cuda_maxsim_kernels, "documents_of_a_block", lambda count, chip: 5)
    docs = some(3, 21, 40)
    mask = np.random.default_rng(4).random((len(lengths), len(docs))) < 0.5 if masked else None
    problem = Sets(lengths, docs, dim, scoring="cosine").problem(2, mask=mask)
    found = BACKEND.propose(problem, 3)
    scans = {line.split()[0] for line in emulated.log if line.startswith("maxsim_")}
    assert scans == {kernel}
    assert sum(line.startswith(kernel) for line in emulated.log) > 1
    conformance.check_candidates(problem, found, rank_scores(problem))
    assert (np.diff(found.offsets) <= 6).all()
    conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), kernel)


@pytest.mark.parametrize(("lengths", "kernel"), [([20, 0, 3], "maxsim_32_both"), ([120, 70], "maxsim_128_both")])
@pytest.mark.parametrize("dim", [12, 150])
def test_both_sides(lengths: list[int], kernel: str, dim: int, emulated: FakeDriver) -> None:
    """Tiles of sums over both sides, of queries in one panel and in several."""
    problem = Sets(lengths, [33, 0, 1, 70], dim, scoring="weighted_symmetric").problem(2)
    check(problem)
    assert {line.split()[0] for line in emulated.log if line.endswith("_both")} <= {kernel}
    assert any(line.startswith(kernel) for line in emulated.log)


@pytest.mark.parametrize("scoring", [name for name in SCORINGS if name != "softmax"])
@pytest.mark.parametrize("kind", ["normal", "magnitudes", "offset", "zeros"])
def test_bounds_hold(scoring: str, kind: str) -> None:
    """Of all pairs: the float64 rank score lies between the bounds that the scan has found, which are not far apart."""
    problem = Sets([5, 0, 33], some(5, 20, 9), 30, kind, scoring).problem(20, bias=np.linspace(-3, 3, 20))
    gpu = cuda_device.gpu_of(problem.docs)
    pools, scores = cuda_maxsim.listed(problem, 20, gpu), rank_scores(problem)
    rows, upper, lower, counts = (gpu.host(each) for each in pools[:4])
    for query, count in enumerate(counts):
        listed = rows[query, :count]
        assert sorted(listed) == np.flatnonzero(np.isfinite(scores[query])).tolist()
        clamped = np.clip(scores[query, listed], -FLOAT32_MAX, FLOAT32_MAX)
        assert (clamped <= upper[query, :count]).all()
        assert (clamped >= lower[query, :count]).all()
    if kind == "normal":
        apart = [(upper[q, :count] - lower[q, :count]).max(initial=0) for q, count in enumerate(counts)]
        assert max(apart) < 0.25 * np.ptp(scores[np.isfinite(scores)])


def test_a_pool_that_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 60 documents pass, and find 8 places: what is lost is bounded."""
    monkeypatch.setattr(cuda_maxsim, "places", lambda problem, width: 8)
    monkeypatch.setattr(token_terms, "parts", lambda n_docs, *others: [(0, n_docs)])
    problem = Sets([4], [2] * 60, 16).problem(2)
    found, scores = BACKEND.propose(problem, 4), rank_scores(problem)
    assert np.isfinite(found.dropped).all()
    assert len(found.rows) <= 8
    conformance.check_candidates(problem, found, scores)


@pytest.mark.parametrize("k", [1, 8, 50])
def test_any_k(k: int) -> None:
    check(Sets().problem(k))


@pytest.mark.parametrize("per_query", [False, True])
def test_masks_biases_and_ids(per_query: bool) -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((3, 8) if per_query else 8) < 0.5
    bias = rng.standard_normal(8) * 10
    check(Sets().problem(mask=mask, bias=bias, ids=rng.permutation(8) + (1 << 40)))


def test_pools_have_places_for_no_more_than_there_is() -> None:
    problem = Sets().problem(8)
    assert cuda_maxsim.places(problem.asking((1 << 31) - 1), 1 << 20) == 2 * 8
    assert cuda_maxsim.places(problem, 2) == 2 * 8
    assert cuda_maxsim.places(problem.asking(1), 2) == 8


def test_documents_are_copied_and_coded_once(emulated: FakeDriver) -> None:
    problem = Sets(store="float16", scoring="cosine").problem()
    for _ in range(2):
        conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), "again")
    assert sum(line.startswith("code_float16") for line in emulated.log) == 1


def test_fast_answers_are_near() -> None:
    problem = Sets([6], [4] * 30, 16, scoring="cosine").problem(5)
    found = fast_search(problem, BACKEND)
    scores = rank_scores(problem)[0]
    assert not found.certified.any()
    assert np.allclose(found.scores[0], scores[found.ids[0]], atol=0.05)


def test_maxima_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_maxsim_kernels, "MAXIMA_BYTES", 8 * 5 * 2)
    check(Sets().problem(8))
    check(Sets(scoring="symmetric").problem(8))


def test_scores_of_pairs_and_of_candidates() -> None:
    rng = np.random.default_rng(2)
    queries, docs = ([rng.standard_normal((n, 9)) for n in lengths] for lengths in ([3, 0, 8], [4, 0, 2, 33]))
    pairs = rng.integers(0, [3, 4], (9, 2))
    for options in ({"normalize": True}, {"reduce": "symmetric"}, {"reduce": "softmax", "temperature": 0.3}):
        want = pe.maxsim_pairs(queries, docs, pairs, backend="numpy", **options)
        assert pe.maxsim_pairs(queries, docs, pairs, backend="cuda", **options).tobytes() == want.tobytes()
    lists = np.array([[0, 3], [2, 1], [3, -1]])
    got = pe.maxsim_topk(queries, docs, 2, candidates=lists, backend="cuda")
    want = pe.maxsim_topk(queries, docs, 2, candidates=lists, backend="numpy")
    conformance.same(got, want, "reranked")


def wide(dim: int, n_tokens: int, **options: Any) -> MaxSimProblem:
    corpus = TokenDocuments(Documents(np.zeros((1, dim), np.float32)), np.array([0, 1]))
    return maxsim_request.prepare(np.zeros((1, n_tokens, dim)), corpus, 1, **options)


def test_what_it_cannot_do_is_refused(emulated: FakeDriver) -> None:
    assert BACKEND.refusals(wide(65_537, 1)) == ["its kernels take at most 65,536 dimensions, and 65,537 are scored"]
    said = (
        "its kernels take queries of at most 16,384 tokens where these have more than 128 dimensions, or both sides "
        "are summed, and one has 16,385"
    )
    assert BACKEND.refusals(wide(129, 16_385)) == BACKEND.refusals(wide(8, 16_385, reduce="symmetric")) == [said]
    assert (
        BACKEND.refusals(wide(8, 16_385))
        == BACKEND.refusals(wide(129, 16_384))
        == BACKEND.refusals(Sets().problem())
        == []
    )
    emulated.tell(major=8, minor=9, shared=101_376)  # of which 61,440 are the ring's, and 2,048 a kernel's own
    assert BACKEND.refusals(wide(129, 9_472)) == []
    assert BACKEND.refusals(wide(129, 9_473)) == [said.replace("16,384", "9,472").replace("16,385", "9,473")]
    emulated.tell(megabytes=0)
    assert BACKEND.refusals(wide(64, 1)) == ["it needs 0 MB of the GPU, of which 0 are free"]


def test_it_explains_itself() -> None:
    facts, rejected = BACKEND.describe(Sets(scoring="softmax").problem())
    assert facts["bounded by"] == "mean"
    assert "int8" in facts["store"]
    assert rejected


def test_every_tile_has_its_kernel() -> None:
    names = {cuda_maxsim_kernels.kernel_of(tile, False, "int8") for tile in cuda_tiles("int8", False)}
    assert {each[2] for each in TILED} == names
    assert {cuda_maxsim_kernels.kernel_of(tile, True, "int8") for tile in cuda_tiles("int8", True)} == {
        "maxsim_32_both",
        "maxsim_128_both",
    }
    least = min(chip.shared for chip in CHIPS.values())
    for form in CUDA_FORMS:
        assert max(cuda_maxsim_kernels.shared_bytes(tile, 16_384, form) for tile in cuda_tiles(form, False)) <= least


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    target = tmp_path_factory.mktemp("cuda") / "token_arithmetic.so"
    source = cuda_driver.SOURCES / "token_arithmetic.cpp"
    return ctypes.CDLL(str(cuda_driver.build(source, target, f"-I{cuda_driver.KERNELS}")))


def pointers(*arrays: np.ndarray) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(each.ctypes.data) for each in arrays]


def test_products_are_weighed_with_one_rounding(arithmetic: ctypes.CDLL) -> None:
    most, rng = 128 * 127 * 127, np.random.default_rng(0)
    products = np.concatenate([np.arange(-most, most, 977), [most, -most, 0, 1, -1]]).astype(np.int32)
    found = np.empty(len(products), np.float32)
    for least in (0, -60):
        weights = cuda_tokens.of_22_bits((2.0 ** rng.uniform(least, 0, len(products))).astype(np.float32))
        arithmetic.weigh(*pointers(products, weights, found), ctypes.c_int64(len(products)))
        assert (found == (products * weights.astype(np.float64)).astype(np.float32)).all()


def test_weights_of_22_bits() -> None:
    weights = np.random.default_rng(1).random(1000).astype(np.float32)
    found = cuda_tokens.of_22_bits(np.append(weights, np.array([0, 1, 1e-44], np.float32)))
    assert not (found.view(np.uint32) & 3).any()
    assert found[-3:-1].tolist() == [0, 1]
    assert (abs(found[:-3].astype(np.float64) - weights) <= 2.0**-22 * weights).all()


@pytest.mark.parametrize(("count", "stride"), [(1, 1), (10, 1), (10, 3), (12, 4), (7, 6), (7, 9), (1000, 2)])
def test_every_document_comes_once(arithmetic: ctypes.CDLL, count: int, stride: int) -> None:
    """One of ``stride`` first, then the others as they lie."""
    found = np.empty(count, np.int64)
    arithmetic.spread_rows(*pointers(found), ctypes.c_int64(stride), ctypes.c_int64(count))
    sampled = np.arange(count) % stride == 0
    assert found.tolist() == [*np.flatnonzero(sampled), *np.flatnonzero(~sampled)]


@pytest.mark.parametrize("depth", [64, 128])
def test_rows_meet_in_no_bank(arithmetic: ctypes.CDLL, depth: int) -> None:
    at = np.empty((32, depth // 16), np.int32)
    arithmetic.pieces(*pointers(at), ctypes.c_int64(32), ctypes.c_int64(depth))
    assert sorted(at.ravel()) == list(range(0, 32 * depth, 16))
    for first in range(0, 32, 8):  # eight rows that one `ldmatrix` reads
        for piece in at[first : first + 8].T:
            assert len({place % 128 for place in piece}) == 8


def test_bounds_are_rounded_outwards(arithmetic: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(2000) * 10.0 ** rng.uniform(-50, 60, 2000), [0.0, 1e39, -1e39]])
    upper, lower = (np.empty(len(values), np.float32) for _ in range(2))
    arithmetic.outwards(*pointers(values, upper, lower), ctypes.c_int64(len(values)))
    clamped = np.clip(values, -FLOAT32_MAX, FLOAT32_MAX)
    assert (upper >= clamped).all()
    assert (lower <= clamped).all()
    assert lower.max() == -upper.min() == FLOAT32_MAX

"""Tokens of few bits in CUDA, run by an emulator: kept as they are, decoded in registers as `Rows` decodes them, by the
refining and by the scan, and searched to the bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_device, cuda_maxsim, cuda_maxsim_kernels, cuda_packed, cuda_tokens
from pyengine.backends.cuda.cuda_device import Array
from pyengine.backends.cuda.cuda_maxsim_kernels import Packed, kernel_of
from pyengine.conformance import rank_scores
from pyengine.inputs.rows import Rows
from pyengine.kernels.maxsim_plan import BITS, cuda_tiles
from pyengine.problems.problem import Documents
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.refining import exact
from pyengine.searches import maxsim_request
from pyengine.searches.search import exact_search
from pyengine.specification import reference
from pyengine.specification.reference import FLOAT32_MAX
from tests import maxsim_cases
from tests.cuda_driver import FakeDriver
from tests.maxsim_cases import Sets, available

check = partial(maxsim_cases.check, name="cuda")
pytestmark = pytest.mark.usefixtures("emulated", "poison")
BACKEND = registry.of_family("cuda", "maxsim")
FORMS = [(bits, residual) for bits in (1, 2, 3, 4) for residual in (False, True)]
CODECS = ("binary", "residual1", "residual2", "residual4")
N = 37


def planes(bits: int, dim: int, residual: bool, rng: np.random.Generator, count: int = N) -> Rows:
    """Tokens of very different lengths, some of them zero or nearly."""
    data = rng.integers(0, 256, (count, bits * (-(-dim // 64) * 64) // 8), dtype=np.uint8)
    step = (rng.random(count) * 10.0 ** rng.uniform(-3, 3, count)).astype(np.float32)
    step[3 % count] = 0
    if not residual:
        step[4 % count : 6 % count] = 1e-44, 1e37
        return Rows("planes", data, dim, step, bits)
    centroids = rng.standard_normal((5, dim)).astype(np.float32)
    upper = (step.view(np.uint32) >> 16).astype(np.uint16)
    return Rows("residual", data, dim, upper, bits, rng.integers(0, 5, count).astype(np.uint16), centroids)


def documents(rows: Rows) -> TokenDocuments:
    return TokenDocuments(Documents(rows), np.array([0, 3, 3, len(rows)]), cache={})


@pytest.mark.parametrize("dim", [1, 130])
@pytest.mark.parametrize(("bits", "residual"), FORMS)
def test_norms_are_those_of_the_rows(bits: int, residual: bool, dim: int) -> None:
    """The refining decodes to float32 as `Rows` do."""
    rows = planes(bits, dim, residual, np.random.default_rng(dim))
    want, docs = rows[:], documents(rows)
    gpu = cuda_device.gpu_of(docs)
    sets = cuda_maxsim_kernels.TokenSets(cuda_packed.held(docs, gpu), None, gpu.array(docs.offsets), None, dim, N)
    norms = gpu.host(cuda_maxsim_kernels.token_norms(gpu, sets))
    assert norms.tobytes() == np.sqrt(reference.dot(want, want)).tobytes()


@pytest.mark.parametrize("dim", [1, 64, 130])
@pytest.mark.parametrize(("bits", "residual"), FORMS)
def test_what_is_measured_is_how_far_codes_are_off(bits: int, residual: bool, dim: int) -> None:
    rows = planes(bits, dim, residual, np.random.default_rng(dim))
    docs, values = documents(rows), rows[:].astype(np.float64)
    gpu = cuda_device.gpu_of(docs)
    packed = cuda_packed.held(docs, gpu)
    error, size = cuda_maxsim_kernels.measure(gpu, packed)
    assert np.allclose(size, np.linalg.norm(values, axis=1), rtol=1e-12)
    codes = decoded(rows, packed)
    assert np.allclose(error, np.linalg.norm(values - packed.unit * codes, axis=1), rtol=1e-9, atol=1e-300)
    reach = np.abs(values).max(axis=1) + 2 * np.abs(centroids_of(rows)).max() + 2**-20 * np.abs(values).max()
    assert (error <= np.sqrt(dim) * 2.0**-9 * reach).all()  # not far off, either


def centroids_of(rows: Rows) -> np.ndarray:
    return np.zeros((1, rows.dim), np.float32) if rows.centroids is None else rows.centroids


def decoded(rows: Rows, packed: Packed) -> np.ndarray:
    """float64 [N, D]: what float16(step (2 number - most) + centroid) is in units, of a step and a centroid of
    float16."""
    assert rows.step is not None
    steps = rows.step if rows.centroid is None else (rows.step.astype(np.uint32) << 16).view(np.float32)
    near = (centroids_of(rows).astype(np.float64) / packed.unit).astype(np.float16).astype(np.float64)
    number = np.zeros(len(rows), int) if rows.centroid is None else rows.centroid
    step = (steps * np.float32(1 / packed.unit)).astype(np.float16).astype(np.float64)
    codes = step[:, None] * rows._odd(rows.data) + near[number]
    rounded: np.ndarray = codes.astype(np.float16).astype(np.float64)
    return rounded


def problem_of(rows: Rows, queries: list[int], lengths: list[int], k: int = 3, **options: Any) -> MaxSimProblem:
    rng = np.random.default_rng(9)
    docs = TokenDocuments(Documents(rows), np.cumsum([0, *lengths]), cache={})
    asked = [rng.standard_normal((n, rows.dim)) for n in queries]
    return maxsim_request.prepare(asked, docs, k, num_threads=1, **options)


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 128, 129, 256])
@pytest.mark.parametrize(("bits", "residual"), FORMS)
def test_any_dimensions(bits: int, residual: bool, dim: int) -> None:
    lengths = [5, 0, 1, 9, 0, 3, 2, 40]
    rows = planes(bits, dim, residual, np.random.default_rng(dim + bits), sum(lengths))
    check(problem_of(rows, [3, 0, 7], lengths, normalize=bool(dim % 2)))


SCORINGS = ("dot", "cosine", "mean", "weighted", "symmetric", "weighted_symmetric", "softmax")
SETS = [
    *(Sets(scoring=scoring, store=f"{codec} only") for scoring in SCORINGS for codec in CODECS),
    *(Sets(kind=kind, scoring="cosine", store="residual2 only") for kind in maxsim_cases.KINDS if kind != "huge"),
    Sets([17, 40], [66, 0, 3], 20, store="residual4 only"),
    Sets([2, 0], [0] * 5, 4, store="binary only"),
    Sets([0], [0, 3], 4, store="residual1 only"),
]


@pytest.mark.parametrize("sets", available(SETS), ids=str)
def test_answers_are_the_specification_s(sets: Sets) -> None:
    check(sets.problem())


def test_the_host_s_reductions() -> None:
    """What no maxima bound."""
    rows = planes(2, 20, True, np.random.default_rng(1), 9)
    pooled = problem_of(rows, [1, 1], [4, 0, 5], reduce="pooled", temperature=0.5)
    for problem in (pooled, problem_of(rows, [3], [3, 3, 3], reduce="aligned")):
        conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), problem.reduce)


TILED = [  # lengths of queries, dimensions, and the kernel that the plan takes
    ([9, 3], 24, "32_64"),
    ([32, 20, 9], 33, "64_64"),
    ([40, 30, 0, 90, 50, 40], 20, "256_64"),
    ([30, 2], 100, "32_128"),
    ([64], 65, "64_128"),
    ([250, 500], 72, "256_128"),
    ([5, 30], 150, "32_steps"),
    ([100, 140], 200, "128_steps"),
]


@pytest.mark.parametrize(("lengths", "dim", "kernel"), TILED, ids=[each[2] for each in TILED])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_tiles(
    lengths: list[int], dim: int, kernel: str, bits: int, emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kernel, over several parts of a scan, several documents of a block and several tiles of a document."""
    monkeypatch.setattr(cuda_maxsim, "PLACES", 0)
    monkeypatch.setattr(cuda_maxsim_kernels, "documents_of_a_block", lambda count, chip: 5)
    rng = np.random.default_rng(bits)
    docs = [*rng.integers(0, 9, 18).tolist(), 70, 0, 33]
    mask = rng.random((len(lengths), len(docs))) < 0.7
    problem = problem_of(planes(bits, dim, True, rng, sum(docs)), lengths, docs, 2, mask=mask)
    found = BACKEND.propose(problem, 3)
    scans = {line.split()[0] for line in emulated.log if f"packed{bits}_" in line}
    assert scans == {f"maxsim_packed{bits}_{kernel}"}
    conformance.check_candidates(problem, found, rank_scores(problem))
    conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), kernel)


@pytest.mark.parametrize(("lengths", "kernel"), [([20, 0, 3], "32_both"), ([120, 70], "128_both")])
@pytest.mark.parametrize("dim", [12, 150])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_both_sides(lengths: list[int], kernel: str, dim: int, bits: int, emulated: FakeDriver) -> None:
    docs = [33, 0, 1, 40]
    rows = planes(bits, dim, True, np.random.default_rng(bits), sum(docs))
    check(problem_of(rows, lengths, docs, 2, reduce="symmetric", normalize=True))
    assert any(line.startswith(f"maxsim_packed{bits}_{kernel}") for line in emulated.log)


@pytest.mark.parametrize("scoring", ["dot", "cosine", "symmetric"])
@pytest.mark.parametrize(("bits", "residual"), FORMS)
def test_bounds_hold(scoring: str, bits: int, residual: bool) -> None:
    """Of all pairs: the float64 rank score lies between the bounds that the scan has found."""
    lengths = np.random.default_rng(5).integers(0, 9, 20).tolist()
    rows = planes(bits, 30, residual, np.random.default_rng(6), sum(lengths))
    problem = problem_of(rows, [5, 0, 33], lengths, 20, bias=np.linspace(-3, 3, 20), **maxsim_cases.SCORINGS[scoring])
    gpu = cuda_device.gpu_of(problem.docs)
    pools, scores = cuda_maxsim.listed(problem, 20, gpu), rank_scores(problem)
    found, upper, lower, counts = (gpu.host(each) for each in pools[:4])
    for query, count in enumerate(counts):
        listed = found[query, :count]
        assert sorted(listed) == np.flatnonzero(np.isfinite(scores[query])).tolist()
        clamped = np.clip(scores[query, listed], -FLOAT32_MAX, FLOAT32_MAX)
        assert (clamped <= upper[query, :count]).all()
        assert (clamped >= lower[query, :count]).all()


def test_every_tile_has_its_kernel() -> None:
    assert {each[2] for each in TILED} == {
        kernel_of(tile, False, form).split("_", 2)[2] for form in BITS for tile in cuda_tiles(form, False)
    }


@pytest.mark.skipif(exact.native() is None, reason="codecs need the extension")
@pytest.mark.parametrize(("codec", "each"), [("binary", 24), ("residual1", 24), ("residual2", 40), ("residual4", 72)])
def test_a_token_takes_its_bits_on_the_gpu(codec: str, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes a token, beside the centroids and what documents take; not D + 4 D."""
    docs = Sets(docs=[3, 0, 34], dim=128, store=f"{codec} only").problem().docs
    docs = TokenDocuments(docs.tokens, docs.offsets, cache={})
    gpu = cuda_device.gpu_of(docs)
    problem = maxsim_request.prepare([np.ones((2, 128))], docs, 1, num_threads=1)
    scanned, refined = cuda_tokens.mirror(problem, gpu), cuda_tokens.exact_docs(problem, gpu)
    assert refined.values is scanned.coded.codes
    arrays = [one for one in (*scanned, *refined, *refined.values) if isinstance(one, Array) and len(one) == N]
    sizes = {one.pointer: N * one.stride * cuda_device.KINDS[one.kind] for one in arrays}
    assert sum(sizes.values()) <= N * each


def test_tokens_are_packed_in_blocks(monkeypatch: pytest.MonkeyPatch, emulated: FakeDriver) -> None:
    monkeypatch.setattr(cuda_packed, "BLOCK", 10)
    rows = planes(3, 70, True, np.random.default_rng(3), 43)
    check(problem_of(rows, [3, 0, 7], [40, 0, 3]))
    assert sum(line.startswith("maxsim_pack ") for line in emulated.log) == 5


def test_what_a_corpus_needs(emulated: FakeDriver) -> None:
    """Tokens of few bits are counted as such."""
    count = 20_000
    rows = Rows("planes", np.zeros((count, 16), np.uint8), 128, np.ones(count, np.float32), 1)
    problem = problem_of(rows, [1], [count])
    emulated.tell(megabytes=2)
    assert BACKEND.refusals(problem) == []
    facts, _ = BACKEND.describe(problem)
    assert facts["store"].endswith("scanned as packed1")

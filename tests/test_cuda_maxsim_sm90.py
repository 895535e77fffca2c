"""The MaxSim scan's form for Hopper in the emulator: the same answers to the bit, by copies that arrive as late as they
may and products that are taken when they are awaited; and its planner."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_device, cuda_maxsim
from pyengine.conformance import rank_scores
from pyengine.kernels import dense_sm90_plan, maxsim_sm90_plan
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.dense_sm90_plan import forced
from pyengine.kernels.maxsim_sm90_plan import BOX, PANELS, documents_of_a_block, form, plan_pages
from pyengine.specification.reference import FLOAT32_MAX
from tests import maxsim_cases
from tests.cuda_driver import FakeDriver
from tests.maxsim_cases import Sets, available

BACKEND = registry.of_family("cuda", "maxsim")
SM_90 = CHIPS["sm_90"]


@pytest.fixture
def hopper(emulated: FakeDriver, poison: None) -> Iterator[FakeDriver]:
    """A driver of a GPU of compute capability 9.0, on which the form for it is asked for."""
    with forced("sm_90"):
        yield emulated


def scans(log: list[str]) -> set[str]:
    return {line.split()[0] for line in log if line.startswith("maxsim_") and "threads 384" in line}


SETS = [
    *(Sets(dim=70, scoring=scoring) for scoring in ("dot", "cosine", "mean", "weighted", "softmax")),
    *(Sets([3, 2], [4, 0, 130], 128, kind) for kind in maxsim_cases.KINDS),
    *(Sets(dim=dim) for dim in (65, 127, 128)),
    *(Sets(dim=72, scoring="cosine", store=store) for store in ("float16", "bfloat16", "int8", "int8 only")),
    Sets([2, 0], [0] * 5, 80),
    Sets([0], [0, 3], 80),
    Sets([2, 0], [], 80),
]


@pytest.mark.parametrize("sets", available(SETS), ids=str)
def test_answers_are_the_specification_s(sets: Sets, hopper: FakeDriver) -> None:
    maxsim_cases.check(sets.problem(), "cuda")
    assert scans(hopper.log) == ({"maxsim_sm90"} if sum(sets.docs) else set())


@pytest.mark.parametrize(
    ("lengths", "masked"), [([250], False), ([300, 0, 150], True), ([600], True), ([900, 20], False), ([9] * 40, True)]
)
def test_panels(lengths: list[int], masked: bool, hopper: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every size, several of a query, several queries of one; with several documents of a block, boxes of a document
    and rounds of a short ring."""
    monkeypatch.setattr(cuda_maxsim, "PLACES", 0)
    monkeypatch.setattr(maxsim_sm90_plan, "documents_of_a_block", lambda count, groups, multiprocessors: 4)
    monkeypatch.setattr(maxsim_sm90_plan, "MOST_STAGES", 2)
    docs = [5, 0, 129, 1, 128, 7]
    mask = np.random.default_rng(4).random((len(lengths), len(docs))) < 0.5 if masked else None
    problem = Sets(lengths, docs, 66, scoring="cosine").problem(2, mask=mask)
    found = BACKEND.propose(problem, 3)
    assert scans(hopper.log) == {"maxsim_sm90"}
    conformance.check_candidates(problem, found, rank_scores(problem))


@pytest.mark.parametrize("kind", ["normal", "magnitudes", "opposed"])
def test_bounds_are_those_of_the_other_form(kind: str, hopper: FakeDriver) -> None:
    """But for the order of sums; and the scores lie between them."""
    problem = Sets([5, 0, 33], [4, 1, 0, 140, 9, 30], 90, kind).problem(6, bias=np.linspace(-3, 3, 6))
    gpu, scores = cuda_device.gpu_of(problem.docs), rank_scores(problem)
    both = [cuda_maxsim.listed(problem, 6, gpu)]
    with forced("sm_80"):
        both.append(cuda_maxsim.listed(problem, 6, gpu))
    for query in range(3):
        found = []
        for pools in both:
            rows, upper, lower, counts = (gpu.host(each)[query] for each in pools[:4])
            order = np.argsort(rows[:counts])
            clamped = np.clip(scores[query, rows[:counts]], -FLOAT32_MAX, FLOAT32_MAX)
            assert (clamped <= upper[:counts]).all()
            assert (clamped >= lower[:counts]).all()
            found.append((rows[order], upper[order], lower[order]))
        assert np.array_equal(found[0][0], found[1][0])
        for one, other in zip(found[0][1:], found[1][1:]):
            assert kind == "magnitudes" or np.allclose(one, other, rtol=1e-3, atol=1e-2 * abs(other).max(initial=0))


def test_what_is_said_of_a_scan(emulated: FakeDriver) -> None:
    problem = Sets(dim=70).problem()
    assert BACKEND.describe(problem)[0]["form"] == "sm_80: not measured"
    with forced("sm_90"):
        assert BACKEND.describe(problem)[0]["form"] == "sm_90: asked for"
        emulated.tell(major=10)
        assert BACKEND.describe(problem)[0]["form"] == "sm_80: wgmma is of compute capability 9.0 alone"


def test_the_form_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(
        kind: str = "int8", dim: int = 128, symmetric: bool = False, lengths: tuple[int, ...] = (1024,), tokens: int = 9
    ) -> str:
        found = form(90, SM_90, kind, tokens, dim, symmetric, lengths)
        return ": ".join(found)

    assert of() == "sm_80: not measured"
    with forced("sm_90"):
        assert of() == "sm_90: asked for"
        assert of("packed2") == "sm_80: tokens of few bits are decoded in registers"
        assert of(tokens=0) == "sm_80: a tensor map describes one row at least"
        assert of(symmetric=True) == "sm_80: maxima of both sides are kept elsewhere"
        assert of(dim=64) == of(dim=129) == "sm_80: its rows are of 65 to 128 dimensions"
    monkeypatch.setattr(maxsim_sm90_plan, "MEASURED", {("sm_90", 1024): "sm_90"})
    assert of() == "sm_90: measured"
    assert of(lengths=(300,)) == "sm_80: not measured"
    assert dense_sm90_plan.asked() is None


@given(st.lists(st.integers(0, 3000), max_size=30))
def test_plans(lengths: list[int]) -> None:
    found = plan_pages(SM_90, lengths)
    assert found.tokens in PANELS
    assert 2 <= found.stages <= maxsim_sm90_plan.MOST_STAGES
    assert found.shared == 2048 + found.tokens * 148 + found.stages * BOX * 128
    assert found.shared + maxsim_sm90_plan.STATIC <= SM_90.shared
    assert 8 * (2 * found.stages + 2) <= dense_sm90_plan.BARRIERS


@pytest.mark.parametrize(
    ("lengths", "tokens"), [([1], 256), ([300], 512), ([1024], 1024), ([2048], 1024), ([700], 768), ([32] * 64, 512)]
)
def test_panels_compute_no_more_than_they_must(lengths: list[int], tokens: int) -> None:
    assert plan_pages(SM_90, lengths).tokens == tokens


@pytest.mark.parametrize(
    ("count", "groups", "run"), [(1, 1, 1), (132, 1, 1), (1000, 1, 8), (133, 1, 2), (1000, 16, 3), (10_000, 1, 4)]
)
def test_multiprocessors_are_kept_busy(count: int, groups: int, run: int) -> None:
    assert documents_of_a_block(count, groups, 132) == run

"""Late interaction by Triton's kernels: bounds that hold, answers of the specification to the bit.

Small, since the interpreter takes some milliseconds for each document."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.shared import token_terms
from pyengine.conformance import rank_scores
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import Documents
from pyengine.problems.problem_maxsim import TokenDocuments
from pyengine.searches import maxsim_request
from pyengine.searches.search import exact_search

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends.triton import triton_maxsim  # noqa: E402
from pyengine.kernels import answers, maxsim_queries, maxsim_refine, maxsim_topk, selection  # noqa: E402
from tests import maxsim_cases  # noqa: E402
from tests.maxsim_cases import CASES, SETS, Sets, available  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # -inf times 0, in the interpreter
]


check = partial(maxsim_cases.check, name="triton")
PACKED_SETS = [
    *(Sets(store=store) for store in ("residual1 only", "residual4 only")),
    *(Sets([2], [3, 0, 1], dim, store=store) for dim in (1, 130) for store in ("binary only", "residual2 only")),
    *(Sets([2], [3, 0, 1], kind=kind, store="residual4 only") for kind in ("ties", "huge", "subnormal", "magnitudes")),
    *(Sets([2], [3, 0, 1], kind=kind, store="binary only") for kind in ("zeros", "huge", "subnormal", "magnitudes")),
    *(Sets(scoring=scoring, store="residual2 only") for scoring in ("cosine", "weighted_symmetric", "softmax")),
    Sets([40], [9, 3], 65, scoring="symmetric", store="residual1 only"),
    Sets([2, 0], [0] * 5, 4, store="residual2 only"),
    Sets([2, 0], [], 4, store="binary only"),
]
AVAILABLE = available([*SETS, *PACKED_SETS])


@pytest.mark.parametrize("sets", AVAILABLE, ids=str)
def test_answers_are_the_specification_s(sets: Sets) -> None:
    check(sets.problem())


@pytest.mark.parametrize("k", [1, 8, 50])
def test_any_k(k: int) -> None:
    check(Sets().problem(k))


@pytest.mark.parametrize("per_query", [False, True])
def test_masks_biases_and_ids(per_query: bool) -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((3, 8) if per_query else 8) < 0.5
    bias = rng.standard_normal(8) * 10
    check(Sets().problem(mask=mask, bias=bias, ids=rng.permutation(8) + (1 << 40)))


@pytest.mark.parametrize(
    "given",
    [
        FilterArguments(threshold=1.0),
        FilterArguments(exclude=[[0, 3], [], [7]], groups=np.arange(8) // 2),
        FilterArguments(after=([2.0, 1.0, 5.0], [3, 0, 1]), threshold=[-9.0, 0.5, -1.0]),
    ],
)
def test_filters(given: FilterArguments, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are applied on the device."""
    problem = Sets().problem(filters=given)
    want = conformance.specified(problem)
    monkeypatch.setattr(triton_maxsim, "propose", lambda *given: pytest.fail("proposed to the host"))
    conformance.same(exact_search(problem, registry.of_family("triton", "maxsim")), want, str(given))


def test_thresholds_of_a_sample_prune(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more documents than places in the pools, what cannot matter is dropped, and its bound is reported."""
    problem = Sets([4], [2] * 60, 16).problem(2)
    found = triton_maxsim.propose(problem, 4)
    assert len(found.rows) < 8
    assert np.isfinite(found.dropped).all()
    conformance.check_candidates(problem, found, rank_scores(problem))


@pytest.mark.parametrize(
    ("scoring", "options"),
    [
        ("dot", {"mask": np.ones((3, 8), bool)}),
        ("mean", {"mask": np.ones(8, bool)}),
        ("symmetric", {"bias": np.ones(8)}),
    ],
)
def test_a_search_waits_for_the_device_once(
    scoring: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read from a tensor, and no shape depends on one, but for the answer: with kernels that do nothing,
    since the interpreter reads what it is given."""
    problem = registry.of_family("triton", "maxsim").readied(Sets(scoring=scoring).problem(3, **options))
    triton_maxsim.attempt(problem, problem, 3)  # what stays on the device is copied
    for module in (answers, maxsim_queries, maxsim_topk, maxsim_refine, selection):
        for name in [each for each in vars(module) if each.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Unlaunched())
    waits: list[str] = []
    copy = torch.Tensor.to

    def copied(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        waits.append(f"a copy to {args[0]}")
        return copy(tensor, *args, **kwargs)

    for name in ("cpu", "item", "tolist", "nonzero", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, name=name: waits.append(name))
    monkeypatch.setattr(torch.Tensor, "to", copied)
    triton_maxsim.attempt(problem, problem, 3)
    assert waits == ["a copy to cpu"]


class Unlaunched:
    """A kernel that does nothing."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **options: None


def test_stretches_cover_every_document_once() -> None:
    for n_docs, capacity, k in ((0, 8, 2), (5, 8, 2), (1000, 8, 4), (100_000, 552, 10), (1000, 2000, 1000)):
        parts = list(token_terms.parts(n_docs, capacity, k))
        assert [first for first, _ in parts] == np.cumsum([0, *(count for _, count in parts)]).tolist()[:-1]
        assert sum(count for _, count in parts) == n_docs


def test_a_stretch_has_no_more_programs_than_a_launch() -> None:
    parts = list(token_terms.parts(1 << 24, 552, 10, groups=1000))
    assert max(count for _, count in parts) == ((1 << 31) - 1) // 1000
    assert sum(count for _, count in parts) == 1 << 24


def test_scores_of_pairs_and_of_candidates() -> None:
    rng = np.random.default_rng(2)
    queries, docs = ([rng.standard_normal((n, 9)) for n in lengths] for lengths in ([3, 0, 8], [4, 0, 2, 33]))
    pairs = rng.integers(0, [3, 4], (9, 2))
    for options in ({"normalize": True}, {"reduce": "symmetric"}):
        want = pe.maxsim_pairs(queries, docs, pairs, backend="numpy", **options)
        assert pe.maxsim_pairs(queries, docs, pairs, backend="triton", **options).tobytes() == want.tobytes()
    lists = np.array([[0, 3], [2, 1], [3, -1]])
    got = pe.maxsim_topk(queries, docs, 2, candidates=lists, backend="triton")
    want = pe.maxsim_topk(queries, docs, 2, candidates=lists, backend="numpy")
    conformance.same(got, want, "reranked")


def test_what_it_cannot_do_is_refused() -> None:
    backend = registry.of_family("triton", "maxsim")
    wide = maxsim_request.prepare(
        np.zeros((1, 1, 65_537)), TokenDocuments(Documents(np.zeros((1, 65_537), np.float32)), np.array([0, 1])), 1
    )
    assert backend.refusals(wide) == ["its kernels take at most 65,536 dimensions, and 65,537 are scored"]
    assert backend.refusals(Sets().problem()) == []


def test_it_explains_itself() -> None:
    facts, rejected = registry.of_family("triton", "maxsim").describe(Sets(scoring="softmax").problem())
    assert facts["bounded by"] == "mean"
    assert "float16" in facts["store"]
    assert rejected


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(case: conformance.MaxSimCase) -> None:
    assert conformance.run(case, "triton") == []

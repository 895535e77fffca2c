"""Late interaction by Triton's kernels: bounds that hold, answers of the specification to the bit.

Small, since the interpreter takes some milliseconds for each document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry, token_terms
from pyengine.conformance import rank_scores
from pyengine.indexes import codecs
from pyengine.indexes.token_store import SAMPLE, TokenStore
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.ragged import Ragged
from pyengine.problems.problem import Documents
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.refining import exact
from pyengine.searches import maxsim_request
from pyengine.searches.search import exact_search
from pyengine.types import F32

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends import triton_maxsim  # noqa: E402
from pyengine.kernels import maxsim_refine, maxsim_topk, selection  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # -inf times 0, in the interpreter
]


@dataclass
class Sets:
    """Queries and documents of some lengths, and how they are scored."""

    queries: list[int] = field(default_factory=lambda: [5, 0, 1])
    docs: list[int] = field(default_factory=lambda: [0, 1, 7, 3, 2, 0, 4, 1])
    dim: int = 12
    kind: str = "normal"
    scoring: str = "dot"
    store: str = "matrix"

    def __str__(self) -> str:
        return f"{self.queries}x{self.docs}x{self.dim}-{self.kind}-{self.scoring}-{self.store}".replace(" ", "")

    def problem(self, k: int = 3, **options: Any) -> MaxSimProblem:
        rng = np.random.default_rng(7)
        queries, docs = (self.ragged(rng, lengths) for lengths in (self.queries, self.docs))
        if self.kind == "opposed":
            docs = Ragged(-docs.values, docs.offsets)
        options |= self.weighted(rng, queries, docs)
        return maxsim_request.prepare(queries, self.corpus(docs), k, num_threads=1, **options)

    def corpus(self, docs: Ragged) -> TokenDocuments:
        """The documents as they are, or in a `TokenStore` of a codec, "only" by its codes."""
        if self.store == "matrix":
            return TokenDocuments(Documents(docs.values), docs.offsets)
        codec, _, only = self.store.partition(" ")
        store = TokenStore(codecs.make(codec, None if only else "ram", self.dim))
        store = store.trained([docs], SAMPLE) if store.untrained else store
        store.append(docs)
        return store.token_documents(len(docs), {}, None)

    def ragged(self, rng: np.random.Generator, lengths: list[int]) -> Ragged:
        rows: F32 = KINDS[self.kind](rng, (sum(lengths), self.dim)).astype(np.float32)
        return Ragged(rows, np.cumsum([0, *lengths]))

    def weighted(self, rng: np.random.Generator, queries: Ragged, docs: Ragged) -> dict[str, Any]:
        options = dict(SCORINGS[self.scoring])
        for name, side in (("query_weights", queries), ("doc_weights", docs)):
            if name in options:
                options[name] = rng.standard_normal(len(side.values)).astype(np.float32)
        return options


KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape),
    "opposed": lambda rng, shape: np.abs(rng.standard_normal(shape)),  # then every maximum is negative
    "zeros": lambda rng, shape: rng.standard_normal(shape) * rng.integers(0, 2, (shape[0], 1)),
    "huge": lambda rng, shape: 3.4e38 * rng.uniform(-1, 1, shape),
    "subnormal": lambda rng, shape: 3e-44 * rng.uniform(-1, 1, shape),
    "magnitudes": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.uniform(-37, 37, (shape[0], 1)),
    "offset": lambda rng, shape: 1000 + rng.standard_normal(shape),
}
SCORINGS: dict[str, dict[str, Any]] = {
    "dot": {},
    "cosine": {"normalize": True},
    "mean": {"reduce": "mean"},
    "weighted": {"query_weights": None},
    "symmetric": {"reduce": "symmetric", "normalize": True},
    "weighted_symmetric": {"reduce": "symmetric", "query_weights": None, "doc_weights": None},
    "softmax": {"reduce": "softmax", "temperature": 0.5},
}
PACKED = ("binary only", "residual1 only", "residual2 only", "residual4 only")
SETS = [
    *(Sets(scoring=scoring) for scoring in SCORINGS),
    *(Sets(kind=kind) for kind in KINDS),
    *(Sets(kind=kind, scoring="cosine", store="int8") for kind in ("ties", "magnitudes", "zeros")),
    *(Sets(store=store) for store in ("float16", "bfloat16", "int8", "int8 only", "binary")),
    *(Sets(store=store) for store in PACKED),
    *(Sets([2], [3, 0, 1], dim, store=store) for dim in (1, 130) for store in ("binary only", "residual2 only")),
    *(Sets([2], [3, 0, 1], kind=kind, store="residual4 only") for kind in ("ties", "huge", "subnormal", "magnitudes")),
    *(Sets([2], [3, 0, 1], kind=kind, store="binary only") for kind in ("zeros", "huge", "subnormal", "magnitudes")),
    *(Sets(scoring=scoring, store="residual2 only") for scoring in ("cosine", "weighted_symmetric", "softmax")),
    Sets([40], [9, 3], 65, scoring="symmetric", store="residual1 only"),
    Sets([2, 0], [0] * 5, 4, store="residual2 only"),
    Sets([2, 0], [], 4, store="binary only"),
    *(Sets(dim=dim) for dim in (1, 7)),
    *(Sets([2], [3, 0, 1], dim) for dim in (65, 130)),
    Sets([2], [3, 0, 1], 129, store="int8"),
    Sets([17, 5], [66, 0, 3]),
    Sets([31, 33, 1], [3, 1, 20], 5),
    Sets([600], [3, 0], 4),
    Sets([70], [34, 9], 5, scoring="symmetric"),
    Sets([2, 0], [0] * 5, 4),
    Sets([0], [0, 3], 4),
    Sets([2, 0], [], 4),
    Sets([], [3, 0], 4),
]
CASES = [
    conformance.MaxSimCase(corpus, "plain", "dot", "matrix")
    for corpus in ("empty_documents", "empty_queries", "no_documents", "no_queries")
]
AVAILABLE = [each for each in SETS if exact.native() is not None or each.store == "matrix"]


def check(problem: MaxSimProblem) -> None:
    """What is proposed keeps the contract, and the answer is the specification's."""
    backend = registry.of_family("triton", "maxsim")
    with exact.arithmetic():
        found = backend.propose(problem, problem.k)
        conformance.check_candidates(problem, found, rank_scores(problem))
        conformance.same(exact_search(problem, backend), conformance.specified(problem), "the answer")


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
    for module in (maxsim_topk, maxsim_refine, selection):
        for name in [each for each in vars(module) if each.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Unlaunched())
    waits: list[str] = []
    copy = torch.Tensor.cpu

    def copied(tensor: Any) -> Any:
        waits.append("a copy")
        return copy(tensor)

    for name in ("item", "tolist", "nonzero", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, name=name: waits.append(name))
    monkeypatch.setattr(torch.Tensor, "cpu", copied)
    triton_maxsim.attempt(problem, problem, 3)
    assert waits == ["a copy"]


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

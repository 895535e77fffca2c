"""The C++ scan under every plan: tiny tiles, narrow pools, samples, panels or rows, threads. The answers stay the same
bits, and the bound on what was dropped holds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyengine import checks
from pyengine.backends.cpu.cpu_backend import CpuBackend
from pyengine.indexes import stores
from pyengine.kernels.plan import DensePlan, plan_dense
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.refining import exact
from pyengine.searches import dense
from pyengine.searches.explain import explain
from pyengine.searches.search import exact_search, fast_search
from pyengine.specification import reference
from pyengine.types import F32

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.skipif(exact.native() is None, reason="not built")]


ROOT = Path(__file__).parent.parent


class PlannedCpu(CpuBackend):
    """The cpu backend with a plan of the test's own."""

    def __init__(self, **launch: float) -> None:
        self.launch: dict[str, Any] = dict(launch)
        self.gather = bool(self.launch.pop("gather", False))

    def first_width(self, problem: DenseProblem) -> int:
        return 4 * problem.k

    few = 0

    def _listed(self, problem: DenseProblem) -> Any:
        if not self.gather or problem.mask is None or len(problem.mask) > 1:
            return None
        return np.flatnonzero(allowed(problem)[0]).astype(np.int32)

    def plan(self, problem: DenseProblem, width: int, n_docs: int | None = None) -> DensePlan:
        launch = self.launch | {"sample": min(self.launch["sample"], len(problem.docs) if n_docs is None else n_docs)}
        return replace(super().plan(problem, width, n_docs), width=width, **launch)


launches = st.fixed_dictionaries(
    {
        "tile": st.sampled_from([1, 2, 13, 32, 33, 96]),
        "sample": st.sampled_from([0, 1, 7, 40]),
        "sample_rank": st.sampled_from([1, 3, 30]),
        "deviations": st.sampled_from([0.0, 2.0, float("inf")]),
        "query_block": st.sampled_from([16, 32]),
        "row_queries": st.sampled_from([0, 4, 32]),
        "num_threads": st.integers(1, 3),
        "gather": st.booleans(),
    }
)


def make_documents(kind: str, n_docs: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    docs = rng.standard_normal((n_docs, dim))
    if kind == "magnitudes":
        docs *= 10.0 ** rng.uniform(-37, 37, (n_docs, 1))
    if kind == "equal":
        docs[:] = docs[0]
    if kind == "duplicates":
        docs = docs[rng.integers(0, min(5, n_docs), n_docs)]
    if kind == "zeros":
        docs *= rng.random((n_docs, 1)) < 0.5
    if kind == "offset":
        docs += 50
    if kind == "sorted":
        docs = np.sort(docs, axis=0)
    return docs.astype(np.float32)


def make_problem(
    kind: str, metric: str, store: str, rng: np.random.Generator, sizes: tuple[int, int, int]
) -> DenseProblem:
    n_queries, n_docs, dim = sizes
    docs = make_documents(kind, n_docs, dim, rng)
    queries = docs[rng.integers(0, n_docs, n_queries)] + rng.standard_normal((n_queries, dim)).astype(np.float32)
    documents = Documents(docs)
    if store == "int8":
        kept = stores.make("int8", "ram", dim)
        kept.append(docs)
        documents = kept.documents()
    options: dict[str, Any] = {"dims": int(rng.integers(1, dim + 1))} if rng.random() < 0.3 else {}
    if rng.random() < 0.3:
        options["mask"] = rng.random((n_queries, n_docs) if rng.random() < 0.5 else n_docs) < 0.6
    if rng.random() < 0.3:
        options["bias"] = rng.standard_normal(n_docs) * 10.0 ** rng.uniform(-20, 20)
    return dense.prepare(queries, documents, int(rng.integers(1, 30)), metric=metric, **options)


def specified(problem: DenseProblem) -> Any:
    mask = None if problem.mask is None else checks.unpack(problem.mask, len(problem.docs))
    arguments = (problem.queries, problem.docs.rows, problem.k, problem.metric)
    return reference.topk(*arguments, mask=mask, bias=problem.bias, dims=problem.dims)


def ranks(problem: DenseProblem) -> Any:
    """float64 [Q, N]: the rank scores, before rounding."""
    queries, rows = problem.queries[:, None, : problem.dims], problem.docs.rows[None, :, : problem.dims]
    found = reference.unrounded_scores(queries, rows, problem.metric, problem.bias)
    return -found if problem.metric == "l2" else found


def allowed(problem: DenseProblem) -> Any:
    """bool [Q, N]"""
    bits = np.ones((1, 1), bool) if problem.mask is None else checks.unpack(problem.mask, len(problem.docs))
    return np.broadcast_to(bits, (problem.n_queries, len(problem.docs)))


def assert_dropped_bounds(problem: DenseProblem, backend: CpuBackend) -> None:
    """No document that was left out scores above the bound, in float64."""
    found = backend.propose(problem, backend.first_width(problem))
    rank, may = ranks(problem), allowed(problem)
    for q in range(problem.n_queries):
        listed = found.rows[found.offsets[q] : found.offsets[q + 1]]
        assert len(set(listed)) == len(listed)
        left = np.setdiff1d(np.flatnonzero(may[q]), listed)
        assert (rank[q, left] <= found.dropped[q]).all()


KINDS = ("plain", "magnitudes", "equal", "duplicates", "zeros", "offset", "sorted")


@settings(max_examples=200)
@given(
    launch=launches,
    kind=st.sampled_from(KINDS),
    metric=st.sampled_from(reference.METRICS),
    store=st.sampled_from(["matrix", "int8"]),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 300), st.sampled_from([1, 3, 64, 65, 130])),
    seed=st.integers(0, 2**32),
)
def test_any_plan_gives_the_specified_bits(
    isa: str, launch: dict[str, float], kind: str, metric: str, store: str, sizes: tuple[int, int, int], seed: int
) -> None:
    problem = make_problem(kind, metric, store, np.random.default_rng(seed), sizes)
    backend = PlannedCpu(**launch)
    assert_dropped_bounds(problem, backend)
    assert_dropped_bounds(backend.readied(problem), backend)
    result, want = exact_search(problem, backend), specified(problem)
    assert np.array_equal(result.ids, want.ids)
    assert np.array_equal(result.scores.view(np.int32), want.scores.view(np.int32))
    assert result.certified.all()


@settings(max_examples=100)
@given(
    launch=launches,
    kind=st.sampled_from(KINDS),
    metric=st.sampled_from(reference.METRICS),
    store=st.sampled_from(["matrix", "int8"]),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 200), st.sampled_from([1, 3, 64, 65, 130])),
    seed=st.integers(0, 2**32),
)
def test_floor_and_ceiling_leave_out_only_what_they_may(
    isa: str, launch: dict[str, float], kind: str, metric: str, store: str, sizes: tuple[int, int, int], seed: int
) -> None:
    """What is not listed is below the floor, above the ceiling and counted, or below `dropped` where k was small."""
    rng = np.random.default_rng(seed)
    problem = make_problem(kind, metric, store, rng, sizes)
    n_queries, n_docs = problem.n_queries, len(problem.docs)
    gather = launch.pop("gather") and problem.mask is not None and len(problem.mask) == 1
    listed = np.flatnonzero(allowed(problem)[0]).astype(np.int32) if gather else None
    launch |= {"sample": min(launch["sample"], n_docs if listed is None else len(listed)), "width": 1 << 40}
    rank, may = ranks(problem), allowed(problem)
    rounded = reference.round_score(rank).astype(np.float64)
    floor = rounded[np.arange(n_queries), rng.integers(0, n_docs, n_queries)] if rng.random() < 0.7 else None
    ceiling = rounded[np.arange(n_queries), rng.integers(0, n_docs, n_queries)] if rng.random() < 0.7 else None
    k = problem.k
    if rng.random() < 0.5:
        k, launch["sample"] = 2**31 - 1, 0
    native = exact.native()
    assert native is not None
    corpus = exact.corpus(problem, scan=True)
    rows, offsets, _, dropped, above = native.propose(
        corpus, problem.queries, k, **launch, floor=floor, ceiling=ceiling, listed=listed
    )
    for q in range(n_queries):
        listed = rows[offsets[q] : offsets[q + 1]]
        left = np.setdiff1d(np.flatnonzero(may[q]), listed)
        over = np.zeros(len(left), bool) if ceiling is None else rounded[q, left] > ceiling[q]
        under = np.zeros(len(left), bool) if floor is None else rounded[q, left] < floor[q]
        assert np.count_nonzero(rank[q, left] > dropped[q]) <= above[q] <= np.count_nonzero(over)
        if k == 2**31 - 1:  # nothing but the floor and the ceiling leaves anything out
            assert (over | under).all()
            assert above[q] >= np.count_nonzero(over & ~under)


def test_the_planner_gives_a_reason_for_every_tile_it_rejects() -> None:
    plan = plan_dense(n_queries=32, n_docs=200_000, dims=768, k=10, width=400, row_bytes=768, num_threads=8)
    assert plan.tile == 288
    assert all(plan.rejected[f"tile {tile}"] for tile in (96, 192, 480, 960))
    assert plan.bytes_read == 200_000 * 768
    assert plan.operations == 2 * 200_000 * 768 * 32
    assert plan_dense(1, 100, 64, 10, 80, 256, num_threads=8).num_threads == 1


def test_small_corpora_are_sampled_where_many_results_are_wanted() -> None:
    def sample(n_queries: int, n_docs: int, sure: bool = False) -> int:
        return plan_dense(n_queries, n_docs, 64, 10, 400, row_bytes=64, num_threads=1, sure=sure).sample

    assert sample(1, 24_000) == sample(102, 24_000) == sample(103, 24_000, sure=True) == 0
    assert sample(103, 24_000) == 1000
    assert sample(1, 24_576) == 1024


@pytest.mark.parametrize("constant", [0.63, 0.69])
def test_a_bias_that_cancels_the_norm_is_bounded(isa: str, constant: float) -> None:
    """In l2 the offset is |d|^2 + bias: where the two cancel, the error of a norm summed in float32 stays."""
    n_plain, n_odd, dim = 300, 20, 16384
    odd = np.full((n_odd, dim), constant, np.float32)
    odd[:, 0] = 1
    odd[:, 1:n_odd] *= 1 - 2 * np.tri(n_odd, n_odd - 1, -1, dtype=np.float32)
    squared = float(reference.dot(odd[0], odd[0]))
    plain = np.zeros((n_plain, dim), np.float32)
    plain[:, 0] = np.sqrt(squared)
    plain[:, 1] = np.linspace(0, 1e-3, n_plain)
    docs = np.concatenate([plain, odd])
    query = np.zeros((1, dim), np.float32)
    query[0, 3] = 1e-4
    bias = -reference.dot(docs, docs)
    bias[n_plain:] -= 2e-6 * squared
    problem = dense.prepare(query, Documents(docs), 5, metric="l2", bias=bias)
    assert np.array_equal(exact_search(problem, CpuBackend()).ids, specified(problem).ids)


@pytest.mark.parametrize("metric", reference.METRICS)
def test_one_outlier_does_not_blunt_the_bounds(metric: str) -> None:
    """A huge bias (the usual way to ban a document) or norm leaves the others' candidates as few as they were."""
    rng = np.random.default_rng(3)
    docs = rng.standard_normal((20_000, 48)).astype(np.float32)
    large = docs.copy()
    large[7] *= 1e5
    ban = np.zeros(len(docs))
    ban[5] = 1e9 if metric == "l2" else -1e9
    counts = []
    for rows, bias in ((docs, None), (docs, ban), (large, None)):
        problem = dense.prepare(docs[100:120], Documents(rows), 10, metric=metric, bias=bias)
        backend = CpuBackend()
        counts.append(len(backend.propose(problem, backend.first_width(problem)).rows))
    assert min(counts) >= 10 * 20
    assert max(counts) < 3 * counts[0]


def test_scratch_memory_follows_the_work_not_the_threads_asked_for() -> None:
    """A thousand threads asked for on a small corpus take no more memory than the few that have a tile each."""
    program = (
        "import resource, numpy as np, pyengine as pe\n"
        "docs = np.random.default_rng(0).standard_normal((4000, 64)).astype('f4')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pe.topk(docs[:64], docs, 10, backend='cpu', num_threads=1)\n"
        "before = peak()\n"
        "pe.topk(docs[:64], docs, 10, backend='cpu', num_threads=1000)\n"
        "print(peak() - before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(ran.stdout) < 64 << 10  # KiB


def periodic(n_docs: int, dim: int, period: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A query, and documents of which one in ``period`` resembles it: a strided sample may see those only, or none."""
    query = rng.standard_normal((1, dim)).astype(np.float32)
    docs = rng.standard_normal((n_docs, dim)).astype(np.float32)
    docs[::period] += 2 * query
    return query, docs


@pytest.mark.parametrize("k", [10, 100])
def test_a_sample_that_misleads_costs_no_results(k: int) -> None:
    query, docs = periodic(25_000, 64, 24, np.random.default_rng(5))
    problem = dense.prepare(query, Documents(docs), k, metric="cosine")
    assert np.array_equal(exact_search(problem, CpuBackend()).ids, specified(problem).ids)
    assert (fast_search(problem, CpuBackend()).ids >= 0).all()


def test_what_was_only_likely_is_proposed_again_and_not_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding errors of vectors with two coordinates do not average out."""
    rng = np.random.default_rng(6)
    docs = np.zeros((26_000, 256), np.float32)
    docs[:, :2] = rng.standard_normal((len(docs), 2))
    problem = dense.prepare(docs[:50], Documents(docs), 10, metric="dot")
    want = specified(problem)
    monkeypatch.setattr(CpuBackend, "scan", lambda *_: pytest.fail("scanned"))
    assert np.array_equal(exact_search(problem, CpuBackend()).ids, want.ids)


def coded_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that are coded from here on, call by call."""
    counts: list[int] = []
    quantize = exact.quantize

    def counted(rows: F32, threads: int) -> Any:
        counts.append(len(rows))
        return quantize(rows, threads)

    monkeypatch.setattr(exact, "quantize", counted)
    return counts


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_of_many(kind: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More queries than a pass takes: documents are coded once, and the answers are the specification's bits."""
    rng, counts = np.random.default_rng(9), coded_rows(monkeypatch)
    a, b = make_documents(kind, 1030, 20, rng), make_documents(kind, 1100, 20, rng)
    both = dense.topk_both(a, b, 7, metric=metric, backend="cpu")
    for found, want in zip(both, (reference.topk(a, b, 7, metric), reference.topk(b, a, 7, metric))):
        assert found.certified.all()
        assert np.array_equal(found.ids, want.ids)
        assert np.array_equal(found.scores.view(np.int32), want.scores.view(np.int32))
    assert counts == [1100, 1030]


def test_documents_are_coded_once_only_where_queries_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = coded_rows(monkeypatch)
    docs = np.random.default_rng(10).standard_normal((5000, 8)).astype(np.float32)
    for n_queries, dims in ((1024, None), (1100, None), (1100, 4)):  # one pass, a large corpus, a prefix
        dense.topk(docs[:n_queries], docs, 3, dims=dims, backend="cpu")
    assert counts == []
    plans = [
        explain(dense.prepare(docs[:n], Documents(docs[:4400], checked=True), 3, metric="dot"), "cpu").facts
        for n in (1024, 1100)
    ]
    assert [plan["store"] for plan in plans] == [
        f"float32, coded as int8 {when} it is scanned" for when in ("while", "before")
    ]
    found = dense.topk(docs[:1100], docs[:4400], 3, backend="cpu")
    assert counts == [4400]
    assert np.array_equal(found.ids[:20], dense.topk(docs[:20], docs[:4400], 3, backend="cpu").ids)
    docs[4321, 2] = np.nan
    with pytest.raises(ValueError, match=r"docs.*row 4321"):
        dense.topk(docs[:1100], docs[:4400], 3, backend="cpu")

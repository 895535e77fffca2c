"""The filters of a search on the GPU, run by an emulator: pools against `pyengine.inputs.filters`, and searches of
every family against the specification."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_device, cuda_filters, cuda_kernels
from pyengine.backends.cuda.cuda_backend import CudaBackend
from pyengine.backends.cuda.cuda_maxsim_backend import CudaMaxSim
from pyengine.backends.cuda.cuda_sliced_backend import CudaSliced
from pyengine.backends.cuda.cuda_sparse_backend import CudaSparse
from pyengine.inputs.filters import FilterArguments, Filters, Mark, build
from pyengine.inputs.lists import RowLists
from pyengine.kernels import dense_plan
from pyengine.problems.problem import DenseProblem, Documents, Problem
from pyengine.refining import exact
from pyengine.searches import dense
from pyengine.searches.search import exact_search
from pyengine.types import Candidates
from tests import cuda_driver, sliced_cases, sparse_cases
from tests.cuda_driver import FakeDriver
from tests.dense_cases import rows
from tests.maxsim_cases import Sets

N_DOCS = 150
SORTED = (0, 1, 2, 3, 31, 64, 65, 200)


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if cuda_driver.compiler() is None:
        pytest.skip("no C++ compiler")
    target, source = tmp_path_factory.mktemp("cuda") / "filters.so", cuda_driver.SOURCES / "filter_arithmetic.cpp"
    return ctypes.CDLL(str(cuda_driver.build(source, target, f"-I{cuda_driver.KERNELS}")))


def call(function: Any, *arguments: NDArray[Any] | int) -> int:
    found: int = function(
        *(ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data) for a in arguments)
    )
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_rows_are_found_by_bisection(count: int, arithmetic: ctypes.CDLL) -> None:
    listed = np.unique(np.random.default_rng(count).integers(0, 400, count)).astype(np.int32)
    asked, found = np.arange(401, dtype=np.int32), np.full(401, 9, np.uint8)
    call(arithmetic.listed_all, listed, len(listed), asked, found, 401)
    assert (found == np.isin(asked, listed)).all()


def test_the_range_is_that_of_the_filters(arithmetic: ctypes.CDLL) -> None:
    """Of every pair of odd limits and odd ranks, and of places on both sides of the mark."""
    odd = [-np.inf, -3.4028235e38, -1.5, -0.0, 0.0, 1e-45, np.nextafter(1.5, 0), 1.5, 3.4028235e38, np.inf]
    least, mark, rank, place = (np.array(each) for each in zip(*product(odd, odd, odd[:-1], range(3))))
    ranks, places = rank.astype(np.float32), place.astype(np.int32)
    found = np.full(len(least), 9, np.uint8)
    call(arithmetic.within_all, least, mark, np.ones(len(least), np.int32), ranks, places, found, len(least))
    filters = Filters(after=Mark(mark, np.zeros(len(least), np.int64)), threshold=least)
    each = Candidates(place, np.arange(len(least) + 1), ranks, least)
    assert (found == filters.eligible(each, ranks, place.astype(np.int64))).all()


@pytest.mark.parametrize("count", SORTED)
def test_the_network_sorts(count: int, arithmetic: ctypes.CDLL) -> None:
    """Of any number of values; and no place is met twice in a step."""
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 1 + 10 * seed, count)
        want = np.sort(values)
        assert call(arithmetic.network, values, np.zeros(count, np.int32), count) == 0
        assert (values == want).all()


FILTERS: dict[str, dict[str, Any]] = {
    "exclude": {"exclude": [[1, 2, 140], [], [9]]},
    "exclude_most": {"exclude": [np.arange(N_DOCS), np.arange(140), np.arange(149)]},
    "threshold": {"threshold": [0.4, -np.inf, np.inf]},
    "groups": {"groups": np.arange(N_DOCS) % 7},
    "one_group": {"groups": np.full(N_DOCS, -(1 << 40)), "per_group": 4},
    "groups_of_one": {"groups": np.arange(N_DOCS) - 70, "per_group": (1 << 31) - 1},
    "after": {"after": ([1.0, 0.0, -0.3], [5, 1 << 60, -1])},
    "after_in_groups": {"after": ([2.0, 1.0, 0.5], [0, 149, 7]), "groups": np.arange(N_DOCS) % 11, "threshold": -1.0},
    "all": {
        "groups": np.arange(N_DOCS) // 3, "per_group": 2, "exclude": [[0, 1, 2], [3], [4]], "threshold": -0.5,
        "after": ([1.5, 0.3, 0.5], [9, 3, 1]), "allow": np.arange(10, 140), "deny": [60, 61],
    },
}  # fmt: skip
MASKS: dict[str, dict[str, Any]] = {
    "shared": {"mask": np.arange(N_DOCS) > 120},
    "each": {"mask": np.random.default_rng(4).random((3, N_DOCS)) < 0.2},
    "nothing": {"mask": np.zeros((3, N_DOCS), bool)},
    "biased": {"bias": np.random.default_rng(5).standard_normal(N_DOCS)},
}
FAMILIES = ("dense", "maxsim", "sparse", "sliced")
CASES = [
    *product(FAMILIES, FILTERS, ("ids", "rows"), ("",)),
    *((family, "all", "ids", masked) for family in FAMILIES for masked in MASKS),
    *((family, "groups", "rows", "nothing") for family in FAMILIES),
]


def problem(family: str, k: int = 5, **options: Any) -> Problem:
    """Of three queries and 150 documents, many of which tie."""
    if family == "sparse":
        return sparse_cases.problem(n_queries=3, k=k, values=sparse_cases.WEIGHTS["ties"], **options)
    if family == "sliced":
        return sliced_cases.problem(n_queries=3, k=k, values=lambda rng, shape: rng.integers(-1, 3, shape), **options)
    names = [name for name in FilterArguments._fields if name in options]
    filters = FilterArguments(**{name: options.pop(name) for name in names})
    if family == "maxsim":
        lengths = np.random.default_rng(3).integers(0, 4, N_DOCS).tolist()
        return Sets([5, 0, 2], lengths, 6, "ties").problem(k, filters=filters, **options)
    docs = Documents(np.random.default_rng(2).integers(-1, 2, (N_DOCS, 5)).astype(np.float32), cache={})
    return dense.prepare(rows(9, 3, 5), docs, k, metric="l2" if k == 5 else "cosine", filters=filters, **options)


@pytest.fixture
def on_the_gpu(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No list comes to the host, and the filters have run."""
    for own in (CudaBackend, CudaMaxSim, CudaSparse, CudaSliced):
        monkeypatch.setattr(own, "propose", lambda *given: pytest.fail("proposed to the host"))
    yield
    assert any(line.startswith("filter_pools ") for line in emulated.log)


@pytest.mark.usefixtures("on_the_gpu", "poison")
@pytest.mark.parametrize(
    ("family", "filters", "ids", "masked"), CASES, ids=["-".join(filter(None, each)) for each in CASES]
)
def test_searches(family: str, filters: str, ids: str, masked: str) -> None:
    """With row numbers, and with ids in another order; more results than there may be, too."""
    options = FILTERS[filters] | MASKS.get(masked, {})
    if ids == "ids":
        options = options | {"ids": np.random.default_rng(4).permutation(N_DOCS)}
    for k in (5, 140):
        asked = problem(family, k, **options)
        with exact.arithmetic():
            found = exact_search(asked, registry.of_family("cuda", family))
            conformance.same(found, conformance.specified(asked), filters)


@pytest.mark.usefixtures("on_the_gpu")
def test_blocks_of_queries_have_their_own_filters(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pools of all queries do not fit, each block of them meets the filters of its own queries."""
    rng = np.random.default_rng(6)
    given = FilterArguments(
        exclude=[rng.permutation(90)[: count % 50].tolist() for count in range(140)],
        threshold=rng.standard_normal(140) / 2, after=(rng.standard_normal(140) + 1, rng.integers(0, 90, 140)),
    )  # fmt: skip
    asked = dense.prepare(rows(7, 140, 6), Documents(rows(8, 90, 6)), 4, metric="dot", filters=given)
    monkeypatch.setattr(dense_plan, "POOL_BYTES", 128 * dense_plan.PLACE_BYTES * 256)
    dense_plan.plan_dense_scan.cache_clear()
    conformance.same(exact_search(asked, registry.get("cuda")), conformance.specified(asked), "blocks")
    dense_plan.plan_dense_scan.cache_clear()
    grids = [line.split()[2] for line in emulated.log if line.startswith("filter_pools ")]
    assert grids == ["128", "12"]


@pytest.mark.usefixtures("on_the_gpu")
def test_a_page_lists_nothing_of_those_before(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 900 best are above the mark, and pools have room for 512: the first attempt is certified all the same."""
    monkeypatch.setattr(dense_plan, "LEAST_PLACES", 512)
    queries, docs = rows(12, 2, 6), Documents(rows(13, 1200, 6), cache={})
    whole = conformance.specified(dense.prepare(queries, docs, 1200, metric="dot"))
    given = FilterArguments(after=(whole.scores[:, 899], whole.ids[:, 899]))
    asked = dense.prepare(queries, docs, 20, metric="dot", filters=given)
    found = exact_search(asked, registry.get("cuda"))
    np.testing.assert_array_equal(found.ids, whole.ids[:, 900:920])
    np.testing.assert_array_equal(found.scores, whole.scores[:, 900:920])
    assert sum(line.startswith("filter_pools ") for line in emulated.log) == 1


def pool_problem(n_queries: int, n_docs: int, given: FilterArguments, ids: Any) -> DenseProblem:
    filters = build(given, n_queries, n_docs, "dot", lambda found: found)
    asked = dense.prepare(rows(1, n_queries, 1), Documents(rows(2, n_docs, 1), cache={}), 1, metric="dot", ids=ids)
    return replace(asked, filters=filters)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("negate", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(("n_labels", "per_group"), [(0, 1), (1, 3), (7, 1), (7, 200), (3000, 1), (3000, 2)])
def test_pools(n_labels: int, per_group: int, ordered: bool, negate: bool) -> None:
    """Of every length of a pool, what the host would keep stays, first and whole; beyond it nothing is written."""
    counts, capacity, n_docs = [0, 1, 2, 511, 512, 513, 1300, (1 << 31) - 2048], 1300, 3000
    rng, gpu = np.random.default_rng(n_labels + per_group), cuda_device.gpu_of(Documents(rows(0, 1, 1)))
    held = np.stack([rng.permutation(n_docs)[:capacity] for _ in counts]).astype(np.int32)
    scores = rng.standard_normal(held.shape).astype(np.float32).round(1) + np.float32(0)
    excluded = [rng.permutation(n_docs)[:count].tolist() for count in (9, 0, 3, 1, 2999, 40, 300, 1500)]
    given = FilterArguments(
        exclude=excluded,
        threshold=rng.standard_normal(8).round(1) - 1,
        after=(rng.standard_normal(8).round(1) + 1, rng.integers(0, n_docs, 8)),
        **({"groups": rng.integers(0, n_labels, n_docs), "per_group": per_group} if n_labels else {}),
    )
    asked = pool_problem(8, n_docs, given, rng.permutation(n_docs) if ordered else None)
    order = None if asked.ids is None else gpu.array(asked.ids.astype(np.int32))  # the place of each row
    pools = cuda_kernels.pools(gpu, 8, capacity)._replace(
        rows=gpu.array(held), counts=gpu.array(np.array(counts, np.int32))
    )
    on_gpu = gpu.array(-scores if negate else scores)
    cuda_filters.leave(gpu, on_gpu, pools, cuda_filters.limits(asked, gpu), order, negate)
    left, kept_rows, kept_scores = gpu.host(pools.counts), gpu.host(pools.rows), gpu.host(on_gpu)
    for q, count in enumerate(np.minimum(counts, capacity)):
        own = asked.only(np.array([q]))
        each = Candidates(held[q, :count].astype(np.int64), np.array([0, count]), scores[q, :count], np.zeros(1))
        want = own.eligible(own.not_excluded(each))
        assert left[q] == len(want.rows)
        got = dict(zip(kept_rows[q, : left[q]].tolist(), kept_scores[q, : left[q]].tolist()))
        sign = -1 if negate else 1
        assert got == dict(zip(want.rows.tolist(), (sign * want.estimates).tolist()))
        assert (kept_rows[q, count:] == held[q, count:]).all()


def test_lists_of_excluded_rows_rise() -> None:
    """What the bisection relies on."""
    (given,) = (pool_problem(2, 9, FilterArguments(exclude=[[8, 1, 1, 3], [2, 0]]), None).filters,)
    assert given is not None
    assert isinstance(given.excluded, RowLists)
    assert given.excluded.rows.tolist() == [1, 3, 8, 0, 2]

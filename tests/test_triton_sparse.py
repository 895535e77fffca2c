"""Sparse rows in Triton against the specification: on a GPU if there is one, else in the interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyengine.backends import registry
from pyengine.conformance.conformance_sparse import rows
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.sparse_plan import BLOCKS, HEADS, TILE, illegal, levels, plan_columns, plan_sparse
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.specification import reference_sparse
from pyengine.types import Candidates
from tests import sparse_cases
from tests.sparse_cases import OPTIONS, WEIGHTS, prepared, problem, rows_of_any_weights

check = partial(sparse_cases.check, name="triton")
kernels = pytest.mark.usefixtures("interpreter", "poison")


@kernels
@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_of_all_kinds(weights: str) -> None:
    check(problem(values=WEIGHTS[weights], n_docs=130))


@kernels
@pytest.mark.parametrize("weights", ["plain", "signed"])
@pytest.mark.parametrize("store", ["rows", "float16", "uint8"])
def test_stores_and_columns(store: str, weights: str) -> None:
    """Frequent terms, of which some become columns."""
    asked = problem(longest=40, n_terms=70, n_docs=70, n_queries=1, store=store, values=WEIGHTS.get(weights))
    from pyengine.backends.triton import triton_sparse

    held = triton_sparse.tiles_of(asked.docs)
    assert held.n_columns == HEADS[1]
    assert held.n_tail > 0
    check(asked)


@kernels
@pytest.mark.parametrize("n_docs", [0, 1, TILE - 1, TILE, TILE + 1, 2 * TILE + 1])
def test_numbers_of_documents(n_docs: int) -> None:
    check(problem(n_docs=n_docs))


@kernels
@pytest.mark.parametrize("n_queries", [0, BLOCKS[0] + 1])
def test_numbers_of_queries(n_queries: int) -> None:
    check(problem(n_docs=70, n_queries=n_queries, longest=5))


@kernels
@pytest.mark.parametrize("options", OPTIONS)
def test_options(options: str) -> None:
    check(problem(**OPTIONS[options]))


@kernels
def test_a_vocabulary_of_a_million_terms() -> None:
    check(sparse_cases.of_a_million_terms())


@kernels
def test_more_terms_than_short_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where documents have more than 16 bits number."""
    from pyengine.backends.triton import triton_queries, triton_sparse, triton_tiles

    for module in (triton_queries, triton_tiles):
        monkeypatch.setattr(module, "SHORT", 50)
    asked = problem()
    assert triton_sparse.tiles_of(asked.docs).terms.element_size() == 4
    check(asked)


@kernels
def test_fewer_matches_than_k() -> None:
    check(sparse_cases.with_few_matches(1))
    check(sparse_cases.with_few_matches(-1))


@kernels
def test_empty_rows() -> None:
    check(sparse_cases.with_empty(queries=True))
    check(sparse_cases.with_empty(queries=False))


@pytest.fixture
def small_pools() -> Iterator[None]:
    """Pools with hardly a place to spare: several levels, and what finds no room."""
    pytest.importorskip("torch")
    from pyengine.backends.shared import row_pools

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_pools, "ROOM", 2)
        yield


@kernels
@pytest.mark.parametrize("weights", ["signed", "binary"])
def test_levels_and_full_pools(small_pools: None, weights: str) -> None:
    check(problem(n_docs=700, n_queries=1, k=30, values=WEIGHTS[weights]))


@kernels
def test_queries_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyengine.backends.shared import row_pools

    monkeypatch.setattr(row_pools, "PLACES", 200)
    check(problem(n_queries=3))


def listed(asked: SparseProblem) -> Candidates:
    """All documents whose bound is above 0."""
    from pyengine.backends.triton import triton_sparse

    return triton_sparse.propose(asked, len(asked.docs))


@kernels
def test_overlaps_are_counted_exactly() -> None:
    asked = problem(values=WEIGHTS["binary"], n_docs=200, n_terms=70, longest=30, k=200)
    sparse_cases.check_overlaps(asked, listed(asked))


@kernels
@pytest.mark.parametrize("weights", ["signed", "far_apart", "all_magnitudes", "plain"])
def test_bounds_hold(weights: str) -> None:
    """Of every document, one by one, and they are not much too wide where weights are ordinary."""
    from pyengine.backends.triton import triton_device, triton_sparse
    from pyengine.backends.triton.triton_workspace import Workspace

    asked = problem(values=WEIGHTS.get(weights), k=150, longest=30, n_terms=70)
    room = Workspace(triton_device.device_of(asked.docs))
    found = triton_sparse.scanned(replace(asked, bias=np.zeros(150)), 150, room)
    scores = reference_sparse.unrounded_scores(asked.queries, asked.docs.sparse_rows())
    numbers, upper, lower = (each.cpu().numpy() for each in found.pools[:3])
    assert (found.pools.counts.cpu().numpy() == 150).all()
    for q, own in enumerate(scores):
        score = own[numbers[q]] / found.units[q]
        assert (lower[q] <= score).all()
        assert (score <= upper[q]).all()
        if weights == "plain":
            assert (upper[q] - lower[q] <= 0.003 * score + 1e-6).all()


@kernels
@pytest.mark.parametrize("store", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("bias", [None, "bias", "bias_huge"])
def test_refined_scores_are_the_specifications(store: str, bias: str | None) -> None:
    sparse_cases.check_refined("triton", store, {} if bias is None else OPTIONS[bias])


@kernels
def test_an_index_that_changes() -> None:
    sparse_cases.check_an_index_that_changes("triton")


@kernels
@settings(max_examples=4)
@given(queries=rows_of_any_weights(2), docs=rows_of_any_weights(20), k=st.integers(1, 25))
def test_any_rows(queries: SparseRows, docs: SparseRows, k: int) -> None:
    check(prepared(queries, docs, k, "rows"))


@given(n_tiles=st.integers(0, 5000), capacity=st.integers(1, 5000))
def test_levels_have_each_tile_once(n_tiles: int, capacity: int) -> None:
    parts = levels(n_tiles, capacity)
    tiles = [stride * (i + skip * (i // 3 + 1)) for stride, skip, count in parts for i in range(count)]
    assert sorted(tiles) == list(range(n_tiles))
    if parts:
        assert parts[0][2] * TILE <= max(capacity, TILE)
        sizes = np.cumsum([count for _, _, count in parts])
        assert (sizes[1:] <= 4 * sizes[:-1]).all()


def test_columns_are_the_terms_that_most_documents_have() -> None:
    best, rejected = plan_columns([1000] * 64 + [1] * 500, 1000)
    assert best == 64
    assert set(rejected) == {"0 columns", "128 columns", "256 columns"}
    assert plan_columns([5] * 300, 1000)[0] == 0
    assert plan_columns([], 0)[0] == 0


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_a_plan_takes_the_smallest_block_that_holds_the_queries(chip: Any) -> None:
    few = plan_sparse(3, 10_000, 400_000, 64, 6, False, chip)
    many = plan_sparse(500, 10_000, 400_000, 64, 6, False, chip)
    assert (few.block, many.block) == (16, 64)
    assert few.rejected["block 64"] == "there are only 3 queries, which 16 hold"
    assert "visit each posting 32 times" in many.rejected["block 16"]
    assert many.gathers == 8 * 400_000


def test_a_block_that_does_not_fit_is_rejected_with_the_reason() -> None:
    chip = CHIPS["sm_100"]
    assert plan_sparse(500, 10_000, 400_000, 64, 6, True, chip).block == 16
    assert "spill on sm_100" in plan_sparse(500, 10_000, 400_000, 64, 6, True, chip).rejected["block 64"]
    small = replace(chip, shared=1000)
    assert "exceed the 1000 of sm_100" in illegal(64, True, False, small)
    assert not illegal(64, False, False, small)


def test_a_query_of_too_many_terms_is_refused() -> None:
    pytest.importorskip("torch")
    asked = prepared(
        SparseRows([0, 70_000], np.arange(70_000), None, 70_000), rows(np.random.default_rng(0), 3, 5, 70_000), 3
    )
    reasons = registry.of_family("triton", "sparse").refusals(asked)
    assert reasons == ["its kernels take queries of at most 65,536 terms, and one has 70,000"]


def test_rounding_of_nothing_is_nothing() -> None:
    pytest.importorskip("torch")
    from pyengine.backends.shared import row_pools

    got = row_pools.above(np.array([0.0, 1.0, 1e-300, 0.1]))
    assert got[0] == 0
    assert (got[1:].astype(np.float64) > [1.0, 1e-300, 0.1]).all()
    assert np.isfinite(got).all()

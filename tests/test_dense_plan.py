"""The planner of the dense scan on a GPU (`kernels/dense_plan.py`)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.kernels.chips import CHIPS, Chip
from pyengine.kernels.dense_plan import KINDS, DenseScan, first_places, forms, plan_dense_scan, tiles

SM_90 = CHIPS["sm_90"]


def plan(n_queries: int = 64, n_docs: int = 1_000_000, k: int = 10, kind: str = "i8", dims: int = 768) -> DenseScan:
    return plan_dense_scan(SM_90, kind, n_queries, n_docs, dims, k, KINDS[kind] * dims, first_places(k))


@pytest.mark.parametrize(("n_queries", "columns"), [(1, 16), (16, 16), (17, 64), (64, 64), (65, 128), (4096, 128)])
@pytest.mark.parametrize("kind", ["i8", "fp16", "bf16"])
def test_few_queries_take_narrow_tiles(kind: str, n_queries: int, columns: int) -> None:
    assert plan(n_queries, kind=kind).tile.queries == columns


def test_every_other_tile_is_rejected_with_a_reason() -> None:
    chosen = plan(1)
    assert len(chosen.rejected) == len(list(tiles(SM_90, "i8"))) - 1
    assert all("costs" in reason for reason in chosen.rejected.values())
    assert plan(1, n_docs=100).rejected["4096 places"] == "256 hold all 100 documents"


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_forms_fit_the_chip(chip: Chip) -> None:
    known = list(forms(chip))
    assert {kind for kind, _ in known} == set(KINDS)
    assert all(tile.shared_bytes(kind) <= chip.shared for kind, tile in known)


@given(
    st.integers(1, 5000), st.integers(1, 3_000_000), st.integers(1, 20_000), st.sampled_from(list(KINDS)),
    st.integers(1, 8192),
)  # fmt: skip
def test_plans(n_queries: int, n_docs: int, k: int, kind: str, dims: int) -> None:
    """Tiles come once each, the first part can set a threshold, and pools have room for k."""
    found = plan(n_queries, n_docs, k, kind, dims)
    assert found.parts[0] == 0
    assert found.parts[-1] == found.n_tiles == -(-n_docs // found.tile.docs)
    assert list(found.parts) == sorted(set(found.parts))
    assert math.gcd(found.step, found.n_tiles) == 1
    assert found.k == min(k, n_docs)
    assert found.capacity >= min(2 * found.k, n_docs)
    assert 1 <= found.query_block <= n_queries
    assert found.query_block == n_queries or found.query_block % found.tile.queries == 0
    assert found.operations >= 2 * n_queries * n_docs * dims


@pytest.mark.parametrize(("kind", "dims"), [("fp8", 64), ("i8", 0), ("i8", 8193)])
def test_what_has_no_form(kind: str, dims: int) -> None:
    with pytest.raises(ValueError, match="kind must be one of i8, fp16, bf16, fp32, of 1 to 8192 dimensions"):
        plan_dense_scan(SM_90, kind, 1, 1, dims, 1, 64, 1)

"""The planner of the dense scan on a GPU (`kernels/dense_plan.py`)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.kernels.chips import CHIPS, Chip, chip_of
from pyengine.kernels.dense_plan import KINDS, DenseScan, cuda_tiles, first_places, forms, plan_dense_scan, tiles

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


STEP = {16: 20_480, 64: 32_768, 128: 32_768}  # bytes of a step, by the queries of a tile, and beside the ring
OWN = {16: 640, 64: 2_304, 128: 4_608}
STAGES = {  # of the tiles for 16, 64 and 128 queries, by compute capability and its shared memory
    ((8, 0), 166_912): (4, 3, 3),
    ((8, 6), 101_376): (4, 3, 2),  # three would take 4,608 bytes more than 98,304 have left
    ((8, 7), 166_912): (4, 3, 3),
    ((8, 9), 101_376): (4, 3, 2),
    ((9, 0), 232_448): (5, 4, 4),
    ((10, 0), 232_448): (5, 4, 4),
    ((12, 0), 101_376): (4, 3, 2),
}


def chip_with(capability: tuple[int, int], shared: int) -> Chip:
    return replace(chip_of(capability), shared=shared)


@pytest.mark.parametrize(("capability", "shared"), STAGES)
@pytest.mark.parametrize("kind", ["i8", "fp16", "bf16"])
def test_tiles_of_cuda_fit_each_chip(capability: tuple[int, int], shared: int, kind: str) -> None:
    """All three, with as many stages as fit beside what a kernel has of its own: one more would not, or is not made."""
    chip = chip_with(capability, shared)
    found = {tile.queries: tile for tile in cuda_tiles(chip, kind)}
    assert tuple(tile.stages for tile in found.values()) == STAGES[capability, shared]
    for queries, tile in found.items():
        assert tile.cuda_bytes(kind) == tile.stages * STEP[queries] + OWN[queries] <= shared
        whole = next(each.stages for each in tiles(chip, kind) if each.queries == queries)
        assert tile.stages == whole or (tile.stages + 1) * STEP[queries] + OWN[queries] > shared


@pytest.mark.parametrize(("capability", "shared"), STAGES)
@pytest.mark.parametrize(("n_queries", "taken"), [(1, 16), (16, 16), (17, 64), (64, 64), (65, 128), (1000, 128)])
def test_no_chip_is_held_to_a_narrow_tile(capability: tuple[int, int], shared: int, n_queries: int, taken: int) -> None:
    found = plan_dense_scan(chip_with(capability, shared), "i8", n_queries, 10**6, 768, 10, 768, 4096, cuda=True)
    assert found.tile.queries == taken
    assert len(found.rejected) == 2
    assert all(f"for {n_queries} queries" in reason for reason in found.rejected.values())


def test_what_does_not_fit_is_rejected_with_its_bytes() -> None:
    """A byte less than two stages take, of each tile in turn."""
    two = {queries: 2 * STEP[queries] + OWN[queries] for queries in STEP}
    for queries, left in {128: 64, 64: 16}.items():
        chip = replace(SM_90, shared=two[queries] - 1)
        found = plan_dense_scan(chip, "i8", 500, 10**6, 768, 10, 768, 4096, cuda=True)
        (said,) = [why for name, why in found.rejected.items() if name.startswith(f"128 x {queries} x")]
        assert said == f"{two[queries]} bytes of shared memory exceed the {two[queries] - 1} of a block"
        assert found.tile.queries == left
    with pytest.raises(AssertionError, match="no form for i8 fits sm_90"):
        plan_dense_scan(replace(SM_90, shared=two[16] - 1), "i8", 1, 10**6, 768, 10, 768, 4096, cuda=True)


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

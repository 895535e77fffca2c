"""The planner of the dense scan for Hopper (`kernels/dense_sm90_plan.py`)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.kernels import dense_sm90_plan
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.dense_plan import Tile, tiles
from pyengine.kernels.dense_sm90_plan import MOST_STAGES, RESIDENT_STAGES, forced, form, plan_hopper

SM_90 = CHIPS["sm_90"]
NARROW, MIDDLE, WIDE = tiles(SM_90, "i8")


@given(
    st.sampled_from([NARROW, MIDDLE, WIDE]), st.integers(1, 16_384), st.integers(1, 20_000), st.integers(1, 10_000)
)  # fmt: skip
def test_plans(tile: Tile, row_bytes: int, n_queries: int, n_tiles: int) -> None:
    """What a block asks for fits, static shared memory beside it; no group is without a tile."""
    found = plan_hopper(SM_90, tile, row_bytes, n_queries, n_tiles)
    assert found.steps * 128 >= row_bytes > (found.steps - 1) * 128
    assert 2 <= found.stages <= MOST_STAGES
    queries, docs = tile.parts * tile.queries * 128, tile.docs * 128
    held = found.steps * queries + found.stages * docs if found.resident else found.stages * (docs + queries)
    assert found.shared == 2048 + held
    assert found.shared + 2 * 36 * tile.queries <= SM_90.shared
    assert 8 * (2 * found.stages + 3) <= dense_sm90_plan.BARRIERS
    groups, rest = divmod(found.blocks, -(-n_queries // tile.queries))
    assert rest == 0
    assert 1 <= groups <= n_tiles
    if found.resident:
        assert found.stages >= RESIDENT_STAGES


def test_queries_stay_where_there_is_room() -> None:
    found = {row_bytes: plan_hopper(SM_90, WIDE, row_bytes, 128, 100) for row_bytes in (768, 1152, 1153, 1536)}
    assert [each.resident for each in found.values()] == [True, True, False, False]
    assert [each.stages for each in found.values()] == [7, 4, 6, 6]


@pytest.mark.parametrize(
    ("n_queries", "n_tiles", "blocks"),
    [(1, 1, 1), (128, 5, 5), (128, 7813, 132), (1024, 7813, 264), (4096, 7813, 128), (100 * 128, 7813, 500)],
)
def test_multiprocessors_are_kept_busy(n_queries: int, n_tiles: int, blocks: int) -> None:
    assert plan_hopper(SM_90, WIDE, 768, n_queries, n_tiles).blocks == blocks


def test_the_form_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(capability: int = 90, address: int = 256, stride: int = 768) -> tuple[str, str]:
        return form(capability, SM_90, "i8", WIDE, address, stride)

    assert of() == ("sm_80", "not measured")
    with forced("sm_90"):
        assert of() == ("sm_90", "asked for")
        assert of(stride=776) == of(address=8) == (
            "sm_80", "a tensor map describes rows that begin at multiples of 16 bytes"
        )  # fmt: skip
        assert of(80) == of(100) == of(89) == ("sm_80", "wgmma is of compute capability 9.0 alone")
    monkeypatch.setattr(dense_sm90_plan, "MEASURED", {("sm_90", "i8", 128): "sm_90"})
    assert of() == ("sm_90", "measured")
    assert form(90, SM_90, "i8", NARROW, 0, 0) == ("sm_80", "not measured")
    with forced("sm_80"):
        assert of() == ("sm_80", "asked for")
    with pytest.raises(ValueError, match=r"^form must be one of sm_80, sm_90; got sm_100$"), forced("sm_100"):
        pass

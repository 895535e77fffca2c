"""The planner of the CUDA scans of bits and of float32 (`kernels/dense_forms.py`)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.kernels import dense_forms
from pyengine.kernels.chips import CHIPS, Chip
from pyengine.kernels.dense_forms import FEW, FEW_SIGNS, MANY, SIGNS, bit_kernel, bit_shared, plan_bits, plan_float32
from pyengine.kernels.dense_plan import first_places

SM_90 = CHIPS["sm_90"]


@pytest.mark.parametrize(
    ("signs", "n_queries", "tile", "kernel"),
    [(True, 1, FEW_SIGNS, "dense_signs_4"), (True, 4, FEW_SIGNS, "dense_signs_4"), (True, 5, SIGNS, "dense_signs_64"),
     (False, 1, FEW, "dense_bits_8"), (False, 8, FEW, "dense_bits_8"), (False, 9, MANY, "dense_bits_16")],
)  # fmt: skip
def test_bits(signs: bool, n_queries: int, tile: object, kernel: str) -> None:
    found = plan_bits(signs, n_queries, 1_000_000, 768, 10, 96, first_places(10))
    assert found.tile == tile
    assert bit_kernel(found.tile) == kernel
    assert len(found.rejected) == (1 if signs else 2)
    assert found.bytes_read == 96_000_000


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
@given(row_bytes=st.integers(1, 1024))
def test_shared_memory_of_bits(chip: Chip, row_bytes: int) -> None:
    """A ring is no longer than a row has steps: two blocks fit, where these are two at most."""
    for tile in dense_forms.bit_tiles():
        assert bit_shared(tile, row_bytes) <= chip.shared // (1 if row_bytes > 256 else 2)
    assert bit_shared(SIGNS, 96) == 32_768
    assert bit_shared(FEW_SIGNS, 96) == 384


@pytest.mark.parametrize(("n_queries", "columns"), [(1, 16), (16, 16), (20, 16), (64, 64), (128, 128), (4096, 128)])
def test_float32_takes_the_tile_that_wastes_least(n_queries: int, columns: int) -> None:
    """Without tensor cores multiplying costs more than reading from 30 queries on."""
    found = plan_float32(SM_90, n_queries, 1_000_000, 768, 10, 3072, first_places(10))
    assert found.tile.queries == columns
    assert found.tile.parts == 1
    assert len(found.rejected) == 2


def test_codes_are_loose_beyond_a_limit() -> None:
    assert dense_forms.loose(0.03) is None
    reason = "int8 codes are off by 0.050 of a document's length on average, and 0.031 is the most"
    assert dense_forms.loose(0.05) == reason
    assert dense_forms.loose(float("nan"))


def test_float32_is_forced_within_a_block() -> None:
    with dense_forms.float32_forced():
        assert dense_forms.forced()
    assert not dense_forms.forced()

"""The planner of late interaction on a GPU: legal tiles, the choice, and how queries are laid out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pyengine.kernels.chips import CHIPS, Chip
from pyengine.kernels.maxsim_plan import (
    BITS,
    ELEMENT,
    PACKED_TILES,
    SLOTS,
    SYMMETRIC_TILES,
    TILES,
    lay,
    legal,
    packed_form,
    padded,
    plan_scan,
    tiles,
    token_bytes,
)

CHIP = CHIPS["sm_90"]
SMALL = Chip("small", 80, multiprocessors=1, shared=60_000, l2=1 << 20)


@pytest.mark.parametrize(
    ("lengths", "block_m"),
    [([32], 32), ([5], 16), ([33], 64), ([32] * 64, 128), ([1024], 128), ([1] * 40, 16), ([20, 20], 64), ([], 16)],
)
def test_the_tile_weighs_padding_against_reading_documents_again(lengths: list[int], block_m: int) -> None:
    plan = plan_scan(lengths, 1_000_000, 128, "int8", CHIP)
    assert plan.tile.block_m == block_m
    assert (plan.tile.block_k, plan.tile.whole) == (128, True)
    rows = lay(lengths, plan.tile.block_m).count * plan.tile.block_m
    assert plan.operations == 2 * 1_000_000 * 128 * rows
    assert plan.bytes_read == 1_000_000 * (128 + 4)


@pytest.mark.parametrize(
    ("dim", "block_k", "whole"), [(1, 64, True), (65, 128, True), (129, 64, False), (768, 64, False)]
)
def test_dimensions_are_taken_whole_where_they_fit(dim: int, block_k: int, whole: bool) -> None:
    tile = plan_scan([32], 1000, dim, "float16", CHIP).tile
    assert (tile.block_k, tile.whole) == (block_k, whole)
    assert padded(dim) % 16 == 0
    assert 0 <= padded(dim) - dim < 16


@pytest.mark.parametrize("symmetric", [False, True])
def test_every_tile_is_chosen_or_rejected_with_a_reason(symmetric: bool) -> None:
    plan = plan_scan([32, 7, 0, 300], 1000, 96, "int8", CHIP, symmetric)
    every = SYMMETRIC_TILES if symmetric else TILES
    assert {str(plan.tile), *plan.rejected} == {str(tile) for tile in every}
    assert str(plan.tile) not in plan.rejected
    assert all(plan.rejected.values())


def test_what_a_chip_cannot_hold_is_not_shipped_for_it() -> None:
    every = {form: list(PACKED_TILES if form in BITS else TILES) for form in ELEMENT}
    assert {form: tiles(form, CHIP, False) for form in ELEMENT} == every
    few = tiles("float16", SMALL, False)
    assert 0 < len(few) < len(TILES)
    reasons = [legal(tile, "float16", SMALL) for tile in TILES if tile not in few]
    assert all("bytes of shared memory exceed the 60,000 of small" in str(reason) for reason in reasons)
    assert plan_scan([1024], 1000, 128, "float16", SMALL).tile in few
    with pytest.raises(ValueError, match="no tile fits none: "):
        plan_scan([1024], 1000, 128, "float16", replace(SMALL, name="none", shared=1000))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("lengths", [[], [0], [0, 5], [16, 1], [3] * 50, [40, 2, 0, 0, 33, 16, 16, 1], [0] * 40])
def test_panels_hold_every_token_once(lengths: list[int], alone: bool) -> None:
    laid = lay(lengths, 16, alone)
    places = np.concatenate([np.arange(0), *(start + np.arange(n) for start, n in zip(laid.starts, lengths))])
    assert len(set(places)) == sum(lengths)
    firsts, queries = laid.firsts.tolist(), laid.queries.tolist()
    assert firsts == sorted(set(firsts))
    assert queries == sorted(queries)
    assert (firsts[-1], queries[-1]) == (laid.count, len(lengths))
    for first, last, start, stop in zip(firsts, firsts[1:], queries, queries[1:]):
        assert 1 <= stop - start <= (1 if alone else SLOTS)
        assert stop - start == 1 or last - first == 1
        for at, n in zip(laid.starts[start:stop], lengths[start:stop]):
            assert 16 * first <= at <= at + n <= 16 * last
        fuller = sum(lengths[start : stop + 1]) <= 16 and stop - start < SLOTS
        assert alone or stop == len(lengths) or not fuller


def test_tokens_of_few_bits_take_few_bytes() -> None:
    """What is on a device for a token of 128 dimensions: its bits, a step, the number of its centroid, a weight."""
    taken = {form: token_bytes(128, form) for form in ELEMENT}
    assert taken == {"int8": 132, "float16": 260, "packed1": 26, "packed2": 42, "packed4": 74}
    assert [packed_form(planes) for planes in (1, 2, 3, 4)] == ["packed1", "packed2", "packed4", "packed4"]
    assert padded(65, "packed2") == 128
    assert plan_scan([32], 1000, 100, "packed2", CHIP).bytes_read == 42_000

"""Token pooling: which tokens are merged, and what is said of it."""

from __future__ import annotations

from math import ceil
from typing import Any, cast

import numpy as np
import pytest

import pyengine as pe

pytest.importorskip("scipy")
pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(1)
LENGTHS = [0, 1, 2, 3, 7, 40, 0, 13]
DOCS = [RNG.standard_normal((length, 6)).astype(np.float32) for length in LENGTHS]


@pytest.mark.parametrize("factor", [1, 1.5, 2, 3, 100])
def test_every_document_has_its_share_and_every_mean_its_members(factor: float) -> None:
    pooled, said = pe.pool_tokens(DOCS, factor)
    assert pooled.lengths.tolist() == [ceil(length / factor) for length in LENGTHS]
    assert (said.before, said.after) == (sum(LENGTHS), len(pooled.values))
    rows = np.concatenate(DOCS)
    for token, value in enumerate(pooled.values):
        members = rows[said.owner == token].astype(np.float64)
        np.testing.assert_array_equal(value, (members.sum(axis=0) / len(members)).astype(np.float32))
    firsts = [int(np.flatnonzero(said.owner == token)[0]) for token in range(said.after)]
    assert firsts == sorted(firsts)
    document = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    assert np.array_equal(np.searchsorted(pooled.offsets, said.owner, side="right") - 1, document)


def test_a_factor_of_one_changes_nothing() -> None:
    pooled, said = pe.pool_tokens(DOCS, 1)
    np.testing.assert_array_equal(pooled.values, np.concatenate(DOCS))
    assert np.allclose(said.cosine, 1)
    assert str(said).startswith("66 tokens became 66, of which 66 are as they were; cosine")


def test_what_points_the_same_way_is_merged_whatever_its_length() -> None:
    doc = np.array([[1, 0], [0, 3], [5, 0.1], [0, 0.5]], np.float32)
    pooled, said = pe.pool_tokens([doc], 2)
    assert said.owner.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(pooled[0], np.array([[3, 0.05], [0, 1.75]], np.float32))
    assert said.cosine[1] == 1


def test_zeros_are_far_from_everything() -> None:
    pooled, said = pe.pool_tokens([np.array([[0, 0], [1, 1], [2, 2.1], [0, 0]], np.float32)], 4 / 3)
    assert pooled.lengths.tolist() == [3]
    assert said.owner.tolist() == [0, 1, 1, 2]
    assert said.cosine[0] == 0


def test_nothing_is_said_of_nothing() -> None:
    pooled, said = pe.pool_tokens([np.empty((0, 3))], 2)
    assert (len(pooled), pooled.dim, str(said)) == (1, 3, "0 tokens became 0, of which 0 are as they were")


def test_bad_input_is_one_sentence() -> None:
    for factor in (0.5, -1, float("nan"), float("inf"), "2", True):
        with pytest.raises(ValueError, match=f"^factor must be a number of 1 or more; got {factor!r}$"):
            pe.pool_tokens(DOCS, cast(Any, factor))
    with pytest.raises(ValueError, match=r"^docs must be finite in float32; token 1 of row 0 holds"):
        pe.pool_tokens([[[1.0, 2.0], [np.nan, 0.0]]], 2)
    with pytest.raises(ValueError, match=r"^docs must be a pyengine\.Ragged"):
        pe.pool_tokens(np.eye(3), 2)

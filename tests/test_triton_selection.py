"""Pools, thresholds and the exact select of `kernels/selection.py`, against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.kernels import selection  # noqa: E402
from tests.triton_append import append_kernel  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreter", "poison")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def filled(lower: np.ndarray, upper: np.ndarray, counts: list[int]) -> selection.Pools:
    """Pools that hold the first ``counts`` of these bounds, of the rows 0, 1, ..."""
    pools = selection.pools(len(counts), lower.shape[1], DEVICE)
    pools.lower.copy_(torch.from_numpy(lower))
    pools.upper.copy_(torch.from_numpy(upper))
    pools.rows.copy_(torch.arange(lower.shape[1]))
    pools.counts.copy_(torch.tensor(counts))
    return pools


def held(pools: selection.Pools, query: int) -> list[int]:
    return sorted(pools.rows[query, : int(pools.counts[query])].tolist())


@pytest.mark.parametrize("capacity", [64, 40])
def test_append(capacity: int) -> None:
    """Every pair that is kept is in its pool with its bounds, or counted, and bounded by what is lost."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 16)).astype(np.float32)
    keep = rng.random((64, 16)) < np.linspace(0, 1, 16)
    keep[:, 15], x[7, 15] = True, np.nan
    pools = selection.pools(16, capacity, DEVICE)
    append_kernel[(2,)](
        *pools.arguments(), torch.from_numpy(x).to(DEVICE), torch.from_numpy(keep.astype(np.int32)).to(DEVICE), 32, 16
    )
    bounds = selection.dropped(pools).cpu().numpy()
    for q in range(16):
        count = int(pools.counts[q])
        assert count == keep[:, q].sum()
        rows = pools.rows[q, : min(count, capacity)].cpu().numpy()
        want = np.where(np.isnan(x[rows, q]), np.inf, x[rows, q])
        assert (pools.upper[q, : len(rows)].cpu().numpy() == want).all()
        below = np.where(np.isnan(x[rows, q]), -np.inf, x[rows, q] - 1)
        assert (pools.lower[q, : len(rows)].cpu().numpy() == below).all()
        lost = sorted(set(np.flatnonzero(keep[:, q])) - set(rows.tolist()))
        assert len(lost) + len(set(rows.tolist())) == count
        assert bounds[q] == np.where(np.isnan(x[lost, q]), np.inf, x[lost, q]).max(initial=-np.inf)


@pytest.mark.parametrize("k", [1, 7, 300])
@pytest.mark.parametrize("kind", ["random", "ties", "special"])
def test_tighten(k: int, kind: str) -> None:
    """The threshold is right below the k-th lower bound, and what can reach it stays."""
    rng = np.random.default_rng(1)
    lower = rng.standard_normal((4, 5000)).astype(np.float32)
    if kind == "ties":
        np.round(lower, out=lower)
    if kind == "special":
        edges = [-np.inf, -3e38, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3e38]
        lower = rng.choice(np.array(edges, np.float32), lower.shape)
    upper = lower + rng.random(lower.shape).astype(np.float32) / 4
    counts = [5000, 2049, 6, 0]
    pools = filled(lower, upper, counts)
    selection.tighten(pools, k, torch.tensor([0.0, 5.0, 0.0, 0.0], device=DEVICE))
    for q, count in enumerate(counts):
        threshold = float(pools.threshold[q])
        if count < k:
            assert threshold == -np.inf
            assert held(pools, q) == list(range(count))
            continue
        kth = float(np.sort(lower[q, :count])[-k])
        margin = 2.0**-21 * abs(kth + 5.0 * (q == 1)) + 2.0**-118
        assert threshold < kth or kth == -np.inf
        assert threshold >= kth - 1.01 * margin - 2.0**-23 * abs(kth) or kth == -np.inf
        assert held(pools, q) == np.flatnonzero(upper[q, :count] >= np.float32(threshold)).tolist()
        at = pools.rows[q, : int(pools.counts[q])].cpu().numpy()
        assert (pools.upper[q, : len(at)].cpu().numpy() == upper[q, at]).all()
        assert (pools.lower[q, : len(at)].cpu().numpy() == lower[q, at]).all()


def test_a_threshold_never_falls() -> None:
    floor = torch.tensor([2.0, -1.0], device=DEVICE)
    lower = np.arange(10, dtype=np.float32)[None].repeat(2, 0) / 8
    pools = filled(lower, lower, [10, 10])
    pools.threshold.copy_(floor)
    selection.tighten(pools, 3)
    assert float(pools.threshold[0]) == 2.0
    assert held(pools, 0) == []
    assert held(pools, 1) == [7, 8, 9]
    assert selection.dropped(pools).tolist() == pools.threshold.tolist()


def test_nothing_is_dropped_by_an_empty_pool() -> None:
    assert selection.dropped(selection.pools(3, 16, DEVICE)).tolist() == [-np.inf] * 3
    assert len(selection.dropped(selection.pools(0, 16, DEVICE))) == 0


@settings(max_examples=12)
@given(
    st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([1, 30, 2100]), st.booleans(), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_select(seed: int, k: int, count: int, negate: bool, ordered: bool, tied: bool) -> None:
    """By score, then by place, whatever ties."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-2, 3, (2, count)) if tied else rng.standard_normal((2, count))).astype(np.float32) + 0.0
    rows = np.stack([rng.permutation(count) for _ in range(2)]).astype(np.int32)
    order = rng.permutation(count).astype(np.int32) if ordered else None
    counts = np.array([count, count // 2], np.int32)
    there = [torch.from_numpy(each).to(DEVICE) for each in (scores, rows, counts)]
    by = None if order is None else torch.from_numpy(order).to(DEVICE)
    keys = selection.select(there[0], there[1], there[2], k, by, negate).cpu().numpy()
    rank, place = selection.decode(keys)
    for q in range(2):
        own, at = scores[q, : counts[q]], rows[q, : counts[q]]
        own, at = -own if negate else own, at if order is None else order[at]
        best = np.lexsort((at, -own))[:k]
        assert (keys[q, len(best) :] == selection.PAD).all()
        assert rank[q, : len(best)].tolist() == own[best].tolist()
        assert place[q, : len(best)].tolist() == at[best].tolist()

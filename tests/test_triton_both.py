"""Both directions of a dense search by one pass of Triton's kernels: each pair once, the specification's answers.

Tiles are small here, so that a few rows make many, and the kernels that are tested elsewhere are NumPy's, but for one
test that is all as it is shipped."""

from __future__ import annotations

from typing import Any

import pytest

import pyengine as pe
from pyengine import checks
from pyengine.backends import registry
from pyengine.backends.shared.dense_terms import Scale
from pyengine.kernels import dense_both_plan
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.dense_both_plan import DenseBoth, plan_dense_both, why_two
from pyengine.kernels.dense_plan import Tile
from pyengine.specification import reference
from pyengine.types import F32
from tests import both_cases
from tests.both_cases import KINDS, Offered, check_offered, check_tensors, made, problems, watched
from tests.dense_cases import rows

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends.triton import triton_both, triton_dense  # noqa: E402
from pyengine.kernels import dense_both  # noqa: E402
from tests.triton_stand_ins import stand_in  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),  # in the interpreter
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
BACKEND = registry.get("triton")


def check(a: F32, b: F32, k: int, metric: str, dims: int | None = None) -> None:
    both_cases.check(a, b, k, metric, "triton", dims)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles, and NumPy for all but the scan."""
    monkeypatch.setattr(dense_both_plan, "tile_for", lambda chip: Tile(16, 8, 32, 4, 2, 1, 1))
    stand_in(monkeypatch, dense_both)


@pytest.fixture
def one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other search is made."""
    monkeypatch.setattr(triton_dense, "attempt", lambda *given: pytest.fail("not certified by one pass"))


@pytest.mark.parametrize("metric", reference.METRICS)
def test_as_it_is_shipped(metric: str) -> None:
    check(rows(19, 3, 20), rows(20, 2, 20), 2, metric)


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_answers(kind: str, metric: str, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes of columns in one part or in two."""
    tile = Tile(32, 16, 32, 4, 2, 1 if metric == "dot" else 2, 0)
    monkeypatch.setattr(dense_both_plan, "tile_for", lambda chip: tile)
    check(made(kind, 1, 31, 20), made(kind, 2, 50, 20), 5, metric)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 70), (70, 1), (16, 17), (3, 40), (35, 2)], ids=str)
def test_odd_sizes(sizes: tuple[int, int], small: None) -> None:
    for metric in reference.METRICS:
        check(rows(3, sizes[0], 37), rows(4, sizes[1], 37), 4, metric, dims=33)


@pytest.mark.parametrize("k", [1, 15, 60])
def test_many_wanted(k: int, small: None) -> None:
    check(rows(5, 20, 8), rows(6, 50, 8), k, "l2")


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_thresholds_rise_on_both_sides(
    metric: str, small: None, one_pass: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several parts of a scan, in which most pairs are dropped from both pools."""
    monkeypatch.setattr(dense_both_plan, "tile_for", lambda chip: Tile(32, 16, 32, 4, 2, 1, 0))
    monkeypatch.setattr(dense_both_plan, "pool_places", lambda k, n_others: 64)
    monkeypatch.setattr(dense_both_plan, "GROUP", 2)
    a, b = rows(7, 150, 24), rows(8, 300, 24)
    ends: list[tuple[int, ...]] = []
    left: dict[str, Any] = {}
    scan = dense_both.scan

    def watched(docs: Any, queries: Any, sides: Any, others: Any, plan: DenseBoth) -> None:
        scan(docs, queries, sides, others, plan)
        ends.append(plan.ends)
        left.update(rows=sides.pools.counts.clone(), columns=others.pools.counts.clone())

    monkeypatch.setattr(dense_both, "scan", watched)
    check(a, b, 3, metric)
    assert len(ends) == 1
    assert len(ends[0]) > 4
    assert float(left["rows"].float().mean()) < 20
    assert float(left["columns"].float().mean()) < 20


@pytest.mark.parametrize("sizes", [(1, 1), (33, 20), (120, 10), (10, 70), (70, 45)], ids=str)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_each_pair_is_offered_once_to_both(
    sizes: tuple[int, int], metric: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows, n_columns = sizes
    monkeypatch.setattr(dense_both_plan, "pool_places", lambda k, n_others: n_others)
    monkeypatch.setattr(dense_both_plan, "GROUP", 3)
    monkeypatch.setattr(dense_both, "tighten", lambda *given: None)
    b, a = rows(9, n_rows, 6), rows(10, n_columns, 6)
    forth, back = problems(a, b, 2, metric)
    with_rows, with_columns = triton_both.scanned(forth, triton_both.vectors(back))
    for asked, own in ((forth, with_columns), (back, with_rows)):
        pools = own.sides.pools
        counts, items, upper, lower = (
            each.cpu().numpy() for each in (pools.counts, pools.rows, pools.upper, pools.lower)
        )
        scale = Scale(*(each.cpu().numpy() for each in own.scale))
        check_offered(asked, Offered(counts, items, upper, lower, scale))


def test_what_overflows_is_searched_for_again(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours in falling order fill the pools of a few, whose certificates fail."""
    monkeypatch.setattr(dense_both_plan, "pool_places", lambda k, n_others: 4)
    again = watched(monkeypatch, triton_dense)
    check(rows(11, 6, 8), rows(12, 30, 8), 3, "cosine")
    assert again


def test_pools_that_are_too_large_are_two_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_both_plan, "POOL_BYTES", 1 << 10)
    assert why_two(3, 500, 5) == "the pools of both sides take 1 MB at once, and 0 are for them"
    a, b = rows(13, 2, 8), rows(14, 3, 8)
    forth, back = problems(a, b, 2, "dot")
    assert BACKEND.both(forth, back) is None
    check(a, b, 2, "dot")


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_tensors_stay_where_they_are(kind: str, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setattr(checks, "RESIDENT", ("cpu",))
    check_tensors(kind, "cuda" if torch.cuda.is_available() else "cpu", "triton")


def test_a_search_that_is_not_exact_is_two() -> None:
    a, b = rows(17, 2, 8), rows(18, 3, 8)
    got = pe.topk_both(a, b, 3, precision="fast", backend="triton")
    assert not got[0].certified.any()
    with pytest.raises(ValueError, match="precision must be"):
        pe.topk_both(a, b, 3, precision="quick", backend="triton")


def test_what_is_one_pass() -> None:
    assert why_two(0, 5, 3) == "there is nothing to find"
    assert why_two(1_000_000, 1_000_000, 10) is None
    assert "and 8192 are for them" in str(why_two(2_000_000, 2_000_000, 10))


SIZES = [(1, 1), (20_000, 20_000), (1_000_000, 300), (40, 90_000), (5000, 7001)]


@pytest.mark.parametrize(("n_rows", "n_columns"), SIZES)
@pytest.mark.parametrize("k", [1, 10, 300])
def test_parts_rise(n_rows: int, n_columns: int, k: int) -> None:
    """From no tile to all, in whole laps of the short side and whole diagonals of the long one."""
    plan = plan_dense_both(CHIPS["sm_80"], n_rows, n_columns, 64, k)
    assert list(plan.ends) == sorted(set(plan.ends))
    assert plan.ends[0] == 0
    assert plan.ends[-1] == (plan.short * plan.group) ** 2 * plan.laps
    lap = plan.short * plan.group
    diagonal = lap * plan.laps
    for end in plan.ends[1:]:
        assert end % (lap if end < diagonal else diagonal) == 0
        if end > plan.group * diagonal:
            assert end % (plan.group * diagonal) == 0
    assert diagonal in plan.ends
    assert plan.tile.shared_bytes("i8") <= CHIPS["sm_80"].shared

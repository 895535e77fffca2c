"""From keys to answers, by `kernels/answers.py`: the order of the keys, and the certificate of the search core."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyengine.backends.shared.dense_terms import scale_of
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from pyengine.searches.search import certified

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.kernels import answers, selection  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # in the interpreter
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LEAST = -(2**31)


def keys_of(rank: Any, places: Any) -> Any:
    """int64: as `selection.choose` makes them."""
    bits = (rank + np.float32(0)).view(np.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    return (ordered << 32) | (0x7FFFFFFF - places)


def there(array: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)


def finished(keys: np.ndarray, threshold: Any, lost: Any, scaling: Any, names: Any, negate: bool) -> answers.Answer:
    n_queries, k = keys.shape
    pools = selection.pools(n_queries, 1, DEVICE)
    pools.threshold.copy_(there(np.asarray(threshold, np.float32)))
    pools.lost.copy_(there(np.asarray(lost, np.int32)))
    into = answers.unpacked(
        torch.full((answers.answer_bytes(n_queries, k),), 99, dtype=torch.uint8, device=DEVICE), n_queries, k
    )
    by = None if names is None else there(names)
    scale = None if scaling is None else there(np.asarray(scaling, np.float64))
    answers.finish(there(keys), pools, by, negate, into, scale, 24)
    return into


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("negate", [False, True])
@pytest.mark.parametrize("k", [1, 7, 150])
def test_order(k: int, negate: bool, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By falling keys, however many are pads, counted or sorted."""
    rng = np.random.default_rng(k)
    rank = rng.integers(-3, 3, (3, k)).astype(np.float32)
    places = np.stack([rng.permutation(k) for _ in range(3)])
    keys = keys_of(rank, places)
    keys[1, k // 2 :], keys[2] = selection.PAD, selection.PAD
    names = np.sort(rng.choice(1 << 40, k, replace=False)) if named else None
    order = np.argsort(~keys, axis=1, kind="stable")
    best = np.take_along_axis(keys, order, 1)
    pads = best == selection.PAD
    want = np.where(pads, np.float32(-np.inf), np.take_along_axis(rank, order, 1))
    ids = np.take_along_axis(places, order, 1)
    ids = np.where(pads, -1, ids if names is None else names[ids])
    for counted in (2048, 0):
        monkeypatch.setattr(answers, "COUNTED", counted)
        found = finished(keys, [0, 0, 0], [LEAST] * 3, [[1, 0]] * 3, names, negate)
        scores = found.scores.cpu().numpy()
        assert scores.tolist() == ((-want if negate else want) + np.float32(0)).tolist()
        assert not (np.signbit(scores) & (scores == 0)).any()
        assert found.ids.cpu().numpy().tolist() == ids.tolist()


def test_the_certificate_is_that_of_the_search_core() -> None:
    """Of thresholds and lost bounds around the k-th score, in units of every size."""
    rng = np.random.default_rng(0)
    count, k = 300, 2
    unit = 2.0 ** rng.integers(-120, 120, count)
    base = -rng.choice([0, 0, 1.0, 1e30], count) * unit * rng.random(count)
    reach = rng.choice([-np.inf, 0.0, -1.0, 0.5, 3e38, -3e38], count) * rng.random(count)
    reach = np.where(np.isnan(reach), -np.inf, reach).astype(np.float32)
    scaling = np.stack([unit, base], axis=1)
    dropped = scale_of(scaling, 24).dropped(reach)
    rounded = np.clip(dropped, -3.4028235e38, 3.4028235e38).astype(np.float32)
    near = np.nextafter(rounded, rng.choice([-np.inf, np.inf], count).astype(np.float32))
    last = np.where(rng.random(count) < 0.4, rounded, near)
    last = np.where(np.isfinite(last), last, np.float32(0))
    rank = np.stack([np.maximum(last, np.float32(3e38)), last], axis=1)
    keys = keys_of(rank, np.arange(2)[None].repeat(count, 0))
    keys[rng.random(count) < 0.1, 1] = selection.PAD
    lost = rng.random(count) < 0.5  # by a bound of what found no room, or by the threshold
    bits = reach.view(np.int32)
    as_keys = np.where(lost & (reach > -np.inf), bits ^ ((bits >> 31) & 0x7FFFFFFF), LEAST)
    found = finished(keys, np.where(lost, -np.inf, reach), as_keys, scaling, None, False)
    assert found.dropped.cpu().numpy().tolist() == dropped.tolist()
    scores = found.scores.cpu().numpy()
    problem = dense.prepare(np.zeros((count, 1)), Documents(np.zeros((9, 1), np.float32)), k, metric="dot")
    want = certified(problem, dropped, scores)
    assert found.certified.cpu().numpy().astype(bool).tolist() == want.tolist()
    assert 0.1 < want.mean() < 0.9


def test_without_a_scale_what_is_dropped_has_a_bound_like_those_in_the_pools() -> None:
    keys = keys_of(np.ones((3, 2), np.float32), np.arange(2)[None].repeat(3, 0))
    lost = [LEAST, 0x3F800000, LEAST]  # 1.0
    found = finished(keys, [0.25, 0.5, -np.inf], lost, None, None, False)
    assert found.dropped.tolist() == [0.25, 1.0, -np.inf]


@pytest.mark.parametrize("base", [np.nan, -np.inf, np.inf])
def test_a_query_that_is_not_finite_is_not_certified(base: float) -> None:
    keys = keys_of(np.ones((1, 2), np.float32), np.arange(2)[None])
    assert finished(keys, [-np.inf], [LEAST], [[1.0, base]], None, False).certified.tolist() == [0]
    assert finished(keys, [-np.inf], [LEAST], [[1.0, 0.0]], None, False).certified.tolist() == [1]


@pytest.mark.parametrize(("n_queries", "k"), [(1, 1), (3, 5), (7, 10), (0, 4)])
def test_parts_of_an_answer_are_aligned(n_queries: int, k: int) -> None:
    """Or the kernel that reads and writes them is compiled again and again, for each of their alignments."""
    packed = torch.zeros(answers.answer_bytes(n_queries, k), dtype=torch.uint8)
    found = answers.unpacked(packed, n_queries, k)
    assert [each.numel() for each in found[1:]] == [n_queries * k, n_queries, n_queries * k, n_queries]
    assert all((each.data_ptr() - packed.data_ptr()) % 16 == 0 for each in found[1:] if each.numel())

"""Both directions of a dense search by one pass of the CUDA kernels, run by an emulator: each pair once, the
specification's answers."""

from __future__ import annotations

from typing import Any

import pytest

import pyengine as pe
from pyengine import checks
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_both, cuda_dense, cuda_device, cuda_documents
from pyengine.kernels import dense_both_plan
from pyengine.problems.problem import DenseProblem
from pyengine.specification import reference
from pyengine.types import F32
from tests import both_cases
from tests.both_cases import KINDS, Offered, check_offered, check_tensors, made, problems, watched
from tests.cuda_driver import FakeDriver
from tests.dense_cases import rows

pytestmark = pytest.mark.usefixtures("emulated", "poison")


def check(a: F32, b: F32, k: int, metric: str, dims: int | None = None) -> None:
    both_cases.check(a, b, k, metric, "cuda", dims)


@pytest.fixture
def one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other search is made."""
    monkeypatch.setattr(cuda_dense, "attempt", lambda *given: pytest.fail("not certified by one pass"))


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_answers(kind: str, metric: str) -> None:
    check(made(kind, 1, 9, 20), made(kind, 2, 14, 20), 5, metric)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 70), (70, 1), (16, 17), (3, 140)], ids=str)
def test_odd_sizes(sizes: tuple[int, int]) -> None:
    check(rows(3, sizes[0], 137), rows(4, sizes[1], 137), 4, "cosine", dims=133)


@pytest.mark.parametrize("k", [1, 15, 60])
def test_many_wanted(k: int) -> None:
    check(rows(5, 7, 8), rows(6, 30, 8), k, "l2")


def test_thresholds_rise_on_both_sides(one_pass: None, emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts of a scan, in which most pairs are dropped from both pools."""
    monkeypatch.setattr(dense_both_plan, "GROUP", 2)
    monkeypatch.setattr(dense_both_plan, "RISE", (1, 1))
    left: dict[str, Any] = {}
    scanned = cuda_both.scanned

    def watched(forth: DenseProblem, back: DenseProblem, gpu: cuda_device.Gpu) -> Any:
        sides = scanned(forth, back, gpu)
        left.update(zip(("rows", "columns"), (gpu.host(each.pools.counts).mean() for each in sides)))
        return sides

    monkeypatch.setattr(cuda_both, "scanned", watched)
    check(rows(7, 130, 24), rows(8, 260, 24), 3, "l2")
    assert sum(line.startswith("dense_both ") for line in emulated.log) >= 3
    assert left["rows"] < 20
    assert left["columns"] < 20


@pytest.mark.parametrize("sizes", [(1, 1), (300, 20), (10, 270), (140, 70)], ids=str)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_each_pair_is_offered_once_to_both(
    sizes: tuple[int, int], metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows, n_columns = sizes
    monkeypatch.setattr(dense_both_plan, "pool_places", lambda k, n_others: n_others)
    monkeypatch.setattr(dense_both_plan, "GROUP", 3)
    monkeypatch.setattr(cuda_both, "tighten", lambda *given: None)
    forth, back = problems(rows(10, n_columns, 6), rows(9, n_rows, 6), 2, metric)
    gpu = cuda_device.gpu_of(forth.docs)
    with_rows, with_columns = cuda_both.scanned(forth, back, gpu)
    for asked, own in ((forth, with_columns), (back, with_rows)):
        pools = own.pools
        counts, items, upper, lower = (gpu.host(each) for each in (pools.counts, pools.rows, pools.upper, pools.lower))
        check_offered(asked, Offered(counts, items, upper, lower, own.scale))


def test_what_overflows_is_searched_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours in falling order fill the pools of a few, whose certificates fail."""
    monkeypatch.setattr(dense_both_plan, "pool_places", lambda k, n_others: 4)
    again = watched(monkeypatch, cuda_dense)
    check(rows(11, 6, 8), rows(12, 30, 8), 3, "cosine")
    assert again


def test_pools_that_are_too_large_are_two_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_both_plan, "POOL_BYTES", 1 << 10)
    a, b = rows(13, 2, 8), rows(14, 3, 8)
    assert registry.get("cuda").both(*problems(a, b, 2, "dot")) is None
    check(a, b, 2, "dot")


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_tensors_stay_where_they_are(kind: str, emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(checks, "RESIDENT", ("cpu",))
    monkeypatch.setattr(cuda_documents, "copied", lambda *given: pytest.fail("copied"))
    check_tensors(kind, "cpu", "cuda")
    assert f"norms_{kind}" in {line.split()[0] for line in emulated.log}


def test_sides_on_different_streams(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way on the stream of one side is waited for."""
    waited: list[int] = []
    of = cuda_device.gpu_of
    a, b = rows(17, 3, 8), rows(18, 9, 8)
    forth, back = problems(a, b, 2, "dot")

    class Device:
        def __init__(self, real: Any) -> None:
            self.real = real

        def wait(self, stream: int) -> None:
            waited.append(stream)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    def gpu_of(docs: Any) -> cuda_device.Gpu:
        found = of(docs)
        return found._replace(device=Device(found.device)) if docs is forth.docs else found._replace(stream=7)

    monkeypatch.setattr(cuda_device, "gpu_of", gpu_of)
    monkeypatch.setattr(cuda_both, "scanned", lambda *given: pytest.fail("scanned"))
    with pytest.raises(pytest.fail.Exception, match="scanned"):
        cuda_both.attempt(forth, back)
    assert waited == [7]


def test_a_search_that_is_not_exact_is_two() -> None:
    got = pe.topk_both(rows(17, 2, 8), rows(18, 3, 8), 3, precision="fast", backend="cuda")
    assert not got[0].certified.any()

"""What the benchmark measures with: rounds, corpora, ceilings, memory and energy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")
from bench.limits import ceilings, machine, products
from bench.racing import energy, memory, timing
from bench.racing.race import Settings
from bench.workloads import data, shapes
from pyengine.refining import exact
from tests.bench_toy import CEILINGS


def test_rounds_rotate_and_the_slow_sit_some_out() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    samples = timing.interleave(calls, dict.fromkeys("abc", 6))
    assert "".join(order) == "abccbabcaacbcabbac"
    assert [len(each.wall) for each in samples.values()] == [6, 6, 6]
    samples = timing.interleave(calls, {"a": 7, "b": 3, "c": 7})
    assert [len(each.wall) for each in samples.values()] == [7, 3, 7]
    assert samples["b"].rounds[0] == 0
    assert timing.rounds_within(1.0, 10.0) == timing.MIN_ROUNDS
    assert timing.rounds_within(1.0, 0.0) == timing.MAX_ROUNDS


def test_who_fails_in_a_round_stops_and_the_others_go_on() -> None:
    samples = timing.interleave({"good": lambda: None, "bad": lambda: 1 / 0}, {"good": 3, "bad": 3})
    assert len(samples["good"].wall) == 3
    assert samples["bad"].wall == []
    assert "ZeroDivisionError" in samples["bad"].failure


def test_ratios_are_taken_within_rounds() -> None:
    """One round in which the machine was busy does not show, and only rounds in which both ran count."""
    ours = timing.Samples([1.0, 50.0, 1.0], rounds=[0, 1, 2])
    peer = timing.Samples([2.0, 100.0], rounds=[0, 1])
    assert peer.times(ours) == 2.0


@pytest.mark.parametrize("kind", ["clustered", "scaled", "gaussian", "signs"])
def test_corpora_are_seeded_and_queries_do_not_depend_on_their_number(kind: str) -> None:
    docs, queries = data.load(shapes.Corpus(data.CHUNK + 5, 8, kind), 20)
    again, few = data.load(shapes.Corpus(data.CHUNK + 5, 8, kind), 3)
    np.testing.assert_array_equal(docs, again)
    np.testing.assert_allclose(queries[:3], few, rtol=1e-6)  # a product of other height may round otherwise
    assert docs.dtype == queries.dtype == np.float32
    lengths = np.linalg.norm(docs, axis=1)
    assert (np.ptp(lengths) > 0.1) == (kind == "scaled")


def test_unknown_data_is_named() -> None:
    with pytest.raises(ValueError, match="'nonsense'"):
        data.load(shapes.Corpus(5, 4, "nonsense"), 1)


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 3), (0.1, 4), (0.02, 16)])
def test_the_fastest_of_as_many_calls_as_there_is_time_for(
    seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three where they are long; one of many may meet an idle processor."""
    clock, called = iter(range(100)), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) * seconds)
    monkeypatch.setattr(products, "TRIED", 0.31)
    assert products.fastest(lambda: called.append(1)) == pytest.approx(seconds)
    assert len(called) == calls + 1  # and one that warms up


def test_ceilings_are_rates() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceilings, "PEAKS", 1)
        patch.setattr(products, "SIDE", 256)
        patch.setattr(products, "TRIED", 0.0)
        found = ceilings.measure(threads=1, sizes=(1 << 20, 1 << 21))
    assert [size for size, _ in found.reads] == [1 << 20, 1 << 21]
    assert [size for size, _ in found.copies] == [1 << 20, 1 << 21]
    assert all(rate > 1e6 for _, rate in found.copies)  # whatever else the machine does meanwhile
    assert found.bf16_ops is None or found.bf16_ops > 1e6
    flags = machine.cpu_flags()
    wanted = [isa for isa, flag in (("avx2", "avx2"), ("avx512", "avx512dq")) if flag in flags]
    assert list(found.by_isa["float32"]) == wanted or not wanted
    assert max(found.by_isa["float32"].values()) == found.float32_ops
    assert all(rate > 1e6 for rates in found.by_isa.values() for rate in rates.values())
    assert min(found.small_page_read, found.float32_ops, *(rate for _, rate in found.reads)) > 1e8
    assert bool(found.int8_ops) == (exact.native() is not None)
    assert found.isa in found.int8_ops or not found.int8_ops
    assert CEILINGS.floor(1 << 20, 1e6, "float32") == (1 << 20) / 2e10  # fits the first working set
    assert CEILINGS.floor(1e10, 1e11, "float32") == 1.0
    assert CEILINGS.floor(1e9, 1e12, "int8") == 1.0
    assert CEILINGS.floor(1e9, 1e12, "int8", "amx") == 0.25
    assert CEILINGS.floor(1e9, 1e15, "none") == 0.1
    assert CEILINGS.floor(1e9, 1e12, "int8", "neon") is None


def test_memory_of_a_call() -> None:
    extra = memory.extra_peak(lambda: np.ones(1 << 23))
    if extra is None:
        pytest.skip("the kernel does not count it")
    assert 60e6 < extra < 120e6


def test_a_floor_is_that_of_the_threads_of_the_workload() -> None:
    """A second thread may bring nothing: two virtual cores can be one."""
    alone, both = CEILINGS, dataclasses.replace(CEILINGS, threads=2, float32_ops=2 * CEILINGS.float32_ops)
    settings = Settings(alone, others=(both,))
    assert [settings.ceilings_of(threads) for threads in (1, 2, 3)] == [alone, both, None]


def test_energy_is_read_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.joules() is None
    assert timing.interleave({"a": lambda: None}, {"a": 3})["a"].joules() is None
    counter = tmp_path / "more" / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("0")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "more")
    spend = lambda: counter.write_text(str(int(counter.read_text()) + 2_500_000))  # noqa: E731
    assert timing.interleave({"a": spend}, {"a": 3})["a"].joules() == 2.5
    assert timing.Samples(energy=[-9.0, 1.0]).joules() == 1.0  # the counter began again
    assert timing.Samples(energy=[-9.0]).joules() is None

"""The contestants of `bench.gpu`, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")
import pyengine
from bench import registry
from bench.gpus import gpu_arena, gpu_contestants, gpu_shapes
from bench.ours.contestants import Contestant, index
from bench.racing import measure, race
from bench.racing.gate import Verdict
from bench.racing.row import Row
from bench.racing.timing import Samples
from bench.workloads.shapes import Heat
from bench.workloads.token_shapes import Lengths
from pyengine.backends.triton import triton_backend
from tests.gpu_toy import SETTINGS

SHORT = Lengths(3, 3, 3)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be on a GPU is on the CPU, and nothing is captured."""
    pytest.importorskip("torch")
    monkeypatch.setattr(gpu_contestants, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_contestants, "_graphed", lambda score: score)
    for arena in (gpu_arena.GpuArena, gpu_arena.GpuTokenArena, gpu_arena.GpuSparseArena):
        monkeypatch.setattr(arena, "device", "cpu")


def raced(heat: Heat, keep: Callable[[Any], bool], ours: tuple[Any, ...] = ()) -> dict[str, Row]:
    """By contestant: those of the table that are to be kept, and others in the place of ours."""
    with pytest.MonkeyPatch.context() as patch:
        op = registry.op_of(heat)
        racing = (*ours, *(who for who in op.contestants if keep(who)))
        patch.setitem(registry.OPS, registry.TABLES[heat.table].op, op._replace(contestants=racing))
        return {row.contestant: row for row in measure.measure([heat], SETTINGS, registry.Choice(backends=None))}


def plain(who: Any) -> bool:
    return not who.ours and "compiled" not in who.name


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("enough", [True, False])
def test_a_graph_is_raced_where_its_certificate_holds(enough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    if not enough:
        monkeypatch.setattr(triton_backend.TritonBackend, "first_width", lambda self, problem: 1)
    docs = np.repeat(np.eye(4, dtype=np.float32), 70, axis=0)  # more ties than the fewest places
    device = "cuda" if torch.cuda.is_available() else "cpu"
    searched, search = [], pyengine.DenseIndex.search

    def watched(self: pyengine.DenseIndex, queries: Any, k: int) -> pyengine.TopK:
        searched.append(k)
        return search(self, queries, k)

    monkeypatch.setattr(pyengine.DenseIndex, "search", watched)
    who = gpu_contestants.ours_as_graph("float16")
    found = who.prepare(docs, "dot", 1)(torch.ones((1, 4), device=device), 3)
    scores, ids = who.read(found)
    assert ids.tolist() == [[0, 1, 2]]
    assert scores.tolist() == [[1.0, 1.0, 1.0]]
    assert len(searched) == (not enough)


@pytest.mark.usefixtures("on_cpu")
def test_dense_contestants() -> None:
    tiny = replace(gpu_shapes.WIDE, n_docs=3_000, dim=32, n_queries=6, k=5)
    ours = replace(index("float16"), name="ours", read=gpu_arena.on_host)
    rows = raced(Heat("gpu-dense", (tiny,)), plain, (ours,))
    assert rows["ours"].verdict == Verdict(True, 1.0, "")
    for name in ("torch-float16", "torch-float32"):
        found = rows[name].verdict
        assert found is not None, rows[name].note
        assert found.recall > 0.95
        assert rows[name].samples
    assert rows["faiss-gpu"].samples is None
    assert rows["faiss-gpu"].note


@pytest.mark.usefixtures("on_cpu")
def test_an_answer_of_ours_that_is_not_that_of_the_cpu_is_not_timed() -> None:
    tiny = replace(gpu_shapes.ONE, n_docs=500, dim=16, n_queries=3, k=4)

    def prepare(docs: Any, metric: str, threads: int) -> Any:
        right = index("float16").prepare(docs, metric, threads)

        def search(queries: Any, k: int) -> Any:
            scores, ids, _ = right(queries, k)
            scores[1, 2] = np.nextafter(np.float32(scores[1, 2]), np.float32(9))
            return scores, ids

        return search

    row = raced(
        Heat("gpu-dense", (tiny,)), lambda who: False, (Contestant("bad", prepare, True, read=gpu_arena.on_host),)
    )
    assert row["bad"].wrong
    assert row["bad"].samples is None


@pytest.mark.usefixtures("on_cpu")
def test_maxsim_contestants() -> None:
    tiny = replace(gpu_shapes.TEXTS, n_docs=40, dim=32, lengths=SHORT, query_tokens=4, n_queries=2, k=3)
    rows = raced(Heat("gpu-maxsim", (tiny,)), plain)
    assert rows["torch-einsum"].verdict is not None, rows["torch-einsum"].note
    assert rows["torch-einsum"].verdict.recall > 0.8
    assert "late-interaction-kernels" in rows["late-interaction-kernels"].note


@pytest.mark.usefixtures("on_cpu")
def test_training_contestants() -> None:
    tiny = replace(gpu_shapes.STEPS[0], n_docs=4, dim=16, n_queries=4, lengths=SHORT, query_tokens=4)
    rows = raced(Heat("gpu-training", (tiny,)), lambda who: True)
    assert rows["pyengine-torch"].verdict == Verdict(True, 1.0, "")
    assert rows["torch-einsum"].samples


@pytest.mark.usefixtures("on_cpu")
def test_sparse_contestants() -> None:
    pytest.importorskip("scipy")
    tiny = replace(gpu_shapes.SPARSE, n_docs=2_000, n_queries=5)
    rows = raced(Heat("gpu-sparse", (tiny,)), plain)
    assert rows["torch-sparse"].verdict is not None, rows["torch-sparse"].note
    assert rows["torch-sparse"].verdict.recall > 0.95
    assert "cupy" in rows["cupy"].note


def test_a_clock_of_its_own_times_the_calls() -> None:
    class Fabricated(Samples):
        def call(self, work: Callable[[], object], number: int = 0) -> object:
            self.wall.append(7.0)
            self.cpu.append(0.0)
            self.rounds.append(number)
            return work()

    row, settings = Row("search", gpu_shapes.ONE, "anybody", 1), SETTINGS._replace(clock=Fabricated)
    entry, found = race.enter(row, lambda: 5, lambda result: result, settings)
    assert found == 5
    (timed,) = race.race(Heat("search", (gpu_shapes.ONE,)), [entry], settings)
    assert timed.samples is not None
    assert timed.samples.wall == [7.0] * 3

"""l2 far from the origin: what is coded relative to a centre lists what it must, and answers as specified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends.cpu import centring
from pyengine.backends.cpu.cpu_backend import CpuBackend
from pyengine.indexes import stores
from pyengine.problems.problem import DenseProblem
from pyengine.refining import exact
from pyengine.searches import dense
from pyengine.specification import reference
from pyengine.types import F32, Candidates

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison"),
    pytest.mark.skipif(exact.native() is None, reason="the extension is not built"),
]
Rng = np.random.Generator


def _outlier(rng: Rng) -> tuple[Any, Any]:
    docs = rng.standard_normal((600, 33)) + 50
    docs[7] *= 1e6
    return rng.standard_normal((5, 33)) + 50, docs


def _one_place(rng: Rng) -> tuple[F32, F32]:
    """All at the centre, but for the last bits."""
    docs = np.full((600, 9), 0.3, np.float32)
    return docs[:3], np.where(rng.random(docs.shape) < 0.1, np.nextafter(docs, np.float32(1)), docs)


CORPORA: dict[str, Callable[[Rng], tuple[Any, Any]]] = {
    "near enough": lambda rng: (rng.standard_normal((5, 65)) + 3, rng.standard_normal((600, 65)) + 3),
    "far": lambda rng: (rng.standard_normal((5, 65)) + 1000, rng.standard_normal((600, 65)) + 1000),
    "a grid": lambda rng: (rng.integers(998, 1003, (5, 7)), rng.integers(998, 1003, (600, 7))),
    "one axis": lambda rng: (rng.standard_normal((5, 64)), rng.standard_normal((600, 64)) + 1e4 * np.eye(64)[3]),
    "query elsewhere": lambda rng: (rng.standard_normal((5, 24)) - 1e5, rng.standard_normal((600, 24)) + 1e3),
    "tiny": lambda rng: (1e-38 * rng.standard_normal((5, 24)), 1e-40 * rng.standard_normal((600, 24)) + 1e-37),
    "huge": lambda rng: (1e30 * rng.standard_normal((5, 24)), 1e33 * rng.standard_normal((600, 24)) + 1e36),
    "an outlier": _outlier,
    "one place": _one_place,
}


def problem(name: str, store: str, k: int = 10, **arguments: Any) -> DenseProblem:
    queries, rows = (each.astype(np.float32) for each in CORPORA[name](np.random.default_rng(5)))
    kept = stores.make(store, "ram", rows.shape[1])
    with exact.arithmetic():
        kept.append(rows)
        return dense.prepare(queries, kept.documents(len(rows), {}), k, metric="l2", **arguments)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few documents are enough."""
    monkeypatch.setattr(centring, "MANY", 300)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("store", ["int8", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", CORPORA)
def test_bounds_hold_and_answers_are_the_specification(name: str, store: str, isa: str) -> None:
    if store == "float16" and name in ("an outlier", "huge", "tiny"):
        pytest.skip("float16 cannot hold them")
    bias = np.random.default_rng(1).standard_normal(600) * 10
    with exact.arithmetic():
        for each in (problem(name, store), problem(name, store, k=1, bias=bias)):
            assert centring.centre(each) is not None
            conformance.check_proposals(each, CpuBackend())
            conformance.check_answers(each, CpuBackend())
            conformance.check_ranges_and_ranks(each, CpuBackend())


@pytest.mark.parametrize(("store", "originals"), [("int8", "ram"), ("int8", "disk"), ("float32", "ram")])
def test_far_from_the_origin_a_scan_suffices(store: str, originals: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, refine, refined = np.random.default_rng(2), CpuBackend.refine, []
    docs, queries = (rng.standard_normal((n, 64), dtype=np.float32) + 300 for n in (20_000, 4))
    index = pe.DenseIndex(64, "l2", store, originals)
    index.add(docs)

    def counting(backend: CpuBackend, problem: DenseProblem, candidates: Candidates) -> F32:
        refined.append(len(candidates.rows))
        return refine(backend, problem, candidates)

    with monkeypatch.context() as patch:
        patch.setattr(CpuBackend, "scan", None)
        patch.setattr(CpuBackend, "refine", counting)
        found = index.search(queries, 10, backend="cpu")
    conformance.same(found, reference.topk(queries, docs, 10, "l2"), store)
    assert sum(refined) < 4 * 200
    index.remove(range(15_000))
    index.add(docs[:3] + 1)
    conformance.same(
        index.search(queries, 5),
        reference.topk(queries, np.concatenate([docs[15_000:], docs[:3] + 1]), 5, "l2", ids=index.ids),
        "after changes",
    )
    fast = index.search(queries, 5, precision="fast", backend="cpu")
    assert np.abs(fast.scores - index.search(queries, 5).scores).max() < 0.1 * found.scores.max()


@pytest.mark.usefixtures("few")
def test_what_float32_cannot_move_stays() -> None:
    docs = np.tile(np.array([[3e38, 1.0]], np.float32), (600, 1))
    docs[1, 0] = -3e38
    index = pe.DenseIndex(2, "l2", "float32")
    index.add(docs)
    for queries in (docs[:2], np.ones((1, 2), np.float32)):
        found = index.search(queries, 3, backend="cpu")
        conformance.same(found, reference.topk(queries, docs, 3, "l2"), "too far apart")


@pytest.mark.usefixtures("few")
def test_the_plan_says_so() -> None:
    queries, docs = CORPORA["far"](np.random.default_rng(0))
    for metric, given, said in (("l2", docs, True), ("l2", docs - 1000, False), ("dot", docs, False)):
        index = pe.DenseIndex(65, metric)
        index.add(given)
        assert ("centre" in index.explain(queries, backend="cpu").facts) == said

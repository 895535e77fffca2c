"""faiss as a proposer: its bits on both of its paths, its masks, its cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine import conformance
from pyengine.backends import faiss_backend
from pyengine.backends.faiss_backend import FaissBackend
from pyengine.problems.problem import Documents
from pyengine.searches import dense, search
from pyengine.specification import reference
from pyengine.types import TopK

faiss = pytest.importorskip("faiss")
GOLDEN = sorted((Path(__file__).parent / "golden").glob("dense_*.npz"))


@pytest.fixture(params=["blas", "simd"])
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each of the two ways in which faiss computes inner products."""
    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 1 if request.param == "blas" else 1 << 30
    yield
    faiss.cvar.distance_compute_blas_threshold = before


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("case", [case for case in conformance.cases() if case.store == "matrix"], ids=str)
def test_conformance_on_both_paths(case: conformance.Case, path: None) -> None:
    assert conformance.run(case, FaissBackend()) == []


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
@pytest.mark.parametrize("metric", reference.METRICS)
def test_golden(file: Path, metric: str) -> None:
    with np.load(file) as golden:
        for k in (1, 10, 2 * len(golden["docs"])):
            problem = dense.prepare(golden["queries"], Documents(golden["docs"]), k, metric=metric)
            scores, ids = (golden[f"top{k}_{metric}_{part}"] for part in ("scores", "ids"))
            got = search.exact_search(problem, FaissBackend())
            conformance.same(got, TopK(scores, ids, np.ones(len(ids), bool)), f"k={k}")


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 300), st.sampled_from([1, 3, 127, 129])),
    metric=st.sampled_from(reference.METRICS),
    k=st.sampled_from([1, 5, 120]),
    per_query=st.booleans(),
)
def test_masks_are_honoured_exactly(
    seed: int, shape: tuple[int, int, int], metric: str, k: int, per_query: bool
) -> None:
    rng = np.random.default_rng(seed)
    n_queries, n_docs, dim = shape
    rows = rng.integers(-2, 3, (n_queries + n_docs, dim)).astype(np.float32)
    mask = rng.random((n_queries, n_docs) if per_query else n_docs) < rng.random()
    queries, docs = rows[:n_queries], rows[n_queries:]
    problem = dense.prepare(queries, Documents(docs), k, metric=metric, mask=mask)
    conformance.check_candidates(problem, FaissBackend().propose(problem, k), conformance.rank_scores(problem))
    conformance.same(search.exact_search(problem, FaissBackend()), conformance.specified(problem), "masked")


def test_the_index_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
    build = Mock(wraps=faiss_backend._build)
    monkeypatch.setattr(faiss_backend, "_build", build)
    index = pe.DenseIndex(24, store="float32", backend="faiss")
    index.add(rows)
    for dims in (None, 8, None, 8):
        got = index.search(rows[:3], k=4, dims=dims)
        np.testing.assert_array_equal(got.ids, reference.topk(rows[:3], rows, 4, dims=dims).ids)
    assert build.call_count == 2
    index.remove([0])
    assert index.search(rows[:1], k=1).ids[0, 0] != 0
    assert build.call_count == 2  # what was removed is masked
    index.compact()
    assert index.search(rows[:1], k=1).ids[0, 0] != 0
    assert build.call_count == 3


def test_threads_are_restored() -> None:
    before = faiss.omp_get_max_threads()
    with faiss_backend._threads(before + 2):
        assert faiss.omp_get_max_threads() == before + 2
    assert faiss.omp_get_max_threads() == before
    with pytest.raises(KeyError), faiss_backend._threads(before + 2):
        raise KeyError
    assert faiss.omp_get_max_threads() == before


def test_missing_is_a_sentence_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_backend, "find_spec", lambda name: None)
    assert FaissBackend().missing() == "faiss is not installed: run 'pip install faiss-cpu'"

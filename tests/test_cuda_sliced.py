"""Sliced vectors by the CUDA kernels, run by an emulator, against the specification."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyengine.backends import registry
from pyengine.backends.cuda import cuda_device, cuda_sliced
from pyengine.backends.shared import row_pools
from pyengine.backends.shared.posting_windows import WINDOW
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.searches.explain import explain
from pyengine.specification import reference_sliced
from tests import sliced_cases, sparse_cases
from tests.sliced_cases import OPTIONS, VALUES, prepared, problem, vectors

check = partial(sliced_cases.check, name="cuda")
pytestmark = pytest.mark.usefixtures("emulated", "poison")


@pytest.mark.parametrize("values", VALUES)
def test_weights_of_all_kinds(values: str) -> None:
    check(problem(values=VALUES[values]))


@pytest.mark.parametrize("n_docs", [0, 1, WINDOW + 1])
def test_numbers_of_documents(n_docs: int) -> None:
    check(problem(n_docs=n_docs))


@pytest.mark.parametrize("n_queries", [0, 7])
def test_numbers_of_queries(n_queries: int) -> None:
    check(problem(n_docs=70, n_queries=n_queries))


@pytest.mark.parametrize(("dim", "indices"), [(1, 3), (4, 1), (33, 2), (300, 256)])
def test_numbers_of_slices(dim: int, indices: int) -> None:
    check(problem(n_docs=70, dim=dim, indices=indices))


@pytest.mark.parametrize("options", OPTIONS)
def test_options(options: str) -> None:
    check(problem(**OPTIONS[options]))


def test_full_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_pools, "ROOM", 2)
    check(problem(n_docs=700, n_queries=1, k=30))


@pytest.mark.parametrize("values", ["lexical", "all_magnitudes"])
def test_bounds_hold(values: str) -> None:
    """Of every document, one by one, and they are not much too wide where weights are ordinary."""
    asked = problem(values=VALUES[values], dim=40, k=150)
    gpu = cuda_device.gpu_of(asked.docs)
    found = cuda_sliced.scanned(asked, 150, gpu)
    scores = reference_sliced.unrounded_scores(asked.queries, asked.docs.rows)
    pools = [gpu.host(each) for each in found.pools[:4]]
    sparse_cases.check_bounds(scores, found.units, pools, narrow=values == "lexical")


@pytest.mark.parametrize("bias", [None, "bias", "bias_huge"])
def test_refined_scores_are_the_specifications(bias: str | None) -> None:
    sliced_cases.check_refined("cuda", {} if bias is None else OPTIONS[bias])


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(queries=vectors(2), docs=vectors(20), k=st.integers(1, 25))
def test_any_vectors(queries: SlicedRows, docs: SlicedRows, k: int) -> None:
    check(prepared(queries, docs, k))


def test_explain() -> None:
    plan = explain(problem(), "cuda")
    assert plan.facts["blocks"] == "2, of 1 windows"


def test_too_many_slices_are_refused() -> None:
    asked = problem(n_docs=1, n_queries=1, dim=70_000)
    reasons = registry.of_family("cuda", "sliced").refusals(asked)
    assert reasons == ["its kernels take at most 65,536 dimensions, and 70,000 are scored"]

"""Sliced vectors in Triton against the specification: on a GPU if there is one, else in the interpreter."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyengine.backends import registry
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.kernels.chips import CHIPS
from pyengine.kernels.sliced_plan import BLOCKS, TILE, plan_sliced
from pyengine.specification import reference_sliced
from tests import sliced_cases
from tests.sliced_cases import OPTIONS, VALUES, prepared, problem, vectors

check = partial(sliced_cases.check, name="triton")
kernels = pytest.mark.usefixtures("interpreter", "poison")


@kernels
@pytest.mark.parametrize("values", VALUES)
def test_weights_of_all_kinds(values: str) -> None:
    check(problem(values=VALUES[values], n_docs=100))


@kernels
@pytest.mark.parametrize("n_docs", [0, 1, TILE - 1, TILE, TILE + 1])
def test_numbers_of_documents(n_docs: int) -> None:
    check(problem(n_docs=n_docs))


@kernels
@pytest.mark.parametrize("n_queries", [0, BLOCKS[0] + 1])
def test_numbers_of_queries(n_queries: int) -> None:
    check(problem(n_docs=70, n_queries=n_queries))


@kernels
@pytest.mark.parametrize(("dim", "indices"), [(1, 3), (4, 1), (33, 2), (37, 256)])
def test_numbers_of_slices(dim: int, indices: int) -> None:
    check(problem(n_docs=70, dim=dim, indices=indices))


@kernels
@pytest.mark.parametrize("options", OPTIONS)
def test_options(options: str) -> None:
    check(problem(**OPTIONS[options]))


@kernels
def test_levels_and_full_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyengine.backends.shared import row_pools

    monkeypatch.setattr(row_pools, "ROOM", 2)
    check(problem(n_docs=700, n_queries=1, k=30))


@kernels
@pytest.mark.parametrize("values", ["lexical", "all_magnitudes"])
def test_bounds_hold(values: str) -> None:
    """Of every document, one by one, and they are not much too wide where weights are ordinary."""
    from pyengine.backends.triton import triton_device, triton_sliced
    from pyengine.backends.triton.triton_workspace import Workspace

    asked = problem(values=VALUES[values], dim=40, k=150)
    found = triton_sliced.scanned(asked, 150, Workspace(triton_device.device_of(asked.docs)))
    scores = reference_sliced.unrounded_scores(asked.queries, asked.docs.rows)
    rows, upper, lower = (each.cpu().numpy() for each in found.pools[:3])
    assert (found.pools.counts.cpu().numpy() == 150).all()
    for q, own in enumerate(scores):
        score = own[rows[q]] / found.units[q]
        assert (lower[q] <= score).all()
        assert (score <= upper[q]).all()
        if values == "lexical":
            sizes = np.linalg.norm(asked.queries.values[q]) * np.linalg.norm(asked.docs.rows.values, axis=1)
            assert (upper[q] - lower[q] <= 0.003 * sizes[rows[q]] / found.units[q]).all()


@kernels
@pytest.mark.parametrize("bias", [None, "bias_huge"])
def test_refined_scores_are_the_specifications(bias: str | None) -> None:
    sliced_cases.check_refined("triton", {} if bias is None else OPTIONS[bias])


@kernels
@settings(max_examples=4)
@given(queries=vectors(2), docs=vectors(20), k=st.integers(1, 25))
def test_any_vectors(queries: SlicedRows, docs: SlicedRows, k: int) -> None:
    check(prepared(queries, docs, k))


def test_a_plan_says_why() -> None:
    few, many = (plan_sliced(n_queries, 10_000, 768, CHIPS["sm_90"]) for n_queries in (1, 200))
    assert (few.block, many.block) == BLOCKS
    assert few.rejected == {"block 64": "there are only 1 queries, which 16 hold"}
    assert many.rejected == {"block 16": "200 queries would read the documents 13 times"}
    assert many.operations == 3 * 10_000 * 768 * 256


def test_too_many_slices_are_refused() -> None:
    pytest.importorskip("torch")
    asked = problem(n_docs=1, n_queries=1, dim=70_000)
    reasons = registry.of_family("triton", "sliced").refusals(asked)
    assert reasons == ["its kernels take at most 65,536 dimensions, and 70,000 are scored"]

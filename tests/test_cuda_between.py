"""Ranks, ranges and pages by the CUDA kernels, run by an emulator: counted on the GPU, equal to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_between, cuda_dense
from pyengine.conformance import Case
from pyengine.indexes import stores
from pyengine.problems.problem import ALL
from pyengine.searches import dense, ranks
from pyengine.specification import reference
from tests import between_cases
from tests.between_cases import FILTERS
from tests.cuda_driver import FakeDriver
from tests.dense_cases import CASES, rows

pytestmark = pytest.mark.usefixtures("emulated", "poison")


def stay_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is scored or selected on the host."""
    for name in ("propose", "score_everything", "refine"):
        monkeypatch.setattr(cuda_dense, name, lambda *given, name=name: pytest.fail(f"{name} was called"))


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_on_the_gpu(monkeypatch)


@pytest.mark.parametrize("names", CASES, ids="-".join)
def test_ranges_and_ranks(names: tuple[str, str, str, str]) -> None:
    conformance.check_ranges_and_ranks(Case(*names).problem(), registry.get("cuda"))


@pytest.mark.parametrize("metric", reference.METRICS)
def test_most_documents_are_counted_and_not_listed(metric: str) -> None:
    between_cases.check_counted(metric, "cuda")


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("tied", [False, True])
def test_ranks(metric: str, tied: bool) -> None:
    between_cases.check_ranks(metric, tied, "cuda")


def test_ranks_leave_out_what_is_excluded() -> None:
    between_cases.check_ranks_without_what_is_excluded("cuda")


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_pools_that_are_too_small_are_scanned_for_again(
    metric: str, emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_between, "PLACES", 1)  # 256
    between_cases.check_small_pools(metric, "cuda")
    scans = [line.split()[0] for line in emulated.log if line.startswith("dense_")]
    assert scans == ["dense_between"] * 3  # for all queries, and for two of them again


@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_filters(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = between_cases.filtered(number)
    if not {"after", "groups"} <= set(FILTERS[number]):  # what comes before the mark counts in its groups
        stay_on_the_gpu(monkeypatch)
        between_cases.agrees(between_cases.with_other_ids(asked, number), "cuda")
    between_cases.agrees(asked, "cuda")


def test_ties_in_groups() -> None:
    between_cases.check_ties_in_groups("cuda")


def test_pages_list_nothing_of_those_before(on_gpu: None, emulated: FakeDriver) -> None:
    between_cases.check_pages("cuda")
    assert {line.split()[0] for line in emulated.log if line.startswith("dense_")} == {"dense_few", "dense_between"}


def test_a_mask_of_each_query_skips_tiles(on_gpu: None) -> None:
    between_cases.check_masks("cuda")


def test_nothing_to_filter() -> None:
    between_cases.check_nothing_to_filter("cuda")


def test_explain_says_what_would_run() -> None:
    plan, docs = between_cases.explained("cuda")
    assert plan.facts["tile"] == "128 x 64 x 128, 2 parts"
    assert plan.facts["form"].startswith("sm_80: the one that counts")
    assert docs.cache == {}


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_documents_of_sixteen_bits(kind: str, emulated: FakeDriver) -> None:
    """They are compared as they are, over several tiles and blocks of queries."""
    kept = stores.make(kind, "ram", 140)
    kept.append(rows(1, 300, 140))
    docs = kept.documents(cache={})
    asked = dense.prepare(rows(2, 70, 140), docs, ALL, metric="cosine", dims=130)
    targets = np.arange(70) * 4
    got = ranks.ranks(asked, registry.get("cuda"), targets)
    np.testing.assert_array_equal(got, reference.rank_of(asked.queries, docs.vectors(), targets, dims=130))
    launched = {line.split()[0] for line in emulated.log}
    assert {f"dense_between_{kind}", "count_before", f"refine_{kind}"} <= launched
    assert "pack_pools" not in launched


@pytest.mark.parametrize("metric", reference.METRICS)
def test_a_threshold_that_is_a_score(metric: str) -> None:
    """Of many that are equal all are found; above the best there is nothing."""
    corpus = np.repeat(rows(3, 7, 12), 30, axis=0)
    queries = rows(4, 2, 12)
    best = reference.topk(queries, corpus, 31, metric).scores
    for threshold, count in ((best[:, 0], 30), (best[:, 30], 60)):
        got = pe.range_search(queries, corpus, threshold, metric=metric, backend="cuda")
        assert np.diff(got.offsets).tolist() == [count, count]
        want = reference.range_search(queries, corpus, threshold.astype(np.float64), metric)
        assert all(ours.tobytes() == theirs.tobytes() for ours, theirs in zip(got, want))
    beyond = np.nextafter(best[:, 0], np.float32(-np.inf if metric == "l2" else np.inf))
    assert not len(pe.range_search(queries, corpus, beyond, metric=metric, backend="cuda").ids)

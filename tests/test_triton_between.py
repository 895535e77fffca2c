"""Ranks, ranges, filters and pages by Triton's kernels: counted and filtered on the device, equal to the bit."""

from __future__ import annotations

import pytest

from pyengine import conformance
from pyengine.backends import registry
from pyengine.conformance import Case
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from pyengine.specification import reference
from tests import between_cases
from tests.between_cases import FILTERS
from tests.dense_cases import CASES, rows

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends.triton import triton_between, triton_dense  # noqa: E402
from tests.test_triton_workspace import ON_HOST, launches  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),  # in the interpreter
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
BACKEND = registry.get("triton")


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is scored or selected on the host."""
    for name in ("propose", "score_everything", "refine"):
        monkeypatch.setattr(triton_dense, name, lambda *given, name=name: pytest.fail(f"{name} was called"))


@pytest.mark.parametrize("names", [each for each in CASES if each[0] != "random"], ids="-".join)
def test_ranges_and_ranks(names: tuple[str, str, str, str]) -> None:
    known = {(each.corpus, each.options, each.metric, each.store) for each in conformance.cases()}
    if names not in known and names[3] == "int8":
        pytest.skip("int8 codes need the compiled extension")
    conformance.check_ranges_and_ranks(Case(*names).problem(), BACKEND)


@pytest.mark.parametrize("metric", reference.METRICS)
def test_most_documents_are_counted_and_not_listed(metric: str) -> None:
    between_cases.check_counted(metric, "triton")


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("tied", [False, True])
def test_ranks(metric: str, tied: bool) -> None:
    between_cases.check_ranks(metric, tied, "triton")


def test_ranks_leave_out_what_is_excluded() -> None:
    between_cases.check_ranks_without_what_is_excluded("triton")


@ON_HOST
def test_parts_of_pools_are_aligned_as_whole_ones() -> None:
    """For tensors that are not, kernels would be compiled once more."""
    problem = dense.prepare(rows(9, 5, 3), Documents(rows(8, 40, 3), cache={}), 2, metric="dot")
    with launches() as log:
        (found,) = triton_between.between(problem)
        part = triton_between._only(found.found, slice(1, 4))
        scores = triton_between._refined(problem, found._replace(found=part))
    assert part.pools.rows.tolist() == found.found.pools.rows[1:4].tolist()
    assert scores.shape == part.pools.rows.shape
    assert {address % 16 for name, addresses in log if name == "refine_kernel" for address in addresses} == {0}


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_pools_that_are_too_small_are_scanned_for_again(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_between, "PLACES", 1)  # 256
    between_cases.check_small_pools(metric, "triton")


@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_filters(number: int, on_device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    paged_groups = {"after", "groups"} <= set(FILTERS[number])
    if paged_groups:
        monkeypatch.undo()  # what comes before the mark counts in its groups, and takes the places at first
    asked = between_cases.filtered(number)
    between_cases.agrees(asked, "triton")
    if not paged_groups:
        between_cases.agrees(between_cases.with_other_ids(asked, number), "triton")


def test_ties_in_groups() -> None:
    between_cases.check_ties_in_groups("triton")


def test_pages_list_nothing_of_those_before(on_device: None) -> None:
    between_cases.check_pages("triton")


def test_a_mask_of_each_query_skips_tiles(on_device: None) -> None:
    between_cases.check_masks("triton")


def test_nothing_to_filter() -> None:
    between_cases.check_nothing_to_filter("triton")


def test_explain_says_what_would_run() -> None:
    plan, docs = between_cases.explained("triton")
    assert plan.facts["store"] == "float32, scanned as int8 codes"
    assert plan.facts["tile"] == "documents by queries by dimensions: 128 x 16 x 128, 2 parts"
    assert plan.facts["filter"].startswith("a bitmap for all queries: no tile is read")
    assert "not listed" in plan.facts["filter"]
    assert "costs no more" in plan.rejected["128 x 64 x 128, 2 parts"]
    assert docs.cache == {}

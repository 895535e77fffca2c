"""Which parts of documents pass through a GPU that cannot hold them, and what a part of a search is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine import checks
from pyengine.backends.shared import parts
from pyengine.backends.shared.parts import Footprint, Share
from pyengine.conformance import rank_scores
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.problems.problem_sparse import SparseProblem
from pyengine.refining import exact
from pyengine.searches import dense
from pyengine.types import Candidates
from tests import stream_cases

EACH = Footprint((Share("a", 3, 2), Share("b", 5)), 4, np.array([0, 2, 2, 12, 13]))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 300))
def test_parts_have_each_document_once_and_fit_where_they_can(lengths: list[int], free: int) -> None:
    taken = Footprint((Share("a", 3, 2), Share("b", 5)), len(lengths), np.cumsum([0, *lengths]))
    total = taken.lacking(lambda key: False)
    assert total == taken.before(len(lengths)) == 8 * len(lengths) + 2 * sum(lengths)
    found = parts.cuts(taken, total, free)
    assert (found is None) == (total <= free)
    edges = [0, *(part.stop for part in found or [])]
    assert [part.start for part in found or []] == edges[:-1]
    assert edges[-1] == (0 if found is None else len(lengths))
    room = free // parts.AT_A_TIME
    for part in found or []:
        assert part.stop == part.start + 1 or taken.before(part.stop) - taken.before(part.start) <= room
        following = min(part.stop + 1, len(lengths))
        assert following == part.stop or taken.before(following) - taken.before(part.start) > room


def test_searches_need_room_beside_documents() -> None:
    assert parts.for_documents(1600) == 1500
    assert parts.for_documents(80 << 30) == 79 << 30


def test_what_is_there_counts_and_nothing_else() -> None:
    assert EACH.lacking(lambda key: False) == 4 * 8 + 13 * 2
    assert EACH.lacking(lambda key: key == "a") == 4 * 5
    assert EACH.lacking(lambda key: True) == 0
    assert EACH.largest == 8 + 10 * 2
    assert parts.cuts(EACH, 20, 20) is None
    assert parts.cuts(EACH, 58, None) is None


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Footprint((Share("a", 0, 10**6),), 2, np.array([0, 90, 100]))
    lacking = taken.lacking(lambda key: False)
    assert parts.refusals(taken, lacking, 100 * 10**6) == []
    assert parts.refusals(taken, lacking, None) == []
    assert parts.refusals(taken, lacking, 60 * 10**6) == [
        "it needs 67 MB of the GPU, of which 60 are free",
    ]
    assert parts.refusals(taken, lacking, 90 * 10**6, whole=True) == [
        "it needs 100 MB of the GPU, of which 90 are free"
    ]
    assert parts.refusals(taken, lacking, 90 * 10**6) == [
        "its documents pass through the GPU in parts of 30 MB, and one takes 90",
    ]
    monkeypatch.setattr(parts, "AT_A_TIME", 1)
    assert parts.refusals(taken, lacking, 90 * 10**6) == []


def test_what_explain_says() -> None:
    said = "in 2 parts of at most 5: the GPU cannot hold all 7"
    assert parts.facts([slice(0, 2), slice(2, 7)]) == {"documents": said}
    assert parts.facts(None) == {}


@pytest.mark.parametrize(
    "case", ["tokens-masks-bias", "tokens-weighted_symmetric", "sparse-masks-bias", "sliced-masks-bias"]
)
@pytest.mark.parametrize("which", [slice(0, 45), slice(8, 16), slice(3, 4), slice(5, 14), slice(39, 45), slice(7, 7)])
def test_a_part_of_a_search_has_its_scores(case: str, which: slice) -> None:
    problem = stream_cases.CASES[case]()
    part = problem.part(which)
    assert (rank_scores(part) == rank_scores(problem)[:, which]).all()
    if problem.mask is not None and part.mask is not None:
        count = which.stop - which.start
        want = checks.unpack(problem.mask, len(problem.docs))[:, which]
        assert (checks.unpack(part.mask, count) == want).all()
        assert np.unpackbits(part.mask).sum() == want.sum()  # nothing behind the last


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_what_comes_before_a_page_raises_no_floor(metric: str) -> None:
    """The floor of the second part is below the third best of the first that comes after the mark."""
    docs = np.arange(1, 21, dtype=np.float32)[:, None]
    if metric == "l2":
        docs = 21 - docs
    queries = np.ones((1, 1), np.float32) if metric == "dot" else np.zeros((1, 1), np.float32)
    mark = (np.array([7.0]), np.array([6])) if metric == "dot" else (np.array([14.0**2]), np.array([6]))
    problem = dense.prepare(queries, Documents(docs), 3, metric=metric, filters=FilterArguments(after=mark))
    floors: list[Any] = []

    def scan(part: DenseProblem) -> Candidates:
        floors.append(part.floor)
        return exact.everything(part)

    asked = problem.asking(problem.places())
    found = parts.propose(asked, [slice(0, 10), slice(10, 20)], lambda part: None, scan, exact.refine)
    assert len(found.rows) == 20
    third = 4 if metric == "dot" else -(17**2)
    assert [floor.tolist() for floor in floors] == [[-np.inf], [np.nextafter(np.float32(third), np.float32(-np.inf))]]


def test_what_is_filtered_is_said_to_be() -> None:
    """Ties that come later may be left out only where nothing takes the place of what is listed."""
    for case, certain in (("sparse-ties", True), ("sparse-ties-ids", False), ("sparse-ties-filters", False)):
        problem = stream_cases.CASES[case]()
        assert isinstance(problem, SparseProblem)
        assert problem.by_row == problem.part(slice(5, 20)).by_row == certain

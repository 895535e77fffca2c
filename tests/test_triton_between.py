"""Ranks, ranges, filters and pages by Triton's kernels: counted and filtered on the device, equal to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.conformance import Case
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import ALL, DenseProblem, Documents
from pyengine.searches import dense, ranges, ranks
from pyengine.searches.search import exact_search
from pyengine.specification import reference
from tests.dense_cases import CASES, rows

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends.triton import triton_between, triton_dense  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),  # in the interpreter
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
BACKEND = registry.get("triton")
DIM = 24


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is scored or selected on the host."""
    for name in ("propose", "score_everything", "refine"):
        monkeypatch.setattr(triton_dense, name, lambda *given, name=name: pytest.fail(f"{name} was called"))


def problem(n_docs: int = 300, n_queries: int = 3, metric: str = "dot", k: int = 7, **arguments: Any) -> DenseProblem:
    docs = Documents(rows(1, n_docs, DIM), cache={}, checked=True)
    return dense.prepare(rows(2, n_queries, DIM), docs, k, metric=metric, **arguments)


def agrees(asked: DenseProblem) -> None:
    conformance.same(exact_search(asked, BACKEND), conformance.specified(asked), asked.describe())


@pytest.mark.parametrize("names", [each for each in CASES if each[0] != "random"], ids="-".join)
def test_ranges_and_ranks(names: tuple[str, str, str, str]) -> None:
    known = {(each.corpus, each.options, each.metric, each.store) for each in conformance.cases()}
    if names not in known and names[3] == "int8":
        pytest.skip("int8 codes need the compiled extension")
    conformance.check_ranges_and_ranks(Case(*names).problem(), BACKEND)


@pytest.mark.parametrize("metric", reference.METRICS)
def test_most_documents_are_counted_and_not_listed(metric: str) -> None:
    """Bounds decide all but a few: the lists of `within` are short, and what it counts lies above."""
    asked = problem(900, 4, metric)
    scores = conformance.rank_scores(asked)
    middle = np.sort(scores, axis=1)[:, 450]
    limited = replace(asked, k=ALL, floor=middle, ceiling=middle)
    for which, listed, above in BACKEND.within(limited):
        for q, (start, stop, count) in enumerate(zip(listed.offsets, listed.offsets[1:], above)):
            own = set(listed.rows[start:stop].tolist())
            assert len(own) == stop - start
            higher = set(np.flatnonzero(scores[which[q]] > middle[which[q]]).tolist())
            assert len(own) < 120
            assert count > 300
            assert len(higher - own) == count
            assert len(set(np.flatnonzero(scores[which[q]] == middle[which[q]]).tolist()) - own) == 0


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("tied", [False, True])
def test_ranks(metric: str, tied: bool) -> None:
    generator = np.random.default_rng(3)
    corpus = np.repeat(rows(4, 20, DIM), 10, axis=0) if tied else rows(4, 200, DIM)
    ids = generator.permutation(200) * 3 + (1 << 40) if tied else None
    mask, bias = generator.random((5, 200)) < 0.7, generator.standard_normal(200)
    docs = Documents(corpus, cache={}, checked=True)
    asked = dense.prepare(rows(5, 5, DIM), docs, ALL, metric=metric, mask=mask, bias=bias, dims=DIM - 5, ids=ids)
    targets = generator.integers(0, 200, (5, 2))
    named = targets if ids is None else ids[targets]
    got = ranks.ranks(asked, BACKEND, targets)
    want = reference.rank_of(
        asked.queries, corpus, named, metric, mask=mask, bias=bias, dims=DIM - 5, ids=ids
    )  # fmt: skip
    np.testing.assert_array_equal(got, want)


def test_ranks_leave_out_what_is_excluded() -> None:
    corpus, queries = rows(6, 150, DIM), rows(7, 3, DIM)
    exclude = [np.argsort(-(queries[q] @ corpus.T))[:5] for q in range(3)]
    targets = np.array([[exclude[q][2], 77] for q in range(3)])
    given: dict[str, Any] = {"metric": "dot", "exclude": exclude, "deny": [3, 4, 5]}
    got, want = (pe.rank_of(queries, corpus, targets, **given, backend=name) for name in ("triton", "numpy"))
    np.testing.assert_array_equal(got, want)
    assert (got[:, 0] == 1).sum() + (got[:, 0] == 3).sum() > 0


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_pools_that_are_too_small_are_scanned_for_again(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some queries get everything, others little or nothing; their order stays."""
    monkeypatch.setattr(triton_between, "PLACES", 1)  # 256
    corpus, queries = rows(8, 700, DIM), rows(9, 5, DIM)
    far = np.inf if metric == "l2" else -np.inf
    some = float(np.median(reference.topk(queries[1:2], corpus, 9, metric).scores))
    threshold = np.array([far, some, -far, far, some])
    got, want = (
        pe.range_search(queries, corpus, threshold, metric=metric, backend=name) for name in ("triton", "numpy")
    )
    for ours, theirs in zip(got, want):
        assert ours.tobytes() == theirs.tobytes()
    assert np.diff(got.offsets)[[0, 3]].tolist() == [700, 700]


FILTERS: list[dict[str, Any]] = [
    {"exclude": [[1, 2, 250], [], [9]]},
    {"exclude": np.array([[5, -1], [299, 5], [-1, -1]])},
    {"threshold": 0.4},
    {"threshold": [0.4, -np.inf, np.inf]},
    {"groups": np.arange(300) % 7},
    {"groups": np.arange(300) // 3, "per_group": 2, "exclude": [[0, 1, 2], [3], [4]], "threshold": 0.0},
    {"after": ([1.0, 0.0, -0.3], [5, 1 << 60, -1])},
    {"after": ([2.0, 1.0, 0.5], [0, 299, 7]), "groups": np.arange(300) % 11, "threshold": -1.0},
    {"allow": np.arange(50, 90), "deny": [60, 61], "exclude": [[70], [71], [72]]},
]


@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_filters(number: int, on_device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With row numbers, and with ids in another order, by which the filters mean other documents."""
    given = FilterArguments(**FILTERS[number])
    if given.groups is not None and given.after is not None:
        monkeypatch.undo()  # what comes before the mark counts in its groups, and takes the places at first
    asked = problem(metric=reference.METRICS[number % 3], filters=given)
    agrees(asked)
    if given.groups is None or given.after is None:
        ids = np.random.default_rng(4).permutation(300)
        docs = replace(asked.docs, cache={})
        agrees(dense.prepare(asked.queries, docs, 7, metric=asked.metric, filters=given, ids=ids))


def test_ties_in_groups() -> None:
    """Of equal members of a group the smaller id is the better one."""
    docs = Documents(np.repeat(rows(10, 6, DIM), 30, axis=0), cache={}, checked=True)
    ids = np.random.default_rng(5).permutation(180)
    groups = np.random.default_rng(6).integers(0, 9, 180)
    for per_group in (1, 3):
        given = FilterArguments(groups=groups, per_group=per_group)
        agrees(dense.prepare(rows(11, 2, DIM), docs, 20, metric="l2", ids=ids, filters=given))


def test_pages_list_nothing_of_those_before(on_device: None) -> None:
    """Page by page the whole ranking, though each pool has room for a few pages only."""
    corpus, queries = rows(12, 1200, DIM), rows(13, 2, DIM)
    docs = Documents(corpus, cache={}, checked=True)
    want = reference.topk(queries, corpus, 1200, "dot")
    after: Any = None
    for start in range(0, 300, 100):
        given = FilterArguments(after=after)
        asked = dense.prepare(queries, docs, 100, metric="dot", filters=given)
        got = exact_search(asked, BACKEND)
        assert got.certified.all()
        np.testing.assert_array_equal(got.ids, want.ids[:, start : start + 100])
        after = got


def test_a_mask_of_each_query_skips_tiles(on_device: None) -> None:
    mask = np.zeros((3, 300), bool)
    mask[0, 280:] = mask[2, :9] = True
    agrees(problem(metric="l2", mask=mask, filters=FilterArguments(threshold=np.inf)))
    agrees(problem(metric="l2", mask=np.zeros(300, bool), filters=FilterArguments(exclude=[[1], [], []])))


def test_nothing_to_filter() -> None:
    for n_docs, n_queries in ((0, 2), (5, 0)):
        asked = problem(n_docs, n_queries, filters=FilterArguments(threshold=0.1))
        agrees(asked)
        assert ranges.reaching(replace(asked, k=ALL), BACKEND).offsets.tolist() == [0] * (n_queries + 1)
        assert ranks.ranks(replace(asked, filters=None), BACKEND, np.zeros((n_queries, 0), np.int64)).size == 0


def test_explain_says_what_would_run() -> None:
    from pyengine.searches.explain import explain

    docs = Documents(rows(14, 300, DIM), cache={}, checked=True)
    given = FilterArguments(after=([1.0, 1.0], [0, 0]))
    asked = dense.prepare(rows(15, 2, DIM), docs, 5, metric="dot", mask=np.ones(300, bool), filters=given)
    plan = explain(asked, "triton")
    assert plan.facts["store"] == "float32, scanned as int8 codes"
    assert plan.facts["tile"] == "documents by queries by dimensions: 128 x 16 x 128, 2 parts"
    assert plan.facts["filter"].startswith("a bitmap for all queries: no tile is read")
    assert "not listed" in plan.facts["filter"]
    assert "costs no more" in plan.rejected["128 x 64 x 128, 2 parts"]
    assert docs.cache == {}

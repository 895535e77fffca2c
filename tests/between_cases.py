"""Ranks, ranges, filters and pages, as the tests of both kinds of GPU kernels ask for them: equal to the bit, and
decided by bounds for all but a few documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import ALL, DenseProblem, Documents
from pyengine.searches import dense, ranges, ranks
from pyengine.searches.explain import Plan, explain
from pyengine.searches.search import exact_search
from pyengine.specification import reference
from tests.dense_cases import rows

DIM = 24
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


def problem(n_docs: int = 300, n_queries: int = 3, metric: str = "dot", k: int = 7, **arguments: Any) -> DenseProblem:
    docs = Documents(rows(1, n_docs, DIM), cache={}, checked=True)
    return dense.prepare(rows(2, n_queries, DIM), docs, k, metric=metric, **arguments)


def agrees(asked: DenseProblem, name: str) -> None:
    conformance.same(exact_search(asked, registry.get(name)), conformance.specified(asked), asked.describe())


def check_counted(metric: str, name: str) -> None:
    """Bounds decide all but a few: the lists of `within` are short, and what it counts lies above."""
    asked = problem(900, 4, metric)
    scores = conformance.rank_scores(asked)
    middle = np.sort(scores, axis=1)[:, 450]
    limited = replace(asked, k=ALL, floor=middle, ceiling=middle)
    for which, listed, above in registry.get(name).within(limited):
        for q, (start, stop, count) in enumerate(zip(listed.offsets, listed.offsets[1:], above)):
            own = set(listed.rows[start:stop].tolist())
            assert len(own) == stop - start
            higher = set(np.flatnonzero(scores[which[q]] > middle[which[q]]).tolist())
            assert len(own) < 120
            assert count > 300
            assert len(higher - own) == count
            assert len(set(np.flatnonzero(scores[which[q]] == middle[which[q]]).tolist()) - own) == 0


def check_ranks(metric: str, tied: bool, name: str) -> None:
    generator = np.random.default_rng(3)
    corpus = np.repeat(rows(4, 20, DIM), 10, axis=0) if tied else rows(4, 200, DIM)
    ids = generator.permutation(200) * 3 + (1 << 40) if tied else None
    mask, bias = generator.random((5, 200)) < 0.7, generator.standard_normal(200)
    docs = Documents(corpus, cache={}, checked=True)
    asked = dense.prepare(rows(5, 5, DIM), docs, ALL, metric=metric, mask=mask, bias=bias, dims=DIM - 5, ids=ids)
    targets = generator.integers(0, 200, (5, 2))
    named = targets if ids is None else ids[targets]
    got = ranks.ranks(asked, registry.get(name), targets)
    want = reference.rank_of(
        asked.queries, corpus, named, metric, mask=mask, bias=bias, dims=DIM - 5, ids=ids
    )  # fmt: skip
    np.testing.assert_array_equal(got, want)


def check_ranks_without_what_is_excluded(name: str) -> None:
    corpus, queries = rows(6, 150, DIM), rows(7, 3, DIM)
    exclude = [np.argsort(-(queries[q] @ corpus.T))[:5] for q in range(3)]
    targets = np.array([[exclude[q][2], 77] for q in range(3)])
    given: dict[str, Any] = {"metric": "dot", "exclude": exclude, "deny": [3, 4, 5]}
    got, want = (pe.rank_of(queries, corpus, targets, **given, backend=each) for each in (name, "numpy"))
    np.testing.assert_array_equal(got, want)
    assert (got[:, 0] == 1).sum() + (got[:, 0] == 3).sum() > 0


def check_small_pools(metric: str, name: str) -> None:
    """Some queries get everything, others little or nothing; their order stays."""
    corpus, queries = rows(8, 700, DIM), rows(9, 5, DIM)
    far = np.inf if metric == "l2" else -np.inf
    some = float(np.median(reference.topk(queries[1:2], corpus, 9, metric).scores))
    threshold = np.array([far, some, -far, far, some])
    got, want = (pe.range_search(queries, corpus, threshold, metric=metric, backend=each) for each in (name, "numpy"))
    for ours, theirs in zip(got, want):
        assert ours.tobytes() == theirs.tobytes()
    assert np.diff(got.offsets)[[0, 3]].tolist() == [700, 700]


def filtered(number: int) -> DenseProblem:
    return problem(metric=reference.METRICS[number % 3], filters=FilterArguments(**FILTERS[number]))


def with_other_ids(asked: DenseProblem, number: int) -> DenseProblem:
    """The same with ids in another order, by which the filters mean other documents."""
    ids, docs = np.random.default_rng(4).permutation(300), replace(asked.docs, cache={})
    given = FilterArguments(**FILTERS[number])
    return dense.prepare(asked.queries, docs, 7, metric=asked.metric, filters=given, ids=ids)


def check_ties_in_groups(name: str) -> None:
    """Of equal members of a group the smaller id is the better one."""
    docs = Documents(np.repeat(rows(10, 6, DIM), 30, axis=0), cache={}, checked=True)
    ids = np.random.default_rng(5).permutation(180)
    groups = np.random.default_rng(6).integers(0, 9, 180)
    for per_group in (1, 3):
        given = FilterArguments(groups=groups, per_group=per_group)
        agrees(dense.prepare(rows(11, 2, DIM), docs, 20, metric="l2", ids=ids, filters=given), name)


def check_pages(name: str) -> None:
    """Page by page the whole ranking, though each pool has room for a few pages only."""
    corpus, queries = rows(12, 1200, DIM), rows(13, 2, DIM)
    docs = Documents(corpus, cache={}, checked=True)
    want = reference.topk(queries, corpus, 1200, "dot")
    after: Any = None
    for start in range(0, 300, 100):
        given = FilterArguments(after=after)
        asked = dense.prepare(queries, docs, 100, metric="dot", filters=given)
        got = exact_search(asked, registry.get(name))
        assert got.certified.all()
        np.testing.assert_array_equal(got.ids, want.ids[:, start : start + 100])
        after = got


def check_masks(name: str) -> None:
    mask = np.zeros((3, 300), bool)
    mask[0, 280:] = mask[2, :9] = True
    agrees(problem(metric="l2", mask=mask, filters=FilterArguments(threshold=np.inf)), name)
    agrees(problem(metric="l2", mask=np.zeros(300, bool), filters=FilterArguments(exclude=[[1], [], []])), name)


def check_nothing_to_filter(name: str) -> None:
    backend = registry.get(name)
    for n_docs, n_queries in ((0, 2), (5, 0)):
        asked = problem(n_docs, n_queries, filters=FilterArguments(threshold=0.1))
        agrees(asked, name)
        assert ranges.reaching(replace(asked, k=ALL), backend).offsets.tolist() == [0] * (n_queries + 1)
        assert ranks.ranks(replace(asked, filters=None), backend, np.zeros((n_queries, 0), np.int64)).size == 0


def explained(name: str) -> tuple[Plan, Documents]:
    """What is said of a page of a masked search."""
    docs = Documents(rows(14, 300, DIM), cache={}, checked=True)
    given = FilterArguments(after=([1.0, 1.0], [0, 0]))
    asked = dense.prepare(rows(15, 2, DIM), docs, 5, metric="dot", mask=np.ones(300, bool), filters=given)
    return explain(asked, name), docs

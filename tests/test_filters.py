"""Filters, range search, ranks and both directions: the bits of the specification from every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyengine as pe
from pyengine import DenseIndex, Ranges, TopK, conformance, topk
from pyengine.backends import registry
from pyengine.conformance.conformance_cases import stores
from pyengine.inputs.filters import FilterArguments, above, below
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from pyengine.searches.search import exact_search
from pyengine.specification import reference
from pyengine.types import F32, I64

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]

INDEX_STORES = [name for name in stores() if name != "matrix"]
Rng = np.random.Generator


@dataclass(frozen=True)
class Corpus:
    """Queries, documents with ids (None: row numbers), and the arguments that every kind of search takes."""

    queries: F32
    docs: F32
    ids: I64 | None
    metric: str
    arguments: dict[str, Any]
    permits: dict[str, Any]

    @property
    def names(self) -> I64:
        return np.arange(len(self.docs)) if self.ids is None else self.ids

    def index(self, store: str, engine: str) -> DenseIndex:
        """Where the ids are given, some were those of other documents once, and some documents are gone."""
        index = DenseIndex(self.docs.shape[1], self.metric, store, backend=engine)
        if self.ids is not None:
            gone = np.concatenate([self.ids[:2], [10**6]])
            index.add(np.ones((len(gone), self.docs.shape[1])), ids=gone)
            index.remove(gone)
        index.add(self.docs, ids=self.ids)
        return index


def make_rows(rng: Rng, kind: str, shape: tuple[int, int]) -> F32:
    if kind == "ties":
        return rng.integers(-1, 2, shape).astype(np.float32)
    if kind == "equal":
        return np.ones(shape, np.float32)
    rows = rng.standard_normal(shape)
    return (rows + 1e3 if kind == "offset" else rows).astype(np.float32)


def some_ids(rng: Rng, names: I64, most: int, unknown: bool = True) -> I64:
    """Ids in any order, some of them twice; and some that no document has."""
    strange = np.array([-1, -7, 2**62, 10**6], np.int64) if unknown else np.empty(0, np.int64)
    pool = np.concatenate([names, strange])
    return rng.choice(pool, rng.integers(0, most + 1)) if len(pool) else pool


@st.composite
def corpora(draw: st.DrawFn, own_ids: bool = True) -> tuple[Corpus, Rng]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_queries = draw(st.integers(0, 4) | st.sampled_from([17]))
    n_docs = draw(st.integers(0, 30) | st.integers(0, 700))
    dim = draw(st.integers(1, 17) | st.sampled_from([64, 65]))
    kind = draw(st.sampled_from(["normal", "normal", "ties", "equal", "offset"]))
    rows = make_rows(rng, kind, (n_queries + n_docs, dim))
    form = draw(st.sampled_from(["rows", "rising", "any"])) if own_ids else "rows"
    names = rng.choice(3 * n_docs + 5, n_docs, replace=False).astype(np.int64)
    ids = None if form == "rows" else np.sort(names) if form == "rising" else names
    known = np.arange(n_docs) if ids is None else ids
    arguments: dict[str, Any] = {}
    permits: dict[str, Any] = {}
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(n_docs,), (n_queries, n_docs)]))
        permits["mask"] = rng.random(shape) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    if draw(st.booleans()):
        permits["allow"] = some_ids(rng, known, n_docs, unknown=False)
    if draw(st.booleans()):
        permits["deny"] = some_ids(rng, known, n_docs)
    if draw(st.booleans()):
        most = draw(st.sampled_from([0, 3, n_docs]))
        permits["exclude"] = [some_ids(rng, known, most) for _ in range(n_queries)]
    if draw(st.booleans()):
        arguments["bias"] = np.rint(rng.standard_normal(n_docs)) if draw(st.booleans()) else rng.standard_normal(n_docs)
    if draw(st.booleans()):
        arguments["dims"] = draw(st.integers(1, dim))
    metric = draw(st.sampled_from(reference.METRICS))
    return Corpus(rows[:n_queries], rows[n_queries:], ids, metric, arguments, permits), rng


def a_score(rng: Rng, corpus: Corpus) -> float:
    """One that some document has, or nearly."""
    if not len(corpus.queries) or not len(corpus.docs):
        return 0.25
    bias, dims = (corpus.arguments.get(name) for name in ("bias", "dims"))
    score = rng.choice(reference.scores(corpus.queries[:1], corpus.docs, corpus.metric, bias, dims)[0])
    return float(np.nextafter(score, np.float32(rng.choice([-np.inf, np.inf]))) if rng.random() < 0.3 else score)


def draw_filters(draw: Any, rng: Rng, corpus: Corpus) -> dict[str, Any]:
    n_queries, n_docs = len(corpus.queries), len(corpus.docs)
    chosen: dict[str, Any] = {}
    if draw(st.booleans()):
        chosen["groups"] = rng.integers(-2, draw(st.sampled_from([-1, 3, 50])), n_docs)
        chosen["per_group"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        scores = np.array([a_score(rng, corpus) for _ in range(n_queries)], np.float32)
        chosen["after"] = scores, rng.integers(-1, 3 * n_docs + 5, n_queries)
    if draw(st.booleans()):
        one = draw(st.booleans())
        chosen["threshold"] = (
            a_score(rng, corpus) if one else np.array([a_score(rng, corpus) for _ in range(n_queries)])
        )
    return chosen


@given(made=corpora(own_ids=False), data=st.data())
def test_topk(engine: str, made: tuple[Corpus, Rng], data: st.DataObject) -> None:
    corpus, rng = made
    options = corpus.arguments | corpus.permits | draw_filters(data.draw, rng, corpus)
    k = data.draw(st.integers(1, 8) | st.integers(1, len(corpus.docs) + 3))
    want = reference.topk(corpus.queries, corpus.docs, k, corpus.metric, **options)
    got = topk(corpus.queries, corpus.docs, k, metric=corpus.metric, **options, backend=engine)
    conformance.same(got, want, engine)


@given(made=corpora(), store=st.sampled_from(INDEX_STORES), data=st.data())
def test_an_index(engine: str, made: tuple[Corpus, Rng], store: str, data: st.DataObject) -> None:
    corpus, rng = made
    options = corpus.arguments | corpus.permits | draw_filters(data.draw, rng, corpus)
    k = data.draw(st.integers(1, 8) | st.integers(1, len(corpus.docs) + 3))
    want = reference.topk(corpus.queries, corpus.docs, k, corpus.metric, ids=corpus.ids, **options)
    conformance.same(corpus.index(store, engine).search(corpus.queries, k, **options), want, engine)


def same_ranges(got: Ranges, want: Ranges) -> None:
    for name, part, expected in zip(Ranges._fields, got, want):
        assert part.dtype == expected.dtype, name
        np.testing.assert_array_equal(part, expected, err_msg=name)
    assert got.scores.tobytes() == want.scores.tobytes()


@given(made=corpora(), store=st.sampled_from(INDEX_STORES), data=st.data())
def test_range_search(engine: str, made: tuple[Corpus, Rng], store: str, data: st.DataObject) -> None:
    corpus, rng = made
    options = corpus.arguments | corpus.permits
    limit = data.draw(st.sampled_from(["a score", "one each", -np.inf, np.inf]))
    threshold: Any = limit
    if limit == "a score":
        threshold = a_score(rng, corpus)
    elif limit == "one each":
        threshold = np.array([a_score(rng, corpus) for _ in corpus.queries], np.float64)
    want = reference.range_search(corpus.queries, corpus.docs, threshold, corpus.metric, ids=corpus.ids, **options)
    same_ranges(corpus.index(store, engine).range_search(corpus.queries, threshold, **options), want)
    if corpus.ids is None:
        found = pe.range_search(corpus.queries, corpus.docs, threshold, metric=corpus.metric, **options, backend=engine)
        same_ranges(found, want)


@given(made=corpora(), store=st.sampled_from(INDEX_STORES), data=st.data())
def test_rank_of(engine: str, made: tuple[Corpus, Rng], store: str, data: st.DataObject) -> None:
    """Of targets that may be returned and of those that may not."""
    corpus, rng = made
    options = corpus.arguments | corpus.permits
    n_queries = len(corpus.queries)
    shape = data.draw(st.sampled_from([(n_queries,), (n_queries, 0), (n_queries, 1), (n_queries, 3)]))
    targets = rng.choice(corpus.names, shape) if len(corpus.docs) else np.empty((n_queries, 0), np.int64)
    want = reference.rank_of(corpus.queries, corpus.docs, targets, corpus.metric, ids=corpus.ids, **options)
    got = corpus.index(store, engine).rank_of(corpus.queries, targets, **options)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, want)
    if corpus.ids is None:
        again = pe.rank_of(corpus.queries, corpus.docs, targets, metric=corpus.metric, **options, backend=engine)
        np.testing.assert_array_equal(again, want)


@settings(max_examples=20)
@given(made=corpora(own_ids=False), k=st.integers(1, 9))
def test_topk_both(engine: str, made: tuple[Corpus, Rng], k: int) -> None:
    corpus, _ = made
    options: dict[str, Any] = {"dims": corpus.arguments.get("dims"), "metric": corpus.metric}
    both = pe.topk_both(corpus.queries, corpus.docs, k, **options, backend=engine)
    conformance.same(both[0], reference.topk(corpus.queries, corpus.docs, k, **options), "a among b")
    conformance.same(both[1], reference.topk(corpus.docs, corpus.queries, k, **options), "b among a")


@given(
    st.floats(width=32, allow_nan=False) | st.floats(allow_nan=False), st.floats(allow_nan=False, allow_infinity=False)
)
def test_hints_leave_nothing_out(rank: float, score: float) -> None:
    """A score outside rounds to a float32 that is outside."""
    with np.errstate(over="ignore"):
        closest = np.nextafter(np.float32(rank), np.array([-np.inf, np.inf], np.float32))
        near = [score, *np.nextafter(rank, [-np.inf, np.inf]), *closest]
    for each in (float(value) for value in near if np.isfinite(value)):
        rounded = float(reference.round_score(np.float64(each)))
        assert not (each < below(np.array([rank]))[0] and rounded >= rank)
        assert not (each > above(np.array([rank]))[0] and rounded <= rank)


@pytest.fixture(scope="module")
def larger() -> tuple[F32, F32]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((5, 16)).astype(np.float32), rng.integers(-2, 3, (6000, 16)).astype(np.float32)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("metric", reference.METRICS)
def test_pages_are_one_longer_search(engine: str, larger: tuple[F32, F32], metric: str, grouped: bool) -> None:
    queries, docs = larger
    options: dict[str, Any] = {"metric": metric, "backend": engine}
    if grouped:
        options |= {"groups": np.arange(6000) // 3, "per_group": 2}
    whole = topk(queries, docs, 60, **options)
    page = topk(queries, docs, 20, **options)
    pages = [page]
    for _ in range(2):
        page = topk(queries, docs, 20, after=page, **options)
        pages.append(page)
    scores, ids, _ = (np.hstack(part) if part[0].ndim == 2 else part for part in zip(*pages))
    conformance.same(TopK(scores, ids, whole.certified), whole, "pages")


def test_after_the_last_there_is_nothing(engine: str) -> None:
    docs = np.eye(3, dtype=np.float32)
    page = topk(docs, docs, 2, backend=engine)
    page = topk(docs, docs, 2, after=page, backend=engine)
    assert page.ids.tolist() == [[2, -1], [2, -1], [1, -1]]
    assert (topk(docs, docs, 2, after=page, backend=engine).ids == -1).all()


def test_fewer_groups_than_places(engine: str, larger: tuple[F32, F32]) -> None:
    """Then the best of each group is the whole answer, and nothing has to be scored in full to know it."""
    queries, docs = larger
    groups = np.arange(6000) % 3
    want = reference.topk(queries, docs, 7, groups=groups)
    assert (want.ids[:, 3:] == -1).all()
    conformance.same(topk(queries, docs, 7, groups=groups, backend=engine), want, "three groups")


def test_rescored_proposals_have_the_scores_of_the_specification(engine: str, larger: tuple[F32, F32]) -> None:
    queries, docs = larger
    found = topk(queries, docs, 5, precision="fast", rescore=4, backend=engine)
    assert not found.certified.any()
    for q, (scores, ids) in enumerate(zip(found.scores, found.ids)):
        assert scores.tobytes() == reference.scores(queries[q : q + 1], docs[ids])[0].tobytes()
    exclude = found.ids[:, :2]
    again = topk(queries, docs, 5, precision="fast", rescore=4, exclude=exclude, threshold=0.1, backend=engine)
    assert not (again.ids[:, :, None] == exclude[:, None]).any()


@pytest.mark.parametrize("name", ["allow", "deny", "exclude", "groups", "after", "threshold"])
def test_a_proposer_without_hints_is_asked_again(engine: str, larger: tuple[F32, F32], name: str) -> None:
    """Lists as short as may be: the certificate finds that they do not suffice."""
    queries, docs = larger
    first = reference.topk(queries, docs, 300)
    filters: dict[str, Any] = {
        "allow": np.arange(0, 6000, 7),
        "deny": first.ids[0],
        "exclude": list(first.ids),
        "groups": np.arange(6000) % 40,
        "after": (first.scores[:, -1], first.ids[:, -1]),
        "threshold": first.scores[:, 4],
    }
    problem = dense.prepare(
        queries, Documents(docs), 10, metric="cosine", filters=FilterArguments(**{name: filters[name]})
    )
    narrow = type(registry.get(engine))()
    narrow.first_width = lambda problem: problem.k  # type: ignore[method-assign]
    conformance.same(exact_search(problem, narrow), reference.topk(queries, docs, 10, **{name: filters[name]}), name)


def test_the_forms_of_exclude(engine: str) -> None:
    docs = np.eye(4, dtype=np.float32)
    want = reference.topk(docs[:2], docs, 4, exclude=[np.array([0, 2]), np.array([], np.int64)])
    for given_ in ([[0, 2], []], [np.array([2, 0, 0]), ()], np.array([[2, 0, -1], [-1, -1, -1]]), [[0, 2, 99], [-5]]):
        conformance.same(topk(docs[:2], docs, 4, exclude=given_, backend=engine), want, "exclude")


def test_filters_as_tensors(engine: str, larger: tuple[F32, F32]) -> None:
    torch = pytest.importorskip("torch")
    queries, docs = larger
    given_: dict[str, Any] = {"allow": np.arange(0, 6000, 2), "deny": np.array([4, 6]), "groups": np.arange(6000) // 5}
    want = reference.topk(queries, docs, 6, **given_, threshold=0.1)
    tensors = {name: torch.from_numpy(values) for name, values in given_.items()}
    got = topk(
        torch.from_numpy(queries), torch.from_numpy(docs), 6, **tensors, threshold=torch.tensor(0.1), backend=engine
    )
    assert all(isinstance(part, torch.Tensor) for part in got)
    page = topk(torch.from_numpy(queries), docs, 3, **tensors, after=replace_k(got, 3), backend=engine)
    conformance.same(TopK(*(part.numpy() for part in got)), want, "tensors")
    np.testing.assert_array_equal(page.ids.numpy(), want.ids[:, 3:])
    found = pe.range_search(torch.from_numpy(queries), docs, 0.5, backend=engine)
    assert all(isinstance(part, torch.Tensor) for part in found)
    ranks = pe.rank_of(torch.from_numpy(queries), docs, torch.tensor([1, 2, 3, 4, 5]), backend=engine)
    assert isinstance(ranks, torch.Tensor)
    np.testing.assert_array_equal(ranks.numpy(), reference.rank_of(queries, docs, np.arange(1, 6)))


def replace_k(page: Any, k: int) -> TopK:
    return TopK(page.scores[:, :k], page.ids[:, :k], page.certified)


def test_the_plan_says_what_is_filtered() -> None:
    index = DenseIndex(4, store="float32", backend="numpy")
    index.add(np.eye(4, dtype=np.float32))
    plan = index.explain(np.eye(2, 4), 2, exclude=[[0, 1], [2]], groups=[1, 1, 2, 2], threshold=0.5)
    said = "exclude (up to 2 per query), groups (at most 1 of each), threshold: top 16 proposed at first"
    assert plan.facts["filters"].startswith(said)
    assert "filters" not in index.explain(np.eye(2, 4), 2).facts


def test_ids_may_be_sets() -> None:
    rng = np.random.default_rng(0)
    queries, docs = (rng.standard_normal((n, 6)).astype(np.float32) for n in (2, 40))
    sets: list[dict[str, Any]] = [
        {"allow": {3, 9, 30}}, {"deny": frozenset({1, 2})}, {"exclude": [{3, 4}, set()]}, {"deny": set()},
    ]  # fmt: skip
    for filters in sets:
        as_lists: dict[str, Any] = {
            name: [list(ids) for ids in value] if name == "exclude" else np.array(list(value), np.int64)
            for name, value in filters.items()
        }
        conformance.same(topk(queries, docs, 40, **filters), topk(queries, docs, 40, **as_lists), str(filters))
    index = DenseIndex(6)
    index.add(docs)
    index.remove({5, 7})
    assert sorted(set(range(40)) - set(index.ids.tolist())) == [5, 7]
    with pytest.raises(TypeError, match="ids must be integers"):
        index.add(docs[:2], ids={41, 42})  # a set has no order

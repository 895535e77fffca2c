"""Whatever is asked, of whatever documents, every backend gives the bits of the specification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from pyengine import DenseIndex, TopK, conformance, topk
from pyengine.conformance.conformance_cases import stores
from pyengine.specification import reference
from pyengine.types import F32

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]

SCALES = (1.0, 1.0, 1.0, 1e-3, 1e38, 1e-38, 1e-44)
DTYPES = ("f4", "f4", "f2", "f8", ">f4", "i1", "i8")
INDEX_STORES = [name for name in stores() if name != "matrix"]


@dataclass(frozen=True)
class Search:
    """A corpus, and what is asked of it."""

    queries: np.ndarray
    docs: np.ndarray
    arguments: dict[str, Any]

    def specified(self, ids: Any = None) -> TopK:
        return reference.topk(as_float32(self.queries), as_float32(self.docs), ids=ids, **self.arguments)


def as_float32(rows: np.ndarray) -> F32:
    return rows.astype(np.float32)


def make_rows(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> np.ndarray:
    if kind == "ties":
        return rng.integers(-1, 2, shape)
    if kind == "duplicates":
        rows: np.ndarray = rng.standard_normal((3, shape[1]))[rng.integers(0, 3, shape[0])]
        return rows
    if kind == "sparse":
        return rng.standard_normal(shape) * (rng.random(shape) < 0.1)
    if kind == "offset":
        return 100 + rng.standard_normal(shape)
    if kind == "close":
        return np.asarray(rng.standard_normal((1, shape[1])) + 1e-6 * rng.standard_normal(shape))
    scale = 10.0 ** rng.uniform(-30, 30, (shape[0], 1)) if kind == "magnitudes" else 1.0
    return np.asarray(rng.standard_normal(shape) * scale)


def cast(rows: np.ndarray, scale: float, dtype: str) -> np.ndarray:
    if dtype[0] == "i":
        return np.asarray(np.rint(np.clip(rows * 20, -100, 100)), dtype)
    limit = 6e4 if dtype == "f2" else 3.4e38
    return np.asarray(np.clip(rows * scale, -limit, limit), dtype)


@st.composite
def searches(draw: st.DrawFn, largest: int = 400) -> Search:
    """Shapes, values and arguments are drawn; the numbers come from a generator with a drawn seed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_queries = draw(st.integers(0, 5) | st.sampled_from([16, 17, 33]))
    n_docs = draw(st.integers(0, 40) | st.integers(0, largest))
    dim = draw(st.integers(1, 17) | st.sampled_from([31, 32, 33, 63, 64, 65, 127, 128, 129, 200]))
    kind = draw(st.sampled_from(["normal", "ties", "duplicates", "sparse", "offset", "close", "magnitudes"]))
    event(f"values: {kind}")
    scale, dtype = draw(st.sampled_from(SCALES)), draw(st.sampled_from(DTYPES))
    rows = cast(make_rows(rng, kind, (n_queries + n_docs, dim)), scale, dtype)
    arguments: dict[str, Any] = {
        "k": draw(st.integers(1, 12) | st.integers(1, n_docs + 3)),
        "metric": draw(st.sampled_from(reference.METRICS)),
    }
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(n_docs,), (n_queries, n_docs)]))
        arguments["mask"] = rng.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    if draw(st.booleans()):
        bias = rng.standard_normal(n_docs) * draw(st.sampled_from([1e-9, 1.0, 1e30]))
        arguments["bias"] = np.rint(bias) if draw(st.booleans()) else bias
    if draw(st.booleans()):
        arguments["dims"] = draw(st.integers(1, dim))
    return Search(rows[:n_queries], rows[n_queries:], arguments)


@given(search=searches(), threads=st.integers(1, 5))
def test_topk_is_the_specification(engine: str, search: Search, threads: int) -> None:
    result = topk(search.queries, search.docs, **search.arguments, backend=engine, num_threads=threads)
    conformance.same(result, search.specified(), engine)


@given(search=searches(), store=st.sampled_from(INDEX_STORES), data=st.data())
def test_an_index_is_the_specification(engine: str, store: str, search: Search, data: st.DataObject) -> None:
    """Whatever ids the documents have, in however many parts they were added, and with others removed since."""
    n_docs, dim = search.docs.shape
    arguments = dict(search.arguments)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    ids = rng.permutation(2 * n_docs + 5)[: n_docs + 5].astype(np.int64)
    gone, ids = ids[:5], ids[5:]
    index = DenseIndex(dim, arguments.pop("metric"), store, backend=engine)
    index.add(np.ones((5, dim)), ids=gone)
    for part in np.array_split(np.arange(n_docs), data.draw(st.integers(1, 4))):
        index.add(search.docs[part], ids=ids[part])
    index.remove(gone)
    conformance.same(index.search(search.queries, **arguments), search.specified(ids), engine)


@settings(max_examples=15)
@given(search=searches(largest=6000))
def test_larger_corpora_too(engine: str, search: Search) -> None:
    conformance.same(topk(search.queries, search.docs, **search.arguments, backend=engine), search.specified(), engine)


@given(search=searches(), data=st.data())
def test_a_query_does_not_notice_the_others(engine: str, search: Search, data: st.DataObject) -> None:
    arguments = dict(search.arguments)
    which = data.draw(st.lists(st.integers(0, max(0, len(search.queries) - 1)), max_size=20))
    chosen = np.array(which if len(search.queries) else [], np.int64)
    mask = arguments.get("mask")
    if mask is not None and mask.ndim == 2:
        arguments["mask"] = mask[chosen]
    want = search.specified()
    result = topk(search.queries[chosen], search.docs, **arguments, backend=engine)
    conformance.same(result, TopK(*(part[chosen] for part in want)), f"queries {which}")


@given(search=searches())
@example(search=Search(np.ones((1, 3), "f4"), np.ones((9, 3), "f4"), {"k": 4, "metric": "l2"}))
def test_fast_says_so_and_gives_documents_that_may_be_given(engine: str, search: Search) -> None:
    arguments = dict(search.arguments)
    result = topk(search.queries, search.docs, **arguments, backend=engine, precision="fast")
    want = search.specified()
    assert not result.certified.any()
    assert result.scores.dtype == np.float32
    assert result.ids.dtype == np.int64
    np.testing.assert_array_equal(result.ids == -1, want.ids == -1)
    np.testing.assert_array_equal(np.isinf(result.scores), result.ids == -1)
    mask = np.broadcast_to(arguments.get("mask", True), (len(search.queries), len(search.docs)))
    for q, ids in enumerate(result.ids):
        found = ids[ids >= 0]
        assert mask[q, found].all()
        assert len(set(found.tolist())) == len(found)

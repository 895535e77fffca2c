"""Late interaction's C++ scan: under every plan, what it leaves out stays below the bound that it states, by a float64
specification written here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyengine.indexes.codecs import RESIDUALS, Residual
from pyengine.kernels.plan import plan_maxsim
from pyengine.refining import exact
from pyengine.types import F32, F64, I64, U8, Candidates

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.skipif(exact.native() is None, reason="not built")]
NATIVE: Any = exact.native()


@dataclass(frozen=True)
class Search:
    """Queries and documents as sets of tokens, and what is asked of them."""

    queries: F32
    query_offsets: I64
    docs: F32
    offsets: I64
    normalize: bool = False
    reduce: str = "sum"
    weights: F32 | None = None
    mask: U8 | None = None
    bias: F64 | None = None
    coding: str = "none"
    rows: Any = None  # the documents as the extension takes them, where that is not float32

    def propose(self, k: int, **launch: Any) -> Candidates:
        plan = plan_maxsim(len(self.queries), len(self.offsets) - 1, len(self.docs), self.docs.shape[1], k, 4 * k, 1, 1)
        rows = NATIVE.Rows(self.docs, "float32", self.docs.shape[1]) if self.rows is None else self.rows
        docs = NATIVE.Tokens(rows, self.offsets, **self.codes())
        queries = NATIVE.Tokens(NATIVE.Rows(self.queries, "float32", self.docs.shape[1]), self.query_offsets)
        *found, _ = NATIVE.maxsim_propose(
            queries, docs, k, normalize=self.normalize, reduce=self.reduce, query_weights=self.weights, mask=self.mask,
            bias=self.bias, **plan.launch() | launch,
        )  # fmt: skip
        return Candidates(*found)

    def codes(self) -> dict[str, Any]:
        if self.coding == "none":
            return {}
        norms = NATIVE.norms(NATIVE.Rows(self.docs, "float32", self.docs.shape[1]), self.docs.shape[1])
        if self.coding == "int8":
            codes, scale, residual = NATIVE.quantize(self.docs)
            return {"norms": norms, "codes": codes, "scale": scale, "residual": residual}
        planes = int(self.coding[-1])
        codes, _, scale, residual = NATIVE.pack_planes(self.docs, planes)
        return {"norms": norms, "codes": codes, "scale": scale, "residual": residual, "code_planes": planes}

    def scores(self) -> F64:
        """float64 [Q, N], -inf where a document has no tokens and the query has."""
        products = np.full((len(self.queries), len(self.docs)), 0.0)
        metric = "cosine" if self.normalize else "dot"
        for i, row in enumerate(self.queries):
            products[i] = reference_products(row, self.docs, metric)
        scores = np.full((len(self.query_offsets) - 1, len(self.offsets) - 1), 0.0)
        for q, (first, last) in enumerate(zip(self.query_offsets[:-1], self.query_offsets[1:], strict=True)):
            for d, (begin, end) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
                scores[q, d] = self.score(products[first:last, begin:end], first)
        return scores if self.bias is None else scores + self.bias

    def score(self, products: F64, first: int) -> float:
        length, tokens = products.shape
        if length == 0:
            return 0.0
        if tokens == 0:
            return -np.inf
        total = 0.0
        for i, best in enumerate(products.max(axis=1)):
            total += best if self.weights is None else float(self.weights[first + i]) * best
        return total / length if self.reduce == "mean" else total

    def allowed(self) -> np.ndarray:
        n_queries, n_docs = len(self.query_offsets) - 1, len(self.offsets) - 1
        if self.mask is None:
            return np.ones((n_queries, n_docs), bool)
        bits = np.unpackbits(self.mask, axis=1, bitorder="little")[:, :n_docs].astype(bool)
        return np.broadcast_to(bits, (n_queries, n_docs))


def by_residuals(search: Search, planes: int, rng: np.random.Generator) -> Search:
    """The same, of documents that are kept as residuals around some of their tokens, far or near."""
    form = Residual(search.docs.shape[1], planes)
    share = {"centroids": search.docs[rng.permutation(len(search.docs))[: rng.integers(1, 40)]]}
    rows = form.rows(form.encode(search.docs, share) | share)
    return replace(search, docs=rows[:], rows=exact.native_rows(rows), coding="none")


def reference_products(query: F32, docs: F32, metric: str) -> F64:
    """float64 [T]: one query token against all tokens, in the order of the specification."""

    def dot(a: F32, b: F32) -> F64:
        width = -(-a.shape[-1] // 8) * 8
        products = np.zeros((*np.broadcast_shapes(a.shape, b.shape)[:-1], width))
        products[..., : a.shape[-1]] = a.astype(np.float64) * b.astype(np.float64)
        lanes = np.zeros((*products.shape[:-1], 8))
        for part in range(0, width, 8):
            lanes += products[..., part : part + 8]
        s = [lanes[..., i] for i in range(8)]
        total: F64 = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
        return total

    products = dot(query, docs)
    if metric == "dot":
        return products
    norms = np.sqrt(dot(query, query)) * np.sqrt(dot(docs, docs))
    cosines: F64 = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return cosines


def check(search: Search, k: int, **launch: Any) -> Candidates:
    """What is dropped stays below the bound, nothing is listed that may not be, and estimates are sane."""
    found, scores, allowed = search.propose(k, **launch), search.scores(), search.allowed()
    assert found.offsets[0] == 0
    assert found.offsets[-1] == len(found.rows) == len(found.estimates)
    assert not np.isnan(found.dropped).any()
    assert not np.isnan(found.estimates).any()
    for q in range(len(scores)):
        rows = found.rows[found.offsets[q] : found.offsets[q + 1]]
        assert len(set(rows.tolist())) == len(rows)
        assert allowed[q, rows].all()
        left = allowed[q].copy()
        left[rows] = False
        assert (scores[q, left] <= found.dropped[q]).all(), (q, scores[q, left].max(), found.dropped[q])
    return found


KINDS = ("normal", "unit", "magnitudes", "duplicates", "zeros", "negative", "equal", "offset", "huge", "tiny")


def tokens_of(kind: str, lengths: list[int], dim: int, rng: np.random.Generator) -> tuple[F32, I64]:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = rng.standard_normal((int(offsets[-1]), dim))
    n = len(values)
    if kind == "unit":
        values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-30)
    if kind == "magnitudes":
        values *= 10.0 ** rng.uniform(-37, 37, (n, 1))
    if kind == "duplicates" and n:
        values = values[rng.integers(0, min(5, n), n)]
    if kind == "zeros":
        values *= rng.random((n, 1)) < 0.5
    if kind == "negative":
        values = -np.abs(values)
    if kind == "equal" and n:
        values[:] = values[0]
    if kind == "offset":
        values += 50
    if kind == "huge":
        values *= 1e37
    if kind == "tiny":
        values *= 1e-42
    return values.astype(np.float32), offsets


launches = st.fixed_dictionaries(
    {
        "tile": st.sampled_from([1, 2, 13, 16, 33, 96]),
        "share": st.sampled_from([1, 3, 100]),
        "sample": st.sampled_from([0, 1, 7, 40]),
        "sample_rank": st.sampled_from([1, 3, 30]),
        "deviations": st.sampled_from([0.0, 2.0, float("inf")]),
        "query_tokens": st.sampled_from([1, 16, 40, 1000]),
        "num_threads": st.integers(1, 3),
    }
)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    query_kind=st.sampled_from([*KINDS, "same", "same", "same"]),
    dim=st.sampled_from([1, 7, 33, 96, 128]),
    lengths=st.lists(st.sampled_from([0, 1, 1, 2, 5, 15, 16, 17, 31, 40]), max_size=60),
    query_lengths=st.lists(st.sampled_from([0, 1, 2, 15, 16, 20, 33]), max_size=5),
    k=st.sampled_from([1, 3, 10]),
    launch=launches,
    normalize=st.booleans(),
    reduce=st.sampled_from(["sum", "mean"]),
    weighted=st.booleans(),
    biased=st.sampled_from([0.0, 1.0, 1e9, 1e300]),
    masked=st.sampled_from(["none", "all", "each"]),
    coding=st.sampled_from(["none", "int8", "int8", "planes1", "planes4", *RESIDUALS]),
    seed=st.integers(0, 1 << 30),
)
def test_dropped_is_a_bound(
    isa: str,
    kind: str,
    query_kind: str,
    dim: int,
    lengths: list[int],
    query_lengths: list[int],
    k: int,
    launch: dict[str, Any],
    normalize: bool,
    reduce: str,
    weighted: bool,
    biased: float,
    masked: str,
    coding: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    docs, offsets = tokens_of(kind, lengths, dim, rng)
    queries, query_offsets = tokens_of(kind if query_kind == "same" else query_kind, query_lengths, dim, rng)
    weights = (rng.standard_normal(len(queries)) * 10.0 ** rng.uniform(-6, 6, len(queries))).astype(np.float32)
    mask = np.packbits(
        rng.random((1 if masked == "all" else len(query_lengths), len(lengths))) < 0.7, axis=1, bitorder="little"
    )
    bias = biased * rng.choice([-1.0, 0.0, 1.0], len(lengths))
    search = Search(
        queries, query_offsets, docs, offsets, normalize, reduce, weights if weighted else None,
        None if masked == "none" else mask, bias if biased else None, coding,
    )  # fmt: skip
    if coding in RESIDUALS:
        search = by_residuals(search, RESIDUALS[coding], rng) if len(docs) else replace(search, coding="none")
    check(search, k, **launch)


def corpus(kind: str = "unit", dim: int = 128, n_docs: int = 400, seed: int = 0, **extra: Any) -> Search:
    rng = np.random.default_rng(seed)
    docs, offsets = tokens_of(kind, rng.integers(0, 60, n_docs).tolist(), dim, rng)
    queries, query_offsets = tokens_of(kind, [32, 0, 1, 20, 17], dim, rng)
    return Search(queries, query_offsets, docs, offsets, **extra)


@pytest.mark.parametrize("dim", [1, 7, 96, 128, 768])
@pytest.mark.parametrize("coding", ["none", "int8"])
def test_dimensions(isa: str, dim: int, coding: str) -> None:
    check(corpus(dim=dim, n_docs=100, coding=coding), 5, sample=20, sample_rank=4, width=40)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("planes", RESIDUALS.values())
def test_products_with_centroids_are_looked_up(isa: str, planes: int, kind: str) -> None:
    for query in ([32, 0, 1, 20], [3], [90]):  # lanes: 64, 16, and so many that tokens are decoded
        search = corpus(kind, n_docs=60)
        queries, offsets = tokens_of(kind, query, 128, np.random.default_rng(1))
        search = by_residuals(search, planes, np.random.default_rng(2))
        check(replace(search, queries=queries, query_offsets=offsets), 5, width=20, deviations=float("inf"))


def test_few_are_listed_and_they_hold_the_best(isa: str) -> None:
    search = corpus(coding="int8")
    found, scores = check(search, 10, width=400), search.scores()
    for q in (0, 3, 4):
        rows = found.rows[found.offsets[q] : found.offsets[q + 1]]
        best = np.argsort(-scores[q], kind="stable")[:10]
        assert set(best) <= set(rows.tolist())
        assert len(rows) < 200
        assert found.dropped[q] < scores[q, best[-1]]
        error = np.abs(found.estimates[found.offsets[q] : found.offsets[q + 1]] - scores[q, rows])
        assert error.max() < 0.01 * 32  # far inside the bound


def test_long_documents_are_scanned_in_tiles(isa: str) -> None:
    rng = np.random.default_rng(1)
    docs, offsets = tokens_of("unit", [1500, 3, 1500, 0, 700], 96, rng)
    queries, query_offsets = tokens_of("unit", [5, 1500], 96, rng)
    for tile in (64, 500, 4096):
        found = check(Search(queries, query_offsets, docs, offsets, coding="int8"), 1, tile=tile)
        assert found.dropped[0] > -np.inf


def test_threads_and_plans_do_not_change_the_bound(isa: str) -> None:
    search = corpus(kind="duplicates", coding="int8", bias=np.linspace(-1, 1, 400))
    for threads, width in ((1, 20), (3, 20), (3, 800)):
        check(search, 5, num_threads=threads, width=width, share=7)


def test_empty_queries_are_ranked_by_bias_alone(isa: str) -> None:
    search = corpus(bias=np.arange(400.0))
    found = check(search, 10, width=400, deviations=float("inf"))
    rows = found.rows[found.offsets[1] : found.offsets[2]]
    assert set(range(390, 400)) <= set(rows.tolist())
    assert len(rows) < 20


@pytest.mark.parametrize(
    "change",
    [
        {"tile": 0},
        {"share": 0},
        {"width": 3},
        {"query_tokens": 0},
        {"sample": 3, "sample_rank": 0},
        {"deviations": -1.0},
    ],
    ids=str,
)
def test_plans_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        corpus().propose(1, **change)


def test_arguments_that_do_not_fit() -> None:
    search = corpus()
    for change, message in (
        ({"reduce": "symmetric"}, "reduce must be 'sum' or 'mean'"),
        ({"weights": np.ones(3, np.float32)}, "one entry per query token"),
        ({"bias": np.ones(3)}, r"bias must have shape \[N\]"),
        ({"mask": np.ones((2, 50), np.uint8)}, "mask must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(search, **change).propose(1)


def test_rows_that_are_not_finite_are_named(isa: str) -> None:
    search = corpus()
    search.docs[77, 3] = np.nan
    with pytest.raises(ArithmeticError, match="77"):
        search.propose(1)

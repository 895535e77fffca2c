"""`_native.maxsim_pairs` against the specification, to the bit, on every instruction set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyengine import conformance_cases, exact, reference
from pyengine.rows import Rows
from tests import conftest

NATIVE = exact.native()
pytestmark = pytest.mark.skipif(NATIVE is None, reason="not built")

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
REDUCTIONS = ("sum", "mean", "symmetric")


@dataclass
class Sets:
    """Token vectors [T, D] in sets that begin and end at the offsets [n + 1]."""

    values: F32
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> F32:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def native(self, norms: bool = False) -> Any:
        assert NATIVE is not None
        rows = NATIVE.Rows(np.ascontiguousarray(self.values), "float32", self.values.shape[1])
        return NATIVE.Tokens(rows, self.offsets, norms=reference.norm(self.values) if norms else None)


def sets(lengths: list[int], dim: int, kind: str, seed: int) -> Sets:
    """Sets of these lengths, of vectors of one of the `KINDS`."""
    rng = np.random.default_rng(seed)
    return Sets(KINDS[kind](rng, (sum(lengths), dim)), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _scaled(rng: np.random.Generator, shape: tuple[int, int], low: float, high: float) -> F32:
    with np.errstate(over="ignore", under="ignore"):
        size = 10.0 ** rng.uniform(low, high, (shape[0], 1))
        return np.clip(rng.standard_normal(shape) * size, -3e38, 3e38).astype(np.float32)


KINDS: dict[str, Any] = {
    "normal": lambda rng, shape: rng.standard_normal(shape).astype(np.float32),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape).astype(np.float32),
    "duplicates": lambda rng, shape: np.tile(rng.standard_normal((1, shape[1])), (shape[0], 1)).astype(np.float32),
    "near": lambda rng, shape: (rng.standard_normal((1, shape[1])) + 1e-6 * rng.integers(-1, 2, shape)).astype(
        np.float32
    ),
    "negative": lambda rng, shape: -np.abs(rng.standard_normal(shape)).astype(np.float32),
    "zeros": lambda rng, shape: (rng.standard_normal(shape) * rng.integers(0, 2, (shape[0], 1))).astype(np.float32),
    "huge": lambda rng, shape: _scaled(rng, shape, 36, 38.4),
    "tiny": lambda rng, shape: _scaled(rng, shape, -45, -37),
    "wild": lambda rng, shape: _scaled(rng, shape, -44, 38),
    "wide": lambda rng, shape: _scaled(rng, shape, -25, 25),
}


def products(query: F32, doc: F32, normalize: bool) -> NDArray[np.float64]:
    """float64 [Lq, Ld]."""
    return reference.unrounded_scores(query[:, None], doc[None], "cosine" if normalize else "dot")


def in_order(maxima: NDArray[np.float64], weights: F32 | None) -> float:
    total = 0.0
    for i, value in enumerate(maxima.tolist()):
        total += value if weights is None else float(weights[i]) * value
    return total


def specified(
    query: F32, doc: F32, normalize: bool, reduce: str, weights: tuple[F32 | None, F32 | None], bias: float
) -> np.float32:
    """The score of one pair: DESIGN.md, "The specification"."""
    if len(query) == 0:
        score = 0.0
    elif len(doc) == 0:
        return np.float32(-np.inf)
    else:
        s = products(query, doc, normalize)
        score = in_order(s.max(axis=1), weights[0])
        if reduce == "mean":
            score /= len(query)
        if reduce == "symmetric":
            columns = in_order(s.max(axis=0), weights[1])
            score = (score + columns) / 2 if weights[0] is not None else (score / len(query) + columns / len(doc)) / 2
    return np.float32(reference.round_score(np.asarray(score + bias)))


def check(
    queries: Sets, docs: Sets, pairs: I64, normalize: bool, reduce: str, *, weighted: bool = False, biased: bool = False,
    native_docs: Any = None, norms: bool = False, argmax: bool = True, threads: int = 1,
) -> None:  # fmt: skip
    """Score the pairs, and compare every score and winner with the specification."""
    assert NATIVE is not None
    rng = np.random.default_rng(len(pairs))
    query_weights = rng.standard_normal(len(queries.values)).astype(np.float32) if weighted else None
    doc_weights = (
        rng.standard_normal(len(docs.values)).astype(np.float32) if weighted and reduce == "symmetric" else None
    )
    bias = rng.standard_normal(len(docs)) if biased else None
    scores, winners, columns = NATIVE.maxsim_pairs(
        queries.native(), native_docs or docs.native(norms),
        np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]), normalize=normalize, reduce=reduce,
        query_weights=query_weights, doc_weights=doc_weights, bias=bias, argmax=argmax, num_threads=threads,
    )  # fmt: skip
    expected, rows, others = [], [], []
    for q, d in pairs.tolist():
        query, doc = queries[q], docs[d]
        weights = tuple(
            None if w is None else w[each.offsets[i] : each.offsets[i + 1]]
            for w, each, i in ((query_weights, queries, q), (doc_weights, docs, d))
        )
        expected.append(specified(query, doc, normalize, reduce, weights, 0.0 if bias is None else bias[d]))
        s = products(query, doc, normalize)
        rows += [s.argmax(axis=1) if len(doc) else np.full(len(query), -1)]
        others += [s.argmax(axis=0) if len(query) else np.full(len(doc), -1)]
    assert scores.view(np.int32).tolist() == np.array(expected, np.float32).view(np.int32).tolist()
    assert (winners is not None) == argmax and (columns is not None) == (argmax and reduce == "symmetric")
    if winners is not None:
        assert winners.tolist() == np.concatenate([*rows, []]).astype(int).tolist()
    if columns is not None:
        assert columns.tolist() == np.concatenate([*others, []]).astype(int).tolist()


def all_pairs(queries: Sets, docs: Sets) -> I64:
    return (
        np.stack(np.meshgrid(range(len(queries)), range(len(docs)), indexing="ij"), -1).reshape(-1, 2).astype(np.int64)
    )


LENGTHS = ([32, 1, 0, 7, 16, 33, 70], [20, 0, 1, 12, 123, 13, 300, 3, 4])


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("normalize", [False, True], ids=["dot", "cosine"])
@pytest.mark.parametrize("dim", [1, 7, 96, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(isa: str, kind: str, dim: int, normalize: bool, reduce: str) -> None:
    queries, docs = (sets(lengths, dim, kind, seed) for seed, lengths in enumerate(LENGTHS))
    check(queries, docs, all_pairs(queries, docs), normalize, reduce)


@pytest.mark.parametrize("normalize", [False, True], ids=["dot", "cosine"])
@pytest.mark.parametrize("kinds", [("normal", "wild"), ("wild", "normal"), ("wide", "wide"), ("zeros", "negative")])
def test_kinds_meet(isa: str, kinds: tuple[str, str], normalize: bool) -> None:
    queries, docs = (sets(lengths, 33, kind, 3) for kind, lengths in zip(kinds, LENGTHS, strict=True))
    for reduce in REDUCTIONS:
        check(queries, docs, all_pairs(queries, docs), normalize, reduce, weighted=reduce != "mean", norms=True)


@pytest.mark.parametrize("lengths", [([40], [1500]), ([1500], [40]), ([2], [5000]), ([300, 5], [700, 0])])
def test_long_sets(isa: str, lengths: tuple[list[int], list[int]]) -> None:
    queries, docs = (sets(each, 24, "normal", seed) for seed, each in enumerate(lengths))
    for reduce in REDUCTIONS:
        check(queries, docs, all_pairs(queries, docs), False, reduce, weighted=reduce == "symmetric")


def test_many_wide_queries_in_groups(isa: str) -> None:
    queries, docs = sets([32] * 20, 768, "normal", 1), sets([9, 50, 0], 768, "normal", 2)
    check(queries, docs, all_pairs(queries, docs), False, "sum", biased=True, threads=2)


small = st.lists(st.integers(0, 40), min_size=1, max_size=5)


@given(
    small, small, st.integers(1, 40), st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS)),
    st.sampled_from(REDUCTIONS), st.tuples(*[st.booleans()] * 5), st.integers(1, 3), st.integers(0, 2**31),
)  # fmt: skip
def test_any_pairs(
    isa: str, of_queries: list[int], of_docs: list[int], dim: int, query_kind: str, doc_kind: str, reduce: str,
    flags: tuple[bool, ...], threads: int, seed: int,
) -> None:  # fmt: skip
    normalize, weighted, biased, norms, argmax = flags
    queries, docs = sets(of_queries, dim, query_kind, seed), sets(of_docs, dim, doc_kind, seed + 1)
    pairs = np.random.default_rng(seed).integers(0, (len(queries), len(docs)), (12, 2))
    check(
        queries, docs, pairs, normalize, reduce, weighted=weighted and reduce != "mean", biased=biased, norms=norms,
        argmax=argmax, threads=threads,
    )  # fmt: skip

"""`_native.maxsim_pairs` against the specification, to the bit, on every instruction set."""

from __future__ import annotations

import functools
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyengine.refining import exact
from pyengine.specification import reference

NATIVE = exact.native()
pytestmark = pytest.mark.skipif(NATIVE is None, reason="not built")

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
GOLDEN = sorted((Path(__file__).parent / "golden").glob("maxsim_*.npz"))
REDUCTIONS = ("sum", "mean", "symmetric")


@dataclass(frozen=True, eq=False)
class Sets:
    """Token vectors [T, D] in sets that begin and end at the offsets [n + 1]."""

    values: F32
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def native(self, norms: bool = False) -> Any:
        assert NATIVE is not None
        rows = NATIVE.Rows(np.ascontiguousarray(self.values), "float32", self.values.shape[1])
        return NATIVE.Tokens(rows, self.offsets, norms=reference.norm(self.values) if norms else None)


@functools.cache
def sets(lengths: tuple[int, ...], dim: int, kind: str, seed: int) -> Sets:
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
    "near": lambda rng, shape: np.float32(1) + np.float32(1e-6) * rng.integers(-1, 2, shape).astype(np.float32),
    "negative": lambda rng, shape: -np.abs(rng.standard_normal(shape)).astype(np.float32),
    "zeros": lambda rng, shape: (rng.standard_normal(shape) * rng.integers(0, 2, (shape[0], 1))).astype(np.float32),
    "huge": lambda rng, shape: _scaled(rng, shape, 36, 38.4),
    "tiny": lambda rng, shape: _scaled(rng, shape, -45, -37),
    "wild": lambda rng, shape: _scaled(rng, shape, -44, 38),
    "wide": lambda rng, shape: _scaled(rng, shape, -25, 25),
}


@functools.lru_cache(maxsize=100)
def all_products(queries: Sets, docs: Sets, normalize: bool) -> NDArray[np.float64]:
    """float64 [Tq, Td] of sets that many tests share."""
    metric = "cosine" if normalize else "dot"
    rows = [reference.unrounded_scores(row, docs.values, metric) for row in queries.values]
    return np.array(rows).reshape(len(queries.values), len(docs.values))


def in_order(maxima: NDArray[np.float64], weights: F32 | None) -> float:
    total = 0.0
    for i, value in enumerate(maxima.tolist()):
        total += value if weights is None else float(weights[i]) * value
    return total


def specified(
    s: NDArray[np.float64], reduce: str, row_weights: F32 | None, column_weights: F32 | None, bias: float
) -> float:
    """The score of one pair with the products s [Lq, Ld]: DESIGN.md, "The specification"."""
    n_query, n_doc = s.shape
    if n_query == 0:
        score = 0.0
    elif n_doc == 0:
        return -np.inf
    else:
        score = in_order(s.max(axis=1), row_weights)
        if reduce == "mean":
            score /= n_query
        if reduce == "symmetric":
            columns = in_order(s.max(axis=0), column_weights)
            score = (score + columns) / 2 if row_weights is not None else (score / n_query + columns / n_doc) / 2
    return float(reference.round_score(np.asarray(score + bias)))


def check(
    queries: Sets, docs: Sets, pairs: I64, normalize: bool, reduce: str, *, weighted: bool = False,
    biased: bool = False, native_docs: Any = None, norms: bool = False, argmax: bool = True, threads: int = 1,
) -> None:  # fmt: skip
    """Score the pairs, and compare every score and winner with the specification."""
    assert NATIVE is not None
    rng = np.random.default_rng(len(pairs))
    query_weights = rng.standard_normal(len(queries.values)).astype(np.float32) if weighted else None
    both = weighted and reduce == "symmetric"
    doc_weights = rng.standard_normal(len(docs.values)).astype(np.float32) if both else None
    bias = rng.standard_normal(len(docs)) if biased else None
    scores, winners, columns = NATIVE.maxsim_pairs(
        queries.native(), native_docs or docs.native(norms),
        np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]), normalize=normalize, reduce=reduce,
        query_weights=query_weights, doc_weights=doc_weights, bias=bias, argmax=argmax, num_threads=threads,
    )  # fmt: skip
    truth = all_products(queries, docs, normalize)
    expected, rows, others = [], [], []
    for q, d in pairs.tolist():
        s = truth[queries.offsets[q] : queries.offsets[q + 1], docs.offsets[d] : docs.offsets[d + 1]]
        own = None if query_weights is None else query_weights[queries.offsets[q] :]
        its = None if doc_weights is None else doc_weights[docs.offsets[d] :]
        expected.append(specified(s, reduce, own, its, 0.0 if bias is None else bias[d]))
        rows += [s.argmax(axis=1) if s.shape[1] else np.full(s.shape[0], -1)]
        others += [s.argmax(axis=0) if s.shape[0] else np.full(s.shape[1], -1)]
    assert scores.view(np.int32).tolist() == np.array(expected, np.float32).view(np.int32).tolist()
    assert (winners is not None) == argmax
    assert (columns is not None) == (argmax and reduce == "symmetric")
    if winners is not None:
        assert winners.tolist() == np.concatenate([*rows, []]).astype(int).tolist()
    if columns is not None:
        assert columns.tolist() == np.concatenate([*others, []]).astype(int).tolist()


def all_pairs(queries: Sets, docs: Sets) -> I64:
    return np.array([(q, d) for q in range(len(queries)) for d in range(len(docs))], np.int64)


LENGTHS = ((32, 1, 0, 7, 33, 50), (20, 0, 1, 12, 123, 13, 300, 3, 4))


@pytest.mark.parametrize("normalize", [False, True], ids=["dot", "cosine"])
@pytest.mark.parametrize("dim", [1, 7, 96, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(isa: str, kind: str, dim: int, normalize: bool) -> None:
    queries, docs = (sets(lengths, dim, kind, seed) for seed, lengths in enumerate(LENGTHS))
    for reduce in REDUCTIONS:
        check(queries, docs, all_pairs(queries, docs), normalize, reduce)


@pytest.mark.parametrize("normalize", [False, True], ids=["dot", "cosine"])
@pytest.mark.parametrize("kinds", [("normal", "wild"), ("wild", "normal"), ("wide", "wide"), ("zeros", "negative")])
def test_kinds_meet(isa: str, kinds: tuple[str, str], normalize: bool) -> None:
    queries, docs = (sets(lengths, 33, kind, 3) for kind, lengths in zip(kinds, LENGTHS, strict=True))
    for reduce in REDUCTIONS:
        check(queries, docs, all_pairs(queries, docs), normalize, reduce, weighted=reduce != "mean", norms=True)


@pytest.mark.parametrize("lengths", [((40,), (1500,)), ((1500,), (40,)), ((2,), (5000,)), ((300, 5), (700, 0))])
def test_long_sets(isa: str, lengths: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    queries, docs = (sets(each, 24, "normal", seed) for seed, each in enumerate(lengths))
    for reduce in REDUCTIONS:
        check(queries, docs, all_pairs(queries, docs), False, reduce, weighted=reduce == "symmetric")


def test_many_wide_queries_in_groups(isa: str) -> None:
    queries, docs = sets((32,) * 20, 768, "normal", 1), sets((9, 50, 0), 768, "normal", 2)
    check(queries, docs, all_pairs(queries, docs), False, "sum", biased=True, threads=2)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "codes", "planes"])
def test_stored_rows_are_decoded(isa: str, kind: str) -> None:
    assert NATIVE is not None
    queries, floats = sets((32, 5), 100, "normal", 1), sets((70, 0, 300, 1), 100, "normal", 2)
    values = floats.values
    if kind == "float16":
        rows = NATIVE.Rows(values.astype(np.float16).view(np.uint16), kind, 100)
    elif kind == "bfloat16":
        rows = NATIVE.Rows((values.view(np.uint32) >> 16).astype(np.uint16), kind, 100)
    elif kind == "codes":
        codes, step, _ = NATIVE.quantize(values)
        rows = NATIVE.Rows(codes, kind, 100, step=step)
    else:
        bits, step, _, _ = NATIVE.pack_planes(values, 2)
        rows = NATIVE.Rows(bits, kind, 100, 2, step)
    docs = Sets(NATIVE.decode(rows), floats.offsets)
    for reduce in REDUCTIONS:
        native_docs = NATIVE.Tokens(rows, docs.offsets)
        check(queries, docs, all_pairs(queries, docs), reduce == "mean", reduce, native_docs=native_docs)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(isa: str, path: Path) -> None:
    assert NATIVE is not None
    with np.load(path) as file:
        golden = dict(file)
    queries, docs = (Sets(golden[f"{name}_values"], golden[f"{name}_offsets"]) for name in ("query", "doc"))
    pairs = all_pairs(queries, docs)
    scores, _, _ = NATIVE.maxsim_pairs(
        queries.native(), docs.native(), pairs[:, 0].copy(), pairs[:, 1].copy(), normalize=False, reduce="sum",
        query_weights=None, doc_weights=None, bias=None, argmax=False, num_threads=2,
    )  # fmt: skip
    assert scores.tolist() == golden["scores_sum"].ravel().tolist()


def test_bad_arguments_are_refused() -> None:
    assert NATIVE is not None
    queries, docs = sets((2, 3), 8, "normal", 1), sets((4,), 8, "normal", 2)
    good: dict[str, Any] = {"normalize": False, "reduce": "sum", "argmax": True, "num_threads": 1}
    good |= dict.fromkeys(("query_weights", "doc_weights", "bias"))
    first, both, three = np.zeros(1, np.int64), np.arange(2), np.ones(3, np.float32)
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (both, first, {}, "two equal columns"),
        (first + 2, first, {}, "0 .. Q-1"),
        (first, first - 1, {}, "0 .. N-1"),
        (first, first, {"reduce": "max"}, "reduce must be"),
        (first, first, {"query_weights": three}, r"shape \[Tq\]"),
        (first, first, {"query_weights": np.ones(5, np.float32), "reduce": "mean"}, "weights go with"),
        (first, first, {"query_weights": np.ones(5, np.float32), "reduce": "symmetric"}, "weights go with"),
        (first, first, {"bias": np.zeros(2)}, r"shape \[N\]"),
    ]
    for pair_queries, pair_docs, changed, message in cases:
        with pytest.raises(ValueError, match=message):
            NATIVE.maxsim_pairs(queries.native(), docs.native(), pair_queries, pair_docs, **(good | changed))
    for offsets in ([1, 5], [0, 4], [0, 6], [0, 3, 2, 5], []):
        with pytest.raises(ValueError, match="offsets"):
            NATIVE.Tokens(NATIVE.Rows(queries.values, "float32", 8), np.array(offsets, np.int64))


small = st.lists(st.integers(0, 40), min_size=1, max_size=5).map(tuple)


@given(
    small, small, st.integers(1, 40), st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS)),
    st.sampled_from(REDUCTIONS), st.tuples(*[st.booleans()] * 5), st.integers(1, 3), st.integers(0, 2**31),
)  # fmt: skip
def test_any_pairs(
    isa: str, of_queries: tuple[int, ...], of_docs: tuple[int, ...], dim: int, query_kind: str, doc_kind: str,
    reduce: str, flags: tuple[bool, ...], threads: int, seed: int,
) -> None:  # fmt: skip
    normalize, weighted, biased, norms, argmax = flags
    queries, docs = sets(of_queries, dim, query_kind, seed), sets(of_docs, dim, doc_kind, seed + 1)
    pairs = np.random.default_rng(seed).integers(0, (len(queries), len(docs)), (12, 2))
    check(
        queries, docs, pairs, normalize, reduce, weighted=weighted and reduce != "mean", biased=biased, norms=norms,
        argmax=argmax, threads=threads,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="it has no timers")
def test_one_enormous_pair_can_be_interrupted() -> None:
    values = np.random.default_rng(0).standard_normal((60_000, 128)).astype(np.float32)

    def score(n_tokens: int) -> float:
        """Seconds that a pair takes; it is stopped by the timer, if that rings."""
        assert NATIVE is not None
        one, both = np.zeros(1, np.int64), Sets(values[:n_tokens], np.array([0, n_tokens])).native()
        started = time.thread_time()
        with suppress(KeyboardInterrupt):
            NATIVE.maxsim_pairs(
                both, both, one, one, normalize=False, reduce="sum", query_weights=None, doc_weights=None, bias=None,
                argmax=False, num_threads=1,
            )  # fmt: skip
        return time.thread_time() - started

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    hundredth = score(6_000)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        stopped = score(60_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopped < 50 * hundredth

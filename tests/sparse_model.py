"""What the tests of `SparseIndex` share: rows, and that an index holds them and answers as specified."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pyengine import SparseIndex, SparseRows, conformance
from pyengine.indexes import segments, sparse_store
from pyengine.problems.problem_sparse import Postings, TermRows
from pyengine.specification import reference_sparse as spec
from pyengine.types import I64

V = 40  # terms
KINDS = [(weights, originals) for weights in sparse_store.WEIGHTS for originals in sparse_store.ORIGINALS]
kinds = pytest.mark.parametrize(("weights", "originals"), KINDS)


def drawn(n: int, seed: int = 0, n_terms: int = V) -> SparseRows:
    """Rows of small integers of either sign, some of them empty, with ties and terms that nobody has."""
    rng = np.random.default_rng((seed, n))
    lengths = rng.integers(0, 9, n)
    terms = np.minimum(rng.geometric(0.15, lengths.sum()) - 1, n_terms - 2)
    return SparseRows(np.concatenate([[0], np.cumsum(lengths)]), terms, rng.integers(-2, 5, lengths.sum()), n_terms)


DOCS, QUERIES = drawn(200), drawn(4, seed=1)


def inverted(rows: TermRows, first: int, last: int, terms: I64 | None = None) -> Postings:
    """In place of `exact_sparse.build` where there are no kernels: nothing reads it."""
    part = rows.decoded(np.arange(first, last))
    order = np.argsort(part.indices, kind="stable")
    owner = np.repeat(np.arange(len(part)), part.lengths)[order]
    return Postings(first, last - first, {"owner": owner.astype(np.uint16), "bits": part.values[order].view("u4")})


def made(weights: str = "float32", originals: str = "ram", docs: SparseRows = DOCS) -> SparseIndex:
    index = SparseIndex(V, weights, originals)
    index.add(docs)
    return index


def kept(rows: SparseRows, weights: str) -> list[tuple[list[int], list[float]]]:
    """What an index that keeps such weights makes of these rows."""
    values = rows.values.astype(np.float16).astype(np.float32)
    if weights == "uint8":
        parts = sparse_store.coded(rows)
        values = TermRows(rows.indptr, rows.indices, parts["values"], V, parts["low"], parts["step"]).decoded().values
    return listed(SparseRows.canonical(rows.indptr, rows.indices, rows.values if weights == "float32" else values, V))


def listed(rows: SparseRows) -> list[tuple[list[int], list[float]]]:
    return [(terms.tolist(), values.tolist()) for terms, values in rows]


def holds(index: SparseIndex, ids: Any, k: int = 8, **arguments: Any) -> None:
    """The index answers as the specification does over the rows that it says it keeps of these ids."""
    assert index.ids.tolist() == list(ids)
    assert len(index) == len(index.ids)
    docs = index.rows(index.ids)
    want = spec.topk(QUERIES, docs, k, ids=np.array(list(ids), np.int64), **arguments)
    conformance.same(index.search(QUERIES, k, **arguments), want, f"{index}, {arguments}")
    ordered(index)


def ordered(index: SparseIndex) -> None:
    """The segments cover the rows from the first on, each many times as long as the next."""
    stats, postings = index.stats(), index._contents.store.postings
    assert [each.first for each in postings] == [0, *np.cumsum(stats.segments)][:-1]
    assert all(long >= segments.RATIO * short for long, short in pairwise(stats.segments))
    assert sum(stats.segments) + stats.pending == index._contents.n_rows
    assert stats.pending < segments.LEAST

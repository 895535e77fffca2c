"""Sparse rows: searches of drawn documents, and the life of a `SparseIndex`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np

import pyengine as pe
from pyengine import SparseRows
from pyengine.indexes import segments, sparse_store
from pyengine.problems.problem_sparse import TermRows
from pyengine.refining import exact_sparse
from pyengine.specification import reference_sparse
from tests.fuzz import filters, values
from tests.fuzz.indexes import Life
from tests.fuzz.searches import Tally, Wrong, bits
from tests.fuzz.values import HOSTILE, Argument, Rng, bad, pick

TERMS = (1, 3, 50, 1 << 16, (1 << 16) + 1, (1 << 31) - 1)
BACKENDS = ("auto", "numpy") if exact_sparse.native() is None else ("auto", "cpu", "numpy")


def rows(rng: Rng, n: int, n_terms: int) -> Argument:
    """n sparse rows, in whatever order, with terms that come twice and zeros; the truth is `SparseRows`."""
    lengths = rng.integers(0, int(pick(rng, (2, 5, 40))), n)
    indptr, n_entries = np.concatenate([[0], np.cumsum(lengths)]), int(lengths.sum())
    terms = np.minimum(rng.geometric(pick(rng, (0.3, 0.01, 1e-6)), n_entries), n_terms) - 1
    if rng.random() < 0.3:
        terms = n_terms - 1 - terms
    weights = values.contents(rng, n_entries, 1)[:, 0]
    if not np.isfinite(summed(indptr, terms, weights, n_terms).values).all():  # 40 of them, at most, are too much
        weights = (weights / 64).astype(weights.dtype)
    truth = summed(indptr, terms, weights, n_terms)
    parts = (values.form(rng, each) if n_entries else each for each in (terms, weights))
    forms: list[Callable[[], Any]] = [
        lambda: truth,
        lambda: SparseRows(values.form(rng, indptr), next(parts), next(parts), n_terms),
        lambda: [dict(zip(each.tolist(), weight.tolist())) for each, weight in truth],
    ]
    with suppress(ImportError):
        from scipy import sparse

        if weights.dtype.isnative and weights.dtype.char not in "ge":  # what scipy takes as it is
            owner = np.repeat(np.arange(n), lengths)
            forms.append(lambda: sparse.coo_matrix((weights, (owner, terms)), (n, n_terms)))
            forms.append(lambda: sparse.csr_matrix((weights, terms, indptr), (n, n_terms)))
    return Argument(pick(rng, forms)(), truth)


def summed(indptr: Any, terms: Any, weights: Any, n_terms: int) -> SparseRows:
    """The canonical form, a weight at a time."""
    offsets, ids, sums = [0], [], []
    for low, high in pairwise(indptr.tolist()):
        row: defaultdict[int, float] = defaultdict(float)
        for term, weight in zip(terms[low:high].tolist(), weights[low:high].astype(np.float64).tolist()):
            row[term] += weight
        with np.errstate(over="ignore", under="ignore"):
            kept = [(term, np.float32(row[term])) for term in sorted(row)]
        kept = [(term, weight) for term, weight in kept if weight != 0]
        ids += [term for term, _ in kept]
        sums += [weight for _, weight in kept]
        offsets.append(len(ids))
    arrays = np.array(offsets, np.int64), np.array(ids, np.int32), np.array(sums, np.float32)
    return SparseRows.canonical(*arrays, n_terms)


def no_rows(rng: Rng, n: int, n_terms: int) -> Argument:
    """No n sparse rows of so many terms, each finite."""
    ways: list[Callable[[], Any]] = [
        lambda: np.ones((n, min(n_terms, 7))), lambda: None, lambda: "rows", lambda: {0: 1.0}, lambda: [[1.0]],
        lambda: [{0: 1.0}, None], lambda: [{-1: 1.0}], lambda: [{n_terms: 1.0}], lambda: [{1 << 70: 1.0}],
        lambda: [{0: pick(rng, (np.nan, np.inf, -np.inf, 1e39, 1 << 200, "1", None, 1j))}], lambda: [{"0": 1.0}],
        lambda: [{0.5: 1.0}], lambda: SparseRows([0, 1], [0], None, n_terms - 1 if n_terms > 1 else 2), object, set,
    ]  # fmt: skip
    return bad(pick(rng, ways)())


EXTRA: dict[str, Callable[[Rng, int, Any], Argument]] = {  # for so many queries, and documents of these ids
    "mask": lambda rng, n, ids: values.mask(rng, n, len(ids)),
    "bias": lambda rng, n, ids: values.bias(rng, len(ids)),
    "allow": lambda rng, n, ids: filters.some_ids(rng, ids),
    "deny": lambda rng, n, ids: filters.some_ids(rng, ids, unknown=True),
    "exclude": lambda rng, n, ids: filters.exclude(rng, ids, n),
    "groups": lambda rng, n, ids: filters.groups(rng, len(ids)),
    "after": lambda rng, n, ids: filters.after(rng, ids, n),
    "threshold": lambda rng, n, ids: filters.threshold(rng, n),
    "num_threads": lambda rng, n, ids: values.number(rng, 1, 9),
    "backend": lambda rng, n, ids: Argument(*2 * [pick(rng, BACKENDS)]),
}
NO_EXTRA: dict[str, Callable[[Rng, int, Any], Argument]] = {
    "mask": lambda rng, n, ids: values.no_mask(rng, n, len(ids)),
    "bias": lambda rng, n, ids: values.no_bias(rng, len(ids)),
    "allow": lambda rng, n, ids: filters.no_ids(rng, ids, unknown=True),
    "deny": lambda rng, n, ids: filters.no_ids(rng, ids),
    "exclude": lambda rng, n, ids: filters.no_exclude(rng, ids, n),
    "groups": lambda rng, n, ids: filters.no_groups(rng, len(ids)),
    "after": lambda rng, n, ids: filters.no_after(rng, n),
    "threshold": lambda rng, n, ids: filters.no_threshold(rng, n, but=(None,)),
    "num_threads": lambda rng, n, ids: values.no_number(rng, but=(None,)),
    "backend": lambda rng, n, ids: bad(pick(rng, ("", "gpu", 1, ["cpu"]))),
}
UNSPECIFIED = ("num_threads", "backend")


def search(rng: Rng, tally: Tally, docs: SparseRows, ids: Any, ask: Callable[..., Any]) -> None:
    """One search by ``ask(queries, k, **options)``, of documents that are these."""
    n = int(pick(rng, (0, 1, 2, 9)))
    queries = no_rows(rng, n, docs.n_terms) if rng.random() < HOSTILE else rows(rng, n, docs.n_terms)
    k = values.no_number(rng) if rng.random() < HOSTILE else values.number(rng, 1, len(docs) + 3)
    extra = {name: draw(rng, n, ids) for name, draw in EXTRA.items() if rng.random() < 0.15}
    extra |= {name: draw(rng, n, ids) for name, draw in NO_EXTRA.items() if rng.random() < HOSTILE / 6}
    good = all(each.good for each in (queries, k, *extra.values()))
    options = {name: each.value for name, each in extra.items()}
    found = tally.call("sparse", good, lambda: ask(queries.value, k.value, **options))
    if found is None:
        return
    truths = {name: each.truth for name, each in extra.items() if name not in UNSPECIFIED}
    want = reference_sparse.topk(queries.truth, docs, k.truth, ids=ids, **truths)
    if bits(found) != bits(want):
        raise Wrong(f"sparse, k={k.truth}, {list(extra)}: {found}; must be {want}")


def sparse_once(rng: Rng, tally: Tally) -> None:
    """A search of drawn documents."""
    n_terms, n = int(pick(rng, TERMS)), int(pick(rng, (0, 1, 7, 60)))
    docs = no_rows(rng, n, n_terms) if rng.random() < HOSTILE else rows(rng, n, n_terms)
    if docs.good and not isinstance(docs.value, list):  # of dicts, the vocabulary may be smaller
        search(
            rng, tally, docs.truth, np.arange(n),
            lambda queries, k, **options: pe.sparse_topk(queries, docs.value, k, **options),
        )  # fmt: skip
    elif not docs.good:
        one = SparseRows([0, 1], [0], None, n_terms)
        tally.call("sparse", False, lambda: pe.sparse_topk(one, docs.value, 1))


class SparseLife(Life):
    """A `SparseIndex` and what it must hold: rows by id."""

    def __init__(self, rng: Rng, tally: Tally) -> None:
        super().__init__(rng, tally)
        self.n_terms = int(pick(rng, TERMS))
        self.weights: str = pick(rng, sparse_store.WEIGHTS)
        self.index = pe.SparseIndex(self.n_terms, self.weights, pick(rng, sparse_store.ORIGINALS))
        segments.LEAST = int(pick(rng, (1, 8, 256)))

    def good(self, n: int) -> Argument:
        """Rows that its weights can hold, as they are then."""
        drawn = rows(self.rng, n, self.n_terms)
        if not drawn.good or self.weights == "float32":
            return drawn
        truth = drawn.truth
        try:
            with np.errstate(all="ignore"):
                return drawn._replace(truth=self.kept(truth))
        except ValueError:
            return bad(drawn.value)

    def kept(self, rows: SparseRows) -> SparseRows:
        """What the index makes of these rows. Raises ValueError where it cannot hold them."""
        if self.weights == "float16":
            values = rows.values.astype(np.float16)
            if not np.isfinite(values).all():
                raise ValueError
            return TermRows(rows.indptr, rows.indices, values, self.n_terms).decoded()
        parts = sparse_store.coded(rows)
        return TermRows(rows.indptr, rows.indices, n_terms=self.n_terms, **parts).decoded()

    def spoiled(self, n: int) -> Argument:
        return no_rows(self.rng, n, self.n_terms)

    def search(self) -> None:
        ids = self.known()
        held = [self.held[each] for each in ids.tolist()]
        offsets = np.concatenate([[0], np.cumsum([len(terms) for terms, _ in held])]).astype(np.int64)
        terms = np.concatenate([np.empty(0, np.int32), *(terms for terms, _ in held)])
        weights = np.concatenate([np.empty(0, np.float32), *(weights for _, weights in held)])
        docs = SparseRows.canonical(offsets, terms, weights, self.n_terms)
        search(self.rng, self.tally, docs, ids, self.index.search)

    def queries(self) -> Any:
        return [{0: 1.0}, {}, {self.n_terms - 1: -1.0}]

"""Late interaction: searches of drawn documents of tokens, and the life of a `MultiVectorIndex`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pyengine as pe
from pyengine import Ragged
from pyengine.specification import reference_maxsim
from tests.fuzz import filters, values
from tests.fuzz.indexes import Life
from tests.fuzz.searches import Tally, Wrong, bits
from tests.fuzz.values import HOSTILE, Argument, Rng, bad, pick

DIMS = (1, 3, 16, 65)


def tokens(rng: Rng, n: int, dim: int) -> Argument:
    """n sets of tokens, some of them empty; the truth is a `Ragged`."""
    lengths = rng.integers(0, int(pick(rng, (2, 5, 40))), n)
    rows = values.contents(rng, int(lengths.sum()), dim)
    truth = Ragged(rows.astype(np.float32), np.concatenate([[0], np.cumsum(lengths)]))
    parts = np.split(rows, truth.offsets[1:-1])[:n]
    forms: list[Callable[[], Any]] = [
        lambda: truth,
        lambda: Ragged(values.form(rng, rows) if len(rows) else rows, values.form(rng, truth.offsets)),
        lambda: [values.form(rng, part) if len(part) else part for part in parts],
        lambda: _padded(rng, parts, dim),
    ]
    return Argument(pick(rng, forms)() if n else truth, truth)


def _padded(rng: Rng, parts: list[Any], dim: int) -> Ragged:
    """With padding anywhere, of anything."""
    width = max(len(part) for part in parts) + int(rng.integers(0, 3))
    array, mask = np.full((len(parts), width, dim), np.nan), np.zeros((len(parts), width), bool)
    for part, row, real in zip(parts, array, mask):
        places = np.sort(rng.permutation(width)[: len(part)])
        row[places], real[places] = part, True
    return Ragged.padded(array, mask)


def no_tokens(rng: Rng, n: int, dim: int) -> Argument:
    """No n sets of tokens of ``dim`` finite numbers."""
    rows = values.spoiled(rng, max(1, n), dim).value
    ways: list[Callable[[], Any]] = [
        lambda: rows if not isinstance(rows, (list, np.ndarray)) else None,
        lambda: np.ones((n, 2, dim), complex),
        lambda: np.ones((n, 2, dim + 1)),
        lambda: [np.ones((1, dim)), np.ones((1, dim + 1))],
        lambda: [np.ones((1, dim)), np.full((2, dim), np.inf)],
        lambda: np.ones((2, dim)),
        lambda: {1: np.ones((1, dim))},
        lambda: [[]],
        lambda: "docs",
    ]
    found = pick(rng, ways)()
    return bad(object() if isinstance(found, list) and not found else found)


EXTRA: dict[str, Callable[[Rng, int, int], Argument]] = {  # for so many queries and documents
    "mask": lambda rng, n, n_docs: values.mask(rng, n, n_docs),
    "bias": lambda rng, n, n_docs: values.bias(rng, n_docs),
    "reduce": lambda rng, n, n_docs: Argument(*2 * [pick(rng, reference_maxsim.REDUCTIONS[:3])]),
    "num_threads": lambda rng, n, n_docs: values.number(rng, 1, 9),
    "backend": lambda rng, n, n_docs: Argument(*2 * [pick(rng, ("auto", "cpu", "numpy"))]),
}
NO_EXTRA: dict[str, Callable[[Rng, int, int], Argument]] = {
    "mask": lambda rng, n, n_docs: values.no_mask(rng, n, n_docs),
    "bias": lambda rng, n, n_docs: values.no_bias(rng, n_docs),
    "reduce": lambda rng, n, n_docs: bad(pick(rng, ("", "SUM", None, 1, ["sum"]))),
    "num_threads": lambda rng, n, n_docs: values.no_number(rng, but=(None,)),
    "backend": lambda rng, n, n_docs: bad(pick(rng, ("", "gpu", 1, ["cpu"]))),
    "query_weights": lambda rng, n, n_docs: bad(pick(rng, (1.0, "w", np.ones((n + 1, 7)), [None]))),
}
SPECIFIED = ("mask", "bias", "reduce")


def search(rng: Rng, tally: Tally, dim: int, normalize: bool, docs: Ragged, ids: Any, ask: Callable[..., Any]) -> None:
    """One search by ``ask(queries, k, **options)``, of documents that are these."""
    n = int(pick(rng, (0, 1, 2, 9)))
    queries = no_tokens(rng, n, dim) if rng.random() < HOSTILE else tokens(rng, n, dim)
    k = values.no_number(rng) if rng.random() < HOSTILE else values.number(rng, 1, len(docs) + 3)
    extra = {name: draw(rng, n, len(docs)) for name, draw in EXTRA.items() if rng.random() < 0.2}
    extra |= {name: draw(rng, n, len(docs)) for name, draw in NO_EXTRA.items() if rng.random() < HOSTILE / 6}
    good = all(each.good for each in (queries, k, *extra.values()))
    options = {name: each.value for name, each in extra.items()}
    found = tally.call("maxsim", good, lambda: ask(queries.value, k.value, **options))
    if found is None:
        return
    truths = {name: each.truth for name, each in extra.items() if name in SPECIFIED}
    want = reference_maxsim.topk(queries.truth, docs, k.truth, ids=ids, normalize=normalize, **truths)
    if bits(found) != bits(want):
        raise Wrong(f"maxsim, k={k.truth}, {list(extra)}: {found}; must be {want}")


def maxsim_once(rng: Rng, tally: Tally) -> None:
    """A search of drawn documents."""
    dim, n, normalize = int(pick(rng, DIMS)), int(pick(rng, (0, 1, 7, 60))), bool(rng.random() < 0.5)
    docs = tokens(rng, n, dim)
    given = no_tokens(rng, n, dim) if rng.random() < HOSTILE else docs
    if not given.good:
        tally.call("maxsim", False, lambda: pe.maxsim_topk([np.ones((1, dim))], given.value, 1))
        return
    search(
        rng, tally, dim, normalize, docs.truth, np.arange(n),
        lambda queries, k, **options: pe.maxsim_topk(queries, docs.value, k, normalize=normalize, **options),
    )  # fmt: skip


class TokenLife(Life):
    """A `MultiVectorIndex` and what it must hold: documents by id."""

    def __init__(self, rng: Rng, tally: Tally) -> None:
        super().__init__(rng, tally)
        self.normalize = bool(rng.random() < 0.5)
        self.index = pe.MultiVectorIndex(self.dim, pick(rng, ("float32", "int8")), normalize=self.normalize)

    def good(self, n: int) -> Argument:
        return tokens(self.rng, n, self.dim)

    def spoiled(self, n: int) -> Argument:
        return no_tokens(self.rng, n, self.dim)

    def search(self) -> None:
        ids = self.known()
        docs = Ragged.of([self.held[each] for each in ids.tolist()], dim=self.dim)
        search(self.rng, self.tally, self.dim, self.normalize, docs, ids, self.index.search)
        few = filters.some_ids(self.rng, ids)
        if few.good and len(ids):
            found = self.tally.call(
                "allow", True, lambda: self.index.search(docs.part(slice(0, 1)), 3, allow=few.value)
            )
            want = reference_maxsim.topk(
                docs.part(slice(0, 1)), docs, 3, ids=ids, allow=few.truth, normalize=self.normalize
            )
            if bits(found) != bits(want):
                raise Wrong(f"maxsim, allow {few.truth}: {found}; must be {want}")

        self.scores(docs, ids)

    def scores(self, docs: Ragged, ids: Any) -> None:
        """Of the first documents as queries, with all, and with one each."""
        queries = docs.part(slice(0, 2))
        want = reference_maxsim.scores(queries, docs, normalize=self.normalize)
        each = np.arange(len(queries))
        pairs = np.stack([each, ids[: len(queries)]], axis=1)
        found = self.tally.call("scores", True, lambda: self.index.scores(queries))
        some = self.tally.call("pairs", True, lambda: self.index.pairs(queries, pairs))
        if bits((found, some)) != bits((want, want[each, each])):
            raise Wrong(f"scores {found}, pairs {some}; must be {want}")

    def queries(self) -> Any:
        return np.ones((3, 2, self.dim), np.float32)

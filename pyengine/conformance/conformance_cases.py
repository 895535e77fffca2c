"""The cases of the conformance suite: a corpus, options of the search, a metric, and a form of the documents."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyengine.indexes import stores as kept
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.refining import exact
from pyengine.searches import dense
from pyengine.specification import reference
from pyengine.types import F32, Bool

Rng = np.random.Generator
Corpus = Callable[[Rng], tuple[F32, F32]]  # the queries and the documents
K = 10
FLOAT32_TINY = 1e-45  # the smallest float32 above zero


def _normal(rng: Rng, n_queries: int, n_docs: int, dim: int) -> tuple[F32, F32]:
    rows = rng.standard_normal((n_queries + n_docs, dim)).astype(np.float32)
    return rows[:n_queries], rows[n_queries:]


def _clustered(rng: Rng) -> tuple[F32, F32]:
    centres = rng.standard_normal((12, 96))
    rows = centres[rng.integers(0, 12, 1020)] + 0.05 * rng.standard_normal((1020, 96))
    return rows[:20].astype(np.float32), rows[20:].astype(np.float32)


def _ties(n_queries: int, n_docs: int) -> Corpus:
    def corpus(rng: Rng) -> tuple[F32, F32]:
        rows = rng.integers(-1, 2, (n_queries + n_docs, 9)).astype(np.float32)
        return rows[:n_queries], rows[n_queries:]

    return corpus


def _duplicates(rng: Rng) -> tuple[F32, F32]:
    queries, docs = _normal(rng, 4, 7, 33)
    return queries, docs[rng.integers(0, 7, 400)]


def _zeros(rng: Rng) -> tuple[F32, F32]:
    queries, docs = _normal(rng, 5, 200, 17)
    queries[1::2], docs[rng.random(200) < 0.9] = 0, 0
    return queries, docs


def _one_spike(rng: Rng) -> tuple[F32, F32]:
    """One coordinate per row dwarfs the others, which is where codes with one scale per row are coarsest."""
    queries, docs = _normal(rng, 5, 500, 64)
    docs[np.arange(500), rng.integers(0, 64, 500)] *= 1000
    return queries, docs


def _all_magnitudes(rng: Rng) -> tuple[F32, F32]:
    queries, docs = _normal(rng, 6, 400, 20)
    return queries, (docs * 10.0 ** rng.uniform(-37, 37, (400, 1))).astype(np.float32)


def _scaled(scale: float) -> Corpus:
    def corpus(rng: Rng) -> tuple[F32, F32]:
        queries, docs = rng.uniform(-1, 1, (4, 24)), rng.uniform(-1, 1, (300, 24))
        return (queries * scale).astype(np.float32), (docs * scale).astype(np.float32)

    return corpus


def _offset(rng: Rng) -> tuple[F32, F32]:
    queries, docs = _normal(rng, 6, 300, 65)
    return queries + np.float32(1000), docs + np.float32(1000)


def _all_equal(rng: Rng) -> tuple[F32, F32]:
    queries, docs = _normal(rng, 3, 1, 40)
    return queries, np.repeat(docs, 250, axis=0)


def _nearly_equal(rng: Rng) -> tuple[F32, F32]:
    """Rows that differ in the last bit: far more candidates than any list holds lie within any error bound."""
    queries, docs = _normal(rng, 2, 1, 24)
    docs = np.repeat(docs, 3001, axis=0)
    up = rng.random(docs.shape) < 0.5
    return queries, np.where(up, np.nextafter(docs, np.float32(np.inf)), docs)


CORPORA: dict[str, Corpus] = {
    "random": lambda rng: _normal(rng, 6, 611, 24),
    "clustered": _clustered,
    "many": lambda rng: _normal(rng, 2, 5003, 12),
    "many_ties": _ties(2, 5003),
    "odd1": lambda rng: _normal(rng, 5, 257, 1),
    "odd3": lambda rng: _normal(rng, 5, 257, 3),
    "odd8": lambda rng: _normal(rng, 5, 257, 8),
    "odd127": lambda rng: _normal(rng, 17, 257, 127),
    "odd129": lambda rng: _normal(rng, 5, 257, 129),
    "wide384": lambda rng: _normal(rng, 17, 129, 384),
    "ties": _ties(7, 300),
    "duplicates": _duplicates,
    "zeros": _zeros,
    "only_zeros": lambda rng: (_normal(rng, 3, 0, 5)[0], np.zeros((50, 5), np.float32)),
    "all_equal": _all_equal,
    "nearly_equal": _nearly_equal,
    "offset": _offset,
    "one_spike": _one_spike,
    "all_magnitudes": _all_magnitudes,
    "huge": _scaled(3.4e38),
    "tiny": _scaled(1e-38),
    "subnormal": _scaled(20 * FLOAT32_TINY),
    "one_document": lambda rng: _normal(rng, 3, 1, 12),
    "no_documents": lambda rng: _normal(rng, 3, 0, 12),
    "no_queries": lambda rng: _normal(rng, 0, 30, 12),
}


def _per_query(rng: Rng, shape: tuple[int, int, int]) -> Bool:
    """A mask of its own for each query; the first may get nothing, the last everything."""
    mask = rng.random(shape[:2]) < 0.3
    mask[:1], mask[-1:] = False, True
    return mask


def _one_allowed(rng: Rng, shape: tuple[int, int, int]) -> Bool:
    mask: Bool = np.arange(shape[1]) == shape[1] - 2
    return mask


def _bitmap(rng: Rng, shape: tuple[int, int, int]) -> Any:
    """Random bits, those beyond the last document set: they stand for nothing."""
    mask = np.packbits(rng.random(shape[1]) < 0.5, bitorder="little")
    mask[-1] |= (0xFF << shape[1] % 8) & 0xFF
    return mask


def _marks(rng: Rng, shape: tuple[int, int, int]) -> tuple[F32, Any]:
    """Scores and ids, as if a page had ended there; the last query is at its end."""
    ids = rng.integers(0, shape[1], shape[0])
    ids[-1:] = -1
    return rng.uniform(-0.5, 2, shape[0]).astype(np.float32), ids


def _known(rng: Rng, shape: tuple[int, int, int]) -> list[Any]:
    """Ids to exclude: none for the first query, some for the next ones, all for the last."""
    chosen = [rng.choice(shape[1], min(shape[1], 5 * q), replace=False) for q in range(shape[0])]
    return [*chosen[:-1], np.arange(shape[1])]


# Each takes a generator and (Q, N, D), and gives keyword arguments of `pyengine.topk`.
OPTIONS: dict[str, Callable[[Rng, tuple[int, int, int]], dict[str, Any]]] = {
    "plain": lambda rng, shape: {},
    "k=1": lambda rng, shape: {"k": 1},
    "k=100": lambda rng, shape: {"k": 100},
    "k=N": lambda rng, shape: {"k": shape[1]},
    "k>N": lambda rng, shape: {"k": shape[1] + 5},
    "none_allowed": lambda rng, shape: {"mask": np.zeros(shape[1], bool)},
    "one_allowed": lambda rng, shape: {"mask": _one_allowed(rng, shape)},
    "mask": lambda rng, shape: {"mask": rng.random(shape[1]) < 0.5},
    "rare_mask": lambda rng, shape: {"mask": rng.random(shape[1]) < 0.02},
    "mask_per_query": lambda rng, shape: {"mask": _per_query(rng, shape)},
    "bitmap": lambda rng, shape: {"mask": _bitmap(rng, shape)},
    "bias": lambda rng, shape: {"bias": rng.standard_normal(shape[1])},
    "bias_small": lambda rng, shape: {"bias": 1e-9 * rng.standard_normal(shape[1])},
    "bias_huge": lambda rng, shape: {"bias": rng.choice([-1e30, -3.4e38, 1e300], shape[1])},
    "dims=1": lambda rng, shape: {"dims": 1},
    "dims=8": lambda rng, shape: {"dims": 8},
    "dims=D-1": lambda rng, shape: {"dims": shape[2] - 1},
    "allow": lambda rng, shape: {"allow": rng.integers(0, shape[1], 20)},
    "deny": lambda rng, shape: {"deny": rng.integers(0, shape[1], 20)},
    "exclude": lambda rng, shape: {"exclude": _known(rng, shape)},
    "groups": lambda rng, shape: {"groups": rng.integers(0, 30, shape[1])},
    "two_of_three_groups": lambda rng, shape: {"groups": rng.integers(0, 3, shape[1]), "per_group": 2},
    "after": lambda rng, shape: {"after": _marks(rng, shape)},
    "threshold": lambda rng, shape: {"threshold": 0.4},
    "all_filters": lambda rng, shape: {
        "k": 7, "mask": _per_query(rng, shape), "bias": rng.standard_normal(shape[1]), "exclude": _known(rng, shape),
        "deny": [3, 8], "groups": rng.integers(0, 40, shape[1]), "after": _marks(rng, shape), "threshold": -1.0,
    },
    "all": lambda rng, shape: {
        "k": 23, "mask": _per_query(rng, shape), "bias": rng.standard_normal(shape[1]), "dims": 7,
    },
}  # fmt: skip
WITH_EVERY_OPTION = ("random", "ties")
WITH_MANY_DOCUMENTS = (  # options of "many"
    "k=100", "rare_mask", "mask_per_query", "bias", "dims=8", "all", "exclude", "groups", "after", "threshold",
)  # fmt: skip
FILTERS = FilterArguments._fields


@dataclass(frozen=True)
class Case:
    """One search. `problem` makes it, the same at each call; ``str`` is its name."""

    corpus: str
    options: str
    metric: str
    store: str

    def __str__(self) -> str:
        return f"{self.corpus}-{self.options}-{self.metric}-{self.store}"

    def problem(self) -> DenseProblem:
        rng = np.random.default_rng(zlib.crc32(f"{self.corpus}-{self.options}".encode()))
        queries, rows = CORPORA[self.corpus](rng)
        options = {"k": K, **OPTIONS[self.options](rng, (*queries.shape[:1], *rows.shape))}
        filters = FilterArguments(**{name: options.pop(name) for name in FILTERS if name in options})
        docs = documents(rows, self.store)
        return dense.prepare(queries, docs, metric=self.metric, filters=filters, num_threads=2, **options)


def documents(rows: F32, store: str) -> Documents:
    """Rows as a backend sees them: a bare ``matrix`` (as from `pyengine.topk`), or in an index's store."""
    if store == "matrix":
        return Documents(rows)
    built = kept.make(store, "ram", rows.shape[1])
    if len(rows):
        built.append(rows)
    return built.documents()


def stores() -> list[str]:
    """The forms of documents that can be made here: int8 codes need the compiled extension."""
    return ["matrix", "float32", *(["int8"] if exact.native() is not None else [])]


def cases() -> list[Case]:
    """Every case that can be made here, for ``pytest.mark.parametrize(..., ids=str)``."""
    plain = [(corpus, "plain") for corpus in CORPORA]
    asked = [(corpus, options) for corpus in WITH_EVERY_OPTION for options in OPTIONS if options != "plain"]
    asked += [("many", options) for options in WITH_MANY_DOCUMENTS]
    held = [(each, store) for store in stores() for each in (plain if store == "float32" else plain + asked)]
    return [Case(*each, metric, store) for each, store in held for metric in reference.METRICS]

"""The cases of the conformance suite for late interaction."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyengine.conformance.conformance_cases import FILTERS, OPTIONS, K, documents, stores
from pyengine.conformance.conformance_values import Rng, Values, all_magnitudes, normal, one_spike, scaled, some_rows
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.ragged import Ragged
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.searches import maxsim_request
from pyengine.types import F32

Lengths = Callable[[Rng], tuple[list[int], list[int]]]  # of the queries and of the documents


def _lengths(rng: Rng, n_docs: int = 150, longest: int = 12) -> tuple[list[int], list[int]]:
    """Queries of 0, 1 and more tokens, documents likewise."""
    return [5, 1, 0, 17], [0, 1, *rng.integers(0, longest + 1, n_docs - 2).tolist()]


def _clustered(rng: Rng, shape: tuple[int, int]) -> Any:
    """Unit vectors around a few centres, as models give."""
    rows = rng.standard_normal((8, shape[1]))[rng.integers(0, 8, shape[0])] + 0.3 * rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# Name: dimensions, token vectors of the queries and of the documents, lengths.
CORPORA: dict[str, tuple[int, Values, Lengths]] = {
    "random": (24, normal, _lengths),
    "clustered": (128, _clustered, lambda rng: _lengths(rng, 300)),
    "ties": (5, lambda rng, shape: rng.integers(-1, 2, shape), _lengths),
    "odd1": (1, normal, _lengths),
    "odd7": (7, normal, _lengths),
    "odd96": (96, normal, _lengths),
    "wide768": (768, normal, lambda rng: _lengths(rng, 40)),
    "one_token": (16, normal, lambda rng: ([1, 1, 1], [1] * 200)),
    "long": (32, normal, lambda rng: ([3, 40], [1500, 1, 0, 700, 2])),
    "many": (8, normal, lambda rng: ([4, 2], rng.integers(0, 4, 3000).tolist())),
    "equal": (9, lambda rng, shape: np.ones(shape), _lengths),
    "opposed": (6, lambda rng, shape: np.abs(rng.standard_normal(shape)), _lengths),
    "zeros": (17, some_rows, _lengths),
    "only_zeros": (5, scaled(0.0), _lengths),
    "offset": (33, lambda rng, shape: 1000 + rng.standard_normal(shape), _lengths),
    "one_spike": (64, one_spike, _lengths),
    "all_magnitudes": (20, all_magnitudes, _lengths),
    "huge": (12, scaled(3.4e38), _lengths),
    "tiny": (12, scaled(1e-38), _lengths),
    "subnormal": (12, scaled(3e-44), _lengths),
    "empty_documents": (4, normal, lambda rng: ([2, 0], [0] * 9)),
    "empty_queries": (4, normal, lambda rng: ([0, 0], [0, 3, 1])),
    "no_documents": (4, normal, lambda rng: ([2, 0], [])),
    "no_queries": (4, normal, lambda rng: ([], [2, 0, 3])),
    "frames": (24, normal, lambda rng: ([1, 0, 1], rng.integers(0, 12, 90).tolist())),
    "slots": (24, some_rows, lambda rng: ([5, 0, 5], (5 * rng.integers(0, 2, 90)).tolist())),
}
SCORINGS = ("dot", "cosine", "mean", "weighted", "symmetric", "weighted_symmetric", "softmax")
OF_SOME_LENGTHS = [  # corpora, and a scoring that takes no others
    ("frames", "pooled"),
    ("one_token", "pooled"),
    ("slots", "aligned"),
    ("slots", "weighted_aligned"),
    ("one_token", "aligned"),
]
WITH_EVERY_OPTION = ("random", "ties")


@dataclass(frozen=True)
class MaxSimCase:
    """One search. `problem` makes it, the same at each call; ``str`` is its name."""

    corpus: str
    options: str
    scoring: str
    store: str

    def __str__(self) -> str:
        return f"{self.corpus}-{self.options}-{self.scoring}-{self.store}"

    def problem(self) -> MaxSimProblem:
        rng = np.random.default_rng(zlib.crc32(f"{self.corpus}-{self.options}".encode()))
        dim, values, lengths = CORPORA[self.corpus]
        queries, docs = (_ragged(rng, dim, values, each) for each in lengths(rng))
        if self.corpus == "opposed":  # then every maximum is negative
            docs = Ragged(-docs.values, docs.offsets)
        options = {"k": K, **OPTIONS[self.options](rng, (len(queries), len(docs), dim))}
        filters = FilterArguments(**{name: options.pop(name) for name in FILTERS if name in options})
        options |= _scoring(rng, self.scoring, queries, docs)
        corpus = TokenDocuments(documents(docs.values, self.store), docs.offsets)
        return maxsim_request.prepare(queries, corpus, filters=filters, num_threads=2, **options)


def _ragged(rng: Rng, dim: int, values: Values, lengths: list[int]) -> Ragged:
    rows: F32 = np.asarray(values(rng, (sum(lengths), dim))).astype(np.float32)
    return Ragged(rows, np.cumsum([0, *lengths]))


def _scoring(rng: Rng, name: str, queries: Ragged, docs: Ragged) -> dict[str, Any]:
    """The arguments of `pyengine.maxsim`; weights of either sign, one of them 0."""
    weights = [rng.standard_normal(len(each.values)).astype(np.float32) for each in (queries, docs)]
    for each in weights:
        each[:1] = 0
    scorings: dict[str, dict[str, Any]] = {
        "dot": {},
        "cosine": {"normalize": True},
        "mean": {"reduce": "mean", "normalize": True},
        "weighted": {"query_weights": weights[0]},
        "symmetric": {"reduce": "symmetric", "normalize": True},
        "weighted_symmetric": {"reduce": "symmetric", "query_weights": weights[0], "doc_weights": weights[1]},
        "softmax": {"reduce": "softmax", "temperature": 0.1},
        "pooled": {"reduce": "pooled", "temperature": 0.5, "normalize": True},
        "aligned": {"reduce": "aligned"},
        "weighted_aligned": {"reduce": "aligned", "query_weights": weights[0]},
    }
    return scorings[name]


def maxsim_cases() -> list[MaxSimCase]:
    """Every case that can be made here, for ``pytest.mark.parametrize(..., ids=str)``."""
    asked = [options for options in OPTIONS if options != "plain" and "dims" not in _given(options)]
    forms = [*_forms(("dot", "cosine")), ("softmax", "matrix")]
    return [
        *(MaxSimCase(corpus, "plain", *form) for corpus in CORPORA for form in _forms(SCORINGS)),
        *(MaxSimCase(corpus, "plain", *form) for corpus, scoring in OF_SOME_LENGTHS for form in _forms((scoring,))),
        *(MaxSimCase(corpus, options, *form) for corpus in WITH_EVERY_OPTION for options in asked for form in forms),
    ]


def _forms(scorings: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(scoring, store) for scoring in scorings for store in stores() if store != "float32"]


def _given(options: str) -> dict[str, Any]:
    return OPTIONS[options](np.random.default_rng(0), (2, 50, 8))

"""The cases of the conformance suite for sliced vectors."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyengine.conformance.conformance_cases import FILTERS, OPTIONS, K
from pyengine.conformance.conformance_values import Rng, Values, all_magnitudes, normal, one_spike, scaled, some_rows
from pyengine.inputs.filters import FilterArguments
from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.problems.problem_sliced import SlicedDocuments, SlicedProblem
from pyengine.searches import sliced


def _lexical(rng: Rng, shape: tuple[int, int]) -> Any:
    """As models give: none below 0, many at it."""
    return np.log1p(np.maximum(0, rng.standard_normal(shape)))


# Name: queries, documents, slices, how many indices there are, weights.
CORPORA: dict[str, tuple[int, int, int, int, Values]] = {
    "lexical": (6, 611, 96, 6, _lexical),
    "random": (5, 400, 24, 3, normal),
    "many": (2, 5003, 12, 4, _lexical),
    "batch": (37, 300, 64, 5, _lexical),
    "signed_batch": (35, 300, 65, 5, normal),
    "ties": (7, 300, 9, 2, lambda rng, shape: rng.integers(-1, 2, shape)),
    "odd1": (5, 257, 1, 3, normal),
    "odd63": (5, 257, 63, 3, normal),
    "odd127": (17, 129, 127, 256, _lexical),
    "odd129": (5, 129, 129, 2, normal),
    "wide768": (9, 65, 768, 40, _lexical),
    "dense": (4, 200, 40, 1, normal),
    "nothing_shared": (4, 200, 5, 256, _lexical),
    "zeros": (5, 200, 17, 2, some_rows),
    "only_zeros": (3, 50, 5, 2, scaled(0.0)),
    "negative": (3, 200, 20, 2, lambda rng, shape: -_lexical(rng, shape)),
    "equal": (3, 250, 40, 1, lambda rng, shape: np.ones(shape)),
    "one_spike": (5, 300, 64, 2, one_spike),
    "all_magnitudes": (6, 300, 20, 2, all_magnitudes),
    "huge": (4, 300, 24, 2, scaled(3.4e38)),
    "tiny": (4, 300, 24, 2, scaled(1e-38)),
    "subnormal": (4, 300, 24, 2, scaled(3e-44)),
    "one_document": (3, 1, 12, 2, normal),
    "no_documents": (3, 0, 12, 2, normal),
    "no_queries": (0, 30, 12, 2, normal),
}
WITH_EVERY_OPTION = ("lexical", "ties")


@dataclass(frozen=True)
class SlicedCase:
    """One search. `problem` makes it, the same at each call; ``str`` is its name."""

    corpus: str
    options: str

    def __str__(self) -> str:
        return f"{self.corpus}-{self.options}"

    def problem(self) -> SlicedProblem:
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        n_queries, n_docs, dim, n_indices, values = CORPORA[self.corpus]
        queries, docs = (
            SlicedRows(values(rng, (n, dim)), rng.integers(0, n_indices, (n, dim))) for n in (n_queries, n_docs)
        )
        options = {"k": K, **OPTIONS[self.options](rng, (n_queries, n_docs, dim))}
        filters = FilterArguments(**{name: options.pop(name) for name in FILTERS if name in options})
        corpus = SlicedDocuments(docs, cache=docs.cache)
        return sliced.prepare(queries, corpus, filters=filters, num_threads=2, **options)


def sliced_cases() -> list[SlicedCase]:
    """Every case, for ``pytest.mark.parametrize(..., ids=str)``."""
    asked = [name for name, make in OPTIONS.items() if "dims" not in make(np.random.default_rng(0), (2, 50, 8))]
    every = [SlicedCase(corpus, options) for corpus in WITH_EVERY_OPTION for options in asked if options != "plain"]
    return [*(SlicedCase(corpus, "plain") for corpus in CORPORA), *every]

"""What the tests of MaxSim kernels for GPUs share: small problems, since an interpreter or an emulator takes some
milliseconds for each document, and the check of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyengine import conformance
from pyengine.backends import registry
from pyengine.conformance import rank_scores
from pyengine.indexes import codecs
from pyengine.indexes.token_store import SAMPLE, TokenStore
from pyengine.inputs.ragged import Ragged
from pyengine.problems.problem import Documents
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.refining import exact
from pyengine.searches import maxsim_request
from pyengine.searches.search import exact_search
from pyengine.types import F32


@dataclass
class Sets:
    """Queries and documents of some lengths, and how they are scored."""

    queries: list[int] = field(default_factory=lambda: [5, 0, 1])
    docs: list[int] = field(default_factory=lambda: [0, 1, 7, 3, 2, 0, 4, 1])
    dim: int = 12
    kind: str = "normal"
    scoring: str = "dot"
    store: str = "matrix"

    def __str__(self) -> str:
        return f"{self.queries}x{self.docs}x{self.dim}-{self.kind}-{self.scoring}-{self.store}".replace(" ", "")

    def problem(self, k: int = 3, **options: Any) -> MaxSimProblem:
        rng = np.random.default_rng(7)
        queries, docs = (self.ragged(rng, lengths) for lengths in (self.queries, self.docs))
        if self.kind == "opposed":
            docs = Ragged(-docs.values, docs.offsets)
        options |= self.weighted(rng, queries, docs)
        return maxsim_request.prepare(queries, self.corpus(docs), k, num_threads=1, **options)

    def corpus(self, docs: Ragged) -> TokenDocuments:
        """The documents as they are, or in a `TokenStore` of a codec, "only" by its codes."""
        if self.store == "matrix":
            return TokenDocuments(Documents(docs.values), docs.offsets)
        codec, _, only = self.store.partition(" ")
        store = TokenStore(codecs.make(codec, None if only else "ram", self.dim))
        store = store.trained([docs], SAMPLE) if store.untrained else store
        store.append(docs)
        return store.token_documents(len(docs), {}, None)

    def ragged(self, rng: np.random.Generator, lengths: list[int]) -> Ragged:
        rows: F32 = KINDS[self.kind](rng, (sum(lengths), self.dim)).astype(np.float32)
        return Ragged(rows, np.cumsum([0, *lengths]))

    def weighted(self, rng: np.random.Generator, queries: Ragged, docs: Ragged) -> dict[str, Any]:
        options = dict(SCORINGS[self.scoring])
        for name, side in (("query_weights", queries), ("doc_weights", docs)):
            if name in options:
                options[name] = rng.standard_normal(len(side.values)).astype(np.float32)
        return options


KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape),
    "opposed": lambda rng, shape: np.abs(rng.standard_normal(shape)),  # then every maximum is negative
    "zeros": lambda rng, shape: rng.standard_normal(shape) * rng.integers(0, 2, (shape[0], 1)),
    "huge": lambda rng, shape: 3.4e38 * rng.uniform(-1, 1, shape),
    "subnormal": lambda rng, shape: 3e-44 * rng.uniform(-1, 1, shape),
    "magnitudes": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.uniform(-37, 37, (shape[0], 1)),
    "offset": lambda rng, shape: 1000 + rng.standard_normal(shape),
}
SCORINGS: dict[str, dict[str, Any]] = {
    "dot": {},
    "cosine": {"normalize": True},
    "mean": {"reduce": "mean"},
    "weighted": {"query_weights": None},
    "symmetric": {"reduce": "symmetric", "normalize": True},
    "weighted_symmetric": {"reduce": "symmetric", "query_weights": None, "doc_weights": None},
    "softmax": {"reduce": "softmax", "temperature": 0.5},
}
SETS = [
    *(Sets(scoring=scoring) for scoring in SCORINGS),
    *(Sets(kind=kind) for kind in KINDS),
    *(Sets(kind=kind, scoring="cosine", store="int8") for kind in ("ties", "magnitudes", "zeros")),
    *(Sets(store=store) for store in ("float16", "bfloat16", "int8", "int8 only", "binary")),
    *(Sets(store=store) for store in ("binary only", "residual2 only")),
    *(Sets(dim=dim) for dim in (1, 7)),
    *(Sets([2], [3, 0, 1], dim) for dim in (65, 130)),
    Sets([2], [3, 0, 1], 129, store="int8"),
    Sets([17, 5], [66, 0, 3]),
    Sets([31, 33, 1], [3, 1, 20], 5),
    Sets([600], [3, 0], 4),
    Sets([70], [34, 9], 5, scoring="symmetric"),
    Sets([2, 0], [0] * 5, 4),
    Sets([0], [0, 3], 4),
    Sets([2, 0], [], 4),
    Sets([], [3, 0], 4),
]
CASES = [
    conformance.MaxSimCase(corpus, "plain", "dot", "matrix")
    for corpus in ("empty_documents", "empty_queries", "no_documents", "no_queries")
]


def available(sets: list[Sets]) -> list[Sets]:
    """Those of which the corpus can be made here."""
    return [each for each in sets if exact.native() is not None or each.store == "matrix"]


def check(problem: MaxSimProblem, name: str) -> None:
    """What that backend proposes keeps the contract, and its answer is the specification's."""
    backend = registry.of_family(name, "maxsim")
    with exact.arithmetic():
        found = backend.propose(problem, problem.k)
        conformance.check_candidates(problem, found, rank_scores(problem))
        conformance.same(exact_search(problem, backend), conformance.specified(problem), "the answer")

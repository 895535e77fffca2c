"""What the tests of documents that a GPU cannot hold share, for both backends: searches of each family, the bytes in
which they pass through in some parts, and what must hold of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.shared import parts
from pyengine.backends.shared.parts import Footprint
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import Problem
from pyengine.problems.problem_maxsim import MaxSimProblem
from pyengine.refining import exact
from pyengine.searches import maxsim_request
from pyengine.searches.explain import explain
from pyengine.searches.search import exact_search, fast_search
from tests import sliced_cases, sparse_cases
from tests.maxsim_cases import Sets

COUNT = 45
LENGTHS = [0, 3, 1, 7, 2] * (COUNT // 5)  # tokens of documents, which parts of a few split at odd places
MODULES = {"dense": "dense", "maxsim": "tokens", "sparse": "sparse", "sliced": "sliced"}
SCANS = {**MODULES, "maxsim": "maxsim"}


def seventy(taken: Footprint, lacking: int, free: int | None) -> list[slice]:
    """In place of `parts.cuts`."""
    return [slice(first, min(first + 70, taken.count)) for first in range(0, taken.count, 70)]


def footprint(problem: Problem, name: str) -> Footprint:
    """What its documents take on the GPU of that backend."""
    module = import_module(f"pyengine.backends.{name}.{name}_{MODULES[problem.family]}")
    found: Footprint = module.footprint(problem)
    return found


@dataclass
class Streams:
    """A backend whose GPU has little memory, and the numbers of documents that it has scanned at a time."""

    name: str
    patch: pytest.MonkeyPatch
    seen: list[int]

    def hold(self, problem: Problem, count: int) -> None:
        """Leave it so much that the documents pass through in ``count`` parts or more."""
        taken = footprint(problem, self.name)
        self.limit(parts.AT_A_TIME * max(taken.largest, taken.before(taken.count) // count))

    def limit(self, n_bytes: int) -> None:
        device = import_module(f"pyengine.backends.{self.name}.{self.name}_device")
        self.patch.setattr(device, "free", lambda docs: n_bytes)
        self.patch.setattr(parts, "LEAST", 0)

    def watch(self, family: str) -> None:
        scans = import_module(f"pyengine.backends.{self.name}.{self.name}_{SCANS[family]}")
        propose: Any = scans.propose

        def watched(problem: Problem, width: int) -> pe.types.Candidates:
            self.seen.append(len(problem.docs))
            found: pe.types.Candidates = propose(problem, width)
            return found

        self.patch.setattr(scans, "propose", watched)

    def check(self, problem: Problem, count: int = 4) -> None:
        """What is proposed keeps the contract, and the answer is the specification's: whatever is streamed."""
        backend = registry.of_family(self.name, problem.family)
        self.hold(problem, count)
        self.watch(problem.family)
        asked = problem.asking(problem.places())
        with exact.arithmetic():
            found = backend.propose(asked, asked.k)
            conformance.check_candidates(asked, found, conformance.rank_scores(asked))
            if problem.n_queries and len(problem.docs):
                assert len(self.seen) >= count
                assert sum(self.seen) == len(problem.docs)
            conformance.same(exact_search(problem, backend), conformance.specified(problem), "the answer")


def tokens(k: int = 5, filters: FilterArguments | None = None, **options: Any) -> MaxSimProblem:
    """Late interaction; options of `Sets`, and those of a search."""
    made: dict[str, Any] = {"queries": [4, 0, 2], "docs": LENGTHS, "dim": 6}
    made |= {name: options.pop(name) for name in ("kind", "scoring", "store", "docs") if name in options}
    found = Sets(**made).problem(k, **options)
    return found if filters is None else replace(found, filters=_filters(found, filters))


def _filters(problem: MaxSimProblem, given: FilterArguments) -> Any:
    plain = pe.Ragged(problem.queries.values, problem.queries.offsets)
    return maxsim_request.prepare(plain, problem.docs, problem.k, filters=given).filters


def sparse(**options: Any) -> Problem:
    return sparse_cases.problem(**{"n_docs": COUNT, "n_terms": 20, "longest": 6, **options})


def sliced(**options: Any) -> Problem:
    return sliced_cases.problem(**{"n_docs": COUNT, **options})


RNG = np.random.default_rng(9)
MASK = RNG.random((3, COUNT)) < 0.4
MASK[1, :30] = False  # nothing of the first parts
BIAS, IDS = RNG.standard_normal(COUNT), RNG.permutation(COUNT) * 3 + (1 << 40)
GROUPS = np.arange(COUNT) % 6
AFTER = (np.array([2, 0, 1], np.float32), np.array([3, 9, 2]))
Cases = dict[str, Callable[[], Problem]]


def of_each(make: Callable[..., Problem], option: str, values: dict[str, Any] | list[str]) -> Cases:
    """A search for each of these values of an option."""
    named = values if isinstance(values, dict) else dict(zip(values, values))
    return {f"{make.__name__}-{name}": partial(make, **{option: value}) for name, value in named.items()}


def some(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names}


COUNTS = {"values": sparse_cases.WEIGHTS["binary"]}
CASES: Cases = {
    **of_each(tokens, "scoring", ["dot", "cosine", "mean", "weighted", "weighted_symmetric", "softmax"]),
    **of_each(tokens, "store", ["float16", "int8 only", "residual2 only"]),
    "tokens-ties": lambda: tokens(kind="ties", k=9),
    "tokens-ties-ids": lambda: tokens(kind="ties", k=9, ids=IDS),
    "tokens-opposed": lambda: tokens(kind="opposed"),
    "tokens-magnitudes": lambda: tokens(kind="magnitudes", scoring="mean"),
    "tokens-huge": lambda: tokens(kind="huge"),
    "tokens-mask": lambda: tokens(mask=MASK[0]),
    "tokens-masks-bias": lambda: tokens(mask=MASK, bias=BIAS, k=30),
    "tokens-filters": lambda: tokens(
        filters=FilterArguments(exclude=[[1, 8], [3], []], threshold=0.1, groups=GROUPS, per_group=2)
    ),
    "tokens-after": lambda: tokens(filters=FilterArguments(after=AFTER)),
    "tokens-k>N": lambda: tokens(k=60),
    "tokens-all-empty": lambda: tokens(docs=[0] * COUNT),
    **of_each(sparse, "values", some(sparse_cases.WEIGHTS, "signed", "huge", "all_magnitudes")),
    **of_each(sparse, "store", ["rows", "float16", "uint8"]),
    "sparse-ties": lambda: sparse(k=9, **COUNTS),
    "sparse-ties-ids": lambda: sparse(k=9, ids=IDS, **COUNTS),
    "sparse-ties-filters": lambda: sparse(k=4, exclude=[np.arange(9), np.arange(20, 40)], threshold=1.0, **COUNTS),
    "sparse-cancelling": lambda: sparse(values=sparse_cases.WEIGHTS["cancelling"], k=20),
    "sparse-few-matches": lambda: sparse(n_terms=300, k=20),
    "sparse-few-matches-ids": lambda: sparse(n_terms=300, k=20, ids=IDS, mask=MASK[0]),
    "sparse-masks-bias": lambda: sparse(mask=MASK[:2], bias=BIAS),
    "sparse-after": lambda: sparse(after=(AFTER[0][:2], AFTER[1][:2])),
    "sparse-k>N": lambda: sparse(k=60),
    "sparse-empty": lambda: sparse_cases.with_empty(queries=False),
    **of_each(sliced, "values", some(sliced_cases.VALUES, "lexical", "ties", "zeros", "all_magnitudes")),
    "sliced-ties-ids": lambda: sliced(values=sliced_cases.VALUES["ties"], k=9, ids=IDS),
    "sliced-masks-bias": lambda: sliced(mask=MASK[:2], bias=BIAS),
    "sliced-after": lambda: sliced(after=(AFTER[0][:2], AFTER[1][:2]), threshold=-0.2),
    "sliced-k>N": lambda: sliced(k=60),
}


def rising(family: str) -> Problem:
    """Documents in falling order of score, by far."""
    scores = np.linspace(2, 1, COUNT, dtype=np.float32)
    if family == "maxsim":
        docs = pe.Ragged(scores[:, None] * np.ones((1, 6), np.float32), np.arange(COUNT + 1))
        corpus = Sets(dim=6).corpus(docs)
        return maxsim_request.prepare(pe.Ragged(np.ones((1, 6)), [0, 1]), corpus, 3)
    if family == "sparse":
        rows = pe.SparseRows(np.arange(COUNT + 1), np.zeros(COUNT, int), scores, 4)
        return sparse_cases.prepared(pe.SparseRows([0, 1], [0], None, 4), rows, 3)
    slices = np.zeros((COUNT, 7), np.uint8)
    vectors = pe.SlicedRows(scores[:, None] * np.ones((1, 7)), slices)
    return sliced_cases.prepared(pe.SlicedRows(np.ones((1, 7)), slices[:1]), vectors, 3)


FAMILIES = ["maxsim", "sparse", "sliced"]


def check_floor(streams: Streams, family: str) -> None:
    """Of the later parts nothing is listed, and what is has the specification's scores."""
    problem = rising(family)
    streams.hold(problem, 5)
    found = registry.of_family(streams.name, family).propose(problem, 3)
    assert found.rows.max() < COUNT // 3
    best = conformance.rank_scores(problem)[0, found.rows]
    assert (found.estimates == best.astype(np.float32)).all()


def check_again(streams: Streams, family: str) -> None:
    """Two searches in a row of a corpus that keeps what is derived from it: of which nothing stays on the GPU."""
    problem = {"maxsim": tokens, "sparse": sparse, "sliced": sliced}[family]()
    problem = replace(problem, docs=replace(problem.docs, cache={}))
    backend = registry.of_family(streams.name, family)
    streams.hold(problem, 4)
    streams.watch(family)
    want = conformance.specified(problem)
    for count in (1, 2):
        with exact.arithmetic():
            conformance.same(exact_search(problem, backend), want, "the answer")
        assert len(streams.seen) >= 4 * count
    assert not any(isinstance(key, tuple) and key[0] == streams.name for key in problem.docs.cache or {})
    fast = fast_search(problem, backend)
    assert (fast.ids == want.ids).all()
    assert not fast.certified.any()
    streams.limit(1 << 30)
    with exact.arithmetic():
        conformance.same(exact_search(problem, backend), want, "the answer")
    assert any(isinstance(key, tuple) and key[0] == streams.name for key in problem.docs.cache or {})


def check_explained(streams: Streams, family: str) -> None:
    """It copies nothing to say so."""
    problem = rising(family)
    streams.hold(problem, 5)
    said = explain(problem, streams.name).facts["documents"]
    assert said.endswith(f"parts of at most {COUNT // 5}: the GPU cannot hold all {COUNT}")


def check_too_large_a_document(streams: Streams) -> None:
    """A document that takes more than a part is refused in a sentence."""
    problem = tokens(docs=[*LENGTHS, 40])
    taken = footprint(problem, streams.name)
    streams.limit(parts.AT_A_TIME * (taken.largest - 1))
    backend = registry.of_family(streams.name, "maxsim")
    (said,) = backend.refusals(problem)
    assert said == "its documents pass through the GPU in parts of 0 MB, and one takes 0"
    streams.limit(parts.AT_A_TIME * taken.largest)
    assert backend.refusals(problem) == []

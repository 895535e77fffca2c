"""Properties of sparse top-k, and bit equality with the specification on random problems."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.specification import reference_sparse as spec

BACKENDS = [name for name in registry.FAMILIES["sparse"] if not registry.of_family(name, "sparse").missing()]
WEIGHTS = ["impacts", "normal", "signs", "integers", "huge", "tiny", "binary"]


def weights(kind: str, rng: np.random.Generator, count: int) -> Any:
    normal = rng.standard_normal(count)
    return {
        "impacts": rng.gamma(2.0, 0.5, count),
        "signs": rng.choice([-1, 1], count),
        "integers": rng.integers(-1, 3, count),
        "huge": 3e38 * np.tanh(normal),
        "tiny": 1e-44 * normal,
        "binary": np.ones(count),
    }.get(kind, normal)


@st.composite
def problems(draw: st.DrawFn) -> tuple[SparseRows, SparseRows, dict[str, Any]]:
    """Queries, documents, and what is asked beside them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_terms, kind = draw(st.sampled_from([1, 2, 7, 30, 400, 70_000])), draw(st.sampled_from(WEIGHTS))
    sides = []
    for lengths in (st.lists(st.integers(0, 12), max_size=4), st.lists(st.integers(0, 20), max_size=50)):
        chosen = draw(lengths)
        terms = np.minimum(rng.zipf(1.3, sum(chosen)) - 1, n_terms - 1)  # duplicates among them
        rows = SparseRows(
            np.cumsum([0, *chosen]), terms, np.maximum(-3e37, weights(kind, rng, len(terms)) / 20), n_terms
        )
        sides.append(rows)
    options: dict[str, Any] = {}
    n_docs = len(sides[1])
    if draw(st.booleans()):
        options["bias"] = rng.standard_normal(n_docs)
    if draw(st.booleans()):
        options["mask"] = rng.random((len(sides[0]), n_docs)) < 0.6
    if draw(st.booleans()):
        options["groups"] = rng.integers(0, 9, n_docs)
    if draw(st.booleans()):
        options["threshold"] = draw(st.sampled_from([-1.0, 0.0, 1e-45, 0.1]))
    return sides[0], sides[1], options


@given(problems(), st.integers(1, 60), st.sampled_from(BACKENDS))
def test_every_backend_gives_the_specification(
    problem: tuple[SparseRows, SparseRows, dict[str, Any]], k: int, backend: str
) -> None:
    queries, docs, options = problem
    found = pe.sparse_topk(queries, docs, k, **options, backend=backend)
    conformance.same(found, spec.topk(queries, docs, k, **options), backend)


@given(problems(), st.sampled_from(BACKENDS))
def test_an_answer_does_not_depend_on_the_batch(
    problem: tuple[SparseRows, SparseRows, dict[str, Any]], backend: str
) -> None:
    queries, docs, options = problem
    options.pop("mask", None)
    whole = pe.sparse_topk(queries, docs, 9, **options, backend=backend)
    for q in range(len(queries)):
        alone = pe.sparse_topk(queries.part(slice(q, q + 1)), docs, 9, **options, backend=backend)
        conformance.same(alone, type(whole)(*(part[q : q + 1] for part in whole)), backend)


@given(problems())
def test_contributions_add_up_to_the_score(problem: tuple[SparseRows, SparseRows, dict[str, Any]]) -> None:
    queries, docs, _ = problem
    scores = spec.unrounded_scores(queries, docs)
    for q in range(min(2, len(queries))):
        for d in range(min(8, len(docs))):
            query, doc = queries.part(slice(q, q + 1)), docs.part(slice(d, d + 1))
            found = pe.explain_terms(query, doc)
            shared = np.intersect1d(query.indices, doc.indices)
            np.testing.assert_array_equal(np.sort(found.terms), shared)
            assert (found.contributions[1:] <= found.contributions[:-1]).all()
            products = [dict(zip(*map(np.ndarray.tolist, each[0]))) for each in (query, doc)]
            total = 0.0
            for term in shared.tolist():
                total += products[0][term] * products[1][term]
            assert total == scores[q, d]

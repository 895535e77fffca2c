"""Properties of MaxSim over ragged shapes, and bit equality with the specification on random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.inputs.ragged import Ragged
from pyengine.specification import reference_maxsim as spec
from tests.engines import SLOW

ABLE = [name for name in registry.FAMILIES["maxsim"] if not registry.of_family(name, "maxsim").missing()]
BACKENDS = [name for name in ABLE if name not in SLOW]
VALUES = ["normal", "integers", "huge", "tiny", "duplicates", "negative"]


def values(kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> Any:
    if kind == "integers":
        return rng.integers(-1, 2, shape)
    if kind == "duplicates":
        return rng.standard_normal((2, shape[1]))[rng.integers(0, 2, shape[0])]
    rows = rng.standard_normal(shape)
    return {"huge": 3e38 * np.tanh(rows), "tiny": 1e-44 * rows, "negative": -np.abs(rows)}.get(kind, rows)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Ragged, Ragged, dict[str, Any]]:
    """Queries, documents, and how they are scored."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dim, kind = draw(st.sampled_from([1, 2, 7, 8, 33, 96])), draw(st.sampled_from(VALUES))
    sides = []
    for lengths in (st.lists(st.integers(0, 9), max_size=4), st.lists(st.integers(0, 40), max_size=30)):
        chosen = draw(lengths)
        sides.append(Ragged(values(kind, rng, (sum(chosen), dim)).astype(np.float32), np.cumsum([0, *chosen])))
    scoring: dict[str, Any] = {
        "reduce": draw(st.sampled_from((*spec.MAXIMA, "softmax"))),
        "normalize": draw(st.booleans()),
    }
    if scoring["reduce"] == "softmax":
        scoring["temperature"] = draw(st.sampled_from([1e-4, 0.1, 1, 1e4]))
    elif scoring["reduce"] != "mean" and draw(st.booleans()):
        scoring["query_weights"] = rng.standard_normal(len(sides[0].values)).astype(np.float32)
        if scoring["reduce"] == "symmetric":
            scoring["doc_weights"] = rng.standard_normal(len(sides[1].values)).astype(np.float32)
    if draw(st.booleans()):
        scoring["bias"] = rng.standard_normal(len(sides[1]))
    return sides[0], sides[1], scoring


@given(problems(), st.integers(1, 12), st.sampled_from(BACKENDS))
def test_every_backend_gives_the_specification(
    problem: tuple[Ragged, Ragged, dict[str, Any]], k: int, backend: str
) -> None:
    queries, docs, scoring = problem
    scores = pe.maxsim(queries, docs, **scoring, backend=backend)
    np.testing.assert_array_equal(scores.view(np.int32), spec.scores(queries, docs, **scoring).view(np.int32))
    found = pe.maxsim_topk(queries, docs, k, **scoring, backend=backend)
    conformance.same(found, spec.topk(queries, docs, k, **scoring), backend)


@given(problems())
def test_a_score_does_not_depend_on_the_batch(problem: tuple[Ragged, Ragged, dict[str, Any]]) -> None:
    queries, docs, scoring = problem
    scores = pe.maxsim(queries, docs, **scoring)
    weights = [scoring.pop(name, None) for name in ("query_weights", "doc_weights")]
    bias = scoring.pop("bias", None)
    for q in range(min(2, len(queries))):
        for d in range(min(5, len(docs))):
            own = [
                None if each is None else each[side.offsets[i] : side.offsets[i + 1]]
                for each, side, i in zip(weights, (queries, docs), (q, d))
            ]
            alone = pe.maxsim(
                [queries[q]], [docs[d]], query_weights=own[0], doc_weights=own[1],
                bias=None if bias is None else bias[d : d + 1], **scoring,
            )  # fmt: skip
            assert alone.view(np.int32)[0, 0] == scores.view(np.int32)[q, d]


@given(problems())
def test_tokens_may_be_repeated_and_reordered_within_a_document(
    problem: tuple[Ragged, Ragged, dict[str, Any]],
) -> None:
    queries, docs, scoring = problem
    if scoring["reduce"] == "symmetric":
        return
    doubled = [np.concatenate([doc, doc[::-1]]) for doc in docs]
    scores = pe.maxsim(queries, Ragged.of(doubled, dim=docs.dim), **scoring)
    np.testing.assert_array_equal(scores.view(np.int32), pe.maxsim(queries, docs, **scoring).view(np.int32))

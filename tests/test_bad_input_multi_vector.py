"""What `MultiVectorIndex` refuses: in one sentence, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from pyengine import MultiVectorIndex, Ragged
from pyengine.refining import exact
from tests.multi_vector_cases import DOCS, QUERIES, D, holds, made

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison"),
    pytest.mark.skipif(exact.native() is None, reason="the extension is not built"),
]


BAD: list[tuple[Callable[[MultiVectorIndex], Any], str]] = [
    (lambda _: MultiVectorIndex(0), "dim must be a positive integer below 2^31; got 0"),
    (lambda _: MultiVectorIndex(4, "float64"), "codec must be one of .*; got 'float64'"),
    (lambda _: MultiVectorIndex(4, "float32", None), "originals must be 'ram' for store 'float32'"),
    (lambda _: MultiVectorIndex(4, normalize=cast(Any, 1)), "normalize must be True or False; got 1"),
    (lambda index: index.add(DOCS[1]), r"docs must be a pyengine.Ragged, .*; got shape \(1, 5\)"),
    (
        lambda index: index.add([DOCS[1], np.ones((2, 4))]),
        r"docs\[1\] must have 5 dimensions per row; got shape \(2, 4\)",
    ),
    (lambda index: index.add(Ragged.of([np.ones((2, 4))])), "docs must have 5 dimensions per token; got 4"),
    (lambda index: index.add(DOCS[:2], ids=[1]), "ids must have one entry per document, 2; got 1"),
    (lambda index: index.add(DOCS[:2], ids=[50, 7]), "ids must be new; id 7 is in the index already"),
    (lambda index: index.remove([77]), "ids must be in the index; id 77 is not"),
    (lambda index: index.tokens([77]), "ids must be in the index; id 77 is not"),
    (lambda index: index.search(QUERIES.values), r"queries must be a pyengine.Ragged, .*; got shape \(4, 5\)"),
    (
        lambda index: index.search([np.full((1, D), np.inf)]),
        "queries must be finite in float32; token 0 of row 0 holds",
    ),
    (lambda index: index.search(QUERIES, 0), "k must be a positive integer below 2^31; got 0"),
    (lambda index: index.search(QUERIES, reduce="max"), "reduce must be one of .*; got 'max'"),
    (lambda index: index.search(QUERIES, query_weights=[1.0]), r"query_weights must have shape \(4,\), one per token"),
    (lambda index: index.search(QUERIES, rescore=2), "rescore must come with precision='fast'"),
    (
        lambda index: index.pairs(QUERIES, [[0, 1], [1, 77]]),
        r"pairs\[:, 1\] must hold ids of documents; got 77, which is unknown",
    ),
    (lambda index: index.pairs(QUERIES, [[3, 1]]), r"pairs\[:, 0\] must hold numbers of the 3 queries; got 3"),
    (lambda index: index.pairs(QUERIES, [1, 2]), r"pairs must have shape \[P, 2\]; got shape \(2,\)"),
    (lambda index: index.pairs(QUERIES, [[0.0, 1.0]]), "pairs must hold integers; got dtype float64"),
    (lambda index: index.scores(QUERIES, bias=[1.0]), r"bias must have shape \(40,\)"),
    (lambda index: index.rerank(QUERIES, [[1]]), "candidates must have one list per query, 3; got 1"),
    (lambda index: index.rerank(QUERIES, [[1]] * 3, missing="drop"), "missing must be one of 'error', 'skip'"),
    (lambda index: index.search(QUERIES, reduce="symmetric", query_weights=[1.0] * 4), "an index keeps none"),
    (lambda index: index.replace(DOCS[:1], [77]), "ids must be in the index; id 77 is not"),
    (lambda index: index.replace(DOCS[:1], None), "ids must be given; got None"),
    (
        lambda index: index.replace(iter([DOCS[:1]] * 2), iter([[3], [3]])),
        "ids must be replaced once; id 3 comes again",
    ),
    (lambda index: index.search(iter([DOCS[1]])), r"queries must be a pyengine.Ragged, .*; got a list_iterator"),
    (lambda index: index.add("docs"), r"docs must be a pyengine.Ragged, .*; got a str"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_one_sentence_and_changes_nothing(call: Callable[[MultiVectorIndex], Any], message: str) -> None:
    index = made()
    with pytest.raises((ValueError, TypeError), match=message.replace("2^31", r"2\^31")):
        call(index)
    holds(index, range(40))


def test_half_a_token_beyond_float16_is_refused() -> None:
    with pytest.raises(
        ValueError, match="docs must stay finite in float16; token 1 of row 1 holds a value beyond its range"
    ):
        MultiVectorIndex(D, "float16").add([DOCS[1], np.array([[0.0] * D, [1e6] * D])])

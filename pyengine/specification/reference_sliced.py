"""The specification of gated inner products, in NumPy float64, written to be read. Every backend returns these bits.

A score is the sum over the positions, ascending, at which query and document have the same index, of q_p d_p: one
running sum in float64 from +0.0, each product and each sum rounded on its own. A bias is added in float64, and the
whole is rounded to float32 once (`reference.round_score`). So it is the score of the same vectors as sparse rows
(`SlicedRows.sparse`, `pyengine.specification.reference_sparse`), to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyengine.inputs.sliced_rows import SlicedRows
from pyengine.specification import reference
from pyengine.types import F32, F64, I64, U8, TopK


def gated_sum(queries: F32, query_slices: U8, docs: F32, doc_slices: U8) -> F64:
    """float64 [...]: over the last axis of arrays [..., D], broadcast against each other. What the indices do not let
    count adds +0.0, which changes no sum that began at +0.0."""
    total = np.zeros(np.broadcast_shapes(queries.shape, docs.shape)[:-1])
    for p in range(docs.shape[-1]):
        products = queries[..., p].astype(np.float64) * docs[..., p].astype(np.float64)
        total += np.where(query_slices[..., p] == doc_slices[..., p], products, 0.0)
    return total


def unrounded_scores(queries: SlicedRows, docs: SlicedRows, bias: F64 | None = None) -> F64:
    """float64 [Q, N], ``bias`` [N] included."""
    score = np.empty((len(queries), len(docs)))
    for q, (values, slices) in enumerate(queries):
        score[q] = gated_sum(values, slices, docs.values, docs.slices)
    return score if bias is None else score + bias


def scores(queries: SlicedRows, docs: SlicedRows, bias: F64 | None = None) -> F32:
    """float32 [Q, N]: `unrounded_scores`, rounded once."""
    return reference.round_score(unrounded_scores(queries, docs, bias))


def topk(
    queries: SlicedRows, docs: SlicedRows, k: int, *, ids: I64 | None = None, bias: F64 | None = None, **filters: Any
) -> TopK:
    """Exact top-k of the `scores`. ``ids`` int64 [N] replace row numbers; ``filters``: see `reference.first_k`."""
    return reference.first_k(scores(queries, docs, bias), (len(queries), len(docs)), k, ids, **filters)

"""Pieces that the dense scans share which do more than list the k best: counts between bounds, both directions."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_products(
    docs_ptr, queries_ptr, second_ptr, query_terms_ptr, row, query, n_docs, dims, doc_stride, query_stride,
    terms_stride, PARTS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """float32 [BN, BQ]: scale_q P + second_q P2 of the coded documents ``row`` [BN] and queries ``query`` [BQ], whose
    terms begin with scale and second. Of rows beyond the last document it is that of the last."""
    at = tl.minimum(row, n_docs - 1).to(tl.int64)
    depth = tl.arange(0, BK)
    docs = docs_ptr + at[:, None] * doc_stride + depth[None, :]
    queries = queries_ptr + query[None, :].to(tl.int64) * query_stride + depth[:, None]
    seconds = second_ptr + query[None, :].to(tl.int64) * query_stride + depth[:, None]
    kind: tl.constexpr = tl.int32 if docs_ptr.dtype.element_ty == tl.int8 else tl.float32
    products = tl.zeros([row.shape[0], query.shape[0]], kind)
    others = tl.zeros([row.shape[0], query.shape[0]], kind)
    for start in range(0, dims, BK):
        values = tl.load(docs + start, mask=(start + depth < dims)[None, :], other=0)
        products = tl.dot(values, tl.load(queries + start), products, input_precision="tf32", out_dtype=kind)
        if PARTS == 2:
            others = tl.dot(values, tl.load(seconds + start), others, input_precision="tf32", out_dtype=kind)
    product = tl.load(query_terms_ptr + query)[None, :] * products.to(tl.float32)
    if PARTS == 2:
        product += tl.load(query_terms_ptr + terms_stride + query)[None, :] * others.to(tl.float32)
    return product


@triton.jit
def any_of(flags):
    """Whether any of the flags [M, N] is set."""
    return tl.max(tl.max(flags.to(tl.int32), axis=1), axis=0) > 0

"""The specification of softmax over document tokens, in NumPy float64, written to be read.

Libraries' exp differ in their last bits. This one is made of additions and multiplications, each rounded on its own, so
that all backends return the same bits here too. It is within 2^-50 of e^x, relatively, down to e^-200, and 0 below: a
token of a document whose power is less counts for nothing.
"""

from __future__ import annotations

import math

import numpy as np

from pyengine.specification import reference
from pyengine.types import F32, F64

LEAST = -200.0  # below, the power is 0: so the squares of a pooled vector never underflow
LOG2_E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 6.93147180369123816490e-01, 1.90821492927058770002e-10
NEAREST = 1.5 * 2.0**52  # adding it leaves the nearest integer in the low bits
SERIES = [1 / math.factorial(n) for n in range(13, -1, -1)]


def exp(x: F64) -> F64:
    """e^x of x <= 0, as 2^k e^r with |r| <= ln 2 / 2, by the Taylor series."""
    some = np.maximum(x, LEAST)
    shifted = some * LOG2_E + NEAREST
    k = shifted - NEAREST
    r = (some - k * LN2_HIGH) - k * LN2_LOW
    total = np.full_like(r, SERIES[0])
    for term in SERIES[1:]:
        total = total * r + term
    two_to_k = ((shifted.view(np.int64) + 1023) << 52).view(np.float64)
    return np.where(x < LEAST, 0.0, total * two_to_k)


def softened(products: F64, temperature: float) -> tuple[F64, F64]:
    """Of products [Lq, Ld], Ld >= 1: powers e^((s_ij - M_i) / t) [Lq, Ld], M_i the maximum, and the means [Lq] of the
    products under these weights, M_i + sum_j power_ij (s_ij - M_i) / sum_j power_ij: at most M_i, however rounded."""
    largest = products.max(axis=1, keepdims=True)
    below = products - largest
    with np.errstate(over="ignore"):
        powers = exp(below / temperature)
    means: F64 = largest[:, 0] + reference.lane_sum(powers * below) / reference.lane_sum(powers)
    return powers, means


def pooled(query: F32, doc: F32, products: F64, temperature: float, normalize: bool) -> float:
    """The cosine of a query token [D] with the sum of document tokens [Ld, D] (with ``normalize``, of their unit
    vectors), in their order, each times its power; ``products`` [Ld] are those of the query token with them."""
    factors = softened(products[None], temperature)[0][0]
    if normalize:
        norms = reference.norm(doc)
        factors = np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0)
    pool = np.zeros(len(query))
    for factor, token in zip(factors, doc.astype(np.float64)):
        pool += factor * token
    norms = reference.norm(query) * reference.norm(pool)
    return float(reference.dot(query, pool) / norms) if norms > 0 else 0.0

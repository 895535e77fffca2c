"""l2 far from the origin: documents and queries are coded relative to a centre, which changes no distance.

Codes describe directions, off by r in units of |q||d|: where the mean is large compared with the spread, that is more
than the distances differ by. With d' = d - c and q' = q - c the units are those of the spread.

The bound. A float32 difference is off by a relative 2^-24 in each coordinate (where it is denormal, it is exact), so
|fl(d') - d'| <= 2^-24 |d'|, and the same for q'. In units of |q'||d'| the directions move by 2^-23 each, and |q'| by
2^-24: together less than `MARGIN`, which is added to r. |d'| moves by a relative 2^-24, and norms may anyway be off by
more (`relative_error` in query_block.h). |q'|^2, which all scores of a query share, moves by less than `SHIFT` of it:
here so much is added to bounds, and taken off floors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pyengine.inputs.rows import Rows
from pyengine.problems.problem import Codes, DenseProblem, Documents
from pyengine.refining import exact
from pyengine.types import F32, F64, Candidates

MANY = 4096  # documents: fewer are soon scored in full
SAMPLE = 256  # documents at least, whose mean is the centre
FAR = 4.0  # |c|^2 in units of the mean |d - c|^2
BLOCK_VALUES = 1 << 20
MARGIN = np.float32(2.0**-20)
SHIFT = 2.0**-21


class Centred(NamedTuple):
    """Documents relative to ``centre`` float32 [D]: their codes, and norms float64 [N]."""

    centre: F32
    codes: Codes
    norms: F64
    cache: dict[Any, Any]


def centre(problem: DenseProblem) -> F32 | None:
    """What codes are to be relative to; None where they are right as they are. Only documents that outlive the search
    are coded anew, and none that are themselves codes, which have no rounding of their own to bound."""
    docs = problem.docs
    coarse = isinstance(docs.rows, Rows) and docs.rows.kind not in ("float16", "bfloat16")
    if problem.metric != "l2" or problem.dims != docs.dim or docs.cache is None or coarse or len(docs) < MANY:
        return None
    return docs.derived("centre", lambda: _centre(docs))


def _centre(docs: Documents) -> F32 | None:
    sample = docs.rows[:: len(docs) // SAMPLE].astype(np.float64)
    middle = sample.mean(axis=0)
    spread = np.square(sample - middle).sum(axis=1).mean()
    far: bool = middle @ middle > FAR * spread
    return middle.astype(np.float32) if far else None


def shifted(problem: DenseProblem) -> tuple[DenseProblem, F64]:
    """The problem as it is to be proposed for; and how much its rank scores [Q] may be below those asked for."""
    unmoved = problem, np.zeros(problem.n_queries)
    middle = centre(problem)
    if middle is None:
        return unmoved
    docs = problem.docs
    found = docs.derived("centred", lambda: _coded(docs, middle, problem.num_threads))
    queries = problem.queries - middle
    if found is None or not np.isfinite(queries).all():
        return unmoved
    shift = SHIFT * np.square(queries, dtype=np.float64).sum(axis=1)
    moved = replace(docs, codes=found.codes, norms=found.norms, cache=found.cache)
    floor = None if problem.floor is None else problem.floor - shift
    ceiling = None if problem.ceiling is None else problem.ceiling + shift
    return replace(problem, docs=moved, queries=queries, floor=floor, ceiling=ceiling), shift


def _coded(docs: Documents, middle: F32, num_threads: int) -> Centred | None:
    """None where float32 cannot hold the differences."""
    parts: list[tuple[Any, ...]] = []
    step = max(1, BLOCK_VALUES // docs.dim)
    for start in range(0, len(docs), step):
        rows = np.subtract(docs.rows[start : start + step], middle)
        if not np.isfinite([rows.min(), rows.max()]).all():
            return None
        parts.append((*exact.quantize(rows, num_threads), exact.norms(rows, docs.dim, num_threads)))
    codes, scale, residual, norms = (np.concatenate(each) for each in zip(*parts))
    return Centred(middle, Codes(codes, scale, residual + MARGIN), norms, {})


def restored(found: Candidates, shift: F64) -> Candidates:
    """What was found for the shifted problem, with bounds on the scores asked for."""
    return found._replace(dropped=found.dropped + shift)

"""Both directions of a dense search by one pass of the kernels of `csrc/cuda`. `dense_sides` derives the bounds."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda import cuda_dense, cuda_device, cuda_documents
from pyengine.backends.cuda.cuda_dense import Found
from pyengine.backends.cuda.cuda_device import Argument, Array, Gpu
from pyengine.backends.cuda.cuda_kernels import (
    Coded,
    Pools,
    code_docs,
    code_queries,
    operand_arguments,
    pools,
    tighten,
)
from pyengine.backends.shared.dense_sides import cosines, side_terms
from pyengine.backends.shared.dense_terms import Scale
from pyengine.kernels.dense_both_plan import DenseBoth, plan_dense_both, why_two
from pyengine.problems.problem import DenseProblem
from pyengine.types import F64, Attempt


class Side(NamedTuple):
    """Rows or columns: their ``vectors`` float32 [N, D], ``terms`` float32 [5, N] and ``centre`` float32 [N] on the
    GPU, their pools, and the scale of the bounds there."""

    vectors: Array
    terms: Array
    centre: Array
    pools: Pools
    scale: Scale

    def arguments(self) -> tuple[Argument, ...]:
        """`SIDE_PARAMETERS`."""
        return self.terms, *self.pools.arguments()


def attempt(forth: DenseProblem, back: DenseProblem) -> tuple[Attempt, Attempt] | None:
    """The k best documents of each query of both problems, of which each has the other's documents as its queries.
    None where two searches are better."""
    if why_two(len(forth.docs), len(back.docs), forth.k) is not None:
        return None
    gpu, other = cuda_device.gpu_of(forth.docs), cuda_device.gpu_of(back.docs)
    if gpu.device.number != other.device.number:
        return None
    if gpu.stream != other.stream:  # where the other side's documents may be read
        gpu.device.wait(other.stream)
    rows, columns = scanned(forth, back, gpu)
    return _best(forth, columns, gpu), _best(back, rows, gpu)


def scanned(forth: DenseProblem, back: DenseProblem, gpu: Gpu) -> tuple[Side, Side]:
    """The rows, which are the documents of the first problem, and the columns, which are those of the second: with full
    pools."""
    docs, dims = cuda_documents.originals(forth.docs, gpu).values, forth.dims
    codes, scale, residual, own = code_docs(gpu, docs, dims)
    norms = cuda_documents.norms_of(back.docs, cuda_documents.originals(back.docs, gpu).values, dims, gpu)
    plan = plan_dense_both(gpu.chip, len(codes), len(norms), dims, forth.k)
    rows = _side(back, forth, own, norms, plan.places[0], gpu)
    columns = _side(forth, back, norms, own, plan.places[1], gpu)
    alone = gpu.array(np.array([1.0, 0.0]))
    coded = code_queries(gpu, columns.vectors, alone, "cosine", dims, plan.tile, "int8")
    _scan(gpu, codes, gpu.array(cosines(own, scale, residual, dims)), coded, rows, columns, plan)
    return rows, columns


def _side(problem: DenseProblem, other: DenseProblem, own: F64, others: F64, places: int, gpu: Gpu) -> Side:
    """The queries of a problem, which are the documents of the other one, of these norms float64 [N]; they look for
    others of those norms."""
    values = cuda_documents.originals(other.docs, gpu).values
    terms = side_terms(own, others, problem.metric, problem.dims)
    return Side(
        vectors=values if values.kind == "float32" else gpu.array(problem.queries),
        terms=gpu.array(terms.columns),
        centre=gpu.array(terms.scale.centre),
        pools=pools(gpu, len(own), places),
        scale=terms.scale,
    )


def _scan(gpu: Gpu, codes: Array, terms: Array, coded: Coded, rows: Side, columns: Side, plan: DenseBoth) -> None:
    """Fill the pools of N rows and of Q columns with all that may be among the k best of each. ``codes`` int8 [N, W]
    with ``terms`` float32 [3, N] of cosines; ``coded`` for them."""
    tile = plan.tile
    operands = operand_arguments(codes, coded, plan.dims, tile.stages)
    for first, last in pairwise(plan.ends):
        gpu.launch(
            "dense_both", (last - first, 1), 32 * tile.warps, *operands, terms, coded.terms, coded.terms.stride,
            len(codes), len(columns.vectors), *rows.arguments(), *columns.arguments(),
            first, plan.short, plan.laps, plan.lap_step, plan.diagonal_step, plan.group, plan.rows_long,
            shared=tile.shared_bytes("i8"),
        )  # fmt: skip
        tighten(gpu, rows.pools, rows.centre, plan.k[0])
        tighten(gpu, columns.pools, columns.centre, plan.k[1])


def _best(problem: DenseProblem, side: Side, gpu: Gpu) -> Attempt:
    """The best of what the pools of a problem's queries hold."""
    found = Found(0, side.vectors, side.pools, side.scale)
    return cuda_dense.answered(problem, *cuda_dense.selected(problem, found, None, None, gpu))

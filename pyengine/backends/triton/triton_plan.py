"""What a dense search would do on a GPU, for `explain`: nothing is copied there to say it."""

from __future__ import annotations

import torch

from pyengine.backends.triton import triton_dense
from pyengine.inputs.rows import Rows
from pyengine.kernels.dense_topk import ALIGN
from pyengine.problems.problem import Codes, DenseProblem

WORDS = {
    torch.int8: "int8 codes", torch.float16: "float16 as it is", torch.bfloat16: "bfloat16 as it is",
    torch.float32: "float32, multiplied in tf32",
}  # fmt: skip


def scanned_kind(problem: DenseProblem) -> torch.dtype:
    """What `triton_dense.scanned` would make of the documents."""
    docs = problem.docs
    if isinstance(docs.codes, Codes) and not docs.codes.planes:
        return torch.int8
    kept = docs.rows.kind if isinstance(docs.rows, Rows) else str(getattr(docs.rows, "dtype", "")).split(".")[-1]
    if kept in ("float16", "bfloat16"):
        return torch.float16 if kept == "float16" else torch.bfloat16
    short = docs.cache is None and problem.n_queries < triton_dense.CODED_QUERIES
    return torch.float32 if short else torch.int8


def describe(problem: DenseProblem, width: int) -> tuple[dict[str, str], dict[str, str]]:
    """Facts by name, and what was rejected with the reason."""
    kind, align = scanned_kind(problem), ALIGN
    if kind == torch.int8:
        align = 64
    row_bytes = -(-problem.docs.dim // align) * align * kind.itemsize
    plan = triton_dense.plan(problem, width, kind, row_bytes)
    tile, parts = plan.tile, len(plan.parts) - 1
    facts = {
        "store": f"{problem.docs.store}, scanned as {WORDS[kind]}",
        "tile": f"documents by queries by dimensions: {tile}",
        "launch": f"{tile.warps} warps, {tile.stages} stages",
        "queries": f"{plan.query_block} per pass",
        "parts": f"{plan.n_tiles} tiles in {parts} part{'s'[: parts != 1]}, after each of which thresholds rise",
        "candidates": f"pools of {plan.capacity} per query before widening",
        "filter": _filter(problem),
        "reads": f"{plan.bytes_read:,} bytes or more",
        "computes": f"{plan.operations:,} operations",
    }
    return facts, plan.rejected


def _filter(problem: DenseProblem) -> str:
    said = []
    if problem.mask is not None:
        said.append(f"a bitmap {'for all queries' if len(problem.mask) == 1 else 'of each query'}: no tile is read of "
                    "which nothing is allowed")  # fmt: skip
    if problem.ceiling is not None:
        said.append("what is certainly above the mark is counted, not listed")
    return "; ".join(said) or "none"

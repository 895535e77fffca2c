"""Proposing with torch: query blocks times document chunks, and a running merge of the best bounds (see `float32`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends.shared import float32
from pyengine.backends.shared.float32 import DocumentTerms, QueryTerms
from pyengine.problems.problem import DenseProblem
from pyengine.types import F64, U8, Candidates

BLOCK = {"cpu": (256, 4096), "cuda": (1024, 32768)}  # queries and documents per product; documents a multiple of 8
TF32, BF16 = 2.0**-10, 2.0**-7  # relative error of a truncated input
ROUNDING = {  # the settings of torch, and of oneDNN's environment
    **dict.fromkeys(("highest", "ieee", "none", "STRICT"), 0.0),
    **dict.fromkeys(("high", "tf32", "TF32"), TF32),
    **dict.fromkeys(("medium", "bf16", "BF16"), BF16),
}


class _Writable:
    """A read-only array with the flag off: torch warns about what it only reads."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def tensor(array: Any) -> Tensor:
    """An array or a tensor as a tensor, never copied."""
    if checks.is_torch(array):
        detached: Tensor = array.detach()
        return detached
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


def rounding(device: torch.device) -> float:
    """How far the inputs of a float32 product may be rounded before it, by the settings in force; inf if unknown."""
    try:
        names = [torch.get_float32_matmul_precision()]
    except RuntimeError:  # the newer settings were used beside this one, and say it all
        names = []
    product = torch.backends.cuda.matmul if device.type == "cuda" else getattr(torch.backends.mkldnn, "matmul", None)
    names.append(getattr(product, "fp32_precision", "none"))  # torch 2.9 and later
    if device.type == "cuda":
        names += ["TF32"] * (os.environ.get("NVIDIA_TF32_OVERRIDE") == "1")
    else:
        names += [os.environ.get(f"{owner}_DEFAULT_FPMATH_MODE") or "STRICT" for owner in ("ONEDNN", "DNNL")]
    return max(ROUNDING.get(name, np.inf) for name in names)


def norms(rows: Tensor) -> F64:
    """float64 [N], in blocks."""
    found = rows.new_empty(len(rows), dtype=torch.float64)
    scratch = rows.new_empty((BLOCK[rows.device.type][1], rows.shape[1]), dtype=torch.float64)
    for start in range(0, len(rows), len(scratch)):
        part = rows[start : start + len(scratch)]
        torch.linalg.vector_norm(scratch[: len(part)].copy_(part), dim=1, out=found[start : start + len(part)])
    return found.cpu().numpy()


def document_terms(problem: DenseProblem, rows: Tensor) -> DocumentTerms:
    """What `float32.document_terms` says of these rows [N, dims], remembered where the corpus outlives the search."""
    docs, error = problem.docs, float32.error_factor(problem.dims, rounding(rows.device))

    def build() -> DocumentTerms:
        known = docs.norms if problem.dims == docs.dim else None
        lengths = docs.derived(("torch norms", problem.dims), lambda: norms(rows)) if known is None else known
        return float32.document_terms(lengths, problem.bias, problem.metric, error)

    return build() if problem.bias is not None else docs.derived(("torch", problem.metric, problem.dims, error), build)


def propose(problem: DenseProblem, width: int) -> Candidates:
    """The documents of the ``width`` best bounds of each query, and the bound that comes next."""
    rows = tensor(problem.docs.vectors())[:, : problem.dims]
    docs = document_terms(problem, rows)
    queries = float32.query_terms(problem.queries[:, : problem.dims], problem.metric, docs.size)
    pick, mask = None, problem.mask
    if mask is not None and len(mask) == 1:
        pick, mask = _allowed(mask, len(rows)).to(rows.device), None
    best = _best_bounds(rows, docs, queries, pick, mask, width + 1)
    found = best.columns if pick is None else pick[best.columns]
    return float32.candidates(problem, width, best.bounds.cpu().numpy(), found.cpu().numpy(), docs, queries)


class Best(NamedTuple):
    """The best bounds so far, float32 [Q, M] falling, and where they are, int64 [Q, M]."""

    bounds: Tensor
    columns: Tensor

    def merge(self, bounds: Tensor, start: int, keep: int) -> Best:
        """With those of the columns from ``start`` on."""
        values, columns = bounds.topk(min(keep, bounds.shape[1]), sorted=False)
        values = torch.cat([self.bounds, values], dim=1)
        columns = torch.cat([self.columns, columns + start], dim=1)
        values, order = values.topk(min(keep, values.shape[1]))
        return Best(values, columns.gather(1, order))


def _best_bounds(
    rows: Tensor, docs: DocumentTerms, queries: QueryTerms, pick: Tensor | None, mask: U8 | None, keep: int
) -> Best:
    """The ``keep`` best bounds of each query, among the rows ``pick`` or those that its ``mask`` allows."""
    step = BLOCK[rows.device.type][0]
    width = -(-queries.rows.shape[1] // 8) * 8  # aligned for the matrix product
    left = rows.new_zeros((len(queries.rows), width))
    left[:, : queries.rows.shape[1]] = torch.from_numpy(queries.rows)
    blocks = [left[start : start + step] for start in range(0, max(1, len(left)), step)]
    best = [Best(block[:, :0], block[:, :0].long()) for block in blocks]
    for start, chunk in _chunks(rows, tensor(docs.columns).to(rows.device), pick, width):
        for i, block in enumerate(blocks):
            bounds = block @ chunk.T
            if mask is not None:
                bounds.masked_fill_(_masked(mask[i * step : i * step + len(block)], start, bounds), -torch.inf)
            best[i] = best[i].merge(bounds, start, keep)
    return Best(torch.cat([each.bounds for each in best]), torch.cat([each.columns for each in best]))


def _chunks(rows: Tensor, columns: Tensor, pick: Tensor | None, width: int) -> Iterator[tuple[int, Tensor]]:
    """The documents as rows [w d, c, r, 0...] of that width, a chunk at a time, each with its first column number."""
    count, dims = len(rows) if pick is None else len(pick), rows.shape[1]
    step = BLOCK[rows.device.type][1]
    buffer = rows.new_zeros((min(step, count), width))
    for start in range(0, count, step):
        part = slice(start, start + step) if pick is None else pick[start : start + step]
        source, terms = rows[part], columns[part]
        chunk = buffer[: len(source)]
        torch.mul(source, terms[:, :1], out=chunk[:, :dims])
        chunk[:, dims : dims + 2] = terms[:, 1:]
        yield start, chunk


def _allowed(mask: U8, n_docs: int) -> Tensor:
    """The row numbers, int64 [M], that a shared mask [1, ceil(N/8)] allows."""
    return torch.from_numpy(np.flatnonzero(checks.unpack(mask, n_docs)[0]))


def _masked(mask: U8, start: int, bounds: Tensor) -> Tensor:
    """Which of these bounds [Q, M], of the documents from ``start`` on, the masks [Q, ceil(N/8)] forbid."""
    return torch.from_numpy(~checks.unpack(mask[:, start // 8 :], bounds.shape[1])).to(bounds.device)

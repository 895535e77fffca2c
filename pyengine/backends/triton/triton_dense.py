"""Dense search on the GPU: documents as they are kept there, and the steps of a search, none of which waits for the
host but the last (`triton_steps`). `dense_terms` derives the bounds."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine import checks
from pyengine.backends.shared.dense_terms import DocumentTerms, Lengths, document_terms, scale_of
from pyengine.backends.shared.parts import Footprint, Share, vector_bytes
from pyengine.backends.torch import torch_float64
from pyengine.backends.torch.torch_float32 import tensor
from pyengine.backends.triton import triton_device, triton_workspace
from pyengine.backends.triton.triton_answers import id_places, on_host
from pyengine.backends.triton.triton_steps import Found, Originals, Steps
from pyengine.backends.triton.triton_workspace import Workspace
from pyengine.inputs.rows import Rows
from pyengine.kernels import refine as refining
from pyengine.kernels import selection
from pyengine.kernels.chips import Chip
from pyengine.kernels.dense_plan import DenseScan, limited_tile, plan_dense_scan
from pyengine.kernels.dense_topk import ALIGN, ScanDocuments, code_docs
from pyengine.problems.problem import Codes, DenseProblem, Documents
from pyengine.refining import exact
from pyengine.specification import reference
from pyengine.types import F32, Attempt, Candidates, TopK

NAMES = {torch.int8: "i8", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
TERMS = 32  # bytes of a document beside its vector
CODED_QUERIES = 64  # so many make it worth coding documents that do not outlive the search


class Scanned(NamedTuple):
    """What is scanned, ``values`` [N, D], and what is known of it."""

    values: Tensor
    lengths: Lengths


def footprint(problem: DenseProblem) -> Footprint:
    """What documents of the host take on the device."""
    own, codes = vector_bytes(problem.docs)
    scanned = Share(("scanned", problem.dims, False), codes + TERMS)
    return Footprint((Share("originals", own), scanned), len(problem.docs))


def originals(docs: Documents) -> Originals:
    """The vectors on the device: where they are, or a copy that lasts as long as the corpus."""
    if docs.device is not None:
        return Originals(docs.rows)
    return triton_device.mirrored(docs, "originals", lambda device: _copied(docs, device))


def _copied(docs: Documents, device: torch.device) -> Originals:
    rows = docs.rows
    if isinstance(rows, Rows) and rows.kind in ("float16", "bfloat16"):
        halves = tensor(rows.data)
        return Originals(_padded(halves if rows.kind == "float16" else halves.view(torch.bfloat16), device))
    if isinstance(rows, Rows) and rows.kind == "codes":
        return Originals(_signed(rows.data, device), tensor(rows.step).to(device))
    return Originals(_padded(tensor(rows[:] if isinstance(rows, Rows) else rows), device))


def _padded(rows: Tensor, device: torch.device) -> Tensor:
    """A copy, unless it is there, whose rows begin at multiples of 16 elements: seen as [N, D]."""
    count, dim = rows.shape
    if dim % ALIGN == 0:
        return rows.to(device)
    wide = torch.empty((count, -(-dim // ALIGN) * ALIGN), dtype=rows.dtype, device=device)
    wide[:, dim:] = 0
    wide[:, :dim] = rows
    return wide[:, :dim]


def _signed(codes: Any, device: torch.device) -> Tensor:
    """int8 codes of bytes biased by 128."""
    return (tensor(codes).to(device) ^ 128).view(torch.int8)


def scanned(problem: DenseProblem) -> Scanned:
    """What is scanned for a problem. Raises ArithmeticError for documents with NaN or inf that nobody has looked at."""
    docs, dims = problem.docs, problem.dims
    short = docs.cache is None and problem.n_queries < CODED_QUERIES
    found = triton_device.mirrored(docs, ("scanned", dims, short), lambda device: _scanned(docs, dims, short, device))
    if not docs.checked:
        good = triton_device.mirrored(docs, ("finite", dims), lambda _: bool(found.lengths.norms.isfinite().all()))
        if not good:
            raise ArithmeticError
    return found


def _scanned(docs: Documents, dims: int, short: bool, device: torch.device) -> Scanned:
    if isinstance(docs.codes, Codes) and not docs.codes.planes:
        kept, norms = docs.codes, _norms(docs, dims, device)
        whole = norms if dims == docs.dim else _norms(docs, docs.dim, device)
        scale, residual = (tensor(each).to(device) for each in (kept.scale, kept.residual))
        same = isinstance(docs.rows, Rows) and docs.rows.kind == "codes"
        values = originals(docs).values if same else _signed(kept.codes, device)
        return Scanned(values, Lengths(norms, scale, residual, whole))
    values = originals(docs).values
    if values.dtype == torch.float32 and not short:
        codes, scale, residual, norms = code_docs(values, dims)
        return Scanned(codes, Lengths(norms, scale, residual, norms))
    if values.dtype == torch.int8:
        raise TypeError("codes that are the vectors come with a scale and a residual")
    return Scanned(values, Lengths(_norms(docs, dims, device)))


def _norms(docs: Documents, dims: int, device: torch.device) -> Tensor:
    """float64 [N] of the first ``dims`` dimensions."""
    if docs.norms is not None and dims == docs.dim:
        return tensor(docs.norms).to(device)
    if docs.device is None:
        return tensor(exact.norms(docs.rows, dims, checks.thread_count(None))).to(device)
    norms: Tensor = torch.linalg.vector_norm(docs.rows[:, :dims], dim=1, dtype=torch.float64)
    return norms


def terms(problem: DenseProblem, known: Scanned) -> DocumentTerms:
    """The terms of the documents, kept where they do not depend on a bias."""
    docs, bias, device = problem.docs, problem.bias, known.values.device

    def build(_: torch.device) -> DocumentTerms:
        there = None if bias is None else tensor(bias).to(device)
        return document_terms(known.lengths, known.values.dtype == torch.float32, there, problem.metric, problem.dims)

    key = ("terms", problem.metric, problem.dims, known.values.dtype)
    return triton_device.mirrored(docs, key, build) if bias is None else build(device)


def plan(problem: DenseProblem, width: int, kind: torch.dtype, row_bytes: int) -> DenseScan:
    """The tile, the pools and the parts of the scan."""
    chip = triton_device.chip(triton_device.device_of(problem.docs))
    docs = problem.docs
    return plan_dense_scan(chip, NAMES[kind], problem.n_queries, len(docs), problem.dims, problem.k, row_bytes, width)


def room_for(problem: DenseProblem, width: int) -> AbstractContextManager[Workspace]:
    """Room for one search."""
    mask = None if problem.mask is None else problem.mask.shape
    return triton_workspace.room_for(
        problem.docs, problem.n_queries, problem.k, problem.dims, width, problem.floor is None,
        problem.ceiling is None, mask,
    )  # fmt: skip


def steps(problem: DenseProblem, width: int, room: Workspace, order: Tensor | None = None) -> Steps:
    """What the launches read, copied to the device where it comes with the search."""
    known = scanned(problem)
    values, own, n_queries = known.values, terms(problem, known), problem.n_queries
    chosen = plan(problem, width, values.dtype, values.stride(0) * values.itemsize)
    none = lambda: torch.full((n_queries,), -torch.inf, dtype=torch.float64, device=values.device)  # noqa: E731
    made = Steps(
        docs=ScanDocuments(values, own.columns),
        units=own.units,
        originals=originals(problem.docs),
        plan=chosen,
        chip=triton_device.chip(values.device),
        n_queries=n_queries,
        k=problem.k,
        metric=problem.metric,
        floor=room.kept("no floor", none) if problem.floor is None else room.copied("floor", problem.floor),
        mask=None if problem.mask is None else room.copied("mask", problem.mask),
        bias=None if problem.bias is None else room.copied("bias", problem.bias),
        order=order,
    )
    return made if problem.ceiling is None else _limited(problem, made)


def documents(problem: DenseProblem) -> tuple[ScanDocuments, Tensor]:
    """The documents as this scan takes them, with offsets, be they zero; and the units of their terms."""
    known = scanned(problem)
    columns, units = terms(problem, known)
    if len(columns) == 3:
        key = ("terms with offsets", problem.metric, problem.dims, known.values.dtype)
        columns = triton_device.mirrored(
            problem.docs, key, lambda _: torch.cat([columns, torch.zeros_like(columns[:2])])
        )
    return ScanDocuments(known.values, columns), units


def allowing(problem: DenseProblem, device: torch.device) -> Tensor:
    """uint8 [1 or Q, ceil(N / 8)]: the mask, one that allows everything where there is none."""
    if problem.mask is not None:
        return tensor(problem.mask).to(device)
    n_bytes = -(-len(problem.docs) // 8)
    return triton_device.mirrored(
        problem.docs, "everything", lambda there: torch.full((1, n_bytes), 255, dtype=torch.uint8, device=there)
    )


def limitable(problem: DenseProblem) -> DenseProblem:
    """The problem; its documents are scanned as if they outlived the search, where that is up to a ceiling."""
    docs = problem.docs
    keeps = problem.ceiling is None or docs.cache is not None
    return problem if keeps else replace(problem, docs=replace(docs, cache={}))


def limited_plan(plan: DenseScan, docs: ScanDocuments, chip: Chip) -> DenseScan:
    """The plan with the tile that a scan up to a ceiling has."""
    return replace(plan, tile=limited_tile(chip, NAMES[docs.values.dtype]))


def _limited(problem: DenseProblem, made: Steps) -> Steps:
    """The same steps, which list nothing that is certainly above the problem's ceiling."""
    (docs, _), device = documents(problem), made.floor.device
    high = tensor(problem.ceiling).to(device)
    plan = limited_plan(made.plan, docs, made.chip)
    return replace(made, docs=docs, plan=plan, mask=allowing(problem, device), ceiling=high)


def propose(problem: DenseProblem, width: int) -> Candidates:
    """What may be among the k best, by the scan, on the host."""
    if problem.n_queries == 0 or len(problem.docs) == 0:
        return exact.everything(problem)
    problem = limitable(problem)
    with room_for(problem, width) as room:
        queries, made = room.copied("queries", problem.queries), steps(problem, width, room)
        parts = [listed(problem, found) for found in made.scans(queries, room)]
    lengths = np.concatenate([part.offsets for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows, estimates, dropped = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "estimates", "dropped")
    )
    return Candidates(rows, offsets, estimates, dropped)


def listed(problem: DenseProblem, found: Found) -> Candidates:
    """The pools of a block as candidates, with the number of each query's in place of offsets."""
    pools = found.pools
    counts = pools.counts.cpu().numpy().astype(np.int64)
    longest = int(counts.max())
    rows, upper, lower = (each[:, :longest].cpu().numpy() for each in pools[:3])
    scale = scale_of(found.coded.scaling[: len(counts)].cpu().numpy(), problem.dims)
    held = np.arange(longest) < counts[:, None]
    rank = scale.estimates(lower, upper)[held]
    estimates = reference.round_score(-rank if problem.metric == "l2" else rank)
    return Candidates(
        rows[held].astype(np.int64), counts, estimates, scale.dropped(selection.dropped(pools).cpu().numpy())
    )


def attempt(problem: DenseProblem, asked: DenseProblem, width: int) -> Attempt | None:
    """The whole search on the device, and one copy to the host, where nothing is filtered but by the mask."""
    if problem.n_queries == 0 or len(problem.docs) == 0:
        return None
    with room_for(asked, width) as room:
        queries, made = room.copied("queries", asked.queries), steps(asked, width, room, id_places(asked))
        return on_host(problem, made.answer(queries, room).packed)


def refine(problem: DenseProblem, candidates: Candidates) -> F32:
    """float32 [M]: the specification's scores of the candidates."""
    device, counts = triton_device.device_of(problem.docs), np.diff(candidates.offsets)
    with triton_device.launching_on(device):
        arrays = candidates.rows.astype(np.int32), candidates.offsets[:-1], counts.astype(np.int32)
        queries, rows, starts, lengths = (tensor(each).to(device, copy=True) for each in (problem.queries, *arrays))
        scores, kept = torch.empty(len(rows), dtype=torch.float32, device=device), originals(problem.docs)
        bias = None if problem.bias is None else tensor(problem.bias).to(device)
        refining.refine(
            queries, kept.values, kept.step, bias, rows, starts, lengths, scores, int(counts.max(initial=0)),
            problem.metric, problem.dims, triton_device.chip(device),
        )  # fmt: skip
        return np.asarray(scores.cpu().numpy())


def score_everything(problem: DenseProblem) -> TopK:
    """Top-k with every document scored by the specification, where the documents are."""
    if problem.docs.device is None:
        return exact.scan(problem)
    return torch_float64.scan(problem)

"""Token vectors as the MaxSim kernels take them: int8 or float16 codes on the device, with what coding leaves out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine.backends import triton_device
from pyengine.inputs.rows import Rows
from pyengine.kernels import maxsim_plan, maxsim_refine, maxsim_topk
from pyengine.kernels.maxsim_plan import SLOTS, Tile, lay
from pyengine.kernels.maxsim_refine import TokenSets
from pyengine.problems.problem import Codes
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.types import F64, I64

BLOCK = 1 << 16  # tokens that are coded at a time
MARGIN = 1 + 2.0**-30  # beyond what float64 rounds in lengths and errors
UNDERFLOW = 2.0**-90  # float32 loses less than this, of a unit, for each token and dimension


class Coded(NamedTuple):
    """Tokens x ~ factor codes: ``codes`` int8 or float16 [T, dims], ``factor``, ``error`` >= |x - factor codes| and
    ``size`` >= |x|, float64 [T]; of unit vectors where they are normalised."""

    codes: Tensor
    factor: Tensor
    error: Tensor
    size: Tensor


class Mirror(NamedTuple):
    """The tokens of a corpus on the device. ``weights`` float32 [T] are the factors, in units of the largest."""

    coded: Coded
    weights: Tensor
    unit: float
    offsets: Tensor  # int64 [N + 1]
    every: Tensor  # int64 [N]: all row numbers
    reach: Tensor  # float64 [N, 2]: the largest |d_j| + r_j, and r_j, of each document
    zeros: Tensor  # float64 [N]


def form_of(docs: TokenDocuments) -> str:
    """How documents are coded: by the int8 codes that they come with, else as float16 values."""
    codes = docs.tokens.codes
    return "int8" if isinstance(codes, Codes) and not codes.planes else "float16"


def mirror(problem: MaxSimProblem) -> Mirror:
    """The documents of a problem on the device, kept as long as their corpus keeps anything."""
    docs, form, normalize = problem.docs, form_of(problem.docs), problem.normalize
    return triton_device.mirrored(docs, ("maxsim", form, normalize), lambda device: _mirror(docs, normalize, device))


def _mirror(docs: TokenDocuments, normalize: bool, device: torch.device) -> Mirror:
    coded = _stored(docs, normalize, device) if form_of(docs) == "int8" else _coded_rows(docs, normalize, device)
    offsets = torch.from_numpy(docs.offsets.copy()).to(device)
    unit = float(coded.factor.max()) if len(coded.factor) else 0.0
    unit = unit if unit > 0 else 1.0
    lengths = offsets.diff()
    reach = [segments("max", each, lengths) for each in (coded.size + coded.error, coded.error)]
    return Mirror(
        coded,
        (coded.factor / unit).float(),
        unit,
        offsets,
        torch.arange(len(docs), device=device),
        torch.stack(reach, dim=1),
        torch.zeros(len(docs), dtype=torch.float64, device=device),
    )


def segments(reduce: str, values: Tensor, lengths: Tensor) -> Tensor:
    """The "max" or "sum" of each segment of values >= 0; 0 of an empty one. Lengths that fit are not checked, for which
    torch would wait."""
    if not len(values):
        return values.new_zeros(len(lengths))
    return torch.segment_reduce(values, reduce, lengths=lengths, axis=0, unsafe=True, initial=0.0)


def _stored(docs: TokenDocuments, normalize: bool, device: torch.device) -> Coded:
    """By the codes that the corpus has."""
    codes, dims = docs.tokens.codes, maxsim_plan.padded(docs.dim)
    assert isinstance(codes, Codes)
    signed = (codes.codes[:, :dims] ^ 128).view(np.int8)
    factor, error = (torch.from_numpy(each.astype(np.float64)).to(device) for each in (codes.scale, codes.residual))
    lengths = _lengths(docs, device)
    size = (lengths > 0).double() if normalize else lengths
    return Coded(torch.from_numpy(signed).to(device), factor * size, error * size * MARGIN, size * MARGIN)


def _lengths(docs: TokenDocuments, device: torch.device) -> Tensor:
    known = docs.tokens.norms
    if known is not None:
        return torch.from_numpy(known.astype(np.float64)).to(device)
    rows = docs.tokens.rows
    parts = [_norm(torch.from_numpy(rows[at : at + BLOCK]).to(device)) for at in range(0, len(rows), BLOCK)]
    return torch.cat([torch.empty(0, dtype=torch.float64, device=device), *parts])


def _coded_rows(docs: TokenDocuments, normalize: bool, device: torch.device) -> Coded:
    """By float16 values, block by block."""
    rows, dims = docs.tokens.rows, maxsim_plan.padded(docs.dim)
    whole = Coded(
        torch.zeros((len(rows), dims), dtype=torch.float16, device=device),
        *(torch.empty(len(rows), dtype=torch.float64, device=device) for _ in range(3)),
    )
    for start in range(0, len(rows), BLOCK):
        block = np.ascontiguousarray(rows[start : start + BLOCK])
        for kept, part in zip(whole, code(torch.from_numpy(block).to(device), "float16", normalize)):
            kept[start : start + BLOCK] = part
    return whole


def _norm(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows.double(), dim=1)
    return lengths


def code(rows: Tensor, form: str, normalize: bool) -> Coded:
    """Code tokens float32 [t, D]. What is left out is measured."""
    exact = rows.double()
    largest = exact.abs().amax(dim=1)
    factor = largest / 127 if form == "int8" else torch.frexp(largest).exponent.double().exp2()
    factor = torch.where(largest > 0, factor, 1.0)
    scaled = exact / factor[:, None]
    codes = scaled.round().to(torch.int8) if form == "int8" else scaled.half()
    error, size = _norm(exact - factor[:, None] * codes.double()), _norm(exact)
    if normalize:  # what this rounds is far below what is left out, or covered by `maxsim_topk.rounding`
        shrink = torch.where(size > 0, 1 / size, 0.0)
        factor, error, size = factor * shrink, error * shrink, (size > 0).double()
    error, size = error * MARGIN, size * MARGIN
    wide = torch.zeros((len(rows), maxsim_plan.padded(rows.shape[1])), dtype=codes.dtype, device=rows.device)
    wide[:, : rows.shape[1]] = codes
    return Coded(wide, factor, error, size)


def coefficients(problem: MaxSimProblem) -> tuple[F64, F64]:
    """a [Tq] and b [Td] of the score, sum_i a_i M_i + sum_j b_j C_j; b is empty where there is no second sum."""
    symmetric = problem.reduce == "symmetric"
    weights = problem.query_weights, problem.doc_weights
    sides = (problem.queries.offsets, problem.docs.offsets)[: 1 + symmetric]

    def plain(lengths: np.ndarray) -> F64:
        return np.repeat(1 / np.maximum(1, np.where(problem.reduce == "sum", 1, lengths)), lengths)

    each = [plain(np.diff(n)) if weight is None else weight.astype(np.float64) for weight, n in zip(weights, sides)]
    return (each[0] / 2, each[1] / 2) if symmetric else (each[0], np.empty(0))


def coded_tokens(problem: MaxSimProblem, own: Mirror, b: F64) -> tuple[maxsim_topk.CodedTokens, float]:
    """The documents as the scan takes them, with the unit of their shares."""
    device, coded = own.weights.device, own.coded
    sums, shares, unit = torch.zeros_like(own.reach), own.weights, 1.0
    if len(b):
        share = torch.from_numpy(b).to(device)
        lengths = own.offsets.diff()
        size = share.abs()
        sums = torch.stack(
            [segments("sum", size * each, lengths) for each in (coded.size + coded.error, coded.error)], dim=1
        )
        product = share * coded.factor
        unit = float(product.abs().max()) or 1.0
        shares = (product / unit).float()
    biases = own.zeros if problem.bias is None else torch.from_numpy(problem.bias).to(device)
    terms = torch.cat([own.reach, sums * MARGIN], dim=1)
    return maxsim_topk.CodedTokens(coded.codes, own.weights, shares, own.offsets, terms, biases), unit


def query_panels(
    problem: MaxSimProblem, a: F64, units: tuple[float, float], tile: Tile, form: str, device: torch.device
) -> maxsim_topk.QueryPanels:
    """The queries in panels, with ``units`` of the documents' weights and shares."""
    queries, symmetric = problem.queries, problem.reduce == "symmetric"
    laid = lay(np.diff(queries.offsets).tolist(), tile.block_m, alone=symmetric)
    places = torch.tensor([place for each in laid.places for place in each], dtype=torch.int64, device=device)
    coded = code(torch.from_numpy(queries.values).to(device), form, problem.normalize)
    lengths = torch.from_numpy(np.diff(queries.offsets)).to(device)
    sides = (queries.offsets, problem.docs.offsets)[: 1 + symmetric]
    dims, most = coded.codes.shape[1], int(max(np.diff(side).max(initial=0) for side in sides))
    share = torch.from_numpy(a).to(device)
    reach = coded.size + coded.error
    error = coded.error + maxsim_topk.rounding(dims, most, form) * reach
    product = share * coded.factor
    unit, factor_unit = (segments("max", each, lengths) for each in (product.abs(), coded.factor))
    unit, factor_unit = (torch.where(each > 0, each, 1.0) for each in (unit, factor_unit))
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths, output_size=len(share))
    terms = torch.stack(
        [
            unit * units[0],
            factor_unit * units[1],
            segments("sum", share.abs() * error, lengths) * MARGIN,
            segments("sum", share.abs() * coded.size, lengths) * MARGIN,
            segments("max", error, lengths),
            segments("max", coded.size, lengths),
            (unit * units[0] + symmetric * factor_unit * units[1]) * (most * dims * UNDERFLOW),
        ],
        dim=1,
    )

    def spread(values: Tensor, fill: float) -> Tensor:
        found = values.new_full((laid.count * tile.block_m, *values.shape[1:]), fill)
        found[places] = values
        return found

    begins = torch.tensor(laid.queries, dtype=torch.int32, device=device)
    group = torch.searchsorted(begins, owner.int(), right=True) - 1
    return maxsim_topk.QueryPanels(
        spread(coded.codes, 0),
        spread((product / unit[owner]).float(), 0.0),
        spread((coded.factor / factor_unit[owner]).float(), 0.0),
        spread((owner - begins[group]).int(), SLOTS),
        torch.tensor(laid.firsts, dtype=torch.int32, device=device),
        begins,
        lengths.int(),
        terms,
    )


def exact_docs(problem: MaxSimProblem) -> TokenSets:
    """The documents' tokens as they define the scores, kept on the device as the codes are."""
    docs = problem.docs
    sets = triton_device.mirrored(docs, "exact tokens", lambda device: _exact(docs, device))
    if not problem.normalize:
        return sets
    known = docs.tokens.norms

    def norms(device: torch.device) -> Tensor:
        return maxsim_refine.norms(sets) if known is None else torch.from_numpy(known.copy()).to(device)

    return sets._replace(norms=triton_device.mirrored(docs, "exact norms", norms))


def _exact(docs: TokenDocuments, device: torch.device) -> TokenSets:
    rows, step = docs.tokens.rows, None
    if isinstance(rows, Rows) and rows.kind == "codes":
        assert rows.step is not None
        step = torch.from_numpy(rows.step.copy()).to(device)
        values = torch.from_numpy((rows.data ^ 128).view(np.int8)).to(device)
    elif isinstance(rows, Rows) and rows.kind == "bfloat16":
        values = torch.from_numpy(rows.data.view(np.int16).copy()).view(torch.bfloat16).to(device)
    elif isinstance(rows, Rows) and rows.kind == "float16":
        values = torch.from_numpy(rows.data.copy()).to(device)
    else:
        values = torch.from_numpy(np.array(rows[:])).to(device)
    return _sets(values, docs.offsets, docs.dim, device)._replace(step=step)


def exact_queries(problem: MaxSimProblem) -> TokenSets:
    """The queries' tokens on the device."""
    queries, device = problem.queries, triton_device.device_of(problem.docs)
    sets = _sets(torch.from_numpy(queries.values).to(device), queries.offsets, problem.docs.dim, device)
    return sets._replace(norms=maxsim_refine.norms(sets)) if problem.normalize else sets


def _sets(values: Tensor, offsets: I64, dim: int, device: torch.device) -> TokenSets:
    longest = int(np.diff(offsets).max(initial=0))
    return TokenSets(values, torch.from_numpy(offsets.copy()).to(device), dim, longest)

"""Token vectors as the MaxSim kernels take them: codes on the device, with what coding leaves out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyengine.backends.shared import token_terms
from pyengine.backends.shared.parts import Footprint, Share, vector_bytes
from pyengine.backends.shared.token_terms import MARGIN, Coded, segments
from pyengine.backends.triton import triton_device, triton_packed
from pyengine.inputs.rows import Rows
from pyengine.kernels import maxsim_plan, maxsim_refine, maxsim_topk
from pyengine.kernels.maxsim_codes import PackedTokens
from pyengine.kernels.token_values import TokenSets
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.types import I64

BLOCK = 1 << 16  # tokens that are coded at a time
TERMS, DOCUMENT = 32, 64  # bytes of a token beside its vectors, and of a document


class Mirror(NamedTuple):
    """The tokens of a corpus on the device. ``weights`` float32 [T] are the factors, in units of the largest."""

    codes: Tensor | PackedTokens
    weights: Tensor
    unit: float
    offsets: Tensor  # int64 [N + 1]
    counts: Tensor  # int32 [N]: numbers of tokens
    reach: Tensor  # float64 [N, 2]: the largest |d_j| + r_j, and r_j, of each document
    zeros: Tensor  # float64 [N]


def form_of(docs: TokenDocuments) -> str:
    """How documents are scanned: by the int8 codes that they come with, decoded from a few bits, where these are the
    tokens, else as float16 values."""
    rows = docs.tokens.rows
    if isinstance(rows, Rows) and rows.planes:
        return maxsim_plan.packed_form(rows.planes)
    return "float16" if token_terms.codes_of(docs) is None else "int8"


def query_form(form: str) -> str:
    """How queries are coded for documents of this form."""
    return "int8" if form == "int8" else "float16"


def footprint(problem: MaxSimProblem) -> Footprint:
    """What documents of the host take on the device: tokens as they are, and as they are scanned, or their few bits
    once."""
    docs, form, rows = problem.docs, form_of(problem.docs), problem.docs.tokens.rows
    scanned = ("maxsim", form, problem.normalize)
    if isinstance(rows, Rows) and rows.planes:
        shares = Share("packed tokens", 0, maxsim_plan.token_bytes(docs.dim, form)), Share(scanned, DOCUMENT, 8)
    else:
        own = vector_bytes(docs.tokens)[0] if problem.reduce in token_terms.SCANNED else 0  # else refined on the host
        codes = maxsim_plan.padded(docs.dim) * (1 if form == "int8" else 2)
        shares = Share("exact tokens", 0, own), Share(scanned, DOCUMENT, codes + TERMS)
    return Footprint(shares, len(docs), docs.offsets)


def mirror(problem: MaxSimProblem) -> Mirror:
    """The documents of a problem on the device, kept as long as their corpus keeps anything."""
    docs, form, normalize = problem.docs, form_of(problem.docs), problem.normalize
    return triton_device.mirrored(docs, ("maxsim", form, normalize), lambda device: _mirror(docs, normalize, device))


def _mirror(docs: TokenDocuments, normalize: bool, device: torch.device) -> Mirror:
    form = form_of(docs)
    make = {"int8": _stored, "float16": _coded_rows}.get(form, _packed_rows)
    coded = make(docs, normalize, device)
    offsets = torch.from_numpy(docs.offsets.copy()).to(device)
    unit = float(coded.factor.max()) if len(coded.factor) else 0.0
    unit = unit if unit > 0 else 1.0
    return Mirror(
        coded.codes,
        (coded.factor / unit).float(),
        unit,
        offsets,
        offsets.diff().int(),
        token_terms.reach(coded, offsets.diff()),
        torch.zeros(len(docs), dtype=torch.float64, device=device),
    )


def _stored(docs: TokenDocuments, normalize: bool, device: torch.device) -> Coded:
    """By the codes that the corpus has."""
    codes, dims = token_terms.codes_of(docs), maxsim_plan.padded(docs.dim)
    assert codes is not None
    signed = torch.from_numpy((codes.codes[:, :dims] ^ 128).view(np.int8)).to(device)
    scale, residual = (torch.from_numpy(each.astype(np.float64)).to(device) for each in (codes.scale, codes.residual))
    return token_terms.unit_coded(signed, scale, residual, _lengths(docs, device), normalize)


def _lengths(docs: TokenDocuments, device: torch.device) -> Tensor:
    known = docs.tokens.norms
    if known is not None:
        return torch.from_numpy(known.astype(np.float64)).to(device)
    rows = docs.tokens.rows
    parts = [token_terms.norm(torch.from_numpy(rows[at : at + BLOCK]).to(device)) for at in range(0, len(rows), BLOCK)]
    return torch.cat([torch.empty(0, dtype=torch.float64, device=device), *parts])


def _coded_rows(docs: TokenDocuments, normalize: bool, device: torch.device) -> Coded:
    """By float16 values, block by block."""
    rows, dims = docs.tokens.rows, maxsim_plan.padded(docs.dim)
    whole = [
        torch.zeros((len(rows), dims), dtype=torch.float16, device=device),
        *(torch.empty(len(rows), dtype=torch.float64, device=device) for _ in range(3)),
    ]
    for start in range(0, len(rows), BLOCK):
        block = np.ascontiguousarray(rows[start : start + BLOCK])
        for kept, part in zip(whole, code(torch.from_numpy(block).to(device), "float16", normalize, dims)):
            kept[start : start + BLOCK] = part
    return Coded(*whole)


def _packed_rows(docs: TokenDocuments, normalize: bool, device: torch.device) -> Coded:
    """By few bits, as they are. What decoding to float16 leaves out is measured block by block."""
    held = triton_packed.held(docs)
    codes = triton_packed.scanned(held, maxsim_plan.padded(docs.dim, form_of(docs)))
    found = Coded(codes, *(torch.empty(len(held.words), dtype=torch.float64, device=device) for _ in range(3)))
    for start in range(0, len(held.words), BLOCK):
        part = slice(start, start + BLOCK)
        exact = triton_packed.values(held, part)[:, : docs.dim].double()
        factor = torch.full_like(exact[:, 0], codes.unit)
        measured = token_terms.measured(exact, codes.decoded(part)[:, : docs.dim], factor, normalize)
        for kept, each in zip(found[1:], measured[1:]):
            kept[part] = each
    return found


def code(rows: Tensor, form: str, normalize: bool, width: int) -> Coded:
    """Code tokens float32 [t, D], with zeros up to ``width`` dimensions."""
    coded = token_terms.code(rows, form, normalize)
    return coded._replace(codes=torch.nn.functional.pad(coded.codes, (0, width - rows.shape[1])))


def _shares(problem: MaxSimProblem, weights: Tensor | None, lengths: Tensor, count: int) -> Tensor:
    """The coefficients, float64 [T], of the maxima of documents' tokens: b in sum_i a_i M_i + sum_j b_j C_j."""
    if weights is not None:
        return weights.double() / 2
    return torch.repeat_interleave(1 / lengths.clamp(min=1).double(), lengths, output_size=count) / 2


def coded_tokens(problem: MaxSimProblem, own: Mirror, weights: Tensor | None) -> tuple[maxsim_topk.CodedTokens, Tensor]:
    """The documents as the scan takes them, of tokens of these ``weights`` float32 [T]; and float64 [2] the units of
    their weights and of their shares, 0 where there are none. Without weights they are kept."""
    if weights is not None:
        return _coded_tokens(problem, own, weights)
    key = "scanned tokens", form_of(problem.docs), problem.normalize, problem.reduce == "symmetric"
    return triton_device.mirrored(problem.docs, key, lambda device: _coded_tokens(problem, own, None))


def _coded_tokens(
    problem: MaxSimProblem, own: Mirror, weights: Tensor | None
) -> tuple[maxsim_topk.CodedTokens, Tensor]:
    sums, shares, unit = torch.zeros_like(own.reach), own.weights, own.zeros.new_zeros(())
    if problem.reduce == "symmetric":
        lengths = own.offsets.diff()
        share = _shares(problem, weights, lengths, len(own.weights))
        sums = own.reach * segments("sum", share.abs(), lengths)[:, None] * MARGIN
        product = share * own.weights
        unit = product.abs().max() if len(product) else unit
        unit = torch.where(unit > 0, unit, 1.0)
        shares = (product / unit).float()
    terms, units = torch.cat([own.reach, sums], dim=1), own.unit * torch.stack([torch.ones_like(unit), unit])
    everything = torch.full((1, 1), 255, dtype=torch.uint8, device=terms.device)
    return maxsim_topk.CodedTokens(own.codes, own.weights, shares, own.offsets, terms, own.zeros, everything), units


def longest(offsets: I64) -> int:
    """Tokens of the longest set."""
    return int(np.diff(offsets).max(initial=0))


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
    if isinstance(rows, Rows) and rows.planes:
        return triton_packed.token_sets(docs)
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
    sets = _sets(triton_device.upload(queries.values, device), queries.offsets, problem.docs.dim, device)
    return sets._replace(norms=maxsim_refine.norms(sets)) if problem.normalize else sets


def _sets(values: Tensor, offsets: I64, dim: int, device: torch.device) -> TokenSets:
    return TokenSets(values, triton_device.upload(offsets, device), dim, longest(offsets))

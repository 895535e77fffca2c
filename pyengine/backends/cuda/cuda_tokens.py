"""Token vectors as the MaxSim kernels of `csrc/cuda` take them: codes on the GPU, with what coding leaves out, and the
vectors that define the scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda import cuda_device, cuda_documents, cuda_packed
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.cuda.cuda_kernels import DOC_ALIGN, code_docs
from pyengine.backends.cuda.cuda_maxsim_kernels import TokenDocs, TokenQueries, TokenSets, token_norms
from pyengine.backends.shared import token_terms
from pyengine.backends.shared.parts import Footprint, Share, vector_bytes
from pyengine.backends.shared.token_terms import UNDERFLOW, Coded
from pyengine.inputs.rows import Rows
from pyengine.kernels.maxsim_plan import BITS, lay, packed_form, padded
from pyengine.problems.problem_maxsim import MaxSimProblem, TokenDocuments
from pyengine.specification import reference
from pyengine.types import F32, F64, I64

UNIT = 2.0**-24
TERMS, DOCUMENT = 64, 64  # bytes of a token beside its vectors, and of a document
BEYOND = 128  # weights that may be read beyond those of all tokens


class Mirror(NamedTuple):
    """The tokens of a corpus as they are scanned: ``codes`` on the GPU, the rest of `Coded` on the host. ``weights``
    float32 [T + BEYOND] are the factors, of 22 bits, in units of the largest; ``reach`` float64 [N, 2] is that of
    `token_terms`."""

    coded: Coded
    weights: Array
    unit: float
    reach: Array


def form_of(docs: TokenDocuments) -> str:
    """How documents are scanned: decoded from a few bits, where these are the tokens, else by int8 codes."""
    rows = docs.tokens.rows
    return packed_form(rows.planes) if isinstance(rows, Rows) and rows.planes else "int8"


def rounding(dims: int, tokens: int, form: str) -> float:
    """How far a float32 sum of ``tokens`` maxima of coded products may be off, in units of sum_i |a_i| |q'_i| |d'|: one
    rounding of each product of int8, or 4 D of float16 (kernels/maxsim_topk.py), as many of each of n maxima as it is
    multiplied, and n of n sums, and four of a weight of 22 bits; twice that covers terms of second order, and the
    factors' own rounding to float32."""
    dot = 4 * (dims + 12) if form in BITS else 1
    return 2 * (dot + tokens + 12) * UNIT


def of_22_bits(weights: F32) -> F32:
    """The nearest of float32 values whose last two bits are 0, ties to even: times 3 2^22 they are exact."""
    bits = weights.view(np.uint32)
    nearest: F32 = ((bits + 1 + (bits >> 2 & 1)) & np.uint32(0xFFFFFFFC)).view(np.float32)
    return nearest


def footprint(problem: MaxSimProblem) -> Footprint:
    """What documents take on the GPU: tokens as they are, and their int8 codes; or their few bits once."""
    docs, rows, known = problem.docs, problem.docs.tokens.rows, Share(("maxsim", problem.normalize), DOCUMENT, TERMS)
    if isinstance(rows, Rows) and rows.planes:
        wide = int(rows.data.shape[1]) * (4 if rows.planes == 3 else rows.planes) // rows.planes
        return Footprint((Share("packed tokens", 0, wide), known), len(docs), docs.offsets)
    own, codes = vector_bytes(docs.tokens)
    return Footprint((Share("tokens", 0, own), Share("token codes", 0, codes), known), len(docs), docs.offsets)


def mirror(problem: MaxSimProblem, gpu: Gpu) -> Mirror:
    """The documents of a problem, kept as long as their corpus keeps anything."""
    docs, normalize = problem.docs, problem.normalize
    return cuda_device.mirrored(docs, gpu, ("maxsim", normalize), lambda: _mirror(docs, normalize, gpu))


def _mirror(docs: TokenDocuments, normalize: bool, gpu: Gpu) -> Mirror:
    if form_of(docs) in BITS:
        coded = cuda_packed.coded(docs, normalize, gpu)
    else:
        codes, scale, residual, lengths = cuda_device.mirrored(docs, gpu, "token codes", lambda: _coded(docs, gpu))
        coded = token_terms.unit_coded(codes, scale, residual, lengths, normalize)
    unit = float(coded.factor.max(initial=0)) or 1.0
    reach = token_terms.reach(coded, np.diff(docs.offsets))
    weights = np.zeros(len(coded.factor) + BEYOND, np.float32)
    weights[: len(coded.factor)] = of_22_bits((coded.factor / unit).astype(np.float32))
    return Mirror(coded, gpu.array(weights), unit, gpu.array(reach))


def _coded(docs: TokenDocuments, gpu: Gpu) -> tuple[Array, F64, F64, F64]:
    """int8 codes [T, W] of the tokens' unit vectors, with their scale, residual and length: as they come, or made."""
    values, known = _values(docs, gpu).values, token_terms.codes_of(docs)
    if known is None:
        source = values if values.kind != "int8" else gpu.array(docs.tokens.rows[:])
        codes, scale, residual, lengths = code_docs(gpu, source, docs.dim)
    else:
        codes = values if values.kind == "int8" else gpu.array(cuda_documents.signed(known.codes))
        scale, residual, lengths = (
            known.scale,
            known.residual,
            cuda_documents.norms_of(docs.tokens, values, docs.dim, gpu),
        )
    return codes, scale.astype(np.float64), residual.astype(np.float64), lengths


def _values(docs: TokenDocuments, gpu: Gpu) -> cuda_documents.Originals:
    return cuda_device.mirrored(docs, gpu, "tokens", lambda: cuda_documents.copied(docs.tokens.rows, gpu))


def scanned_docs(problem: MaxSimProblem, gpu: Gpu) -> tuple[TokenDocs, tuple[float, float]]:
    """The documents as the scan takes them, with the units of their weights and of their shares."""
    docs, own = problem.docs, mirror(problem, gpu)
    shares, terms, unit = own.weights, own.reach, 0.0
    if problem.reduce == "symmetric":
        lengths, share = np.diff(docs.offsets), token_terms.coefficients(problem)[1]
        product = share * own.coded.factor
        unit = float(abs(product).max(initial=0)) or 1.0
        shares = gpu.array((product / unit).astype(np.float32))
        both = token_terms.reach(own.coded, lengths), token_terms.shared_reach(own.coded, share, lengths)
        terms = gpu.array(np.concatenate(both, axis=1))
    bias = None if problem.bias is None else gpu.array(problem.bias)
    return TokenDocs(own.coded.codes, own.weights, shares, _offsets(docs, gpu), terms, bias), (own.unit, unit)


def _offsets(docs: TokenDocuments, gpu: Gpu) -> Array:
    return cuda_device.mirrored(docs, gpu, "offsets", lambda: gpu.array(docs.offsets))


def scanned_queries(problem: MaxSimProblem, units: tuple[float, float], panel: int, gpu: Gpu) -> TokenQueries:
    """The queries in panels of so many tokens, with ``units`` of the documents' weights and shares."""
    queries, lengths = problem.queries, np.diff(problem.queries.offsets)
    form, dim = form_of(problem.docs), problem.docs.dim
    packed = form in BITS
    laid = lay(lengths, panel, alone=problem.reduce == "symmetric")
    coded = token_terms.code(queries.values, "float16" if packed else "int8", problem.normalize)
    share, most = token_terms.coefficients(problem)[0], token_terms.most_tokens(problem)
    owner = np.repeat(np.arange(len(queries)), lengths)
    width = padded(dim, form) if packed else -(-dim // DOC_ALIGN) * DOC_ALIGN
    underflow, lost = most * dim * UNDERFLOW, rounding(width, most, form)
    terms = token_terms.query_terms(coded, share, owner, lengths, units, lost, underflow)
    places = laid.starts[owner] + np.arange(len(owner)) - queries.offsets[owner]
    rows = laid.count * panel
    codes = np.zeros((rows, width), coded.codes.dtype)
    codes[places, :dim] = coded.codes
    codes = cuda_packed.operand(codes) if packed else codes
    numbers = (each.astype(np.int32) for each in (laid.starts, lengths, laid.firsts, laid.queries))
    kept = _spread(terms.coefficients, places, rows, 0), _spread(terms.factors, places, rows, np.nan)
    longest = int(np.diff(laid.firsts).max(initial=1)) * panel
    return TokenQueries(longest, *gpu.arrays(codes, *kept, *numbers, terms.sums))


def _spread(values: F32, places: I64, count: int, fill: float) -> F32:
    found = np.full(count, fill, np.float32)
    found[places] = values
    return found


def exact_docs(problem: MaxSimProblem, gpu: Gpu) -> TokenSets:
    """The documents' tokens as they define the scores, kept on the GPU as the codes are."""
    docs = problem.docs
    packed = form_of(docs) in BITS
    values, step = (cuda_packed.held(docs, gpu), None) if packed else _values(docs, gpu)
    sets = TokenSets(values, step, _offsets(docs, gpu), None, docs.dim, _longest(docs.offsets))
    if not problem.normalize:
        return sets
    known = docs.tokens.norms

    def norms() -> Array:
        return token_norms(gpu, sets) if known is None else gpu.array(known)

    return sets._replace(norms=cuda_device.mirrored(docs, gpu, "token norms", norms))


def exact_queries(problem: MaxSimProblem, gpu: Gpu) -> TokenSets:
    """The queries' tokens on the GPU."""
    queries = problem.queries
    norms = [reference.norm(queries.values)] if problem.normalize else []
    values, offsets, *found = gpu.arrays(queries.values, queries.offsets, *norms)
    return TokenSets(values, None, offsets, found[0] if found else None, problem.docs.dim, _longest(queries.offsets))


def _longest(offsets: I64) -> int:
    return int(np.diff(offsets).max(initial=0))

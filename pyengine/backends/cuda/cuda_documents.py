"""Dense documents on the GPU: as they are kept there, and what of them is scanned."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pyengine import checks
from pyengine.backends.cuda import cuda_device, cuda_products
from pyengine.backends.cuda.cuda_device import KINDS, Array, Gpu
from pyengine.backends.cuda.cuda_kernels import ALIGN, code_docs, norms
from pyengine.backends.cuda.cuda_products import HALVES, TERMS, Product
from pyengine.backends.shared.dense_terms import Lengths
from pyengine.backends.shared.parts import Footprint, Share, vector_bytes
from pyengine.inputs.rows import Rows
from pyengine.kernels import dense_forms
from pyengine.problems.problem import Codes, DenseProblem, Documents
from pyengine.refining import exact
from pyengine.types import F64, U8


class Originals(NamedTuple):
    """The vectors, as they are refined: ``values`` [N, D] of floats, or int8 codes or bits with a ``step``."""

    values: Array
    step: Array | None = None


class Scanned(NamedTuple):
    """What is scanned, ``values`` [N, W], what is known of it, on the host, and why it is that."""

    values: Array
    lengths: Lengths
    why: str


def footprint(problem: DenseProblem) -> Footprint:
    """What documents take on the GPU, beside vectors that are there."""
    docs, key = problem.docs, _key(problem.docs, problem.dims)
    if docs.device is not None:
        codes = 0 if cuda_products.as_they_are(cuda_device.resident(docs.rows)) else docs.dim
        return Footprint((Share(key, codes + TERMS),), len(docs))
    own, codes = vector_bytes(docs)
    bits = -(-docs.dim // (8 * ALIGN)) * ALIGN
    if isinstance(docs.codes, Codes) and docs.codes.planes == 1:
        codes = 0 if isinstance(docs.rows, Rows) else bits
    if isinstance(docs.rows, Rows) and docs.rows.planes == 1:
        own = bits
    return Footprint((Share("originals", own), Share(key, codes + TERMS)), len(docs))


def originals(docs: Documents, gpu: Gpu) -> Originals:
    """The vectors on the GPU: where they are, or a copy that lasts as long as the corpus."""
    if docs.device is not None:
        return Originals(cuda_device.resident(docs.rows))
    return cuda_device.mirrored(docs, gpu, "originals", lambda: copied(docs.rows, gpu))


def copied(rows: Any, gpu: Gpu) -> Originals:
    """A copy of vectors of the host."""
    kind = rows.kind if isinstance(rows, Rows) else "float32"
    if kind in HALVES:
        return Originals(_aligned(rows.data, kind, gpu))
    if kind == "codes":
        return Originals(gpu.array(signed(rows.data)), gpu.array(rows.step))
    if kind == "planes" and rows.planes == 1:
        return Originals(_bits(rows.data, rows.dim, gpu), gpu.array(rows.step))
    return Originals(_aligned(rows[:] if isinstance(rows, Rows) else rows, "float32", gpu))


def _aligned(rows: Any, kind: str, gpu: Gpu) -> Array:
    """A copy whose rows begin at multiples of 16 bytes, seen as [N, D]."""
    (count, dim), size = rows.shape, KINDS[kind]
    wide = rows
    if dim * size % ALIGN:
        wide = np.zeros((count, -(-size * dim // ALIGN) * ALIGN // size), rows.dtype)
        wide[:, :dim] = rows
    made = gpu.array(wide, kind)
    return Array(made.owner, made.pointer, (count, dim), kind, made.stride)


def _bits(planes: U8, dim: int, gpu: Gpu) -> Array:
    """A copy of one plane, uint8 [N, D padded to 64 / 8], whose rows begin at multiples of 16 bytes, seen as [N, D]."""
    made = _aligned(planes, "bits", gpu)
    return Array(made.owner, made.pointer, (len(planes), dim), "bits", made.stride)


def signed(codes: U8) -> Any:
    """int8 codes of bytes biased by 128."""
    return (codes ^ np.uint8(128)).view(np.int8)


def scanned(problem: DenseProblem, gpu: Gpu) -> Scanned:
    """What is scanned for a problem. Raises ArithmeticError for documents with NaN or inf that nobody has looked at."""
    docs, dims = problem.docs, problem.dims
    found = cuda_device.mirrored(docs, gpu, _key(docs, dims), lambda: _scanned(docs, dims, gpu))
    if not docs.checked and not np.isfinite(found.lengths.norms).all():
        raise ArithmeticError
    return found


def _key(docs: Documents, dims: int) -> tuple[str | int, ...]:
    """A fast search may scan other codes than an exact one."""
    bits = isinstance(docs.codes, Codes) and docs.codes.planes == 1
    return "scanned", dims, *["bits"] * bits, *["float32"] * dense_forms.forced()


def _scanned(docs: Documents, dims: int, gpu: Gpu) -> Scanned:
    product, codes = cuda_products.chosen(docs, gpu), docs.codes
    if isinstance(codes, Codes) and codes.planes <= 1 and product.kind in ("bits", "int8"):
        return _scanned_codes(docs, codes, product, dims, gpu)
    values = originals(docs, gpu).values
    if values.kind == "int8":
        raise TypeError("codes that are the vectors come with a scale and a residual")
    if product.kind == "int8":
        codes_made, scale, residual, own = code_docs(gpu, values, dims)
        found = cuda_products.coded(residual) if cuda_products.as_they_are(values) == "float32" else product
        if found.kind == "int8":
            return Scanned(codes_made, Lengths(own, scale, residual, own), product.why)
        return Scanned(values, Lengths(own), found.why)
    return Scanned(values, Lengths(norms_of(docs, values, dims, gpu)), product.why)


def _scanned_codes(docs: Documents, kept: Codes, product: Product, dims: int, gpu: Gpu) -> Scanned:
    """Codes that come with the documents: as the vectors themselves, where they are."""
    own = docs.rows.kind if isinstance(docs.rows, Rows) else "float32"
    if product.kind == "bits":
        bits = own == "planes"
        values = originals(docs, gpu).values if bits else _bits(kept.codes, docs.dim, gpu)
    else:
        values = originals(docs, gpu).values if own == "codes" else gpu.array(signed(kept.codes))
    lengths = norms_of(docs, values, dims, gpu)
    whole = lengths if dims == docs.dim else norms_of(docs, values, docs.dim, gpu)
    return Scanned(values, Lengths(lengths, kept.scale, kept.residual, whole), product.why)


def product_of(problem: DenseProblem, gpu: Gpu) -> Product:
    """What is multiplied, for `explain`: as it was chosen, where that has happened."""
    cache = problem.docs.cache or {}
    found = cache.get(("cuda", gpu.device.number, _key(problem.docs, problem.dims)))
    return cuda_products.chosen(problem.docs, gpu) if found is None else Product(found.values.kind, found.why)


def norms_of(docs: Documents, values: Array, dims: int, gpu: Gpu) -> F64:
    """float64 [N], on the host: of their first ``dims`` dimensions."""
    if docs.norms is not None and dims == docs.dim:
        return docs.norms
    if docs.device is not None:
        return norms(gpu, values, dims)
    return exact.norms(docs.rows, dims, checks.thread_count(None))

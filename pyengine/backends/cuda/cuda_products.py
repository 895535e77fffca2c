"""What a dense scan multiplies, and why: bits, int8 codes, or documents as they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pyengine.backends.cuda import cuda_device
from pyengine.backends.cuda.cuda_device import KINDS, Array, Gpu
from pyengine.backends.cuda.cuda_kernels import ALIGN
from pyengine.inputs.rows import Rows
from pyengine.kernels import dense_forms
from pyengine.problems.problem import Codes, DenseProblem, Documents
from pyengine.types import F32

HALVES = "float16", "bfloat16"
AS_THEY_ARE = *HALVES, "float32"
TERMS = 64  # bytes a document beside its vector
APART = "rows of the documents do not begin at multiples of 16 bytes"


class Product(NamedTuple):
    """One of "bits", "int8" and `AS_THEY_ARE`, and a sentence."""

    kind: str
    why: str


def chosen(docs: Documents, gpu: Gpu) -> Product:
    """What is multiplied of documents, as far as can be told before they are coded: see `coded`."""
    codes, kind = docs.codes, _kind(docs)
    if isinstance(codes, Codes) and codes.planes == 1:
        return Product("bits", "documents are of one bit a dimension")
    if kind in HALVES:
        return Product(kind, "documents are of 16 bits")
    floats = kind == "float32"
    if floats and dense_forms.forced():
        return Product(kind, "asked for")
    if isinstance(codes, Codes) and not codes.planes:
        return coded(codes.residual) if floats else Product("int8", "documents are codes")
    if floats and docs.device is not None and gpu.device.free_bytes() < len(docs) * (docs.dim + TERMS):
        return Product(kind, "there is no room for int8 codes beside the documents")
    return Product("int8", "codes are made on the GPU" if floats or docs.device is None else APART)


def _kind(docs: Documents) -> str:
    """Of `AS_THEY_ARE`, where they can be scanned so."""
    if docs.device is not None:
        return as_they_are(cuda_device.resident(docs.rows))
    if not isinstance(docs.rows, Rows):
        return "float32"
    return docs.rows.kind if docs.rows.kind in HALVES else ""


def as_they_are(values: Array) -> str:
    """The kind of vectors that can be scanned as they are, "" for others: if they have rows apart that begin at
    multiples of 16 bytes."""
    size, (count, dim) = KINDS[values.kind], values.shape
    apart = count == 1 or values.stride >= dim
    fits = apart and values.pointer % ALIGN == 0 and values.stride * size % ALIGN == 0
    return values.kind if values.kind in AS_THEY_ARE and fits else ""


def coded(residual: F32) -> Product:
    """Whether codes with these residuals [N] are scanned, or the float32 that they are codes of."""
    loose = dense_forms.loose(float(np.mean(residual, dtype=np.float64)) if len(residual) else 0.0)
    return Product("float32", loose) if loose else Product("int8", "codes are a quarter of float32")


def are_signs(problem: DenseProblem) -> bool:
    """Whether all queries have values of one magnitude each, in all dimensions of the documents."""
    size = np.abs(problem.queries)
    return problem.dims == problem.docs.dim and bool((size == size[:, :1]).all() and (size[:, 0] > 0).all())


def rejected(product: Product, docs: Documents) -> dict[str, str]:
    """What is not multiplied, with reasons."""
    if product.kind == "float32":
        return {"products of int8": product.why}
    if product.kind != "int8" or _kind(docs) != "float32":
        return {}
    why = "float32 takes four times as long to be read"
    if docs.device is not None and docs.cache is None:
        why = "its norms and one scan read 8 bytes a dimension, coding and a scan of codes 6"
    return {"products of float32": f"{why}; it is for codes that are off by more than {dense_forms.LOOSE:.3f}"}

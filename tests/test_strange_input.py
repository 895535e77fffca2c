"""What goes in that looks as if it should not: one row each, and each gives the specified answer."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyengine import DenseIndex, TopK, conformance, topk
from pyengine.specification import reference
from pyengine.types import F32
from tests.fuzz.values import ArrayLike, Dlpack
from tests.input_cases import DOCS, QUERIES, RNG, D, K, N, Q, needs_torch, tensor

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]


def strided() -> F32:
    wide = np.full((2 * N, 3 * D), np.nan, np.float32)
    wide[::2, ::3] = DOCS
    view: F32 = wide[::2, ::3]
    return view


def backwards() -> F32:
    reversed_twice: F32 = DOCS[::-1, ::-1].copy()[::-1, ::-1]
    return reversed_twice


def read_only() -> F32:
    rows: F32 = DOCS.copy()
    rows.flags.writeable = False
    return rows


def unaligned() -> np.ndarray:
    rows = np.frombuffer(b"\0" + DOCS.tobytes(), np.float32, offset=1).reshape(N, D)
    assert not rows.flags.aligned
    return rows


STRANGE_FORMS: dict[str, Callable[[], Any]] = {
    "strided": strided,
    "backwards": backwards,
    "Fortran order": lambda: np.asfortranarray(DOCS),
    "transposed": lambda: DOCS.T.copy().T,
    "one row many times": lambda: np.broadcast_to(DOCS[0], (N, D)),
    "big-endian": lambda: DOCS.astype(">f4"),
    "little-endian": lambda: DOCS.astype("<f4"),
    "read-only": read_only,
    "unaligned": unaligned,
    "float64": lambda: DOCS.astype(np.float64) + 1e-12,
    "float16": lambda: DOCS.astype(np.float16),
    "longdouble": lambda: DOCS.astype(np.longdouble) / 3,
    "int8": lambda: (DOCS * 40).astype(np.int8),
    "uint8": lambda: np.abs(DOCS * 40).astype(np.uint8),
    "int64": lambda: (DOCS * 1e17).astype(np.int64),
    "uint64": lambda: np.abs(DOCS * 1e17).astype(np.uint64),
    "lists": lambda: DOCS.tolist(),
    "lists of int": lambda: np.rint(DOCS * 9).astype(int).tolist(),
    "tuples of arrays": lambda: tuple(DOCS),
    "a memoryview": lambda: DOCS.data,
    "arrays of the standard library": lambda: [array.array("f", row) for row in DOCS],
    "DLPack": lambda: Dlpack(DOCS),
    "DLPack, strided": lambda: Dlpack(strided()),
    "__array__": lambda: ArrayLike(DOCS),
    "a matrix with nothing masked": lambda: np.ma.masked_array(DOCS),
    "memory-mapped": lambda: DOCS.view(np.memmap),
}
STRANGE_TENSORS: dict[str, Callable[[], Any]] = {
    "float32": lambda: tensor(DOCS),
    "requires_grad": lambda: tensor(DOCS, requires_grad=True),
    "a result of autograd": lambda: tensor(DOCS, requires_grad=True) * 2,
    "bfloat16": lambda: tensor(DOCS).bfloat16(),
    "bfloat16 that requires_grad": lambda: tensor(DOCS).bfloat16().requires_grad_(),
    "float16": lambda: tensor(DOCS).half(),
    "float64": lambda: tensor(DOCS).double() / 3,
    "int64": lambda: tensor((DOCS * 1e17).astype(np.int64)),
    "strided": lambda: tensor(np.repeat(DOCS, 3, axis=1))[:, ::3],
    "transposed": lambda: tensor(DOCS.T.copy()).T,
    "expanded": lambda: tensor(DOCS[:1]).expand(N, D),
    "conjugate, real part": lambda: (tensor(DOCS) + 1j).conj().real,
    "negated view": lambda: (tensor(DOCS) * 1j).conj().imag,
}
FORMS = [pytest.param(make, id=name) for name, make in STRANGE_FORMS.items()] + [
    pytest.param(make, id=f"tensor: {name}", marks=needs_torch) for name, make in STRANGE_TENSORS.items()
]


def as_float32(value: Any) -> F32:
    """The vectors that a form stands for."""
    if hasattr(value, "detach"):
        value = value.detach().double().resolve_conj().resolve_neg().numpy()
    return np.array(value.values if isinstance(value, Dlpack) else value).astype(np.float32)


def as_numpy(result: TopK) -> TopK:
    return TopK(*(np.asarray(part) for part in result))


@pytest.mark.parametrize("make", FORMS)
@pytest.mark.parametrize("metric", reference.METRICS)
def test_strange_forms_give_the_specified_answer(engine: str, metric: str, make: Callable[[], Any]) -> None:
    rows = as_float32(make())
    docs = topk(QUERIES, make(), K, metric=metric, backend=engine)
    conformance.same(docs, reference.topk(QUERIES, rows, K, metric), "as docs")
    queries = topk(make(), DOCS, K, metric=metric, backend=engine)
    conformance.same(as_numpy(queries), reference.topk(rows, DOCS, K, metric), "as queries")


@pytest.mark.parametrize("make", FORMS)
def test_strange_forms_can_be_added(store: str, make: Callable[[], Any]) -> None:
    index = DenseIndex(D, "dot", store)
    index.add(make())
    conformance.same(index.search(QUERIES, K), reference.topk(QUERIES, as_float32(make()), K, "dot"), "added")


@needs_torch
def test_a_tensor_in_gives_tensors_out() -> None:
    import torch

    result = topk(tensor(QUERIES), DOCS, K)
    assert [part.dtype for part in result] == [torch.float32, torch.int64, torch.bool]
    assert isinstance(topk(QUERIES, tensor(DOCS), K).ids, np.ndarray)


MASK = np.array([True, False, True, True, False, True])
STRANGE_MASKS: dict[str, Callable[[], Any]] = {
    "list": lambda: MASK.tolist(),
    "strided": lambda: np.repeat(MASK, 2)[::2],
    "per query, strided": lambda: np.repeat(np.stack([MASK] * Q), 2, axis=1)[:, ::2],
    "bitmap": lambda: np.packbits(MASK, bitorder="little"),
    "bitmap with bits beyond the documents": lambda: np.packbits(MASK, bitorder="little") | 0b11000000,
    "bitmap per query": lambda: np.tile(np.packbits(MASK, bitorder="little"), (Q, 1)),
    "read-only": lambda: np.broadcast_to(MASK, (Q, N)),
    "DLPack": lambda: Dlpack(MASK),
}


@pytest.mark.parametrize("make", STRANGE_MASKS.values(), ids=STRANGE_MASKS)
def test_strange_masks_give_the_specified_answer(engine: str, make: Callable[[], Any]) -> None:
    result = topk(QUERIES, DOCS, N, mask=make(), backend=engine)
    conformance.same(result, reference.topk(QUERIES, DOCS, N, mask=MASK), "masked")


def test_a_mask_per_query_in_fortran_order(engine: str) -> None:
    mask = np.asfortranarray(RNG.random((Q, 40)) < 0.5)  # several bytes wide, so that its bitmap has an order too
    docs: F32 = RNG.standard_normal((40, D)).astype(np.float32)
    result = topk(QUERIES, docs, 40, mask=mask, backend=engine)
    conformance.same(result, reference.topk(QUERIES, docs, 40, mask=mask), "masked")


BIAS = np.array([3, -1, 0, 2, 0, -4])


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "g", "i1", "i8", list])
def test_biases_of_any_real_type(engine: str, dtype: Any) -> None:
    bias = BIAS.tolist() if dtype is list else BIAS.astype(dtype)
    result = topk(QUERIES, DOCS, N, bias=bias, backend=engine)
    conformance.same(result, reference.topk(QUERIES, DOCS, N, bias=BIAS.astype(np.float64)), "biased")


@needs_torch
def test_masks_and_biases_may_be_tensors(engine: str) -> None:
    result = topk(QUERIES, DOCS, N, mask=tensor(MASK), bias=tensor(BIAS).bfloat16(), backend=engine)
    conformance.same(result, reference.topk(QUERIES, DOCS, N, mask=MASK, bias=BIAS.astype(np.float64)), "tensors")


@pytest.mark.parametrize("k", [np.int8(3), np.uint64(3), np.array(3)])
def test_k_may_be_any_integer(k: Any) -> None:
    conformance.same(topk(QUERIES, DOCS, k), reference.topk(QUERIES, DOCS, 3), "k")


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize(("n_queries", "n_docs"), [(0, 6), (2, 0), (0, 0), (1, 1), (2, 1)])
def test_nothing_and_next_to_nothing(engine: str, store: str, metric: str, n_queries: int, n_docs: int) -> None:
    queries, docs = QUERIES[:n_queries], DOCS[:n_docs]
    want = reference.topk(queries, docs, K, metric)
    conformance.same(topk(queries, docs, K, metric=metric, backend=engine), want, "topk")
    index = DenseIndex(D, metric, store)
    index.add(docs)
    conformance.same(index.search(queries, K, backend=engine), want, "an index")


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("value", [1e-45, 1e-38, 1.0, 1e38, 3.4028235e38, -3.4028235e38, 0.0, -0.0])
def test_vectors_that_are_all_equal(engine: str, store: str, metric: str, value: float) -> None:
    docs = np.full((N, D), value, np.float32)
    queries = np.concatenate([docs[:1], -docs[:1], QUERIES])
    want = reference.topk(queries, docs, N + 2, metric)
    assert (want.ids[:, :N] == np.arange(N)).all()
    conformance.same(topk(queries, docs, N + 2, metric=metric, backend=engine), want, "topk")
    index = DenseIndex(D, metric, store)
    index.add(docs)
    conformance.same(index.search(queries, N + 2, backend=engine), want, "an index")

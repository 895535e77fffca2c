"""Floats of a byte, of torch and of ml_dtypes, mean their values wherever vectors are taken. The values come from the
formats' definitions (Micikevicius et al., arXiv 2209.05433), computed here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import checks, conformance
from pyengine.inputs.rows import Rows
from pyengine.types import F32, U8
from tests.dense_cases import rows

FORMATS = {"float8_e4m3fn": (4, 3), "float8_e5m2": (5, 2)}  # bits of the exponent and of the mantissa
KINDS = [(library, kind) for library in ("torch", "ml_dtypes") for kind in FORMATS]
D = 13


def made(library: str, kind: str, codes: U8) -> Any:
    """These codes as a library has them."""
    module = pytest.importorskip(library)
    dtype = getattr(module, kind)
    return module.from_numpy(codes).view(dtype) if library == "torch" else codes.view(dtype)


def values(kind: str) -> F32:
    """float32 [256]: what each code means, NaN for those that mean no finite value."""
    exponent_bits, bits = FORMATS[kind]
    bias = 2 ** (exponent_bits - 1) - 1
    found = np.full(256, np.nan, np.float32)
    for code in range(256):
        exponent, mantissa = code >> bits & (1 << exponent_bits) - 1, code & (1 << bits) - 1
        highest = exponent == (1 << exponent_bits) - 1
        if highest and (kind == "float8_e5m2" or mantissa == (1 << bits) - 1):  # e4m3fn has one NaN and no infinity
            continue
        size = (mantissa + (exponent > 0) * 2**bits) * 2.0 ** (max(exponent, 1) - bias - bits)
        found[code] = np.copysign(size, -1 if code >= 128 else 1)
    return found


def embeddings(kind: str, seed: int, count: int) -> U8:
    """uint8 [count, D]: the finite codes, in random order, each about as often."""
    finite = np.flatnonzero(np.isfinite(values(kind))).astype(np.uint8)
    return np.random.default_rng(seed).permutation(np.resize(finite, count * D)).reshape(count, D)


def test_the_formats() -> None:
    assert np.nanmax(values("float8_e4m3fn")) == 448
    assert np.nanmax(values("float8_e5m2")) == 57344
    assert [np.isfinite(values(kind)).sum() for kind in FORMATS] == [254, 248]


@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_every_finite_code_is_its_value(library: str, kind: str) -> None:
    want = values(kind)
    finite = np.flatnonzero(np.isfinite(want)).astype(np.uint8)
    given = made(library, kind, finite[:, None])
    for found in (checks.vectors(given, "x"), checks.vectors(given.T, "x").T, checks.host_array(given, "x")):
        assert found.dtype == np.float32
        assert (found[:, 0].view(np.uint32) == want[finite].view(np.uint32)).all()  # the sign of zero, too
    assert (want[finite].astype(np.float16).astype(np.float32) == want[finite]).all()


@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_other_codes_are_refused_by_their_row(library: str, kind: str) -> None:
    codes, query = embeddings(kind, 1, 20), rows(1, 2, D)
    for code in np.flatnonzero(np.isnan(values(kind))):
        bad = codes.copy()
        bad[11, 3] = code
        with pytest.raises(ValueError, match=r"^docs must be finite in float32; row 11 holds NaN, inf or"):
            pe.topk(query, made(library, kind, bad), 3)
        index = pe.DenseIndex(D)
        with pytest.raises(ValueError, match=r"^vectors must be finite in float32; row 11 holds NaN, inf or"):
            index.add(made(library, kind, bad))
        assert len(index) == 0


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_a_search_is_one_of_their_values(library: str, kind: str, metric: str) -> None:
    docs, queries = embeddings(kind, 2, 150), embeddings(kind, 3, 4)
    given, asked = made(library, kind, docs), made(library, kind, queries)
    want = pe.topk(values(kind)[queries], values(kind)[docs], 7, metric=metric, backend="numpy")
    same(pe.topk(asked, given, 7, metric=metric), want, "topk")
    same(pe.topk_both(asked, given, 7, metric=metric)[0], want, "both")


@pytest.mark.parametrize("store", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_an_index_keeps_them(library: str, kind: str, store: str, tmp_path: Path) -> None:
    """As an array, in chunks, and as a memory map."""
    codes = embeddings(kind, 4, 90)
    whole, asked = made(library, kind, codes), made(library, kind, embeddings(kind, 5, 3))
    codes.tofile(tmp_path / "codes")
    mapped = np.memmap(tmp_path / "codes", np.uint8, "r", shape=codes.shape)
    ways: list[Callable[[], Any]] = [lambda: whole, lambda: iter([whole[:40], whole[40:]])]
    ways += [lambda: mapped.view(whole.dtype)] * (library == "ml_dtypes")
    for way in ways:
        index = pe.DenseIndex(D, store=store)
        index.add(way())
        kept = index._contents.store.documents().rows
        assert not isinstance(kept, Rows) or kept.kind == store
        assert (np.asarray(kept[:]) == values(kind)[codes]).all()
        want = pe.topk(checks.host_array(asked, "queries"), values(kind)[codes], 5, backend="numpy")
        same(index.search(asked, 5), want, store)


@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_late_interaction(library: str, kind: str) -> None:
    codes, asked = embeddings(kind, 6, 60), embeddings(kind, 7, 6)
    docs, queries = made(library, kind, codes), made(library, kind, asked)
    parts, want_parts = [docs[:7], docs[7:31], docs[31:]], np.split(values(kind)[codes], [7, 31])
    want = pe.maxsim_topk([values(kind)[asked]], want_parts, 3, normalize=True, backend="numpy")
    same(pe.maxsim_topk([queries], parts, 3, normalize=True), want, "a list")
    same(pe.maxsim_topk(queries[None], pe.Ragged(docs, [0, 7, 31, 60]), 3, normalize=True), want, "ragged")
    index = pe.MultiVectorIndex(D, codec="float16", normalize=True)
    index.add(parts)
    same(index.search([queries], 3), want, "an index")
    mask = np.arange(20) < np.array([20, 9, 0])[:, None]
    padded = pe.Ragged.padded(docs.reshape(3, 20, D), mask)
    assert (padded.values == values(kind)[codes].reshape(3, 20, D)[mask]).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_training(kind: str) -> None:
    """`pyengine.torch` takes them as float16, and gradients pass."""
    torch = pytest.importorskip("torch")
    docs = made("torch", kind, embeddings(kind, 8, 24)).reshape(4, 6, D)
    queries = torch.from_numpy(rows(9, 6, D).reshape(2, 3, D)).requires_grad_()
    for normalize in (False, True):
        scores = pe.torch.maxsim(queries, docs, normalize=normalize)
        want = pe.torch.maxsim(queries, docs.half(), normalize=normalize)
        assert torch.equal(scores, want)
    scores.sum().backward()  # type: ignore[no-untyped-call]
    assert queries.grad is not None
    assert queries.grad.abs().min() > 0
    asked, given = docs[0], docs.reshape(24, D)
    found, ids = torch.ops.pyengine.dense_topk(asked, given, 3)
    want_ids = pe.topk(asked.float(), given.float(), 3, backend="numpy").ids
    assert found.dtype == torch.float32
    assert torch.equal(ids, want_ids)


@pytest.mark.parametrize("kind", FORMATS)
def test_sparse_weights(kind: str) -> None:
    torch = pytest.importorskip("torch")
    places = torch.tensor([[0, 0, 1, 2], [5, 1, 5, 3]])
    weights = torch.tensor([0.25, 1.5, 3, 8])
    narrow = torch.sparse_coo_tensor(places, weights.to(getattr(torch, kind)), (3, 9), check_invariants=True)
    wide = torch.sparse_coo_tensor(places, weights, (3, 9), check_invariants=True)
    same(pe.sparse_topk(narrow, narrow, 2), pe.sparse_topk(wide, wide, 2), kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_tensors_on_a_device_are_float16_there(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU tensors are treated as those of a GPU."""
    monkeypatch.setattr(checks, "RESIDENT", ("cpu",))
    torch = pytest.importorskip("torch")
    codes = embeddings(kind, 10, 80)
    given = made("torch", kind, codes)
    there = checks.documents(given, given)
    assert there.dtype == torch.float16
    assert (there.float().numpy() == values(kind)[codes]).all()
    want = pe.topk(values(kind)[codes[:3]], values(kind)[codes], 4, backend="numpy")
    same(pe.topk(given[:3], given, 4, backend="torch"), want, "torch")


@pytest.mark.parametrize("library", ["torch", "ml_dtypes"])
def test_other_kinds_are_refused_in_a_sentence(library: str) -> None:
    docs = made(library, "float8_e4m3fn", embeddings("float8_e4m3fn", 11, 5))
    other = made(library, "float8_e4m3fnuz", embeddings("float8_e4m3fn", 11, 5))
    with pytest.raises(TypeError, match=r"^docs must [^\n]*; got [^\n]*float8_e4m3fnuz"):
        pe.topk(docs, other, 2)


def same(found: Any, want: pe.TopK, what: str) -> None:
    arrays = (each.numpy() if checks.is_torch(each) else each for each in found)
    conformance.same(pe.TopK(*arrays), pe.TopK(*(np.asarray(each) for each in want)), what)

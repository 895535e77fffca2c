"""The similarities of sentence-transformers, beside the library's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyengine.integrations import sentence_transformers as face
from pyengine.specification import reference

torch = pytest.importorskip("torch")
library = pytest.importorskip("sentence_transformers").util
RNG = np.random.default_rng(11)
NAMES = {"cos_sim": "cosine", "dot_score": "dot", "euclidean_sim": "l2"}
A = torch.from_numpy(RNG.standard_normal((7, 20)).astype(np.float32))
B = torch.from_numpy(RNG.standard_normal((40, 20)).astype(np.float32))
B[3], B[4], A[2] = 0, A[1], 0


def close(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert ours.layout == theirs.layout == torch.strided
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().float().numpy(), rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_matrices(name: str) -> None:
    ours, theirs = getattr(face, name), getattr(library, name)
    want = reference.scores(A.numpy(), B.numpy(), NAMES[name])
    want = -np.sqrt(want) if name == "euclidean_sim" else want
    forms = [
        (A, B),
        (A.numpy(), B.numpy()),
        (A.tolist(), B),
        (list(A), list(B)),
        (A.double(), list(B.numpy())),
        (A, B.T.T),
    ]
    for a, b in forms:
        assert ours(a, b).dtype == torch.float32
        np.testing.assert_array_equal(ours(a, b).numpy(), want)
    close(ours(A, B), theirs(A, B))
    close(ours(A[0], B[1]), theirs(A[0], B[1]))
    close(ours(A[:0], B), theirs(A[:0], B))
    close(ours(A, B[:0]), theirs(A, B[:0]))
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(ours(A.to(dtype), B.to(dtype)), ours(A.to(dtype).float(), B.to(dtype).float()))
        close(ours(A.to(dtype), B.to(dtype)), theirs(A.to(dtype), B.to(dtype)))
    codes = (B * 60).to(torch.int8)
    assert torch.equal(ours(codes, codes), ours(codes.float(), codes.float()))  # theirs overflows


@pytest.mark.parametrize("name", NAMES)
def test_pairs(name: str) -> None:
    ours, theirs = getattr(face, f"pairwise_{name}"), getattr(library, f"pairwise_{name}")
    matrix = getattr(face, name)
    assert torch.equal(ours(A, B[:7]), matrix(A, B[:7]).diagonal())
    for a, b in ((A, B[:7]), (A[0], B[1]), (A[0], B), (A, B[:1]), (A[:0], B[:0]), (A.half(), B[:7].numpy())):
        close(ours(a, b), theirs(a, b))
    close(ours(A.to_sparse(), B[:7].to_sparse()), theirs(A.to_sparse(), B[:7].to_sparse()))
    with pytest.raises(ValueError, match="as many rows"):
        ours(A, B)


@pytest.mark.parametrize("name", NAMES)
def test_sparse(name: str) -> None:
    a, b = (torch.where(torch.from_numpy(RNG.random(each.shape)) < 0.3, each, 0.0) for each in (A, B))
    want = getattr(library, name)(a, b)
    for first, second in ((a.to_sparse(), b.to_sparse()), (a, b.to_sparse()), (a.to_sparse(), b)):
        close(getattr(face, name)(first, second), want)
    close(getattr(face, name)(list(a.to_sparse()), b.to_sparse()), want)
    assert getattr(face, name)(a.to_sparse(), b[:0].to_sparse()).shape == (7, 0)


@pytest.mark.parametrize("name", [*NAMES, *(f"pairwise_{each}" for each in NAMES)])
def test_gradients_are_the_librarys(name: str) -> None:
    a, b = A[:2].clone().requires_grad_(), B[:2]
    ours, theirs = getattr(face, name)(a, b), getattr(library, name)(a, b)
    assert torch.equal(ours, theirs)
    ours.sum().backward()
    assert a.grad is not None
    with torch.no_grad():
        assert torch.equal(getattr(face, name)(a, b), getattr(face, name)(a.detach(), b))


def test_bad_input_is_a_sentence() -> None:
    bad = B.clone()
    bad[5, 1] = float("inf")
    with pytest.raises(ValueError, match="docs must be finite in float32; row 5"):
        face.cos_sim(A, bad)
    with pytest.raises(ValueError, match="dimensions"):
        face.dot_score(A, B[:, :3])


def test_matrices_are_not_patched() -> None:
    """Ours take longer. A score function of either kind is the same search."""
    theirs = library.cos_sim
    with face.patched():
        assert library.cos_sim is theirs
        assert face.semantic_search(A, B, score_function=library.dot_score) == face.semantic_search(
            A, B, score_function=face.dot_score
        )

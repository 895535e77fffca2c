"""The names of late-interaction-kernels, beside its reference in torch. Tokens of small whole numbers make its float32
sums exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
library = pytest.importorskip("late_interaction_kernels")

from pyengine.integrations import late_interaction_kernels as face  # noqa: E402

reference = library.reference.maxsim_reference


def whole(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, shape)).to(dtype).requires_grad_()


def kept(*shape: int) -> Any:
    mask = torch.from_numpy(np.random.default_rng(9).random(shape) < 0.6)
    mask[..., 0, :] = False  # one has no tokens
    return mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_maxsim(dtype: Any, masked: bool) -> None:
    queries, docs = whole(3, 5, 4, dtype=dtype), whole(6, 7, 4, seed=1, dtype=dtype)
    masks = (kept(3, 5), kept(6, 7)) if masked else (None, None)
    got, want = face.maxsim(queries, docs, *masks), reference(queries, docs, *masks)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
    weights = torch.arange(18).view(3, 6) % 5 - 2
    ours, theirs = (torch.autograd.grad((each * weights).sum(), (queries, docs)) for each in (got, want))
    assert all(torch.equal(*pair) for pair in zip(ours, theirs))


def test_the_forms_of_queries_and_documents() -> None:
    queries, docs = whole(3, 5, 4), whole(6, 7, 4, seed=1)
    assert torch.equal(face.maxsim(queries[0], docs), reference(queries[0], docs))
    assert torch.equal(face.maxsim(queries, docs[0]), reference(queries, docs[0]))
    assert torch.equal(face.maxsim(queries[0], docs[0]), reference(queries[0], docs[0]))
    own, mask = whole(3, 2, 7, 4, seed=2), kept(3, 2, 7)
    want = torch.cat([reference(queries[i : i + 1], own[i], None, mask[i]) for i in range(3)])
    assert torch.equal(face.maxsim(queries, own, None, mask), want)
    assert torch.equal(
        face.maxsim_pairs(queries, docs[:3], None, kept(3, 7)), reference(queries, docs[:3], None, kept(3, 7)).diag()
    )
    cosines = face.maxsim(torch.randn(2, 3, 8), torch.randn(2, 3, 8), normalize=True)
    assert (cosines.abs() <= 3).all()


def test_packed() -> None:
    lengths = np.array([3, 1, 5]), np.array([2, 7, 0, 4])
    queries, docs = whole(9, 4), whole(13, 4, seed=1)
    offsets = [torch.from_numpy(np.concatenate([[0], np.cumsum(each)]).astype(np.int32)) for each in lengths]
    got = face.maxsim_varlen(queries, docs, *offsets)
    sets = [tokens.split(each.tolist()) for tokens, each in zip((queries, docs), lengths)]
    want = [[reference(q, d) if len(d) else torch.zeros(()) for d in sets[1]] for q in sets[0]]
    assert torch.equal(got, torch.stack([torch.stack(row) for row in want]))
    ours, theirs = (torch.autograd.grad(each, (queries, docs)) for each in (got.sum(), sum(map(sum, want))))
    assert all(torch.equal(*pair) for pair in zip(ours, theirs))


@pytest.mark.parametrize("normalize", [False, True])
def test_retrieve(normalize: bool) -> None:
    torch.manual_seed(0)
    queries, docs, mask = torch.randn(3, 5, 8), torch.randn(20, 7, 8), kept(20, 7)
    ours = face.retrieve(queries, docs, 6, None, mask, normalize=normalize, chunk=4)
    theirs = library.retrieve(queries, docs, 6, None, mask, normalize=normalize, chunk=4)
    assert torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    every = face.retrieve(queries[0], docs, 100, None, mask, normalize=normalize)
    assert every[1].shape == (20,)
    assert every[1].unique().numel() == 20
    assert torch.equal(every[1][:6], ours[1][0])
    with pytest.raises(ValueError, match="top_k"):
        face.retrieve(queries, docs, 0)

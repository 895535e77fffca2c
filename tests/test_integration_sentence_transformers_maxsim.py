"""MaxSim of sentence-transformers, beside the library's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.integrations import sentence_transformers as face
from pyengine.integrations import sentence_transformers_maxsim as module

torch = pytest.importorskip("torch")
library = pytest.importorskip("sentence_transformers").util
scoring = pytest.importorskip("sentence_transformers.multi_vector_encoder.scoring")
RNG = np.random.default_rng(7)
NAMES = ["maxsim", "maxsim_pairwise", "mean_maxsim", "mean_maxsim_pairwise"]


def tensor(*shape: int) -> Any:
    return torch.from_numpy(RNG.standard_normal(shape).astype(np.float32))


def ragged(*lengths: int) -> list[Any]:
    return [tensor(length, 8) for length in lengths]


def close(ours: Any, theirs: Any) -> None:
    assert ours.dtype == theirs.dtype == torch.float32
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-5)


QUERIES, DOCS = ragged(3, 1, 5, 2), ragged(4, 9, 1, 6)
PADDED = torch.nn.utils.rnn.pad_sequence(QUERIES, batch_first=True)
PADDED_DOCS = torch.nn.utils.rnn.pad_sequence(DOCS, batch_first=True)
MASK = torch.from_numpy(RNG.random((4, 5)) < 0.6)
DOCS_MASK = torch.from_numpy(RNG.random((4, 9)) < 0.6)
DOCS_MASK[:, 0] = True
WEIGHTS = MASK * tensor(4, 5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("a", "b", "masks"),
    [
        (QUERIES, DOCS, {}),
        (PADDED, PADDED_DOCS, {}),
        (PADDED.numpy(), DOCS, {}),
        ([each.numpy() for each in QUERIES], PADDED_DOCS.numpy(), {}),
        (PADDED - 3, PADDED_DOCS - 3, {"a_mask": MASK, "b_mask": DOCS_MASK}),
        (PADDED, PADDED_DOCS, {"a_mask": MASK.numpy(), "b_mask": DOCS_MASK.float()}),
        (PADDED, PADDED_DOCS, {"a_mask": MASK.long(), "b_mask": DOCS_MASK.int()}),
        (PADDED, PADDED_DOCS, {"b_mask": list(DOCS_MASK)}),
        (
            QUERIES,
            DOCS,
            {"a_mask": [each[:, 0] > 0 for each in QUERIES], "b_mask": DOCS_MASK & (PADDED_DOCS[..., 0] != 0)},
        ),
    ],
)
def test_forms_and_masks(name: str, grad: bool, a: Any, b: Any, masks: dict[str, Any]) -> None:
    if grad:
        a = [torch.as_tensor(each).clone().requires_grad_() for each in a] if isinstance(a, list) else a
        a = a if isinstance(a, list) else torch.as_tensor(a).clone().requires_grad_()
    theirs = getattr(library, name)(a, b, **masks)
    ours = getattr(face, name)(a, b, **masks)
    close(ours, theirs)
    assert ours.requires_grad == grad
    with torch.no_grad():
        assert torch.equal(ours, getattr(face, name)(a, b, **masks))  # the same bits both ways
    for each in (True, False):
        options = {**masks, "length_normalize": each, "chunk_elements": 50, "device": "cpu"}
        close(getattr(face, name)(a, b, **options), getattr(library, name)(a, b, **options))


@pytest.mark.parametrize("name", ["maxsim", "mean_maxsim"])
def test_the_specification(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    want = pe.maxsim(QUERIES, DOCS, reduce="sum" if name == "maxsim" else "mean")
    for block in (1, 60, 1 << 22):
        monkeypatch.setattr(module, "BLOCK", block)
        for docs in (DOCS, PADDED_DOCS, PADDED_DOCS.double(), pe.Ragged.of(DOCS)):
            assert torch.equal(getattr(face, name)(QUERIES, docs), want)
            assert torch.equal(getattr(face, f"{name}_pairwise")(QUERIES, docs), want.diagonal())
    halves = [each.half() for each in DOCS]
    assert torch.equal(face.maxsim(QUERIES, halves), pe.maxsim(QUERIES, halves))


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_numbers_weights(name: str) -> None:
    close(getattr(face, name)(PADDED, PADDED_DOCS, WEIGHTS), getattr(library, name)(PADDED, PADDED_DOCS, WEIGHTS))
    with pytest.raises(ValueError, match="a_mask must hold 0 and 1"):
        getattr(face, name)(PADDED.clone().requires_grad_(), PADDED_DOCS, WEIGHTS)


def test_nothing_is_behind_an_item_of_a_list() -> None:
    everything = torch.ones(4, 9)
    assert torch.equal(face.maxsim(QUERIES, DOCS, b_mask=everything), face.maxsim(QUERIES, DOCS))
    close(face.maxsim(QUERIES, DOCS, b_mask=everything), library.maxsim(QUERIES, DOCS, None, everything, 1))


def test_one_and_none() -> None:
    for a, b in ((PADDED[0], PADDED_DOCS[1]), (PADDED[0].numpy(), DOCS), (QUERIES, PADDED_DOCS[2])):
        close(face.maxsim(a, b), library.maxsim(a, b))
    close(face.maxsim(PADDED[0], DOCS, MASK[0]), library.maxsim(PADDED[0], DOCS, MASK[0]))
    close(face.maxsim(PADDED[:1], DOCS, MASK[:1]), library.maxsim(PADDED[:1], DOCS, MASK[:1]))
    close(face.maxsim_pairwise(PADDED[0], PADDED_DOCS[0]), library.maxsim_pairwise(PADDED[0], PADDED_DOCS[0]))
    for a, b in (([], DOCS), (QUERIES, []), ([], []), (PADDED[:0], PADDED_DOCS), (PADDED, PADDED_DOCS[:0])):
        close(face.maxsim(a, b), library.maxsim(a, b))
    close(face.maxsim_pairwise([], []), library.maxsim_pairwise([], []))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grad", [False, True])
def test_without_tokens(name: str, grad: bool) -> None:
    queries, docs = ragged(3, 0, 2), ragged(2, 0, 4)
    queries[0].requires_grad_(grad)
    for a, b, b_mask in (
        (queries, docs, None),
        (torch.nn.utils.rnn.pad_sequence(queries, batch_first=True), torch.zeros(3, 4, 8), None),
        (queries, PADDED_DOCS[:3], torch.zeros(3, 9)),
        (queries, tensor(3, 0, 8), None),
    ):
        close(getattr(face, name)(a, b, b_mask=b_mask), getattr(library, name)(a, b, b_mask=b_mask))


def test_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    from transformers.utils import logging

    logging.get_logger("x").warning_once.cache_clear()
    logging.enable_propagation()
    try:
        face.maxsim(QUERIES, ragged(2, 0))
    finally:
        logging.disable_propagation()
    assert "no tokens to score" in caplog.text


def test_integers_and_halves() -> None:
    codes = (PADDED_DOCS * 40).to(torch.int8)
    close(face.maxsim(PADDED, codes), library.maxsim(PADDED, codes))
    for dtype in (torch.float16, torch.bfloat16):
        ours, theirs = (each.maxsim(PADDED.to(dtype), PADDED_DOCS.to(dtype)) for each in (face, library))
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=0.2)
        assert torch.equal(ours, face.maxsim(PADDED.to(dtype).float(), PADDED_DOCS.to(dtype).float()))
    close(face.maxsim(PADDED.transpose(1, 2).contiguous().transpose(1, 2), PADDED_DOCS), face.maxsim(PADDED, DOCS))


@pytest.mark.parametrize("codec", ["int8", "float32"])
def test_what_is_packed_once(codec: str) -> None:
    index = pe.MultiVectorIndex(8, codec=codec)
    index.add(DOCS, ids=[7, 3, 12, 5])
    order = np.argsort([7, 3, 12, 5]) if list(index.ids) == [3, 5, 7, 12] else np.arange(4)
    assert torch.equal(face.maxsim(QUERIES, index), face.maxsim(QUERIES, [DOCS[i] for i in order]))
    want = face.mean_maxsim_pairwise(QUERIES, [DOCS[i] for i in order])
    assert torch.equal(face.mean_maxsim_pairwise(QUERIES, index), want)
    with pytest.raises(ValueError, match="b must be tensors"):
        face.maxsim(PADDED.clone().requires_grad_(), index)
    cosines = pe.MultiVectorIndex(8, normalize=True)
    cosines.add(DOCS)
    with pytest.raises(ValueError, match="normalize=False"):
        face.maxsim(QUERIES, cosines)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["colbert_scores", "colbert_kd_scores", "colbert_scores_pairwise"])
def test_training_scorers(name: str, masked: bool, mean: bool) -> None:
    docs = tensor(4, 9, 8) if name.endswith("pairwise") else tensor(4, 3, 9, 8)
    masks = {"queries_mask": MASK, "documents_mask": torch.rand(docs.shape[:-1]) < 0.8} if masked else {}
    results = []
    for one in (face, scoring):
        first, second = PADDED.clone().requires_grad_(), docs.clone().requires_grad_()
        scores = getattr(one, name)(first, second, **masks, length_normalize=mean)
        (scores * torch.arange(scores.numel()).view(scores.shape)).sum().backward()
        results.append((scores, first.grad, second.grad))
        with torch.no_grad():
            assert torch.equal(scores, getattr(one, name)(first, second, **masks, length_normalize=mean))
    close(results[0][0], results[1][0])
    for ours, theirs in zip(results[0][1:], results[1][1:]):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-4)


def test_losses_train_through_it() -> None:
    with face.patched():
        mean = scoring.mean_colbert_scores(PADDED, tensor(4, 2, 5, 8))
        assert scoring.colbert_scores is face.colbert_scores
        docs = tensor(4, 2, 5, 8)
        assert torch.equal(
            scoring.mean_colbert_scores(PADDED, docs), face.colbert_scores(PADDED, docs, length_normalize=True)
        )
        assert mean.shape == (4, 8)
        xtr = scoring.xtr_scores(PADDED, docs)
    close(xtr, scoring.xtr_scores(PADDED, docs))


def test_bad_input_is_a_sentence() -> None:
    bad = [each.clone() for each in DOCS]
    bad[2][0, 3] = float("nan")
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: face.maxsim(PADDED, PADDED_DOCS, a_mask=MASK[:, :4]), "a_mask must have 5 tokens"),
        (lambda: face.maxsim(PADDED, PADDED_DOCS, b_mask=DOCS_MASK[:3]), r"b_mask must have shape \(4, 9\)"),
        (lambda: face.maxsim(QUERIES, bad), "token 0 of row"),
        (lambda: face.maxsim(PADDED, PADDED_DOCS[..., :7]), "dimensions"),
        (lambda: face.maxsim(PADDED[0, 0], PADDED_DOCS), "a must be"),
        (lambda: face.maxsim_pairwise(QUERIES, DOCS[:2]), "as many items"),
        (lambda: face.colbert_kd_scores(PADDED, tensor(3, 2, 5, 8)), "a group for each of 4 queries; got 3"),
    ]
    for call, words in calls:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="a_mask must be a tensor"):
        face.maxsim(PADDED, PADDED_DOCS, a_mask="no")

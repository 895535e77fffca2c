"""colpali-engine's late interaction, beside its own. Tokens of small whole numbers make its float32 sums exact, so that
scores and, where no maxima tie, gradients are equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from tests.integrations.published import published, run

torch = pytest.importorskip("torch")
pytest.importorskip("colpali_engine")

from colpali_engine.loss import late_interaction_losses as losses  # noqa: E402
from colpali_engine.utils import maxsim, processing_utils  # noqa: E402

from pyengine.integrations import colpali_engine as face  # noqa: E402

OWN = {"maxsim_inbatch": maxsim.maxsim_inbatch, "maxsim_kd": maxsim.maxsim_kd}
PROCESSOR = processing_utils.BaseVisualRetrieverProcessor
OWN_SCORES = PROCESSOR.score_multi_vector


@pytest.fixture(autouse=True)
def unpatched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(face.VARIABLE, raising=False)
    yield
    face.unpatch()


def own(name: str, *tokens: Any) -> Any:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(face.VARIABLE, "torch")
        return OWN[name](*tokens)


def whole(*shape: int, seed: int = 0, low: int = -3, high: int = 4, dtype: Any = torch.float32) -> Any:
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape))
    return tokens.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OWN)
def test_scores_in_their_type(name: str, dtype: Any) -> None:
    shape = (5, 6, 4) if name == "maxsim_inbatch" else (3, 5, 6, 4)
    for low, high in ((-3, 4), (-4, 0), (0, 1)):
        queries, docs = whole(3, 5, 4, dtype=dtype).abs() + 1, whole(*shape, low=low, high=high, seed=1, dtype=dtype)
        docs = docs * (torch.arange(6) < 4)[:, None]  # pads
        got, want = getattr(face, name)(queries, docs), own(name, queries, docs)
        assert got.dtype == want.dtype == dtype
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", OWN)
def test_gradients(name: str) -> None:
    shape = (5, 6, 64) if name == "maxsim_inbatch" else (3, 5, 6, 64)
    queries, docs = whole(3, 5, 64, low=-50, high=51), whole(*shape, low=-50, high=51, seed=1)
    products = torch.einsum("qld,...td->q...lt", queries.detach(), docs.detach())
    ordered = products.sort(dim=-1).values
    assert (ordered[..., -1] > ordered[..., -2]).all()  # one maximum each
    weights = torch.arange(15).view(3, 5) % 5 - 2
    ours, theirs = (
        torch.autograd.grad((function(queries, docs) * weights).sum(), (queries, docs))
        for function in (getattr(face, name), lambda *tokens: own(name, *tokens))
    )
    assert all(torch.equal(got, want) for got, want in zip(ours, theirs))
    assert ours[1].abs().sum() > 0


def test_of_equal_maxima_the_first_gets_the_gradient() -> None:
    query, doc = torch.ones(1, 1, 2, requires_grad=True), torch.ones(1, 3, 2, requires_grad=True)
    face.maxsim_inbatch(query, doc).sum().backward()
    assert doc.grad.tolist() == [[[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]]
    assert query.grad.tolist() == [[[1.0, 1.0]]]


@pytest.mark.parametrize(
    ("queries", "docs"),
    [
        (torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)),
        (torch.randn(2, 3, 4), torch.randn(0, 3, 4)),
        (torch.randn(2, 0, 4), torch.randn(2, 3, 4)),
    ],
)
def test_what_is_left_to_the_library(queries: Any, docs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    want = own("maxsim_inbatch", queries, docs)
    assert torch.equal(face.maxsim_inbatch(queries, docs), want)
    monkeypatch.setenv(face.VARIABLE, "PyEngine")  # on every call
    with pytest.raises(face.PyengineUnsupported, match="pyengine"):
        face.maxsim_inbatch(queries, docs)
    monkeypatch.setenv(face.VARIABLE, "torch")
    assert torch.equal(face.maxsim_inbatch(queries, docs), want)


def test_other_exceptions_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match="token 1 of row 0 holds NaN"):
        face.maxsim_inbatch(tokens.index_fill(1, torch.tensor([1]), float("nan")), tokens)
    monkeypatch.setenv(face.VARIABLE, "cuda")
    with pytest.raises(ValueError, match="COLPALI_SCORES_BACKEND must be one of"):
        face.maxsim_inbatch(tokens, tokens)


@pytest.mark.parametrize("batch_size", [1, 3, 128])
@pytest.mark.parametrize("sign", [1, -1])
def test_score_multi_vector(batch_size: int, sign: int) -> None:
    lengths = np.random.default_rng(1).integers(1, 9, 12)
    queries = [whole(int(length), 6, low=1, seed=i).detach() for i, length in enumerate(lengths[:5])]
    passages = [sign * whole(int(length), 6, low=1, seed=i).detach() for i, length in enumerate(lengths)]
    got = face.score_multi_vector(queries, passages, batch_size)
    assert (got.dtype, got.device.type, got.shape) == (torch.float32, "cpu", (5, 12))
    assert torch.equal(got, OWN_SCORES(queries, passages, batch_size, device="cpu"))
    tensors = torch.stack([queries[0]] * 3), sign * torch.stack([passages[3]] * 4)
    assert torch.equal(face.score_multi_vector(*tensors), OWN_SCORES(*tensors, device="cpu"))
    half = [each.bfloat16() for each in queries], [each.bfloat16() for each in passages]
    assert torch.equal(face.score_multi_vector(*half, batch_size, "cpu"), got)


def test_score_multi_vector_is_the_specifications() -> None:
    rng = np.random.default_rng(3)
    queries, passages = (
        [rng.standard_normal((n, 24)).astype(np.float32) for n in lengths] for lengths in ((3, 9), (30, 30))
    )
    tensors = [[torch.from_numpy(each) for each in side] for side in (queries, passages)]
    got = face.score_multi_vector(tensors[0], tensors[1])
    np.testing.assert_array_equal(got.numpy(), pe.maxsim(queries, passages, backend="numpy"))


def test_score_multi_vector_with_gradients() -> None:
    queries, passages = [whole(3, 4), whole(2, 4, seed=1)], [whole(5, 4, seed=2)]
    with face.patched():
        got = face.score_multi_vector(queries, passages, device="cpu")
    assert torch.equal(got, OWN_SCORES(queries, passages, device="cpu"))
    got.sum().backward()
    assert all(each.grad is not None for each in (*queries, *passages))
    with torch.no_grad():
        assert torch.equal(face.score_multi_vector(queries, passages), got)


def test_nothing_to_score() -> None:
    tokens = torch.ones(2, 3, 4)
    for queries, passages, name in (([], tokens, "qs"), (tokens, [], "ps"), (tokens[:0], tokens, "qs")):
        with pytest.raises(ValueError, match=f"{name} must hold at least one set of tokens"):
            face.score_multi_vector(queries, passages)


def test_patch_and_unpatch() -> None:
    pe.patch_colpali_engine()
    pe.patch_colpali_engine()
    assert losses.maxsim_inbatch is processing_utils.maxsim_inbatch is face.maxsim_inbatch
    assert losses.maxsim_kd is face.maxsim_kd
    assert PROCESSOR.score_multi_vector is face.score_multi_vector
    with face.patched():
        pass
    assert maxsim.maxsim_kd is face.maxsim_kd
    pe.unpatch_colpali_engine()
    assert (losses.maxsim_inbatch, losses.maxsim_kd) == tuple(OWN.values())
    assert PROCESSOR.score_multi_vector is OWN_SCORES


def test_a_loss() -> None:
    queries, docs = torch.randn(4, 7, 16, requires_grad=True), torch.randn(4, 30, 16, requires_grad=True)
    outcomes = []
    for backend in ("torch", "pyengine"):
        with pytest.MonkeyPatch.context() as environment, face.patched():
            environment.setenv(face.VARIABLE, backend)
            loss = losses.ColbertLoss()(queries, docs)
            outcomes.append([loss.detach(), *torch.autograd.grad(loss, (queries, docs))])
    for theirs, ours in zip(*outcomes):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_librarys_own_tests() -> None:
    files = ["tests/utils/test_maxsim.py", "tests/utils/test_processing_utils.py", "tests/loss/test_li_losses.py"]
    halves = "16 bits: ours are rounded once, and theirs at every step, by up to 0.25"
    tests = [f"{name}_matches_einsum_baseline[dtype{i}]" for name in OWN for i in (1, 2)]
    different = {f"tests/utils/test_maxsim.py::test_{name}": halves for name in tests}
    run(published("colpali-engine"), files, "patched_colpali_engine", different)

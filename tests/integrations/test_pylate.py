"""PyLate's scores and rerank, beside PyLate's own. Tokens of small whole numbers make its float32 sums exact, so that
scores and gradients are equal; ties abound there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from tests.integrations.published import published, run

torch = pytest.importorskip("torch")
pytest.importorskip("pylate")

from pylate import losses, rank, scores  # noqa: E402

from pyengine.integrations import pylate as face  # noqa: E402

MASKS: dict[str, Callable[[Any], Any]] = {
    "none": lambda kept: None,
    "bool": lambda kept: kept,
    "float32": lambda kept: kept.float(),
    "int64": lambda kept: kept.long(),
    "weights": lambda kept: kept * torch.tensor([2.0, 0.5, -1.0])[torch.arange(kept.numel()).view(kept.shape) % 3],
}
OWN = {"colbert_scores": scores.colbert_scores, "colbert_kd_scores": scores.colbert_kd_scores}


@pytest.fixture(autouse=True)
def unpatched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(face.VARIABLE, raising=False)
    yield
    face.unpatch()


def whole(*shape: int, seed: int = 0, low: int = -3, high: int = 4, dtype: Any = torch.float32) -> Any:
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape))
    return tokens.to(dtype).requires_grad_()


def kept(*shape: int, seed: int = 9, share: float = 0.6) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < share)


def graded(function: Any, queries: Any, docs: Any, *masks: Any, **options: Any) -> tuple[Any, Any, Any]:
    """Scores, and gradients of a sum of them with weights that are whole numbers."""
    found = function(queries, docs, *masks, **options)
    weights = (torch.arange(found.numel(), device=found.device) % 5 - 2).view(found.shape)
    return found, *torch.autograd.grad((found * weights).sum(), (queries, docs))


def same(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    for got, want in zip(ours, theirs, strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("doc_mask", MASKS)
@pytest.mark.parametrize("query_mask", MASKS)
@pytest.mark.parametrize("name", OWN)
def test_masks_and_types(name: str, query_mask: str, doc_mask: str, dtype: Any) -> None:
    shape = (5, 6, 4) if name == "colbert_scores" else (3, 4, 6, 4)
    queries, docs = whole(3, 5, 4, dtype=dtype), whole(*shape, seed=1, dtype=dtype)
    masks = MASKS[query_mask](kept(3, 5)), MASKS[doc_mask](kept(*shape[:-1]))
    ours = graded(getattr(face, name), queries, docs, *masks, backend="pyengine")
    same(ours, graded(OWN[name], queries, docs, *masks, backend="torch"))


@pytest.mark.parametrize("name", OWN)
def test_a_masked_token_wins_over_negative_similarities(name: str) -> None:
    shape = (5, 6, 4) if name == "colbert_scores" else (3, 5, 6, 4)
    queries, docs = whole(3, 5, 4, low=1), whole(*shape, low=-4, high=0)
    mask = kept(*shape[:-1])
    mask[..., 0, :], mask[..., 1, :] = True, False  # all are tokens, and none is
    ours = graded(getattr(face, name), queries, docs, None, mask, backend="pyengine")
    same(ours, graded(OWN[name], queries, docs, None, mask, backend="torch"))
    assert (ours[0][:, 0] < 0).all()
    assert (ours[0][:, 1:] == 0).any()


def test_pairs() -> None:
    queries, docs = whole(7, 5, 4), whole(7, 6, 4, seed=1)
    own = scores.colbert_scores_pairwise
    same(graded(face.colbert_scores_pairwise, queries, docs), graded(own, queries, docs, backend="torch"))
    lengths = zip(np.arange(7) % 5 + 1, 7 - np.arange(7))
    ragged = [(query[:asked], -doc[:offered].abs()) for query, doc, (asked, offered) in zip(queries, docs, lengths)]
    lists = [list(side) for side in zip(*ragged)]
    for first, second in (lists, [[row.detach().numpy() for row in side] for side in lists]):
        got = face.colbert_scores_pairwise(first, second, backend="pyengine")
        assert torch.equal(got, own(first, second, backend="torch"))
    short = face.colbert_scores_pairwise(queries, docs[:4])  # PyLate's way: as many as there are of both
    assert torch.equal(short, own(queries, docs[:4], backend="torch"))


def test_scores_are_the_specifications() -> None:
    rng = np.random.default_rng(3)
    queries, docs = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 9, 24), (6, 30, 24)))
    mask = rng.random((6, 30)) < 0.7
    tokens = [np.concatenate([doc[own], np.zeros((1, 24), np.float32)]) for doc, own in zip(docs, mask)]
    got = face.colbert_scores(torch.from_numpy(queries), torch.from_numpy(docs), documents_mask=torch.from_numpy(mask))
    np.testing.assert_array_equal(got.numpy(), pe.maxsim(queries, tokens, backend="numpy"))
    theirs = scores.colbert_scores(queries, docs, documents_mask=torch.from_numpy(mask), backend="torch")
    torch.testing.assert_close(got, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("queries", "docs"),
    [
        (torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)),
        (torch.ones(2, 3, 4, dtype=torch.int64), torch.ones(2, 3, 4, dtype=torch.int64)),
        (torch.randn(2, 3, 4), torch.randn(0, 3, 4)),
        (torch.randn(0, 3, 4), torch.randn(2, 3, 4)),
        (torch.randn(2, 0, 4), torch.randn(2, 3, 4)),
    ],
)
def test_what_is_left_to_pylate(queries: Any, docs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    want = scores.colbert_scores(queries, docs, backend="torch")
    assert torch.equal(face.colbert_scores(queries, docs), want)
    with pytest.raises(face.PyengineUnsupported, match="pyengine"):
        face.colbert_scores(queries, docs, backend="pyengine")
    monkeypatch.setenv(face.VARIABLE, "PyEngine")  # on every call
    with pytest.raises(face.PyengineUnsupported, match="pyengine"):
        face.colbert_scores(queries, docs)
    monkeypatch.setenv(face.VARIABLE, "torch")
    assert torch.equal(face.colbert_scores(queries, docs), want)


def test_other_exceptions_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match="token 1 of row 0 holds NaN"):
        face.colbert_scores(tokens.index_fill(1, torch.tensor([1]), float("nan")), tokens)
    with pytest.raises(ValueError, match="backend must be one of"):
        face.colbert_scores(tokens, tokens, backend="cuda")
    with pytest.raises(RuntimeError, match="requires CUDA"):
        face.colbert_scores(tokens, tokens, backend="flash")


def test_the_other_back_ends_do_not_meet_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pe.torch, "maxsim", None)
    tokens = torch.randn(2, 3, 4)
    for name, own in OWN.items():
        docs = tokens if name == "colbert_scores" else tokens[None].expand(2, -1, -1, -1)
        assert torch.equal(getattr(face, name)(tokens, docs, backend="torch"), own(tokens, docs, backend="torch"))


def test_is_available() -> None:
    assert face.is_available()


class Model(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    """Token embeddings that are there already."""

    skiplist = (1, 2)
    do_query_expansion = False

    def __init__(self, *embeddings: Any) -> None:
        super().__init__()
        self.embeddings = torch.nn.ParameterList(embeddings)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"token_embeddings": self.embeddings[features["which"]]}


def features(*shapes: tuple[int, ...]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(4)
    ids = [torch.from_numpy(rng.integers(0, 9, shape)) for shape in shapes]
    return [
        {"which": i, "input_ids": each, "attention_mask": torch.from_numpy(rng.random(each.shape) < 0.8)}
        for i, each in enumerate(ids)
    ]


@pytest.mark.parametrize("mini", [None, 3])
def test_contrastive_loss(mini: int | None) -> None:
    given = features((4, 8), (4, 30), (4, 30))
    model = Model(*(torch.randn(*each["input_ids"].shape, 16) for each in given))
    loss = losses.Contrastive(model, score_mini_batch_size=mini, temperature=0.1)
    compared(loss, model, given)


def test_distillation_loss_whose_default_was_bound_before() -> None:
    given = features((4, 8), (12, 30))
    model = Model(*(torch.randn(*each["input_ids"].shape, 16) for each in given))
    own = losses.Distillation(model).score_metric
    with face.patched():
        assert losses.Distillation(model).score_metric is face.colbert_kd_scores
        compared(losses.Distillation(model), model, given, torch.randn(4, 3))
    assert losses.Distillation(model).score_metric is own is OWN["colbert_kd_scores"]


def compared(loss: Any, model: Model, given: list[dict[str, Any]], *labels: Any) -> None:
    """The loss and its gradients by PyLate, and patched."""
    outcomes = []
    for backend in ("torch", "pyengine"):
        with pytest.MonkeyPatch.context() as environment, face.patched():
            environment.setenv(face.VARIABLE, backend)
            model.zero_grad()
            value = loss(given, *labels)
            value.backward()
            outcomes.append([value.detach(), *(each.grad.clone() for each in model.parameters())])
    for theirs, ours in zip(*outcomes):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_patch_and_unpatch() -> None:
    from pylate.scores import similarity_functions

    own = scores.colbert_scores, rank.rerank
    pe.patch_pylate()
    pe.patch_pylate()
    assert (scores.colbert_scores, rank.rerank) == (face.colbert_scores, face.rerank)
    assert similarity_functions.SimilarityFunction.to_similarity_fn("MaxSim") is face.colbert_scores
    assert torch.equal(scores.colbert_scores(torch.ones(1, 2, 3), torch.ones(1, 2, 3)), torch.tensor([[6.0]]))
    with face.patched():
        pass
    assert scores.colbert_scores is face.colbert_scores
    pe.unpatch_pylate()
    assert (scores.colbert_scores, rank.rerank) == own == (scores.colbert.colbert_scores, rank.rank.rerank)


def reranked(convert: Callable[[Any], Any], seed: int = 0, whole_numbers: bool = False) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)

    def tokens(count: int) -> Any:
        drawn = rng.integers(-3, 4, (count, 8)) if whole_numbers else rng.standard_normal((count, 8))
        return convert(torch.from_numpy(drawn.astype(np.float32)))

    sizes = [4, 1, 9, 30]
    ids = [[f"document {j}" if j % 2 else j for j in range(size)] for size in sizes]
    queries = [tokens(int(rng.integers(1, 7))) for _ in sizes]
    return ids, queries, [[tokens(int(rng.integers(1, 12))) for _ in range(size)] for size in sizes]


@pytest.mark.parametrize("convert", [lambda each: each, lambda each: each.numpy(), lambda each: each.half()])
def test_rerank(convert: Callable[[Any], Any]) -> None:
    given = reranked(convert)
    ours, theirs = face.rerank(*given), rank.rerank(*given)
    if not isinstance(given[1][0], torch.Tensor) or given[1][0].dtype == torch.float32:
        assert [[each["id"] for each in row] for row in ours] == [[each["id"] for each in row] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert all(list(each) == ["id", "score"] and type(each["score"]) is float for each in row)
        tolerance = 5e-3 if given[1][0].dtype == torch.float16 else 1e-5
        np.testing.assert_allclose(
            sorted(each["score"] for each in row), sorted(each["score"] for each in other), rtol=tolerance, atol=1e-5
        )


@pytest.mark.parametrize("sign", [1, -1])
def test_rerank_pads_with_zeros_that_count(sign: int) -> None:
    ids, queries, docs = reranked(lambda each: each.abs(), whole_numbers=True)
    docs = [[sign * doc for doc in each] for each in docs]
    ours, theirs = face.rerank(ids, queries, docs), rank.rerank(ids, queries, docs)
    for row, other in zip(ours, theirs, strict=True):
        assert [each["score"] for each in row] == [each["score"] for each in other]
        assert {(each["id"], each["score"]) for each in row} == {(each["id"], each["score"]) for each in other}


def test_rerank_at_the_edges() -> None:
    doc = torch.ones(2, 3)
    same_twice = face.rerank([["b", "a"]], doc, [[doc, doc]])  # one query [L, D]; a tie
    assert same_twice == [[{"id": "b", "score": 6.0}, {"id": "a", "score": 6.0}]]
    assert face.rerank([[]], [doc], [[]]) == [[]]
    assert face.rerank([[1]], [doc], doc[None, None]) == [[{"id": 1, "score": 6.0}]]
    assert face.rerank([], torch.ones(0, 2, 3), []) == []
    assert face.rerank([], [], []) == []
    with pytest.raises(
        ValueError, match=r"list of ids and one of as many documents; got 1 queries, lists of \[2\] ids"
    ):
        face.rerank([[1, 2]], [doc], [[doc]])
    with pytest.raises(ValueError, match="must be finite"):
        face.rerank([[1]], [doc], [[doc * float("inf")]])


def test_pylates_own_tests() -> None:
    files = ["tests/test_colbert_scores.py", "tests/test_scores_lik.py", "tests/test_scores_flash.py"]
    run(published("pylate"), files, "patched_pylate")

"""`pyengine.torch.maxsim`: scores to the bit, gradients against float64 autograd, and what operators must be."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.inputs.ragged import Ragged
from pyengine.specification import reference_maxsim
from pyengine.types import F32

torch = pytest.importorskip("torch")
from pyengine.training import torch_blocks, torch_maxsim  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

MAXIMA = ("sum", "mean", "symmetric")
PATHS = ("native", "torch")


@dataclass
class Batch:
    """Padded tokens with masks, and how they are scored."""

    queries: Any  # [Q, Lq, D]
    docs: Any  # [N, Ld, D]
    queries_mask: Any  # [Q, Lq]
    docs_mask: Any  # [N, Ld]
    reduce: str = "sum"
    normalize: bool = False

    def options(self) -> dict[str, Any]:
        temperature = 0.3 if self.reduce == "softmax" else None
        return {"reduce": self.reduce, "normalize": self.normalize, "temperature": temperature}

    def scores(self, **more: Any) -> Tensor:
        masks = {"queries_mask": self.queries_mask, "docs_mask": self.docs_mask}
        return pe.torch.maxsim(self.queries, self.docs, **(masks | self.options() | more))

    def specified(self) -> F32:
        sets = [
            Ragged.padded(tokens.detach().float().numpy(), mask.numpy())
            for tokens, mask in ((self.queries, self.queries_mask), (self.docs, self.docs_mask))
        ]
        return reference_maxsim.scores(*sets, reduce=self.reduce, normalize=self.normalize)

    def to(self, dtype: Any) -> Batch:
        """The same tokens as leaves of this type, and what is masked NaN."""
        tokens = ((self.queries, self.queries_mask), (self.docs, self.docs_mask))
        fresh = [each.detach().to(dtype).masked_fill(~mask[..., None], torch.nan) for each, mask in tokens]
        return replace(self, queries=fresh[0].requires_grad_(), docs=fresh[1].requires_grad_())


def batch(kind: str = "normal", dim: int = 33, reduce: str = "sum", normalize: bool = False, seed: int = 0) -> Batch:
    """Padding at the start, the middle and the end; a document and a query without tokens, and full ones."""
    rng = np.random.default_rng(seed)
    queries = torch.from_numpy(KINDS[kind](rng, (4, 6, dim)).astype(np.float32))
    docs = torch.from_numpy(KINDS[kind](rng, (7, 19, dim)).astype(np.float32))
    queries_mask, docs_mask = (torch.from_numpy(rng.random(shape) < 0.6) for shape in ((4, 6), (7, 19)))
    at = torch.arange(19)
    docs_mask[:5] = torch.stack([at < 11, at >= 4, (at < 3) | (at > 9), at < 0, at >= 0])
    queries_mask[1], queries_mask[2] = False, True
    return Batch(queries, docs, queries_mask, docs_mask, reduce, normalize).to(torch.float32)


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape),
    "equal": lambda rng, shape: np.broadcast_to(rng.standard_normal(shape[-1]), shape),
    "negative": lambda rng, shape: np.abs(rng.standard_normal(shape)) * (1 if shape[1] == 6 else -1),
    "zeros": lambda rng, shape: rng.standard_normal(shape) * rng.integers(0, 2, (*shape[:-1], 1)),
    "huge": lambda rng, shape: rng.standard_normal(shape) * 1e37,
    "tiny": lambda rng, shape: rng.standard_normal(shape) * 1e-40,
}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The extension, and what other devices and float64 take, in small blocks."""
    if request.param == "torch":
        monkeypatch.setattr(torch_maxsim, "_native", lambda tokens: None)
        monkeypatch.setattr(torch_blocks, "LANE_PRODUCTS", 300)
        monkeypatch.setattr(torch_blocks, "CHOICES", 50)
    monkeypatch.setattr(torch_blocks, "PRODUCTS", 300)
    return str(request.param)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_bits(got: Tensor, want: F32) -> None:
    assert got.dtype == torch.float32
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.detach().numpy().view(np.int32), want.view(np.int32))


SCALES = {"normal": 1.0, "squares underflow": 1e-170, "products underflow": 1e-162, "overflow": 1e154, "huge": 1e307}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reduce", ["sum", "symmetric"])
@pytest.mark.parametrize("kind", [*KINDS, "near"])
def test_float64_is_as_if_all_products_were_compared(
    kind: str, reduce: str, normalize: bool, scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind in ("huge", "tiny") and scale in ("overflow", "huge"):
        pytest.skip("tokens would not be finite")
    case = batch("equal" if kind == "near" else kind, reduce=reduce)
    tensors = [(each.detach().double() * SCALES[scale]) for each in (case.queries, case.docs)]
    if kind == "near":  # maxima that the last bits decide
        tensors = [each * (1 + torch.randint(-2, 3, each.shape) * 2.0**-52) for each in tensors]
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(7))
    given = (*tensors, case.queries_mask, case.docs_mask, pairs, reduce, normalize, 0.0)
    got = torch_maxsim.forward(*given)
    monkeypatch.setattr(torch_blocks, "_possible", lambda estimates, reach, norms, real, *rest: real)
    for one, other in zip(got, torch_maxsim.forward(*given)):
        assert torch.equal(one.nan_to_num(0.5), other.nan_to_num(0.5))


def test_few_products_could_be_maxima(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    listed = torch_blocks._listed_products

    def counting(*arguments: Any) -> Tensor:
        counted.append(int(arguments[3].sum()))
        return listed(*arguments)

    monkeypatch.setattr(torch_blocks, "_listed_products", counting)
    pe.torch.maxsim(torch.randn(3, 8, 64, dtype=torch.float64), torch.randn(5, 40, 64, dtype=torch.float64))
    assert sum(counted) == 3 * 5 * 8


def einsum(case: Batch) -> Tensor:
    """Scores [Q, N], 0 where a document has no tokens; of equal maxima the first is taken."""
    queries, docs = (
        each.masked_fill(~mask[..., None], 0.0)
        for each, mask in ((case.queries, case.queries_mask), (case.docs, case.docs_mask))
    )
    if case.normalize:
        queries, docs = unit(queries), unit(docs)
    products = torch.einsum("qid,njd->qnij", queries, docs)
    if case.reduce == "softmax":
        logits = (products / 0.3).masked_fill(~case.docs_mask[None, :, None], -torch.inf)
        parts = (torch.nan_to_num(logits.softmax(3)) * products).sum(3)
        score = (parts * case.queries_mask[:, None]).sum(2) / counts(case.queries_mask)[:, None]
    else:
        score = maxima(products, case.queries_mask[:, None], case.docs_mask[None], case.reduce != "sum")
        if case.reduce == "symmetric":
            back = maxima(products.mT, case.docs_mask[None], case.queries_mask[:, None], True)
            score = (score + back) / 2
    usable = case.queries_mask.any(1)[:, None] & case.docs_mask.any(1)[None]
    result: Tensor = torch.where(usable, score, 0.0)
    return result


def maxima(products: Tensor, choosers: Tensor, chosen: Tensor, mean: bool) -> Tensor:
    first = products.detach().masked_fill(~chosen[..., None, :], -torch.inf).argmax(3, keepdim=True)
    best = (products.gather(3, first)[..., 0] * choosers).sum(2)
    return best / counts(choosers) if mean else best


def counts(mask: Tensor) -> Tensor:
    return mask.sum(-1).clamp(min=1)


def unit(tokens: Tensor) -> Any:
    square = (tokens * tokens).sum(-1, keepdim=True)
    return tokens * torch.where(square > 0, square.clamp(min=1e-300).rsqrt(), 0.0)


def gradients(scores: Tensor, case: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Of a weighted sum of the scores that are finite."""
    loss = torch.where(scores > -torch.inf, scores, 0.0).double() * weights
    found: tuple[Tensor, Tensor] = torch.autograd.grad(loss.sum(), (case.queries, case.docs))
    return found


def assert_close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], tolerance: float) -> None:
    for one, other in zip(got, want):
        scale = other.double().abs().max().clamp(min=0.1)  # where cosines are constant, all is rounding
        torch.testing.assert_close(one.double() / scale, other.double() / scale, rtol=0, atol=tolerance)


@pytest.mark.usefixtures("path", "poison")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reduce", MAXIMA)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_specification(kind: str, reduce: str, normalize: bool) -> None:
    case = batch(kind, reduce=reduce, normalize=normalize)
    assert_bits(case.scores(), case.specified())


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 8, 96])
def test_half_precision_is_taken_exactly(dtype: Any, dim: int) -> None:
    case = batch(dim=dim, reduce="symmetric", normalize=True).to(dtype)
    assert_bits(case.scores(), case.specified())
    found = gradients(case.scores(), case, torch.ones(4, 7))
    assert [each.dtype for each in found] == [dtype, dtype]
    wide = case.to(torch.float32)
    assert_close(found, gradients(wide.scores(), wide, torch.ones(4, 7)), 2**-8)


def test_two_types_are_both_taken_for_the_wider() -> None:
    case = batch()
    mixed = replace(case, queries=case.to(torch.bfloat16).queries)
    assert_bits(mixed.scores(), mixed.specified())
    found = gradients(mixed.scores(), mixed, torch.ones(4, 7))
    assert [each.dtype for each in found] == [torch.bfloat16, torch.float32]


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_lists_of_pairs(reduce: str) -> None:
    case = batch(reduce=reduce)
    pairs = torch.tensor([[3, 6], [0, 3], [1, 3], [3, 6], [2, 0], [0, 5]])
    for dtype in (torch.int32, torch.int64, torch.uint8):
        got = case.scores(pairs=pairs.to(dtype))
        assert torch.equal(got, case.scores()[pairs[:, 0], pairs[:, 1]])
    weights = torch.linspace(1, 2, 6)
    spread = torch.zeros(4, 7).index_put((pairs[:, 0], pairs[:, 1]), weights, accumulate=True)
    assert_close(gradients(got, case, weights), gradients(case.scores(), case, spread), 1e-6)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_distillation_scores_each_query_with_its_own_documents(reduce: str) -> None:
    case = batch(reduce=reduce)
    own = torch.tensor([[0, 3, 6], [1, 1, 2], [4, 5, 6], [6, 5, 4]])  # [Q, K]
    got = replace(case, docs=case.docs[own], docs_mask=case.docs_mask[own]).scores()
    assert torch.equal(got, case.scores().gather(1, own))
    weights = torch.ones(4, 7).scatter(1, own, 2.0) - 1
    weights[1, 1] = 2.0  # listed twice
    assert_close(gradients(got, case, torch.ones(4, 3)), gradients(case.scores(), case, weights), 1e-6)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
@pytest.mark.parametrize(
    "shapes",
    [
        ((0, 3, 8), (2, 5, 8)),
        ((2, 3, 8), (0, 5, 8)),
        ((2, 0, 8), (3, 5, 8)),
        ((2, 3, 8), (3, 0, 8)),
        ((2, 0, 8), (3, 0, 8)),
        ((2, 3, 8), (2, 0, 5, 8)),
    ],
)
def test_nothing_to_score(reduce: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    queries, docs = (torch.randn(shape, requires_grad=True) for shape in shapes)
    temperature = 1.0 if reduce == "softmax" else None
    got = pe.torch.maxsim(queries, docs, reduce=reduce, temperature=temperature)
    assert got.shape == (shapes[0][0], shapes[1][-3])
    want = 0.0 if shapes[0][1] == 0 else -torch.inf
    assert torch.equal(got, torch.full_like(got, want))
    for each in torch.autograd.grad(got.sum(), (queries, docs)):
        assert not each.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalize", [False, True])
def test_softmax_is_within_its_bound(dtype: Any, normalize: bool) -> None:
    case = batch(reduce="softmax", normalize=normalize).to(dtype)
    want = einsum(case.to(torch.float64)).detach()
    torch.testing.assert_close(
        torch.where(case.scores() > -torch.inf, case.scores(), 0.0).double(), want, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(("temperature", "limit"), [(1e-300, "max"), (float("inf"), "mean")])
def test_softmax_has_its_limits(temperature: float, limit: str) -> None:
    case = replace(batch(), queries_mask=torch.ones(4, 6, dtype=torch.bool), docs_mask=torch.ones(7, 19).bool())
    queries, docs = (torch.randn_like(each, requires_grad=True) for each in (case.queries, case.docs))
    got = pe.torch.maxsim(queries, docs, reduce="softmax", temperature=temperature)
    products = torch.einsum("qid,njd->qnij", queries.double(), docs.double())
    want = (products.amax(3) if limit == "max" else products.mean(3)).mean(2)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-9)
    both = [torch.autograd.grad(each.sum(), (queries, docs)) for each in (got, want)]
    assert_close(both[0], both[1], 1e-6)


# Which of equal cosines is the greatest is decided by their last bits, and in another formulation otherwise.
DIFFERENTIABLE = [
    *((kind, False) for kind in ("normal", "ties", "equal", "negative", "zeros")),
    *((kind, True) for kind in ("normal", "negative", "zeros")),
]


@pytest.mark.usefixtures("path", "poison")
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
@pytest.mark.parametrize(("kind", "normalize"), DIFFERENTIABLE)
def test_gradients_are_those_of_the_tensor_of_all_products(kind: str, reduce: str, normalize: bool) -> None:
    case = batch(kind, reduce=reduce, normalize=normalize)
    weights = torch.linspace(-1, 1, 28).view(4, 7).double()
    truth = case.to(torch.float64)
    got = gradients(case.scores(), case, weights)
    assert_close(got, gradients(einsum(truth), truth, weights), 2e-6)
    for each, mask in zip(got, (case.queries_mask, case.docs_mask)):
        assert not each[~mask].any()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_of_equal_maxima_gets_the_gradient(dtype: Any, normalize: bool) -> None:
    doc = torch.randn(1, 1, 16, dtype=dtype).expand(1, 5, 16).clone().requires_grad_()
    query = torch.randn(1, 3, 16, dtype=dtype, requires_grad=True)
    mask = torch.tensor([[False, False, True, True, True]])
    score = pe.torch.maxsim(query, doc, docs_mask=mask, reduce="symmetric", normalize=normalize)
    (gradient,) = torch.autograd.grad(score.sum(), doc)
    alone = torch.autograd.grad(pe.torch.maxsim(query, doc[:, 2:3], normalize=normalize, reduce="mean").sum(), doc)[0]
    best = (query.detach() * doc.detach()[:, 2]).sum(-1)
    assert gradient[0, 2].abs().sum() > gradient[0, 3].abs().sum()
    if not normalize:  # forth: all three queries choose token 2; back: each token chooses the best query
        back = query.detach()[0, best.argmax()] / 3
        torch.testing.assert_close(gradient[0, 2], (alone[0, 2] + back) / 2)
        torch.testing.assert_close(gradient[0, 4], back / 2)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_gradcheck(reduce: str, normalize: bool) -> None:
    queries_mask, docs_mask = torch.ones(2, 3).bool(), torch.ones(3, 4).bool()
    queries_mask[1, 1] = docs_mask[0, 0] = docs_mask[1] = False
    queries, docs = (torch.randn(*shape, 3, dtype=torch.float64, requires_grad=True) for shape in ((2, 3), (3, 4)))
    case = Batch(queries, docs, queries_mask, docs_mask, reduce, normalize)

    def finite(queries: Tensor, docs: Tensor) -> Tensor:
        scores = replace(case, queries=queries, docs=docs).scores()
        result: Tensor = torch.where(scores > -torch.inf, scores, 0.0)
        return result

    assert torch.autograd.gradcheck(finite, (case.queries, case.docs))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_gradients_do_not_depend_on_threads(reduce: str, threads: Callable[[int], None]) -> None:
    case = batch(reduce=reduce, normalize=True)
    found = []
    for number in (1, 2, 3, 2):
        threads(number)
        found.append(gradients(case.scores(), case, torch.linspace(-1, 1, 28).view(4, 7)))
    for again in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(again, found[0]))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_the_inputs_stay_as_they_are(reduce: str, dtype: Any) -> None:
    case = batch(reduce=reduce, normalize=True).to(dtype)
    before = [each.detach().clone() for each in (case.queries, case.docs)]
    gradients(case.scores(), case, torch.ones(4, 7))
    for each, copy in zip((case.queries, case.docs), before):
        assert torch.equal(each.detach().nan_to_num(), copy.nan_to_num())
        assert torch.equal(each.isnan(), copy.isnan())


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
@pytest.mark.parametrize("side", ["queries", "docs"])
def test_only_one_side_needs_a_gradient(side: str, reduce: str, normalize: bool) -> None:
    case = batch(reduce=reduce, normalize=normalize)
    leaf, other = getattr(case, side), "docs" if side == "queries" else "queries"
    scores = replace(case, **{other: getattr(case, other).detach()}).scores()
    torch.autograd.backward(scores[:, 0].sum())
    assert torch.equal(leaf.grad, torch.autograd.grad(case.scores()[:, 0].sum(), leaf)[0])


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_what_is_not_wanted_is_not_computed(reduce: str) -> None:
    case = batch(reduce=reduce)
    tensors = [each.detach() for each in (case.queries, case.docs, case.queries_mask, case.docs_mask)]
    tensors.append(torch.cartesian_prod(torch.arange(4), torch.arange(7)))
    arguments: list[Any] = [*tensors, reduce, True, 0.3]
    _, *winners = torch_maxsim.forward(*arguments)
    both = [len(tensors[0]), len(tensors[1])]
    for wanted in ((True, True), (True, False), (False, True), (False, False)):
        arguments = [torch.ones(28), *tensors, *winners, reduce, True, 0.3, *wanted]
        found = torch_maxsim.backward(*arguments)
        assert [len(each) for each in found] == [n if want else 0 for n, want in zip(both, wanted)]


def test_nothing_needs_a_gradient() -> None:
    case = batch()
    assert not replace(case, queries=case.queries.detach(), docs=case.docs.detach()).scores().requires_grad


def test_a_gradient_has_none_itself() -> None:
    case = batch()
    scores = case.scores()[:, 0].sum()
    (gradient,) = torch.autograd.grad(scores, case.queries, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        torch.autograd.backward(gradient.sum())


MEMORY = """
import resource, sys
import torch, pyengine as pe

n, length, reduce, share = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
queries, docs = (torch.randn(n, each, 16, requires_grad=True) for each in (32, length))
masks = [torch.rand(each.shape[:2]) < share for each in (queries, docs)]

def step(n):
    score = pe.torch.maxsim(queries[:n], docs[:n], queries_mask=masks[0][:n], docs_mask=masks[1][:n], reduce=reduce)
    score.logsumexp(1).sum().backward()

step(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(n)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("share", [1.0, 0.98])
@pytest.mark.parametrize(("n", "length", "reduce"), [(512, 40, "sum"), (256, 180, "symmetric")])
def test_a_step_takes_little_memory_besides_the_winners(n: int, length: int, reduce: str, share: float) -> None:
    given = [str(each) for each in (n, length, reduce, share)]
    done = subprocess.run([sys.executable, "-c", MEMORY, *given], check=True, capture_output=True, text=True)
    winners = n * n * 4 * (32 + (length if reduce == "symmetric" else 0)) >> 20
    assert int(done.stdout) <= winners + 32


@pytest.mark.parametrize("reduce", MAXIMA)
def test_winners_are_the_same_in_blocks(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = batch(reduce=reduce)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(7))
    given = (case.queries.detach(), case.docs.detach(), case.queries_mask, case.docs_mask, pairs, reduce, False, 0.0)
    want = torch_maxsim.forward(*given)
    monkeypatch.setattr(torch_maxsim, "WINNERS", 60)
    assert all(torch.equal(one, other) for one, other in zip(torch_maxsim.forward(*given), want))
    monkeypatch.setattr(torch_maxsim, "_native", lambda tokens: None)
    assert all(torch.equal(one, other) for one, other in zip(torch_maxsim.forward(*given), want))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("reduce", ["symmetric", "softmax"])
def test_opcheck(dtype: Any, reduce: str) -> None:
    case = batch().to(dtype)
    pairs = torch.tensor([[0, 1], [3, 6], [1, 2], [0, 5]])
    tensors = (torch.nan_to_num(case.queries.detach()).requires_grad_(), torch.nan_to_num(case.docs.detach()))
    torch.library.opcheck(
        pe.torch.maxsim_operator,
        (*tensors, case.queries_mask, case.docs_mask, pairs, reduce, True, 0.5),
    )


@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_compiles_whole(reduce: str) -> None:
    case = batch(reduce=reduce, normalize=True)

    def loss(queries: Tensor, docs: Tensor) -> Tensor:
        scores = replace(case, queries=2 * queries, docs=docs).scores()[:, :3]
        result: Tensor = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2, 0]))
        return result

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    both = []
    for function in (compiled, loss):
        value = function(case.queries, case.docs)
        both.append((value, *torch.autograd.grad(value, (case.queries, case.docs))))
    assert all(torch.equal(one, other) for one, other in zip(*both))


def test_autocast_changes_nothing() -> None:
    case = batch(reduce="symmetric", normalize=True)
    layer = torch.nn.Linear(33, 33)
    with torch.autocast("cpu", torch.bfloat16):
        assert_bits(case.scores(), case.specified())
        out = layer(torch.nan_to_num(case.queries.detach()))
        assert out.dtype == torch.bfloat16
        half = replace(case, queries=out)
        scores = half.scores()
        assert_bits(scores, half.specified())
    torch.autograd.backward(scores[:, 0].sum())
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()


def test_torch_is_not_imported_before_it_is_used() -> None:
    code = (
        "import sys, pyengine as pe; assert 'torch' not in sys.modules; pe.torch.maxsim; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'tarch'"):
        pe.tarch  # type: ignore[attr-defined]  # noqa: B018


GOOD = torch.ones(2, 3, 4)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"queries": np.ones((2, 3, 4))}, TypeError, "queries must be a dense tensor of float16, bfloat16"),
    ({"docs": torch.ones(2, 3, 4, dtype=torch.int64)}, TypeError, "docs must be a dense tensor .* got torch.int64"),
    ({"docs": GOOD.to_sparse()}, TypeError, "docs must be a dense tensor .* got torch.float32, torch.sparse_coo"),
    ({"queries": GOOD[0]}, ValueError, re.escape("queries must have shape [n, L, D] with D >= 1; got (3, 4)")),
    ({"docs": GOOD[0]}, ValueError, re.escape("docs must have shape [N, Ld, D] or [Q, K, Ld, D] with D >= 1; got (3,")),
    ({"docs": GOOD[..., :0], "queries": GOOD[..., :0]}, ValueError, "queries must have shape"),
    ({"docs": torch.ones(2, 3, 5)}, ValueError, "docs must have 4 dimensions on cpu, as queries do; got 5 on cpu"),
    ({"docs": torch.ones(3, 2, 3, 4)}, ValueError, re.escape("one list per query, [2, K, Ld, D]; got (")),
    ({"docs": torch.ones(2, 2, 3, 4), "pairs": torch.tensor([[0, 0]])}, ValueError, "docs must have shape"),
    ({"queries_mask": torch.ones(2, 3)}, TypeError, "queries_mask must be a bool tensor, True for a token; got"),
    ({"docs_mask": [[True]]}, TypeError, "docs_mask must be a bool tensor, True for a token; got list"),
    ({"docs_mask": torch.ones(2, 4).bool()}, ValueError, re.escape("must have shape (2, 3), on cpu; got (2, 4)")),
    ({"pairs": [[0, 0]]}, TypeError, "pairs must be an integer tensor; got list"),
    ({"pairs": torch.ones(1, 2)}, TypeError, "pairs must be an integer tensor; got torch.float32"),
    ({"pairs": torch.tensor([0, 1])}, ValueError, re.escape("pairs must have shape [P, 2]; got (2,)")),
    ({"pairs": torch.tensor([[0, 0], [0, 2]])}, ValueError, re.escape("2 queries and 2 documents, counted from 0")),
    ({"pairs": torch.tensor([[-1, 0]])}, ValueError, re.escape("got [-1, 0] in row 0")),
    ({"reduce": "max"}, ValueError, "reduce must be one of 'sum', 'mean', 'symmetric', 'softmax'; got 'max'"),
    ({"reduce": "softmax"}, ValueError, "temperature must be above 0 .* and None otherwise; got None"),
    ({"reduce": "softmax", "temperature": 0.0}, ValueError, "temperature must be above 0"),
    ({"reduce": "softmax", "temperature": float("nan")}, ValueError, "temperature must be above 0"),
    ({"reduce": "softmax", "temperature": "1"}, TypeError, "temperature must be a number"),
    ({"normalize": 1}, TypeError, "normalize must be True or False; got 1"),
    ({"normalize": "no"}, TypeError, "normalize must be True or False; got 'no'"),
    ({"docs": GOOD.double()}, ValueError, "both be float64, or neither; got torch.float32 and torch.float64"),
    ({"queries": GOOD.double(), "docs": GOOD.half()}, ValueError, "got torch.float64 and torch.float16"),
    ({"temperature": 1.0}, ValueError, "temperature must be above 0 .* and None otherwise; got 1.0"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "error", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_gets_a_sentence(given: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"queries": GOOD, "docs": GOOD} | given
    with pytest.raises(error, match=message):
        pe.torch.maxsim(**arguments)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["queries", "docs"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_not_finite_is_refused(name: str, value: float, dtype: Any) -> None:
    tokens = {"queries": torch.ones(2, 3, 4, dtype=dtype), "docs": torch.ones(2, 3, 4, dtype=dtype)}
    tokens[name][1, 2, 3] = value
    with pytest.raises(ValueError, match=f"{name} must be finite; token 2 of row 1 holds NaN or inf"):
        pe.torch.maxsim(**tokens)
    masks = {f"{name}_mask": torch.tensor([[True] * 3, [True, True, False]])}
    want = [[12, 12], [8, 8]] if name == "queries" else [[12, 12], [12, 12]]
    assert pe.torch.maxsim(**tokens, **masks).tolist() == want

"""The gradients of `pyengine.torch.maxsim` against float64 autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import pyengine as pe

torch = pytest.importorskip("torch")
from pyengine.training import torch_maxsim  # noqa: E402
from tests.torch_maxsim_cases import Batch, assert_close, batch, einsum, gradients  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Which of equal cosines is the greatest is decided by their last bits, and in another formulation otherwise.
DIFFERENTIABLE = [
    *((kind, False) for kind in ("normal", "ties", "equal", "negative", "zeros")),
    *((kind, True) for kind in ("normal", "negative", "zeros")),
]


@pytest.mark.usefixtures("maxsim_path", "poison")
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


@pytest.mark.usefixtures("maxsim_path")
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


@pytest.mark.usefixtures("maxsim_path")
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_gradients_do_not_depend_on_threads(reduce: str, threads: Callable[[int], None]) -> None:
    case = batch(reduce=reduce, normalize=True)
    found = []
    for number in (1, 2, 3, 2):
        threads(number)
        found.append(gradients(case.scores(), case, torch.linspace(-1, 1, 28).view(4, 7)))
    for again in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(again, found[0]))


@pytest.mark.usefixtures("maxsim_path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_the_inputs_stay_as_they_are(reduce: str, dtype: Any) -> None:
    case = batch(reduce=reduce, normalize=True).to(dtype)
    before = [each.detach().clone() for each in (case.queries, case.docs)]
    gradients(case.scores(), case, torch.ones(4, 7))
    for each, copy in zip((case.queries, case.docs), before):
        assert torch.equal(each.detach().nan_to_num(), copy.nan_to_num())
        assert torch.equal(each.isnan(), copy.isnan())


@pytest.mark.usefixtures("maxsim_path")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
@pytest.mark.parametrize("side", ["queries", "docs"])
def test_only_one_side_needs_a_gradient(side: str, reduce: str, normalize: bool) -> None:
    case = batch(reduce=reduce, normalize=normalize)
    leaf, other = getattr(case, side), "docs" if side == "queries" else "queries"
    scores = replace(case, **{other: getattr(case, other).detach()}).scores()
    torch.autograd.backward(scores[:, 0].sum())
    assert torch.equal(leaf.grad, torch.autograd.grad(case.scores()[:, 0].sum(), leaf)[0])


@pytest.mark.usefixtures("maxsim_path")
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

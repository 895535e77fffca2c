"""`pyengine.torch.maxsim`: scores to the bit, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import pyengine as pe

torch = pytest.importorskip("torch")
from pyengine.training import torch_blocks, torch_maxsim  # noqa: E402
from tests.torch_maxsim_cases import KINDS, MAXIMA, assert_bits, assert_close, batch, einsum, gradients  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

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


@pytest.mark.usefixtures("maxsim_path", "poison")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("reduce", MAXIMA)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_specification(kind: str, reduce: str, normalize: bool) -> None:
    case = batch(kind, reduce=reduce, normalize=normalize)
    assert_bits(case.scores(), case.specified())


@pytest.mark.usefixtures("maxsim_path")
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


@pytest.mark.usefixtures("maxsim_path")
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


@pytest.mark.usefixtures("maxsim_path")
@pytest.mark.parametrize("reduce", pe.torch.REDUCTIONS)
def test_distillation_scores_each_query_with_its_own_documents(reduce: str) -> None:
    case = batch(reduce=reduce)
    own = torch.tensor([[0, 3, 6], [1, 1, 2], [4, 5, 6], [6, 5, 4]])  # [Q, K]
    got = replace(case, docs=case.docs[own], docs_mask=case.docs_mask[own]).scores()
    assert torch.equal(got, case.scores().gather(1, own))
    weights = torch.ones(4, 7).scatter(1, own, 2.0) - 1
    weights[1, 1] = 2.0  # listed twice
    assert_close(gradients(got, case, torch.ones(4, 3)), gradients(case.scores(), case, weights), 1e-6)


@pytest.mark.usefixtures("maxsim_path")
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


@pytest.mark.usefixtures("maxsim_path")
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

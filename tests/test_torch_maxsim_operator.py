"""`pyengine.torch.maxsim` as an operator: its memory, `torch.compile`, autocast."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import pyengine as pe

torch = pytest.importorskip("torch")
from pyengine.training import torch_maxsim  # noqa: E402
from tests.torch_maxsim_cases import MAXIMA, assert_bits, batch  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

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

"""Triton's interpreter with bfloat16 mended. Without the mending, each of these tests fails."""

from __future__ import annotations

import os

import pytest

from tests import interpreter

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
kernels = pytest.importorskip("tests.triton_kernels")
pytestmark = pytest.mark.usefixtures("interpreter")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "int8"])
def test_products(name: str) -> None:
    """Of small integers, so that every order of summation is exact."""
    dtype = getattr(torch, name)
    a, b = torch.randint(-9, 10, (2, 32, 32), generator=torch.Generator().manual_seed(0)).to(DEVICE).unbind(0)
    out = torch.full((32, 32), -999, dtype=torch.int32 if name == "int8" else torch.float32, device=DEVICE)
    kernels.product[(1,)](a.to(dtype), b.to(dtype), out, 32)
    assert torch.equal(out.double(), a.double() @ b.double())


@pytest.mark.parametrize("kind", ["random", "tiny", "edges"])
def test_a_conversion_to_bfloat16_rounds_as_torch_does(kind: str) -> None:
    values = torch.randn(256, generator=torch.Generator().manual_seed(1))
    if kind == "tiny":
        values *= 2.0**-130  # denormal
    if kind == "edges":
        edges = [0.0, -0.0, float("inf"), -float("inf"), 3.4e38, 1.00390625, 1.01171875, 1.9999999, 65535.0]
        values[: len(edges)] = torch.tensor(edges)
    out = torch.full((256,), float("nan"), dtype=torch.bfloat16, device=DEVICE)
    kernels.convert[(1,)](values.to(DEVICE), out, 256)
    assert torch.equal(out.cpu().view(torch.int16), values.bfloat16().view(torch.int16))


def test_a_conversion_from_bfloat16_is_exact() -> None:
    values = torch.randn(64, generator=torch.Generator().manual_seed(2)).bfloat16().to(DEVICE)
    out = torch.full((64,), float("nan"), device=DEVICE)
    kernels.convert[(1,)](values, out, 64)
    assert torch.equal(out, values.float())


@pytest.mark.skipif(DEVICE != "cpu", reason="a GPU has bfloat16 arithmetic")
def test_arithmetic_on_bfloat16_is_an_error_and_not_garbage() -> None:
    out = torch.zeros(64, dtype=torch.bfloat16)
    with pytest.raises(Exception, match="no bfloat16 arithmetic"):
        kernels.twice[(1,)](torch.ones(64, dtype=torch.bfloat16), out, 64)
    assert not out.any()


def test_only_tests_that_ask_for_it_see_the_interpreter() -> None:
    interprets = DEVICE == "cpu"
    assert os.environ.get(interpreter.VARIABLE) == ("1" if interprets else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(interpreter.VARIABLE, raising=False)
        assert interpreter.choose() == interprets
        assert interpreter.VARIABLE not in os.environ

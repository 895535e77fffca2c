"""MaxSim for training by Triton's kernels: the CPU's scores, winners and gradients to the bit, in little memory.

Small, since the interpreter takes some milliseconds for each pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.kernels import maxsim_backward, maxsim_refine, maxsim_winners  # noqa: E402
from pyengine.training import torch_maxsim, torch_triton  # noqa: E402
from tests.allocations import Allocations  # noqa: E402
from tests.torch_maxsim_cases import batch  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:(invalid|overflow|divide):RuntimeWarning"),  # in the interpreter
]
TYPES = ("float32", "float16", "bfloat16")


def compare(given: Any, pairs: Any) -> None:
    """Scores, winners and gradients of both, where both are wanted and where one is."""
    tensors = given.queries.detach(), given.docs.detach(), given.queries_mask, given.docs_mask, pairs
    options = given.reduce, given.normalize, 0.0
    want, got = (module.forward(*tensors, *options) for module in (torch_maxsim, torch_triton))
    assert [each.dtype for each in got[1:]] == [torch.int16, torch.int16]
    assert [bits(each) for each in (got[0], *(each.int() for each in got[1:]))] == [bits(each) for each in want]
    gradient = torch.randn(len(pairs), generator=torch.Generator().manual_seed(0))
    for wanted in ((True, True), (False, True)):
        back = [
            module.backward(gradient, *tensors, *winners[1:], *options, *wanted)
            for module, winners in ((torch_maxsim, want), (torch_triton, got))
        ]
        assert [bits(each) for each in back[1]] == [bits(each) for each in back[0]]


@pytest.mark.parametrize(
    ("kind", "reduce", "normalize", "dtype"),
    [
        ("normal", "sum", False, "float32"),
        ("normal", "sum", False, "bfloat16"),
        ("ties", "mean", True, "float16"),
        ("negative", "symmetric", True, "float32"),
        ("equal", "symmetric", False, "float16"),
        ("zeros", "mean", True, "bfloat16"),
        ("huge", "sum", False, "float32"),
        ("huge", "mean", True, "bfloat16"),
        ("tiny", "sum", True, "float32"),
    ],
)
def test_operators_have_the_bits_of_the_cpu(kind: str, reduce: str, normalize: bool, dtype: str) -> None:
    """With gaps in masks, NaN where there is no token, and pairs in any order."""
    given = batch(kind, 9, reduce, normalize).to(getattr(torch, dtype))
    compare(given, torch.cartesian_prod(torch.arange(4), torch.arange(7)).flip(0)[::3])


def test_gradients_go_on_from_one_list_of_pairs_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """With lists of 16 pairs, for documents that have winners in several of them."""
    monkeypatch.setattr(maxsim_backward, "SCRATCH", 1)
    compare(batch("normal", 9), torch.cartesian_prod(torch.arange(4), torch.tensor([4, 6, 5, 0, 4])).flip(0))


def test_sets_longer_than_a_tile() -> None:
    rng = np.random.default_rng(3)
    given = batch("normal", 5)
    given.queries, given.docs = (torch.from_numpy(rng.standard_normal((2, n, 70)).astype(np.float32)) for n in (37, 70))
    given.queries_mask, given.docs_mask = (torch.from_numpy(rng.random((2, n)) < 0.8) for n in (37, 70))
    given.docs[0, 3:60] = given.docs[0, 2]  # equal maxima, a tile apart
    compare(given, torch.tensor([[1, 0], [0, 1]]))


@pytest.mark.parametrize("dtype", TYPES)
def test_estimates_decide_what_is_not_close(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens that no two are near each other's maxima, none goes through all products in float64; of equal ones
    all do."""
    rows = []
    exact_row = maxsim_winners._exact_row

    def counted(*arguments: Any) -> Any:
        rows.append(1)
        return exact_row(*arguments)

    monkeypatch.setattr(maxsim_winners, "_exact_row", counted)
    for kind, share in (("normal", 0.05), ("equal", 1.0)):
        rows.clear()
        given = batch(kind, 32).to(getattr(torch, dtype))
        pairs = torch.cartesian_prod(torch.arange(4), torch.tensor([4, 1, 5]))
        tensors = given.queries.detach(), given.docs.detach(), given.queries_mask, given.docs_mask, pairs
        found = torch_triton.forward(*tensors, "sum", False, 0.0)
        several = given.docs_mask.sum(1)[pairs[:, 1]] > 1
        maxima = int((found[1] >= 0)[several].sum())
        assert len(rows) <= share * maxima
        assert (len(rows) == maxima) == (share == 1.0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("dims", [1, 7, 128, 1000])
def test_estimates_are_off_by_less_than_the_bound(dims: int, dtype: str) -> None:
    """Summed one after another in float32, of float32 values in two parts of tf32, among them such as lose the most."""
    rng, kind = np.random.default_rng(dims), getattr(torch, dtype)
    for high in (0.0, 1.0):
        q, d = (torch.from_numpy(high + (1 - high) * rng.standard_normal((50, dims))).to(kind).float() for _ in "qd")
        if high:
            q, d = q * (2 - 2.0**-20 if dtype == "float32" else 1.984375), d  # all mantissa bits that are cut
        exact = (q.double() * d.double()).sum(1)
        parts = [(cut(each), cut(each - cut(each))) if dtype == "float32" else (each, 0 * each) for each in (q, d)]
        (a, a_rest), (b, b_rest) = parts
        estimate = torch.zeros(50)
        for k in range(dims):
            for x, y in ((a_rest, b), (a, b_rest), (a, b)):
                estimate = estimate + x[:, k] * y[:, k]
        reach = q.double().norm(dim=1) * d.double().norm(dim=1)
        assert ((estimate.double() - exact).abs() <= maxsim_winners.looseness(dims, kind) * reach).all()


def cut(values: Any) -> Any:
    """The float32 values without the 13 bits that tf32 has not."""
    return (values.view(torch.int32) & ~0x1FFF).view(torch.float32)


class Unlaunched:
    """A kernel that does nothing: the interpreter would allocate, too."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **options: None


@pytest.fixture
def unlaunched(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (maxsim_refine, maxsim_winners, maxsim_backward):
        for name in [each for each in vars(module) if each.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Unlaunched())


@pytest.mark.usefixtures("unlaunched")
@pytest.mark.parametrize(("reduce", "normalize"), [("sum", False), ("sum", True), ("symmetric", False)])
@pytest.mark.parametrize(("n", "length"), [(32, 180), (32, 1024), (128, 180)])
def test_a_step_takes_what_the_formula_says(n: int, length: int, reduce: str, normalize: bool) -> None:
    """Contrastive shapes, in bytes that torch allocates beyond inputs: at the most, and what stays until the backward
    pass. [Q, N, Lq, Ld] would be many times that; what is left are mostly gradients."""
    width, dims, symmetric = 32, 128, reduce == "symmetric"
    queries, docs = (torch.randn(n, each, dims).half() for each in (width, length))
    masks = [torch.ones(each.shape[:2], dtype=torch.bool) for each in (queries, docs)]
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    tensors, options = (queries, docs, masks[0], masks[1], pairs), (reduce, normalize, 0.0)
    n_pairs, tokens = n * n, n * (width + length)
    small = 128 * n_pairs + 48 * tokens + (1 << 14)
    with Allocations() as forward:
        found = torch_triton.forward(*tensors, *options)
    chosen = n_pairs * (width + symmetric * length)
    assert forward.left == 2 * chosen + 4 * n_pairs
    assert forward.most <= forward.left + 3 * min(8 * chosen, maxsim_refine.MAXIMA_BYTES) // 2 + small
    forth, back = (torch.randint(0, most, each.shape).short() for each, most in zip(found[1:], (length, width)))
    with Allocations() as backward:
        gradients = torch_triton.backward(torch.ones(n_pairs), *tensors, forth, back, *options, True, True)
    assert backward.left == sum(each.nbytes for each in gradients)
    wide = 4 * tokens * dims
    rounded = (2 + 8 * normalize) * max(width, length) * n * dims
    lists = min(maxsim_backward.SCRATCH, maxsim_backward.LISTED * chosen)
    assert backward.most <= wide * (1 + symmetric + normalize) + max(lists, 2 * rounded) + small
    everything = 4 * n_pairs * width * length
    assert (forward.most, backward.most) < (everything / 7, everything / 2)


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0)])
def test_operators_of_nothing(shape: tuple[int, int, int, int]) -> None:
    n_queries, n_query, n_docs, n_doc = shape
    given = batch("normal", 5)
    given.queries, given.docs = torch.ones((n_queries, n_query, 5)), torch.ones((n_docs, n_doc, 5))
    given.queries_mask, given.docs_mask = (
        torch.ones(each.shape[:2], dtype=torch.bool) for each in (given.queries, given.docs)
    )
    for reduce in ("sum", "symmetric"):
        given.reduce = reduce
        compare(given, torch.cartesian_prod(torch.arange(n_queries), torch.arange(n_docs)))


def test_softmax_and_float64_stay_with_torch() -> None:
    given = batch("normal", 5).to(torch.float64)
    pairs = torch.tensor([[0, 0], [2, 4]])
    tensors = given.queries.detach(), given.docs.detach(), given.queries_mask, given.docs_mask, pairs
    for reduce in ("sum", "softmax"):
        want, got = (module.forward(*tensors, reduce, True, 0.5) for module in (torch_maxsim, torch_triton))
        assert [bits(each) for each in got] == [bits(each) for each in want]


def test_bad_tokens_are_named() -> None:
    tokens, mask = torch.full((1, 2, 3), torch.inf), torch.ones((1, 2), dtype=torch.bool)
    with pytest.raises(ValueError, match="queries must be finite; token 0 of row 0 holds NaN or inf"):
        torch_triton.forward(tokens, tokens, mask, mask, torch.zeros((1, 2), dtype=torch.int64), "sum", False, 0.0)


def bits(tensor: Any) -> tuple[Any, ...]:
    whole = tensor.contiguous()
    return (
        tensor.shape,
        tensor.dtype,
        (whole.view(torch.int16) if whole.dtype == torch.bfloat16 else whole).numpy().tobytes(),
    )

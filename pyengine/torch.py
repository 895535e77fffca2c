"""MaxSim for training with torch: forward and backward without the tensor [Q, N, Lq, Ld].

The forward pass keeps an int32 per query token and pair, the winning document token; the backward pass adds rows up by
it, in an order that does not depend on threads. Both are torch operators: their schemas, shapes and gradients are here,
once, their kernels in `pyengine.training.torch_maxsim`, for GPUs in `pyengine.training.torch_triton`. A kernel for
another device joins by `pyengine.torch.maxsim_operator.register_kernel`. Searches are operators, too: see
`pyengine.training.torch_ops`; and CUDA graphs: `captured`.
"""

from __future__ import annotations

from typing import Any

try:
    import torch
except ModuleNotFoundError as error:
    raise ImportError("pyengine.torch needs torch, which is not installed: run 'pip install torch'") from error
from torch import Tensor

from pyengine import checks
from pyengine.training import torch_blocks, torch_maxsim, torch_triton
from pyengine.training import torch_ops as torch_ops  # registers them
from pyengine.training.torch_captured import Captured as Captured
from pyengine.training.torch_captured import captured as captured

REDUCTIONS = ("sum", "mean", "symmetric", "softmax")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

# Tokens are padded, [n, L, D] with masks bool [n, L], so that all shapes are known in advance. Results: scores [P],
# winners int32 [P, Lq] and, for "symmetric", doc_winners int32 [P, Ld]: int16 on GPUs, where they fit. Winners are
# places in padded rows of the other side, -1 where a token is masked or has nothing to choose from; where they are not
# needed, they have no columns. A gradient that is not wanted has shape [0].
maxsim_operator = torch.library.custom_op(
    "pyengine::maxsim",
    torch_maxsim.forward,
    mutates_args=(),
    schema="(Tensor queries, Tensor docs, Tensor queries_mask, Tensor docs_mask, Tensor pairs, str reduce,"
    " bool normalize, float temperature) -> (Tensor, Tensor, Tensor)",
)
backward_operator = torch.library.custom_op(
    "pyengine::maxsim_backward",
    torch_maxsim.backward,
    mutates_args=(),
    schema="(Tensor gradient, Tensor queries, Tensor docs, Tensor queries_mask, Tensor docs_mask, Tensor pairs,"
    " Tensor winners, Tensor doc_winners, str reduce, bool normalize, float temperature, bool wants_queries,"
    " bool wants_docs) -> (Tensor, Tensor)",
)
maxsim_operator.register_kernel("cuda", torch_triton.forward)
backward_operator.register_kernel("cuda", torch_triton.backward)


def maxsim(
    queries: Tensor,
    docs: Tensor,
    *,
    queries_mask: Tensor | None = None,
    docs_mask: Tensor | None = None,
    pairs: Tensor | None = None,
    reduce: str = "sum",
    normalize: bool = False,
    temperature: float | None = None,
) -> Tensor:
    """Differentiable MaxSim scores.

    With up to 32 bits and without "softmax" they are the specification's (`pyengine.specification.reference_maxsim`) to
    the bit. Of equal maxima the first gets the gradient. Works under `torch.compile(fullgraph=True)`, and under
    `torch.autocast`, which changes nothing here.

    Parameters
    ----------
    queries : float [Q, Lq, D]
        float16, bfloat16 or float32, in any mixture with docs; or float64, where docs are too, which takes about ten
        times as long as einsum and a maximum, and is meant for checks. float8_e4m3fn and float8_e5m2 become float16.
    docs : float [N, Ld, D], or [Q, K, Ld, D]
        The first scores all pairs; the second each query with its own K documents, as in distillation.
    queries_mask, docs_mask : bool, the shape of the tokens without D
        True for a token; the others take part in nothing. Default: all are tokens.
    pairs : int [P, 2]
        Score these (query, document) only, with docs [N, Ld, D].
    reduce : "sum", "mean", "symmetric" or "softmax"
        ColBERT's sum of maxima (arXiv 2004.12832), their mean, FILIP's mean of both directions (arXiv 2111.07783), or
        the mean over query tokens of sum_j softmax_j(s_ij / temperature) s_ij, computed in float64.
    normalize : bool
        Compare tokens by cosine, which is 0, and has no gradient, where a norm is 0.
    temperature : float above 0, with "softmax" only

    Returns
    -------
    Tensor
        [Q, N], [Q, K] or [P]: float32, or float64 for float64 tensors. A document without tokens scores -inf, a query
        without tokens 0; neither has a gradient. It can be differentiated once.

    Raises ValueError or TypeError naming the argument; tokens that hold NaN or inf are a ValueError.
    """
    checks.choice(reduce, "reduce", REDUCTIONS)
    normalize = checks.flag(normalize, "normalize")
    _check_temperature(temperature, reduce)
    queries = _tokens(queries, "queries", (3,))
    docs = _tokens(docs, "docs", (3,) if pairs is not None else (3, 4))
    if docs.shape[-1] != queries.shape[-1] or docs.device != queries.device:
        got = f"{docs.shape[-1]} on {docs.device}"
        raise ValueError(f"docs must have {queries.shape[-1]} dimensions on {queries.device}, as queries do; got {got}")
    if docs.dim() == 4 and docs.shape[0] != queries.shape[0]:
        raise ValueError(f"docs must have one list per query, [{queries.shape[0]}, K, Ld, D]; got {tuple(docs.shape)}")
    if (docs.dtype == torch.float64) != (queries.dtype == torch.float64):
        raise ValueError(f"queries and docs must both be float64, or neither; got {queries.dtype} and {docs.dtype}")
    queries_mask = _mask(queries_mask, queries, "queries_mask")
    docs_mask = _mask(docs_mask, docs, "docs_mask").flatten(0, -2)
    chosen, shape = _layout(queries, docs, pairs)
    dtype = torch.promote_types(queries.dtype, docs.dtype)
    scores, _, _ = maxsim_operator(
        queries.to(dtype), docs.flatten(0, -3).to(dtype), queries_mask, docs_mask, chosen, reduce, normalize,
        0.0 if temperature is None else float(temperature),
    )  # fmt: skip
    return scores.view(shape)  # type: ignore[no-any-return]


def _check_temperature(temperature: Any, reduce: str) -> None:
    if temperature is not None and not isinstance(temperature, (int, float)):
        raise TypeError(f"temperature must be a number; got {temperature!r}")
    if (reduce == "softmax") != (temperature is not None) or (temperature is not None and not temperature > 0):
        raise ValueError(f"temperature must be above 0 with reduce='softmax', and None otherwise; got {temperature!r}")


def _tokens(given: Any, name: str, dims: tuple[int, ...]) -> Tensor:
    """The tokens as one of `FLOATS`."""
    tokens = checks.widened(given) if isinstance(given, Tensor) else given
    if not isinstance(tokens, Tensor) or tokens.dtype not in FLOATS or tokens.layout != torch.strided:
        got = f"{tokens.dtype}, {tokens.layout}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise TypeError(f"{name} must be a dense tensor of float16, bfloat16, float32 or float64; got {got}")
    if tokens.dim() not in dims or tokens.shape[-1] == 0:
        forms = "[n, L, D]" if dims == (3,) else "[N, Ld, D] or [Q, K, Ld, D]"
        raise ValueError(f"{name} must have shape {forms} with D >= 1; got {tuple(tokens.shape)}")
    return tokens


def _mask(mask: Any, tokens: Tensor, name: str) -> Tensor:
    shape = tokens.shape[:-1]
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=tokens.device)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name} must be a bool tensor, True for a token; got {got}")
    if mask.shape != shape or mask.device != tokens.device:
        got = f"{tuple(mask.shape)} on {mask.device}"
        raise ValueError(f"{name} must have shape {tuple(shape)}, on {tokens.device}; got {got}")
    return mask


def _layout(queries: Tensor, docs: Tensor, pairs: Any) -> tuple[Tensor, tuple[int, ...]]:
    """The pairs, int64 [P, 2], of queries and documents [-1, Ld, D], and the shape of their scores."""
    n_queries, n_docs = queries.shape[0], docs.shape[-3]
    if pairs is not None:
        if not isinstance(pairs, Tensor) or pairs.dtype not in INTEGERS:
            got = pairs.dtype if isinstance(pairs, Tensor) else type(pairs).__name__
            raise TypeError(f"pairs must be an integer tensor; got {got}")
        if pairs.dim() != 2 or pairs.shape[1] != 2:
            raise ValueError(f"pairs must have shape [P, 2]; got {tuple(pairs.shape)}")
        return pairs.to(queries.device, torch.int64), (pairs.shape[0],)
    numbers = torch.arange(n_queries * n_docs, device=queries.device)
    query_of = numbers // max(1, n_docs)
    doc_of = numbers if docs.dim() == 4 else numbers - query_of * n_docs
    return torch.stack([query_of, doc_of], dim=1), (n_queries, n_docs)


@maxsim_operator.register_fake
def _(
    queries: Tensor, docs: Tensor, queries_mask: Tensor, docs_mask: Tensor, pairs: Tensor, reduce: str,
    normalize: bool, temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    n_pairs = pairs.shape[0]
    widths = (0 if reduce == "softmax" else queries.shape[1], docs.shape[1] if reduce == "symmetric" else 0)
    types = (torch_blocks.place_type(tokens) for tokens in (docs, queries))
    winners, doc_winners = (pairs.new_empty((n_pairs, width), dtype=dtype) for width, dtype in zip(widths, types))
    return queries.new_empty(n_pairs, dtype=torch_blocks.wide(queries)), winners, doc_winners


@backward_operator.register_fake
def _(gradient: Tensor, queries: Tensor, docs: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    wanted = zip((queries, docs), rest[-2:])
    first, second = (tokens.new_empty(tokens.shape if wants else 0) for tokens, wants in wanted)
    return first, second


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)  # no zeros for the winners
    *tensors, ctx.reduce, ctx.normalize, ctx.temperature = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _backward(ctx: Any, gradient: Tensor | None, *_of_winners: Any) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 8
    *tensors, winners, doc_winners = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    gradients = backward_operator(
        gradient, *tensors, winners, doc_winners, ctx.reduce, ctx.normalize, ctx.temperature, *wanted
    )
    return *[each if wants else None for each, wants in zip(gradients, wanted)], *[None] * 6


maxsim_operator.register_autograd(_backward, setup_context=_save)

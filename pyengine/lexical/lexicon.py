"""From what a masked language model says of each token to a vector of term weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.refining import exact
from pyengine.types import F32, I64, Bool

BLOCK = 1 << 23  # logits held at a time: 32 MB of float32

Maxima = Callable[[I64], F32]  # [V], over the logits of these tokens of the flattened [n * L], one at least


@exact.arithmetic()
def lexicon_head(
    states: Any, mask: Any = None, *, weight: Any = None, bias: Any = None, top: int | None = None
) -> SparseRows:
    """SPLADE-max pooling: the weight of term v in row i is ``log(1 + max_t relu(x_itv))`` over the tokens t that the
    mask allows (SPLADE v2, arXiv 2109.10086; LexLIP, arXiv 2302.02908), and the ``top`` largest of them stay.

    Logits are taken in blocks of 32 MB (a token at least), so that from hidden states the tensor [n, L, V] is never
    made. Tensors are multiplied and pooled on their device, in their dtype; only the maxima come to the host.

    Parameters
    ----------
    states : real [n, L, V], or [n, L, H] with ``weight``
        Logits x, or the hidden states h that the head makes them of: ``x_it = weight h_it + bias``. NumPy (converted to
        float32, and multiplied as such), or a torch tensor; then ``weight`` has its device and dtype.
    mask : bool, or 0 and 1, [n, L]
        Which tokens count: True, or 1. What the others hold does not matter. None: all count.
    weight : real [V, H], bias : real [V]
        The last layer of the head; ``bias`` also without ``weight``. It is added in float32, to the maxima.
    top : int >= 1
        How many terms a row keeps: those of the largest weights, of equals the smaller ids. None: all above 0.

    Returns
    -------
    SparseRows
        n rows over V terms, empty where there is no token, or no logit above 0. Weights are log1p in float64 of the
        float32 maximum, rounded to float32. Neither matrix products nor log1p are the same to the last bit on every
        machine: the same bits from every backend begin with these rows.

    Raises TypeError or ValueError naming the argument, and the row of NaN or of a logit of +inf (one of -inf never
    counts).
    """
    values, head = _given(states, "states", 3), None if weight is None else _given(weight, "weight", 2)
    if head is not None:
        _check_alike(head, values)
    n_terms = int(values.shape[2] if head is None else head.shape[0])
    if n_terms == 0:
        raise ValueError(f"states must have one term at least; got shape {tuple(values.shape)}")
    shift = None if bias is None else _shift(bias, n_terms)
    allowed = _allowed(mask, tuple(values.shape[:2]))
    limit = n_terms if top is None else checks.positive_int(top, "top")
    with _inference(values):
        pooled = _pooled(_maxima(values, head), allowed, max(1, BLOCK // n_terms))
        rows = [_weights(number, maxima, shift, limit) for number, maxima in enumerate(pooled)]
    terms, weights = (
        [np.empty(0, np.int32), *(row[0] for row in rows)],
        [np.empty(0, np.float32), *(r[1] for r in rows)],
    )
    indptr = np.cumsum([len(each) for each in terms])
    return SparseRows(indptr, np.concatenate(terms), np.concatenate(weights), n_terms)


def _maxima(values: Any, head: Any) -> Maxima:
    """The largest logit of each term, on the host."""
    length = values.shape[1]

    def of_array(tokens: I64) -> F32:
        block = values[np.divmod(tokens, length)].astype(np.float32)
        largest: F32 = (block if head is None else block @ head.T).max(axis=0)
        return largest

    def of_tensor(tokens: I64) -> F32:
        rows, places = (sys.modules["torch"].from_numpy(each).to(values.device) for each in np.divmod(tokens, length))
        block = values[rows, places]
        found: F32 = (block if head is None else block @ head.T).amax(0).float().cpu().numpy()
        return found

    return of_tensor if checks.is_torch(values) else of_array


def _pooled(maxima: Maxima, allowed: Bool, step: int) -> Iterator[F32 | None]:
    """Of each row [V], None where it has no tokens; of ``step`` tokens at a time."""
    for row, own in enumerate(allowed):
        tokens = row * allowed.shape[1] + np.flatnonzero(own)
        best = None
        for start in range(0, len(tokens), step):
            found = maxima(tokens[start : start + step])
            best = found if best is None else np.maximum(best, found)
        yield best


def _weights(row: int, maxima: F32 | None, shift: F32 | None, limit: int) -> tuple[NDArray[np.int32], F32]:
    """The ``limit`` largest weights of a row, with their terms, which rise."""
    if maxima is None:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    logits = maxima if shift is None else maxima + shift
    if not (logits < np.inf).all():
        raise ValueError(f"states must not give logits of NaN or inf; row {row} does")
    terms = np.flatnonzero(logits > 0)
    weights = np.log1p(logits[terms].astype(np.float64)).astype(np.float32)
    if len(terms) > limit:
        least = np.partition(weights, -limit)[-limit]
        kept = weights > least
        kept[np.flatnonzero(weights == least)[: limit - np.count_nonzero(kept)]] = True
        terms, weights = terms[kept], weights[kept]
    return terms.astype(np.int32), weights


def _given(value: Any, name: str, n_axes: int) -> Any:
    """A tensor where it is, or an array: of real numbers."""
    array: Any = value if checks.is_torch(value) else checks.host_array(value, name)
    if len(array.shape) != n_axes:
        axes = {3: "[n, L, V], or [n, L, H] with a weight", 2: "[V, H]"}[n_axes]
        raise ValueError(f"{name} must have shape {axes}; got shape {tuple(array.shape)}")
    if not checks.is_torch(array):
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} must hold real numbers (float or int); got dtype {array.dtype}")
        return array if n_axes == 3 else array.astype(np.float32)
    if not array.dtype.is_floating_point or str(array.layout) != "torch.strided":
        raise TypeError(f"{name} must be a dense tensor of floats; got {array.dtype}, {array.layout}")
    return checks.widened(array)


def _check_alike(head: Any, values: Any) -> None:
    """That the two can be multiplied."""
    kinds = [(checks.device_of(each), each.dtype) if checks.is_torch(each) else None for each in (head, values)]
    if kinds[0] != kinds[1]:
        got = [f"a tensor of {kind[1]} on {kind[0]}" if kind else "an array" for kind in kinds]
        raise TypeError(f"weight must be as states are, of one device and dtype; got {got[0]}, and {got[1]}")
    if head.shape[1] != values.shape[2]:
        raise ValueError(f"weight must have shape [V, {values.shape[2]}]; got shape {tuple(head.shape)}")


def _shift(bias: Any, n_terms: int) -> F32:
    array = checks.host_array(bias, "bias")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"bias must hold real numbers (float or int); got dtype {array.dtype}")
    if array.shape != (n_terms,):
        raise ValueError(f"bias must have shape ({n_terms},), one per term; got {array.shape}")
    return array.astype(np.float32)


def _allowed(mask: Any, shape: tuple[int, ...]) -> Bool:
    if mask is None:
        return np.ones(shape, bool)
    array = checks.host_array(mask, "mask")
    if array.dtype.kind not in "biu":
        raise TypeError(f"mask must be bool, or 0 and 1; got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"mask must have shape {shape}, one for each token; got {array.shape}")
    allowed: Bool = array.astype(bool)
    if (array != allowed).any():
        raise ValueError(f"mask must be bool, or 0 and 1; got {array[array != allowed][0]}")
    return allowed


def _inference(values: Any) -> AbstractContextManager[Any]:
    """Without gradients and autocast, where these are tensors."""
    if not checks.is_torch(values):
        return nullcontext()
    torch, stack = sys.modules["torch"], ExitStack()
    stack.enter_context(torch.no_grad())
    stack.enter_context(torch.autocast(values.device.type, enabled=False))
    return stack

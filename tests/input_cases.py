"""What the tests of dense inputs share: vectors, an index of them, and the check of a refusal."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyengine import DenseIndex, conformance
from pyengine.specification import reference
from pyengine.types import F32

Q, N, D, K = 2, 6, 4, 3
RNG = np.random.default_rng(0)
QUERIES: F32 = RNG.standard_normal((Q, D)).astype(np.float32)
DOCS: F32 = RNG.standard_normal((N, D)).astype(np.float32)
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")


def tensor(values: Any, **options: Any) -> Any:
    import torch

    return torch.tensor(values, **options)


def with_value(rows: F32, row: int, value: float) -> F32:
    changed: F32 = rows.copy()
    changed[row, 1] = value
    return changed


def refused(
    call: Callable[[], object], error: type[Exception] | tuple[type[Exception], ...], name: str, *says: str
) -> None:
    """The call raises one sentence: the argument, what it must be, what it was."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    kinds = error if isinstance(error, tuple) else (error,)
    assert type(caught.value) in kinds, f"{type(caught.value)} is not just {error}"
    assert re.fullmatch(rf"{name} must .+?; .+", message), message  # "." does not match a line break
    assert not re.search(r"\. [A-Z]", message), f"more than one sentence: {message}"
    assert all(part in message for part in says), f"{says} not all in: {message}"


def filled(store: str = "float32") -> DenseIndex:
    index = DenseIndex(D, "dot", store)
    index.add(DOCS, ids=np.arange(N) * 10)
    return index


def unchanged(index: DenseIndex) -> None:
    assert len(index) == N
    assert index.ids.tolist() == [0, 10, 20, 30, 40, 50]
    want = reference.topk(QUERIES, DOCS, N + 1, "dot", ids=np.arange(N) * 10)
    conformance.same(index.search(QUERIES, N + 1), want, "the index after a failed call")
    before = len(index)
    index.add(DOCS[:1])
    assert index.ids[before:].tolist() == [51], "the failed call used up ids"

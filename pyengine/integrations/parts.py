"""What several faces share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.inputs import ragged
from pyengine.inputs.ragged import Ragged
from pyengine.refining import exact
from pyengine.types import F32

Pairs = Sequence[tuple[Any, Any]]


def library(module: str, distribution: str) -> Any:
    """A module of a library that may be missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(
            f"this needs {distribution}, which is not installed: run 'pip install {distribution}'"
        ) from error


class Patch:
    """Functions in the place of a library's own, wherever its modules and their classes hold them: names that modules
    took from one another, static methods, and default arguments. What other code took before stays as it is."""

    def __init__(self, package: str, replacements: Callable[[], Pairs]) -> None:
        """``replacements`` gives the pairs (the library's function, ours)."""
        self._package, self._replacements = package, replacements
        self._pairs: Pairs = ()  # while they are in place

    def patch(self) -> None:
        """Twice is once."""
        if not self._pairs:
            self._pairs = self._replacements()
            self._swap(self._pairs)

    def unpatch(self) -> None:
        self._swap([(ours, own) for own, ours in self._pairs])
        self._pairs = ()

    @contextmanager
    def patched(self) -> Iterator[None]:
        """`patch` within the block, unless it was patched before."""
        before = bool(self._pairs)
        self.patch()
        try:
            yield
        finally:
            if not before:
                self.unpatch()

    def own(self, function: Any) -> Any:
        """The library's function in the place of which this one is, or this one."""
        return next((own for own, ours in self._pairs if ours is function), function)

    def _swap(self, pairs: Pairs) -> None:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == self._package and isinstance(module, ModuleType):
                _swap_in(module, pairs)
                for each in list(vars(module).values()):
                    if isinstance(each, type) and each.__module__ == name:
                        _swap_in(each, pairs)


def _swap_in(holder: Any, pairs: Pairs) -> None:
    for name, value in list(vars(holder).items()):
        static = isinstance(value, staticmethod)
        new = _other(value.__func__ if static else value, pairs)
        if new is not None:
            setattr(holder, name, staticmethod(new) if static else new)
        elif isinstance(value, FunctionType) and value.__defaults__:
            value.__defaults__ = tuple(_other(each, pairs) or each for each in value.__defaults__)


def _other(value: Any, pairs: Pairs) -> Any:
    return next((new for old, new in pairs if value is old), None)


def sets_of(embeddings: Any, name: str, dim: int | None = None) -> Ragged:
    """Sets of tokens: an array or tensor [n, L, D], or [L, D] for one, or a list of [L_i, D]."""
    one = getattr(embeddings, "ndim", 0) == 2
    return ragged.tokens(embeddings[None] if one else embeddings, name, dim)


def padded_as_zeros(lists: Sequence[Sequence[Any]], dim: int) -> Ragged:
    """The documents [Ld, D] of all lists, one after another. One that is shorter than the longest of its list gets one
    token of zeros, which stands for all its pads."""
    rows, lengths, zero = [np.empty((0, dim), np.float32)], [0], np.zeros((1, dim), np.float32)
    for i, each in enumerate(lists):
        docs: list[F32] = [checks.vectors(doc, f"documents[{i}][{j}]", dim) for j, doc in enumerate(each)]
        longest = max((len(doc) for doc in docs), default=0)
        for doc in docs:
            short = len(doc) < longest
            rows += [doc, zero] if short else [doc]
            lengths.append(len(doc) + short)
    return Ragged(np.concatenate(rows), np.cumsum(lengths))


class PyengineUnsupported(Exception):
    """These inputs are not for `pyengine.torch.maxsim`: the one exception after which ``auto`` takes the library's own
    path."""


def check_trainable(queries: Any, docs: Any, dims: int) -> None:
    """Raise `PyengineUnsupported` unless `pyengine.torch.maxsim` takes these tensors, docs of ``dims`` dimensions, and
    fast: queries [Q, Lq, D], and docs [N, Ld, D] or [Q, N, Ld, D], with tokens, of one type of up to 32 bits."""
    import torch

    shapes = tuple(queries.shape), tuple(docs.shape)
    if (len(shapes[0]), len(shapes[1])) != (3, dims) or shapes[0][-1] != shapes[1][-1] or 0 in shapes[0] + shapes[1]:
        raise PyengineUnsupported(f"tensors of shapes {shapes[0]} and {shapes[1]} are not for pyengine")
    if dims == 4 and shapes[0][0] != shapes[1][0]:
        raise PyengineUnsupported(f"{shapes[0][0]} queries and {shapes[1][0]} lists of documents are not for pyengine")
    floats = (torch.float16, torch.bfloat16, torch.float32)
    if queries.dtype != docs.dtype or queries.dtype not in floats or queries.device != docs.device:
        kinds = [f"{each.dtype} on {each.device}" for each in (queries, docs)]
        raise PyengineUnsupported(f"pyengine takes tensors of one type of up to 32 bits; these are {kinds}")
    reason = missing(queries.device.type)
    if reason is not None:
        raise PyengineUnsupported(reason)


def missing(device: str) -> str | None:
    """Why there are no kernels for tensors on such a device, None where there are."""
    if device == "cpu":
        return None if exact.native() is not None else "the extension of pyengine is not built"
    if device == "cuda":
        from pyengine.backends.triton import triton_refusals

        return triton_refusals.missing()
    return f"pyengine has no kernels for tensors on {device}"

"""Room for searches on a GPU: tensors that one leaves for the next of the same shapes, so that in steady state a
search allocates nothing there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyengine.backends.torch.torch_float32 import tensor
from pyengine.backends.triton import triton_device
from pyengine.problems.problem import Corpus

T = TypeVar("T")
MOST_BYTES = 5 << 28  # of what no search is using, for each corpus: more than the largest pools
MOST_KEPT = 16  # workspaces


class Workspace:
    """Tensors of one search at a time, by name. Whoever asks for one again gets the same, with what was left in it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: dict[str, Any] = {}

    def kept(self, name: str, build: Callable[[], T]) -> T:
        """What ``build()`` made the first time."""
        if name not in self._kept:
            self._kept[name] = build()
        found: T = self._kept[name]
        return found

    def room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of these, with anything in it."""
        found = self.kept(name, lambda: torch.empty(shape, dtype=dtype, device=self.device))
        assert found.shape == shape, f"{name} {tuple(found.shape)} is not of this search, which wants {shape}"
        return found

    def copied(self, name: str, array: Any) -> Tensor:
        """A copy of an array or a tensor, on the stream of the search. What it is a copy of may change afterwards."""
        source = tensor(array)
        return self.room(name, tuple(source.shape), source.dtype).copy_(source, non_blocking=True)

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in _tensors(self._kept.values()))


def _tensors(kept: Any) -> Iterator[Tensor]:
    for each in kept:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, tuple):
            yield from _tensors(each)


class Workspaces:
    """Those that no search is using, the one that was used last at the end. Any thread may borrow one."""

    def __init__(self, device: torch.device, most_bytes: int = MOST_BYTES) -> None:
        self.device, self.most_bytes = device, most_bytes
        self._idle: list[tuple[Hashable, Workspace]] = []
        self._lock = Lock()

    @contextmanager
    def borrowed(self, shapes: Hashable) -> Iterator[Workspace]:
        """A workspace of the current stream for searches of these shapes, which nobody else gets within the block.
        On its stream what comes later runs later: a search need not have ended when the block does."""
        key = stream_of(self.device), shapes
        own = self._taken(key)
        try:
            yield own
        finally:
            self._returned(key, own)

    def _taken(self, key: Hashable) -> Workspace:
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
        return Workspace(self.device)

    def _returned(self, key: Hashable, own: Workspace) -> None:
        with self._lock:
            self._idle.append((key, own))
            while len(self._idle) > MOST_KEPT or self.nbytes > self.most_bytes:
                del self._idle[0]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for _, each in self._idle)


def workspaces(corpus: Corpus) -> Workspaces:
    """Those of a corpus, which last as long as what else is kept of it on its device."""
    return triton_device.mirrored(corpus, "workspaces", Workspaces)


def stream_of(device: torch.device) -> int:
    """The current stream of a device."""
    return 0 if device.type == "cpu" else int(torch.cuda.current_stream(device).cuda_stream)

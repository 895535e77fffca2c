"""Room for searches on a GPU: tensors that one leaves for the next of the same shapes, so that in steady state a
search allocates nothing there."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from pyengine.backends.torch.torch_float32 import tensor
from pyengine.backends.triton import triton_device
from pyengine.problems.problem import Corpus

T = TypeVar("T")
MOST_BYTES = 5 << 28  # of what no search is using, for each corpus: more than the largest pools
MOST_KEPT = 16  # workspaces
ALIGN = 256  # bytes: where arrays begin that are sent together, so that kernels load them as they load tensors
LEAST_BYTES = 1 << 12  # of a room that may grow
MOST_STAGED = 1 << 24  # bytes: for more, pinned memory takes longer to get than it saves


class Parcel(NamedTuple):
    """Arrays that are sent together: where they are put, ``staged`` in the bytes that are ``begun`` with, and where
    they have ``arrived`` in the ``whole``."""

    begun: Tensor
    whole: Tensor
    staged: tuple[Any, ...]
    arrived: tuple[Any, ...]


class Workspace:
    """Tensors of one search at a time, by name. Whoever asks for one again gets the same, with what was left in it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: dict[str, Any] = {}
        self._nbytes: int | None = 0

    def kept(self, name: str, build: Callable[[], T]) -> T:
        """What ``build()`` made the first time."""
        if name not in self._kept:
            self._kept[name], self._nbytes = build(), None
        found: T = self._kept[name]
        return found

    def latest(self, name: str, key: Hashable, build: Callable[[], T]) -> T:
        """What ``build()`` made for this key, until another is asked for."""
        known = self._kept.get(name)
        if known is None or known[0] != key:
            known = self._kept[name] = key, build()
            self._nbytes = None
        found: T = known[1]
        return found

    def room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of these, with anything in it."""
        found = self.kept(name, lambda: torch.empty(shape, dtype=dtype, device=self.device))
        assert found.shape == shape, f"{name} {tuple(found.shape)} is not of this search, which wants {shape}"
        return found

    def roomy(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The same where shapes depend on what is searched for: the first bytes of somewhat more, which is made anew
        only where it does not hold them."""
        n_bytes = math.prod(shape) * dtype.itemsize
        return self._bytes(name, n_bytes, self.device)[:n_bytes].view(dtype).view(shape)

    def copied(self, name: str, array: Any) -> Tensor:
        """A copy of an array or a tensor, on the stream of the search. What it is a copy of may change afterwards."""
        found: Tensor = self.sent(name, array)[0]
        return found

    def sent(self, name: str, *arrays: Any) -> tuple[Any, ...]:
        """Copies of arrays, None for None, on the stream of the search: all in one copy, from pinned memory. They may
        change afterwards. Once in a search for each ``name``."""
        sources = [None if each is None else tensor(each) for each in arrays]
        layout = tuple(None if each is None else (each.dtype, each.shape) for each in sources)
        parcel = self.latest(f"{name}, sent", layout, lambda: self._parcel(name, sources))
        for place, source in zip(parcel.staged, sources):
            if source is not None:
                place.copy_(source, non_blocking=True)
        if parcel.begun is not parcel.whole:
            parcel.whole.copy_(parcel.begun, non_blocking=True)
        return parcel.arrived

    def _parcel(self, name: str, sources: list[Tensor | None]) -> Parcel:
        sizes = (0 if each is None else each.nbytes for each in sources)
        ends = list(accumulate((-(-size // ALIGN) * ALIGN for size in sizes), initial=0))

        def views(held: Tensor) -> tuple[Any, ...]:
            return tuple(
                None if like is None else held[at : at + like.nbytes].view(like.dtype).view(like.shape)
                for at, like in zip(ends, sources)
            )

        whole = self._bytes(name, ends[-1], self.device)[: ends[-1]]
        begun = whole
        if ends[-1] <= MOST_STAGED:
            begun = self._bytes(f"{name}, staged", ends[-1], torch.device("cpu"))[: ends[-1]]
        return Parcel(begun, whole, views(begun), views(whole))

    def _bytes(self, name: str, least: int, device: torch.device) -> Tensor:
        """uint8, so many or more. Those of the host are pinned, unless it is the host that searches."""
        found = self._kept.get(name)
        if found is None or len(found) < least:
            pinned = device != self.device
            found = torch.empty(rounded_up(least), dtype=torch.uint8, device=device, pin_memory=pinned)
            self._kept[name], self._nbytes = found, None
        whole: Tensor = found
        return whole

    @property
    def nbytes(self) -> int:
        """Of all tensors, each counted once, however many are views of it."""
        if self._nbytes is None:
            held = {
                each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
                for each in _tensors(self._kept.values())
            }
            self._nbytes = sum(held.values())
        return self._nbytes


def rounded_up(n_bytes: int) -> int:
    """At most a quarter more, or `LEAST_BYTES`, so that what is of about the same size finds room, too."""
    step = max(LEAST_BYTES, 1 << max(0, n_bytes.bit_length() - 3))
    return -(-n_bytes // step) * step


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
        On its stream what comes later runs later: a search need not have ended when the block does. One that fails
        leaves none: the GPU may be about to read what the next would write to pinned memory."""
        key = stream_of(self.device), shapes
        own = self._taken(key)
        yield own
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


@contextmanager
def room_for(corpus: Corpus, *shapes: Hashable) -> Iterator[Workspace]:
    """Room for one search of these shapes, on the device of the corpus, where kernels are launched within the block."""
    with (
        triton_device.launching_on(triton_device.device_of(corpus)),
        workspaces(corpus).borrowed(shapes) as room,
    ):
        yield room


def stream_of(device: torch.device) -> int:
    """The current stream of a device."""
    return 0 if device.type == "cpu" else int(torch.cuda.current_stream(device).cuda_stream)

"""A GPU through the NVIDIA driver: arrays on it, and launches of the kernels that the extension carries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyengine.backends.shared import nvml, parts
from pyengine.inputs.device_arrays import DeviceArray
from pyengine.kernels.chips import Chip, chip_of
from pyengine.problems.problem import Corpus
from pyengine.refining import exact
from pyengine.types import I64

T = TypeVar("T")
STAGED = 1 << 16  # bytes: a copy of more may read the memory of the host after it was asked for
BLOCK = 1 << 25  # bytes of pinned memory that are copied at a time
ALIGNED = 256  # bytes, as allocations are
LIBRARY = "libcuda.so.1"
OLDEST = 13000  # CUDA version of a driver, as in csrc/cuda/driver.cpp
NOT_BUILT = "this build of pyengine has no CUDA kernels: build it where nvcc 13.0 or later is"
KINDS = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "bits": 1,
    "int8": 1,
    "uint8": 1,
    "uint16": 2,
    "int32": 4,
    "int64": 8,
    "float64": 8,
}  # bytes; rows of bits are as many as eight of them need
_drivers: dict[str, Any] = {}  # those that are loaded, by name


class Array(NamedTuple):
    """Values of one of `KINDS` on a GPU, row after row, each of ``stride`` values; freed with its ``owner``."""

    owner: Any
    pointer: int
    shape: tuple[int, ...]
    kind: str
    stride: int

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, which: slice) -> Array:
        """Some of its rows."""
        begin = self.pointer + which.start * self.stride * KINDS[self.kind]
        return Array(self.owner, begin, (which.stop - which.start, *self.shape[1:]), self.kind, self.stride)


class TensorMap(NamedTuple):
    """How `Gpu.tensor_map` describes rows to the hardware that copies them: sixteen words."""

    words: tuple[int, ...]


Argument = Array | TensorMap | int | None


def _words(argument: Argument) -> tuple[int, ...]:
    if isinstance(argument, TensorMap):
        return argument.words
    return (0 if argument is None else argument.pointer if isinstance(argument, Array) else int(argument),)


class Gpu(NamedTuple):
    """A GPU, and the stream on which a search runs; ``feed``, whose stream that is then, copies what it is given."""

    device: Any
    stream: int
    feed: Feed | None = None

    @property
    def chip(self) -> Chip:
        """The chip that plans are made for: of 8.6, 8.9 or 12.0 with their shared memory, which is less."""
        found = chip_of(divmod(self.device.capability, 10))
        return replace(found, shared=min(found.shared, self.device.shared_bytes))

    def empty(self, shape: tuple[int, ...], kind: str) -> Array:
        memory = _native().CudaMemory(self.device, math.prod(shape) * KINDS[kind], self.stream)
        return Array(memory, memory.pointer, shape, kind, math.prod(shape[1:]))

    def array(self, values: NDArray[Any], kind: str | None = None) -> Array:
        """A copy. ``kind`` names what NumPy cannot: bfloat16, of which ``values`` are the bits."""
        values = np.ascontiguousarray(values)
        made = self.empty(values.shape, kind or values.dtype.name)
        if self.feed is not None:
            self.feed.copy(made.pointer, values)
            return made
        self.device.copy_in(made.pointer, values, self.stream)
        if values.nbytes > STAGED:  # they may go, or change, when this returns
            self.device.wait(self.stream)
        return made

    def arrays(self, *values: NDArray[Any]) -> list[Array]:
        """Copies of some small arrays, by one copy."""
        starts = np.cumsum([0, *(-(-each.nbytes // ALIGNED) * ALIGNED for each in values)]).tolist()
        packed = np.zeros(starts[-1], np.uint8)
        for start, each in zip(starts, values):
            packed[start : start + each.nbytes] = np.ascontiguousarray(each).reshape(-1).view(np.uint8)
        whole = self.array(packed)
        return [
            Array(whole.owner, whole.pointer + start, each.shape, each.dtype.name, math.prod(each.shape[1:]))
            for start, each in zip(starts, values)
        ]

    def host(self, array: Array) -> NDArray[Any]:
        """A copy, once the stream has come so far."""
        values = np.empty(array.shape, array.kind)
        self.device.copy_out(values, array.pointer, self.stream)
        return values

    def tensor_map(self, rows: Array, width: int, box_rows: int) -> TensorMap:
        """Of the first ``width`` values of rows [N, D], for copies of boxes of so many rows, 128 bytes of each. They
        must be as `pyengine.kernels.dense_sm90_plan.MAP_ALIGN` says."""
        size = KINDS[rows.kind]
        made = self.device.tensor_map(rows.pointer, width * size, len(rows), rows.stride * size, box_rows)
        return TensorMap(tuple(made))

    def launch(self, kernel: str, grid: tuple[int, int], threads: int, *arguments: Argument, shared: int = 0) -> None:
        """An argument is one word of eight bytes, the address of an array, or of none, or a number; or a map."""
        words = [word for each in arguments for word in _words(each)]
        self.device.launch(kernel, (*grid, 1), threads, shared, self.stream, words)


class Feed:
    """Copies to a GPU beside its other work: through two blocks of pinned memory, each with a stream, so that one is
    filled while the other is under way. One thread at a time, by its ``lock``."""

    def __init__(self, device: Any) -> None:
        self.device, self.lock = device, Lock()
        self._streams = [_native().CudaStream(device) for _ in range(2)]
        self._blocks = [_native().CudaPinned(device, BLOCK).array for _ in range(2)]

    @property
    def stream(self) -> int:
        """Where kernels may follow what was copied."""
        handle: int = self._streams[0].handle
        return handle

    def wait(self) -> None:
        for stream in self._streams:
            stream.wait()

    def copy(self, to: int, values: NDArray[Any]) -> None:
        """Returns when all is there."""
        self._streams[0].wait()  # where the memory was allocated
        data, size = values.reshape(-1).view(np.uint8), len(self._blocks[0])
        for number, first in enumerate(range(0, len(data), size)):
            stream, part = self._streams[number % 2], data[first : first + size]
            stream.wait()  # whatever the block held is there
            block = self._blocks[number % 2][: len(part)]
            np.copyto(block, part)
            self.device.copy_in(to + first, block, stream.handle)
        self.wait()


@cache
def _feed(library: str, number: int) -> Feed:
    return Feed(_device(library, number))


def feed_of(gpu: Gpu) -> Feed:
    """The feed of a GPU, which stays: its blocks take milliseconds to be made."""
    return _feed(LIBRARY, gpu.device.number)


def _native() -> Any:
    return exact.native()


def driver(library: str) -> Any:
    """The NVIDIA driver, which initialises CUDA. Raises RuntimeError with the reason why there is none that will do."""
    if library not in _drivers:
        _drivers[library] = _native().CudaDriver(library)
    return _drivers[library]


@cache
def _device(library: str, number: int) -> Any:
    return _native().CudaDevice(driver(library), number)


def missing() -> str | None:
    """Why the kernels cannot run here, None where they can."""
    if _native() is None:
        return "the C++ extension is not built"
    if not _native().cuda_images():
        return NOT_BUILT
    try:
        chip_of(divmod(capability(0), 10))
    except (RuntimeError, ValueError) as error:
        return str(error)
    return None


def capability(number: int) -> int:
    """Of the GPU of that number, 90 for 9.0: without a context, and without initialising CUDA only to answer where
    NVML can tell, so that processes which are forked later may use it."""
    known = None if LIBRARY in _drivers else nvml.capability(LIBRARY, OLDEST)
    found: int = driver(LIBRARY).capability(number) if known is None else known
    return found


def unusable(corpus: Corpus) -> list[str]:
    """Why the driver will not do, or its GPU cannot be used now, which `missing` may have taken on trust: a reason to
    refuse a problem with these documents, none where there is nothing."""
    try:
        driver(LIBRARY).capability(0)  # which a fork of a process that used it may not ask
        gpu_of(corpus)
    except RuntimeError as error:
        return [str(error)]
    return []


def gpu_of(corpus: Corpus) -> Gpu:
    """Where the search runs: where the documents are, on the stream on which they may be read, which is the one that
    torch uses now; else on the first GPU, to which they are copied."""
    rows, place, found = getattr(corpus, "rows", None), corpus.device, gpu(_number(corpus))
    if isinstance(rows, DeviceArray):
        return found._replace(stream=rows.gpu.stream)
    if place is None or place.type != "cuda":
        return found
    import torch

    return found._replace(stream=torch.cuda.current_stream(place).cuda_stream)


def gpu(number: int) -> Gpu:
    """The GPU of that number, with its default stream."""
    return Gpu(_device(LIBRARY, number), 0)


def _number(corpus: Corpus) -> int:
    place = corpus.device
    return 0 if place is None or place.type != "cuda" else place.index or 0


def chip(corpus: Corpus) -> Chip:
    """The chip of `gpu_of`, without a context."""
    return chip_of(divmod(capability(_number(corpus)), 10))


def resident(rows: Any) -> Array:
    """Documents that are on a GPU, as they are: a `DeviceArray`, or a torch tensor [N, D] whose rows are contiguous."""
    if isinstance(rows, DeviceArray):
        return Array(rows.owner, rows.pointer, rows.shape, rows.kind, rows.stride)
    kept = rows if rows.stride(1) == 1 else rows.contiguous()
    stride = kept.stride(0) if len(kept) > 1 else kept.shape[1]  # of a single row it may be anything
    return Array(kept, kept.data_ptr(), tuple(kept.shape), str(kept.dtype).removeprefix("torch."), stride)


def places(order: I64) -> NDArray[np.int32]:
    """int32 [N]: the place of each row in an order of ids."""
    found = np.empty(len(order), np.int32)
    found[order] = np.arange(len(order), dtype=np.int32)
    return found


def mirrored(corpus: Corpus, gpu: Gpu, key: Any, build: Callable[[], T]) -> T:
    """What ``build`` makes of a corpus on the GPU, kept for as long as the corpus keeps what is derived from it. It is
    there before anyone else sees it: another thread may search on another stream."""

    def made() -> T:
        found = build()
        if corpus.cache is not None:
            gpu.device.wait(gpu.stream)
        return found

    return corpus.derived(("cuda", gpu.device.number, key), made)


def kept(corpus: Corpus, key: Any) -> bool:
    """Whether the GPU has what `mirrored` makes under that key: all of it, since of what failed nothing is kept."""
    return corpus.cache is not None and ("cuda", _number(corpus), key) in corpus.cache


def free(corpus: Corpus) -> int:
    """The bytes that documents may take of those that are free on the GPU of a corpus."""
    return parts.for_documents(gpu_of(corpus).device.free_bytes())

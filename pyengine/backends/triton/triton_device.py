"""Where the Triton kernels run, and what of a corpus is kept there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from pyengine.backends.shared import nvml, parts
from pyengine.kernels.chips import CHIPS, Chip, chip_of
from pyengine.problems.problem import Corpus

T = TypeVar("T")
DRIVER = "libcuda.so.1"
NO_GPU = "it needs an NVIDIA GPU, and torch finds none; TRITON_INTERPRET=1 runs its kernels, slowly, without one"


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on tensors of the host."""
    return bool(triton.knobs.runtime.interpret)


def missing() -> str | None:
    """Why the kernels cannot run here, None where they can."""
    if interpreted():
        return None
    known = None if torch.version.cuda is None else nvml.capability(DRIVER)  # which leaves CUDA alone
    if known is None and not torch.cuda.is_available():
        return NO_GPU
    try:
        chip_of(torch.cuda.get_device_capability() if known is None else divmod(known, 10))
    except ValueError as error:
        return str(error)
    return None


def chip(device: torch.device | None = None) -> Chip:
    """The chip that plans are made for, with no more shared memory than the GPU has: 8.6, 8.9 and 12.0 have less."""
    if interpreted():
        return CHIPS["sm_90"]
    found = chip_of(torch.cuda.get_device_capability(device))
    return replace(found, shared=min(found.shared, _shared_bytes(device)))


def _shared_bytes(device: torch.device | None) -> int:
    """Of a block of threads at most, as Triton looks it up."""
    number = torch.cuda.current_device() if device is None or device.index is None else device.index
    found: int = triton.runtime.driver.active.utils.get_device_properties(number)["max_shared_mem"]
    return found


def device_of(corpus: Corpus) -> torch.device:
    """Where the search runs: where the documents are, else the current GPU, to which they are copied."""
    if corpus.device is not None:
        found: torch.device = corpus.device
        return found
    return torch.device("cpu") if interpreted() else torch.device("cuda", torch.cuda.current_device())


@contextmanager
def launching_on(device: torch.device) -> Iterator[None]:
    """Within the block, kernels are launched on that device, and tensors are ordinary ones, which a later search may
    write, even where the caller is in torch's inference mode."""
    current = nullcontext() if device.type == "cpu" else torch.cuda.device(device)
    with torch.inference_mode(False), torch.no_grad(), current:
        yield


def mirrored(corpus: Corpus, key: Any, build: Callable[[torch.device], T]) -> T:
    """What ``build`` makes of a corpus on the device, kept for as long as the corpus keeps what is derived from it."""
    device = device_of(corpus)

    def made() -> T:
        found = build(device)
        if device.type != "cpu" and corpus.cache is not None:  # a search on another stream may read it at once
            torch.cuda.current_stream(device).synchronize()
        return found

    return corpus.derived(("triton", str(device), key), made)


def upload(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy on the device, for which the host does not wait: it reads from pinned memory."""
    tensor = torch.from_numpy(np.array(array, order="C"))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def kept(corpus: Corpus, key: Any) -> bool:
    """Whether the device has what `mirrored` makes under that key: all of it, since of what failed nothing is kept."""
    return corpus.cache is not None and ("triton", str(device_of(corpus)), key) in corpus.cache


def free(corpus: Corpus) -> int | None:
    """The bytes that documents may take of those that are free on the GPU of a corpus; None where there is no GPU to
    fill."""
    if interpreted():
        return None
    device = device_of(corpus)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return parts.for_documents(int(torch.cuda.mem_get_info(device)[0]) + int(unused))

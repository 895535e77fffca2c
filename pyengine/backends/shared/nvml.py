"""Which GPUs there are, by NVML, a library that comes with the NVIDIA driver: CUDA is not initialised.

Once a process has initialised CUDA (`cuInit`), no process that is forked from it can use CUDA: so to be asked whether
there is a GPU must not do it. What NVML cannot tell for sure is None, and for the driver itself to say.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

LIBRARY = "libnvidia-ml.so.1"


def capability(driver: str, oldest: int = 0) -> int | None:
    """The compute capability of the GPUs that CUDA would find in this process, 90 for 9.0, where all are alike; for
    which the library ``driver`` can be loaded and is made for the CUDA version ``oldest``, 13000 for 13.0, or later."""
    return _asked(driver, oldest, os.environ.get("CUDA_VISIBLE_DEVICES"), LIBRARY)


@cache
def _asked(driver: str, oldest: int, visible: str | None, library: str) -> int | None:
    try:
        ctypes.CDLL(driver)
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2():
            return None
        try:
            found = _capabilities(nvml, oldest)
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError):  # it is not there, or lacks a function
        return None
    return found[0] if len(set(found)) == 1 and _some_visible(visible, len(found)) else None


def _capabilities(nvml: Any, oldest: int) -> list[int]:
    """Of each GPU; none where the driver is too old, or something was not answered."""
    version, count, found = ctypes.c_int(), ctypes.c_uint(), []
    if nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version)) or version.value < oldest:
        return []
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    for number in range(count.value):
        gpu, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(gpu)) or _is_parted(nvml, gpu):
            return []
        if nvml.nvmlDeviceGetCudaComputeCapability(gpu, ctypes.byref(major), ctypes.byref(minor)):
            return []
        found.append(10 * major.value + minor.value)
    return found


def _is_parted(nvml: Any, gpu: ctypes.c_void_p) -> bool:
    """Whether a GPU is in instances (MIG), of which CUDA sees what this does not tell."""
    now, then = ctypes.c_uint(), ctypes.c_uint()
    return nvml.nvmlDeviceGetMigMode(gpu, ctypes.byref(now), ctypes.byref(then)) == 0 and now.value != 0


def _some_visible(names: str | None, count: int) -> bool:
    """Whether ``CUDA_VISIBLE_DEVICES`` surely leaves one of so many: the first that it names is a number of one."""
    if names is None:
        return True
    first = names.split(",")[0].strip()
    return first.isdecimal() and int(first) < count

"""Triton kernels propose, refine and select on an NVIDIA GPU; without one, Triton's interpreter checks them."""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec

from pyengine.backends.base import Backend

NO_DRIVER = "it needs an NVIDIA GPU, and no driver is installed; TRITON_INTERPRET=1 runs its kernels, slowly, without"


class TritonBackend(Backend):
    """Dense vectors."""

    name = "triton"

    def missing(self) -> str | None:
        return missing()


def missing() -> str | None:
    """Why the kernels cannot run here, None where they can. Imports torch and triton only where that is likely."""
    for package in ("torch", "triton"):
        if not find_spec(package):
            return f"{package} is not installed: run 'pip install {package}'"
    if os.environ.get("TRITON_INTERPRET") != "1" and not _driver():
        return NO_DRIVER
    from pyengine.backends import triton_device

    return triton_device.missing()


def _driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True

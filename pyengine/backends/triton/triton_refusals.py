"""Why the Triton kernels cannot run here, or not with these documents. Nothing optional is imported to say it, but
where they are likely to run."""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec

from pyengine.backends.shared.counts import too_many

IN_PARTS = "documents that the GPU cannot hold pass through it in parts, which is not one graph"
NO_DRIVER = "it needs an NVIDIA GPU, and no driver is installed; TRITON_INTERPRET=1 runs its kernels, slowly, without"


def missing() -> str | None:
    """Why the kernels cannot run here, None where they can."""
    for package in ("torch", "triton"):
        if not find_spec(package):
            return f"{package} is not installed: run 'pip install {package}'"
    if os.environ.get("TRITON_INTERPRET") != "1" and not _driver():
        return NO_DRIVER
    from pyengine.backends.triton import triton_device

    return triton_device.missing()


def _driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def beyond(dims: int, most: int, n_docs: int) -> list[str]:
    """The reasons for which vectors are too long, or too many, for the kernels."""
    reasons = [f"its kernels take at most {most:,} dimensions, and {dims:,} are scored"] if dims > most else []
    return reasons + too_many(n_docs)

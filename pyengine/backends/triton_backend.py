"""Triton kernels propose, refine and select on an NVIDIA GPU; without one, Triton's interpreter checks them."""

from __future__ import annotations

from importlib.util import find_spec

from pyengine.backends.base import Backend


class TritonBackend(Backend):
    """Dense vectors."""

    name = "triton"

    def missing(self) -> str | None:
        return missing()


def missing() -> str | None:
    """Why the kernels cannot run here, None where they can."""
    for package in ("torch", "triton"):
        if not find_spec(package):
            return f"{package} is not installed: run 'pip install {package}'"
    from pyengine.backends import triton_device

    return triton_device.missing()

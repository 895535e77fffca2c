"""The C++ kernels: int8 products with a proven bound, filtered while they are scored."""

from __future__ import annotations

from pyengine import exact
from pyengine.backends.base import Backend


class CpuBackend(Backend):
    name = "cpu"

    def missing(self) -> str | None:
        if exact.native() is None:
            return "the compiled extension is not built: run 'pip install .' in the source tree (needs a C++17 compiler)"
        return None

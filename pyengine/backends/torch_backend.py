"""torch (being written)."""

from pyengine.backends.base import Backend


class TorchBackend(Backend):
    name = "torch"

    def missing(self) -> str | None:
        return "not written yet"

"""faiss (being written)."""

from pyengine.backends.base import Backend


class FaissBackend(Backend):
    name = "faiss"

    def missing(self) -> str | None:
        return "not written yet"

"""The others. A file for each library: adding one is adding a file here, with

    PEERS = {operation: (Contestant(name, prepare, package=.., exactness=..), ..)}

where ``prepare(docs, metric, threads)`` sets the library up (not timed) and returns its search, a function of queries
and k. What is not installed raises `Unavailable` with the remedy, as `module` does (both of `bench.ours.contestants`).
``read`` makes an answer of what a search returns; ``close`` gives back what dropping it does not. The operations are
those of `bench.registry`; where they keep codes, `bench.operations.compress.Compressor` takes the place of
`Contestant`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def of(operation: str) -> tuple[Any, ...]:
    """Who takes part in that operation, in the order of the files."""
    return tuple(peer for peers in _all() for peer in peers.get(operation, ()))


@cache
def _all() -> list[dict[str, tuple[Any, ...]]]:
    """``PEERS`` of every file; what begins with an underscore is shared between them."""
    names = [found.name for found in iter_modules(__path__) if not found.name.startswith("_")]
    return [import_module(f"{__name__}.{name}").PEERS for name in sorted(names)]

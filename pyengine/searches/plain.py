"""Dense searches that ask for nothing but the k best, at the door: the shortest way through, where there is one."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.backends import registry
from pyengine.backends.cpu import cpu_plain
from pyengine.backends.cpu.cpu_plain import PlainDocuments
from pyengine.types import TopK


def search(
    queries: Any,
    docs: PlainDocuments | None,
    k: Any,
    metric: Any,
    *,
    precision: Any,
    per_group: Any,
    backend: Any,
    num_threads: Any,
) -> TopK | None:
    """The answer of a search with these arguments, and with no filter, bias or prefix; None where it is for the general
    search to give, or to refuse. ``num_threads`` changes nothing: what is plain is done by one."""
    if docs is None or type(precision) is not str or precision != "exact":
        return None
    if type(per_group) is not int or per_group != 1:
        return None
    if num_threads is not None and (type(num_threads) is not int or not 0 < num_threads < 1 << 31):
        return None
    if not registry.chooses_cpu(backend):
        return None
    asked = array(queries)
    found = cpu_plain.search(asked, docs, k, metric)
    if found is None or asked is queries:
        return found
    return TopK(*map(sys.modules["torch"].from_numpy, found))


def documents(docs: Any) -> PlainDocuments:
    """Documents, whatever they are, of which nothing is known."""
    return PlainDocuments(array(docs))


def array(value: Any) -> Any:
    """The memory of a torch tensor of the host; anything else as it is."""
    if type(value) is np.ndarray or not checks.is_torch(value) or value.device.type in checks.RESIDENT:
        return value
    try:
        return value.numpy()
    except (TypeError, RuntimeError):  # one with a gradient, or bfloat16, or of another device
        return value

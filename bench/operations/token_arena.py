"""The arena of late interaction: documents and queries are `pyengine.inputs.ragged.Ragged`."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyengine
from bench.operations.arena import Arena
from bench.ours.contestants import Answer, Unavailable, first_two
from bench.racing import gate
from bench.workloads import data
from bench.workloads.shapes import Workload
from pyengine.inputs.ragged import Ragged


class TokenArena(Arena):
    def load(self, n_queries: int) -> tuple[Ragged, Ragged]:
        return data.load_tokens(self.corpus, n_queries)

    def asked(self, workload: Workload) -> Ragged:
        queries: Ragged = self.queries
        return queries.take(np.arange(workload.n_queries))

    @property
    def n_vectors(self) -> int:
        return len(self.docs.values)

    def judged_on(self, docs: Any, workload: Workload) -> gate.Truth:
        return gate.TokenSpecification(docs, self.queries, workload.metric)

    def search_exactly(self, workload: Workload) -> Answer:
        return first_two(offered("maxsim_topk")(self.asked(workload), self.docs, workload.k, reduce=workload.metric))


def offered(name: str) -> Any:
    """What this pyengine calls so; `Unavailable` if it has no such thing yet."""
    found = getattr(pyengine, name, None)
    if found is None:
        raise Unavailable(f"this pyengine has no {name}")
    return found

"""maxsim-cpu."""

from __future__ import annotations

import numpy as np

from bench.ours.contestants import Contestant, Search, module
from bench.peers._tokens import best
from pyengine.inputs.ragged import Ragged


def maxsim_cpu(docs: Ragged, reduce: str, threads: int) -> Search:
    """maxsim_cpu.maxsim_scores_variable, a query at a time; its threads are OMP_NUM_THREADS."""
    library, rows = module("maxsim_cpu", "maxsim-cpu"), list(docs)
    return lambda queries, k: best(np.stack([library.maxsim_scores_variable(query, rows) for query in queries]), k)


PEERS = {"maxsim": (Contestant("maxsim-cpu", maxsim_cpu, copies=1.0, package="maxsim-cpu", exactness="float32"),)}

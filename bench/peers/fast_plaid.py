"""fast-plaid, which is approximate."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from bench.ours.contestants import Answer, Contestant, Search, Unavailable, module, version_of
from pyengine.inputs.ragged import Ragged


def fast_plaid(docs: Ragged, reduce: str, threads: int) -> Search:
    """fast_plaid's search with its default options, over an index that is built here. A wheel for another torch than
    the one that is installed ends the process, so it is not loaded."""
    torch, wheel = module("torch"), version_of("fast-plaid")
    built_for = wheel.rpartition(".")[2]  # of 1.7.0.2110 it is torch 2.11.0
    if wheel and torch.__version__.split("+")[0].replace(".", "") != built_for:
        raise Unavailable(f"fast-plaid {wheel} is built for torch {built_for}, and would crash {torch.__version__}")
    torch.set_num_threads(threads)
    folder = tempfile.TemporaryDirectory(prefix="fast-plaid-")
    index = module("fast_plaid.search", "fast-plaid").FastPlaid(folder.name, device="cpu")
    index.create(documents_embeddings=[torch.from_numpy(row) for row in docs])

    def search(queries: Ragged, k: int) -> Any:
        return index.search([torch.from_numpy(query) for query in queries], top_k=k, show_progress=False)

    search.folder = folder  # type: ignore[attr-defined]
    return search


def _close(search: Any) -> None:
    search.folder.cleanup()


def _hits(found: Any) -> Answer:
    """Lists of (id, score)."""
    ids = np.array([[hit[0] for hit in row] for row in found], np.int64)
    return np.array([[hit[1] for hit in row] for row in found], np.float32), ids


PEERS = {
    "maxsim": (
        Contestant(
            "fast-plaid",
            fast_plaid,
            copies=1.0,
            read=_hits,
            package="fast-plaid",
            exactness="approximate",
            close=_close,
        ),
    )
}

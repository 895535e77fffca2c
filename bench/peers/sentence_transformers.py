"""sentence-transformers: `util.semantic_search`."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.ours.contestants import Answer, Contestant, Search, module
from pyengine.types import F32


def semantic_search(docs: F32, metric: str, threads: int) -> Search:
    """sentence_transformers.util.semantic_search: a list of dictionaries per query."""
    util, torch = module("sentence_transformers.util", "sentence-transformers"), module("torch")
    torch.set_num_threads(threads)
    tensor = torch.from_numpy(docs)
    score = (lambda a, b: -torch.cdist(a, b).square()) if metric == "l2" else util.dot_score
    return lambda queries, k: util.semantic_search(torch.from_numpy(queries), tensor, top_k=k, score_function=score)


def from_hits(hits: Any) -> Answer:
    """Lists of dictionaries."""
    scores = np.array([[hit["score"] for hit in row] for row in hits], np.float32)
    return scores, np.array([[hit["corpus_id"] for hit in row] for row in hits], np.int64)


PEERS = {
    "dense_topk": (
        Contestant(
            "sentence-transformers",
            semantic_search,
            read=from_hits,
            package="sentence-transformers",
            exactness="float32",
        ),
    ),
}

"""PyLate."""

from __future__ import annotations

from bench.ours.contestants import Contestant, Search, module
from bench.peers._tokens import FROM_0, Padded
from pyengine.inputs.ragged import Ragged


def pylate_scores(docs: Ragged, reduce: str, threads: int) -> Search:
    """pylate.scores.colbert_scores on padded documents with their mask."""
    score = module("pylate.scores", "pylate").colbert_scores
    return Padded(docs, threads).search(lambda queries, padded, mask: score(queries, padded, documents_mask=mask))


PEERS = {
    "maxsim": (Contestant("pylate", pylate_scores, copies=3.0, package="pylate", exactness=f"{FROM_0} where padded"),)
}

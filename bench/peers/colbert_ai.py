"""colbert-ai: its packed scorer, which torch compiles when it is first used (needs ninja)."""

from __future__ import annotations

from bench.ours.contestants import Contestant, Search, Unavailable, module
from bench.peers._tokens import FROM_0, Packed
from pyengine.inputs.ragged import Ragged


def segmented_maxsim(docs: Ragged, reduce: str, threads: int) -> Search:
    """colbert-ai's colbert_score_packed: a matrix product, then maxima in C++, which torch compiles when first used."""
    modeling = module("colbert.modeling.colbert", "colbert-ai")
    packed = Packed(docs, threads)
    try:
        modeling.ColBERT.try_load_torch_extensions(False)
    except Exception as error:  # torch's, when it finds no compiler or no ninja
        raise Unavailable(f"colbert-ai could not compile its extension: {str(error).splitlines()[0]}") from None
    return packed.search(lambda query: modeling.colbert_score_packed(query[None], packed.values, packed.lengths))


PEERS = {"maxsim": (Contestant("colbert-ai", segmented_maxsim, package="colbert-ai", exactness=FROM_0),)}

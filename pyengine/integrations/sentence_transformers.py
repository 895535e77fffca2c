"""sentence-transformers, exact and without score matrices: its searches, similarities, MaxSim, scorers and evaluator.

    import pyengine.integrations.sentence_transformers as exact_util

    hits = exact_util.semantic_search(query_embeddings, corpus_embeddings, top_k=10)

or, for code that is not yours, ``with pyengine.patched_sentence_transformers():`` (also `patch` and `unpatch`). What is
searched often is packed once: a `pyengine.DenseIndex` of vectors is taken in the place of ``corpus_embeddings``, a
`pyengine.MultiVectorIndex` in that of the documents of `maxsim`.

Read against sentence-transformers 6.2. `DIFFERENCES` holds for all of it; the modules sentence_transformers_search,
_similarity, _maxsim and _evaluation say what else differs there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyengine.integrations.sentence_transformers_maxsim import (
    colbert_kd_scores,
    colbert_scores,
    colbert_scores_pairwise,
    maxsim,
    maxsim_pairwise,
    mean_maxsim,
    mean_maxsim_pairwise,
)
from pyengine.integrations.sentence_transformers_parts import REPLACED, own
from pyengine.integrations.sentence_transformers_search import (
    Hits,
    community_detection,
    paraphrase_mining_embeddings,
    semantic_search,
    semantic_search_pyengine,
)
from pyengine.integrations.sentence_transformers_similarity import (
    cos_sim,
    dot_score,
    euclidean_sim,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
)

__all__ = [
    "Hits",
    "colbert_kd_scores",
    "colbert_scores",
    "colbert_scores_pairwise",
    "community_detection",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "maxsim",
    "maxsim_pairwise",
    "mean_maxsim",
    "mean_maxsim_pairwise",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "paraphrase_mining_embeddings",
    "patch",
    "patched",
    "semantic_search",
    "semantic_search_pyengine",
    "unpatch",
]
LIBRARY = "sentence-transformers"
DIFFERENCES = (
    "ties go to the smaller id",
    "scores are those of float64, rounded to float32 once, and do not depend on chunk sizes, which are ignored",
    "an embedding with NaN or inf is a ValueError that names it",
    "Manhattan distance, AnglE and XTR are the library's own",
)
_PATCHED = {  # the module that has a function, and its double: not of `cos_sim` and its kin, which take longer
    "util": (
        semantic_search, paraphrase_mining_embeddings, community_detection, maxsim, maxsim_pairwise, mean_maxsim,
        mean_maxsim_pairwise,
    ),
    "multi_vector_encoder.scoring": (colbert_scores, colbert_kd_scores, colbert_scores_pairwise),
}  # fmt: skip
_doubles: dict[str, Any] = {}  # of `REPLACED`, by name


def __getattr__(name: str) -> Any:
    """What needs the library as soon as it is defined."""
    if name not in ("InformationRetrievalEvaluator", "mine_hard_negatives"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pyengine.integrations import sentence_transformers_evaluation as evaluation

    return getattr(evaluation, name)


def patch() -> None:
    """Put the searches, MaxSim and the scorers in the place of the library's wherever its modules hold them, and the
    search of `InformationRetrievalEvaluator` into its class. Twice is once.

    What holds a function already keeps it: a model the similarity that was set before, a loss its scorer. Matrices
    (`cos_sim` and its kin) stay the library's, whose float32 products take less time.
    """
    if REPLACED:
        return
    from pyengine.integrations import sentence_transformers_evaluation as evaluation

    doubles = [(each, module) for module, functions in _PATCHED.items() for each in functions]
    doubles.append((evaluation.mine_hard_negatives, "util"))
    theirs = {each.__name__: own(each.__name__, module) for each, module in doubles}
    for each, _ in doubles:
        _doubles[each.__name__] = each
        _swap(theirs[each.__name__], each)
    REPLACED.update(theirs, compute_all_metrics=evaluation.Base.compute_all_metrics)
    evaluation.Base.compute_all_metrics = evaluation.Base.compute_metrices = evaluation.compute_all_metrics


def unpatch() -> None:
    """Put the library's own functions back."""
    if not REPLACED:
        return
    from pyengine.integrations import sentence_transformers_evaluation as evaluation

    evaluation.Base.compute_all_metrics = evaluation.Base.compute_metrices = REPLACED.pop("compute_all_metrics")
    for name in list(REPLACED):
        _swap(_doubles.pop(name), REPLACED.pop(name))


@contextmanager
def patched() -> Iterator[None]:
    """`patch` within the block, unless it was patched before."""
    before = bool(REPLACED)
    patch()
    try:
        yield
    finally:
        if not before:
            unpatch()


def _swap(old: Any, new: Any) -> None:
    modules = [each for name, each in list(sys.modules.items()) if name.split(".")[0] == "sentence_transformers"]
    for module in modules:
        for name in [name for name, value in vars(module).items() if value is old]:
            setattr(module, name, new)

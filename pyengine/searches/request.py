"""From a caller's arguments to a problem, and from its answer to the caller's arrays: what all families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from pyengine import checks
from pyengine.backends import registry
from pyengine.backends.base import Proposer
from pyengine.inputs.filters import FilterArguments, narrowed
from pyengine.inputs.filters import build as checked_filters
from pyengine.problems.problem import Corpus, Problem
from pyengine.searches.search import exact_both, exact_search, fast_search
from pyengine.types import TopK

P = TypeVar("P", bound=Problem)
R = TypeVar("R")
UNFILTERED = FilterArguments()


def fields(
    docs: Corpus,
    n_queries: int,
    k: int,
    *,
    metric: str,
    mask: Any = None,
    filters: FilterArguments = UNFILTERED,
    bias: Any = None,
    ids: Any = None,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Check what every search is given beside its vectors: the fields of `problem.Problem`, without docs."""
    living, n_docs, rows_of = docs.living, docs.n_living, partial(docs.rows_of, ids)
    mask, bias = checks.bitmap(mask, n_queries, n_docs), checks.biases(bias, n_docs)
    kept = checked_filters(filters, n_queries, n_docs, metric, rows_of)
    if living is not None:
        mask, bias = living.mask(mask), living.spread(bias)
        kept = None if kept is None else replace(kept, groups=living.spread(kept.groups))
    return {
        "k": checks.positive_int(k, "k"),
        "metric": metric,
        "mask": narrowed(mask, filters, len(docs), rows_of),
        "bias": bias,
        "ids": ids,
        "num_threads": checks.thread_count(num_threads),
        "filters": kept,
    }


def run(problem: Problem, backend: str, precision: str, like: Any, rescore: int | None = None) -> TopK:
    """Choose the backend, search, and give the result in the caller's kind of array."""
    checks.choice(precision, "precision", checks.PRECISIONS)
    if rescore is not None and precision != "fast":
        raise ValueError(f"rescore must come with precision='fast'; got rescore={rescore!r} with {precision!r}")
    search: Callable[[Any, Any], TopK] = exact_search
    if precision == "fast":
        search = partial(fast_search, rescore=None if rescore is None else checks.positive_int(rescore, "rescore"))
    found = answer(problem, backend, search)
    return TopK(*(as_input(part, like) for part in found)) if checks.is_torch(like) else found


def run_both(forth: P, back: P, backend: str, precision: str, likes: tuple[Any, Any]) -> tuple[TopK, TopK]:
    """`run` of two problems, of which each has the other's documents, known to be finite, as its queries; with results
    like these."""
    chosen = registry.choose(backend, forth)
    if precision != "exact" or registry.choose(backend, back) is not chosen:
        return run(forth, backend, precision, likes[0]), run(back, backend, precision, likes[1])
    first, second = (
        TopK(*(as_input(part, like) for part in found)) for found, like in zip(exact_both(forth, back, chosen), likes)
    )
    return first, second


def answer(problem: P, backend: str, search: Callable[[P, Proposer[P]], R]) -> R:
    """Choose the backend and search with it. Documents with NaN or inf are found on the way, where it looks."""
    chosen = registry.choose(backend, problem)
    unchecked = not problem.docs.checked
    if unchecked and not chosen.checks_finite(problem):
        problem.docs.check_finite()
    try:
        return search(problem, chosen)
    except ArithmeticError:
        problem.docs.check_finite()  # names the first such row
        raise


def as_input(result: NDArray[Any], like: Any) -> Any:
    """A result as the caller's kind of array: a tensor on the device of ``like`` where that is one."""
    if not checks.is_torch(like):
        return result
    import torch

    found = torch.from_numpy(result)
    return found.to(like.device) if like.device.type != "cpu" else found

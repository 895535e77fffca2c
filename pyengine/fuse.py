"""Fusion: one ranking from several of the same documents, such as a dense and a lexical one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyengine import checks, fusion
from pyengine.fusion import Ranking
from pyengine.searches.request import as_input
from pyengine.specification.reference import round_score
from pyengine.types import F32, F64, I64, TopK

METHODS = ("rrf", "convex", "product")
NORMALIZATIONS = ("minmax", "zscore", "none")
MISSING = ("floor", "rescore")


def fuse(
    results: Sequence[TopK],
    k: int | None = None,
    *,
    method: str = "rrf",
    weights: Any = None,
    normalize: str = "minmax",
    floors: Sequence[float | None] | None = None,
    missing: str = "floor",
    rescore: Sequence[Callable[[I64], Any] | None] | None = None,
    constant: float = 60.0,
) -> TopK:
    """The k best documents of each query by several rankings together.

    The candidates of a query are the documents that any ranking has for it; pads (id -1) count for nothing. Computed in
    float64, term by term in the order of the rankings, and rounded to float32 once: the same bits everywhere.

    Parameters
    ----------
    results : list of L TopK, scores real [Q, K_l] and ids int [Q, K_l] each
        An id means the same document in all of them, and is there once in a row. Rows are best first; all methods but
        ``rrf`` read the scores, of which larger must be better (negate distances).
    k : int >= 1, default the longest K_l
    method : "rrf", "convex" or "product"
        ``rrf``: the sum of w_l / (constant + place), places from 1, over the rankings that have the document
        (reciprocal rank fusion, Cormack et al., SIGIR 2009). ``convex``: the sum of w_l / (w_1 + .. + w_L) times the
        normalised score (Bruch et al., arXiv 2210.11934). ``product``: that of the normalised scores, none of which may
        be negative.
    weights : real [L], none negative and not all 0, default all 1
        Not for ``product``.
    normalize : "minmax", "zscore" or "none"
        What ``convex`` and ``product`` do to the scores of a query in a ranking. ``minmax``: (s - lowest) / (highest -
        lowest), 1 where all are equal. ``zscore``: (s - mean) / standard deviation (of all n, not n - 1), 0 where all
        are equal.
    floors : list of L reals or None, with normalize="minmax"
        The least score that a ranking's function can give, in place of the lowest one seen ("theoretical minmax" of
        Bruch et al.): -1 for cosines, 0 for BM25. 0 where all scores are the floor.
    missing : "floor" or "rescore"
        What ``convex`` and ``product`` give a document for a ranking that lacks it. ``floor``: the least normalised
        score there, which is 0 for ``minmax``. ``rescore``: its score by a function, before normalisation, so that
        this takes in all candidates. A ranking without any document for a query is left out of it.
    rescore : list of L functions or None, with missing="rescore"
        Each is called with ids int64 [Q, C], those that a ranking lacks, rising, then -1, and returns scores real
        [Q, C], of which those at -1 are not read: ``lambda ids: np.einsum("qd,qcd->qc", queries, docs[ids])``. With
        None, that ranking keeps to the floor.
    constant : real > 0
        For ``rrf``.

    Returns
    -------
    TopK
        ``scores`` float32 [Q, k], ``ids`` int64 [Q, k], ties by smaller id, pads as in a search. ``certified`` bool
        [Q]: whether all rankings were, so that this one is the same on every backend; it does not say that longer ones
        would lead to the same. False with missing="rescore". Tensors where the first ranking has them.

    Raises
    ------
    TypeError, ValueError
        One sentence naming the argument, and the ranking and the row.
    """
    rankings = _rankings(results)
    k = max(1, *(each.ids.shape[1] for each in rankings)) if k is None else checks.positive_int(k, "k")
    checks.choice(method, "method", METHODS)
    checks.choice(normalize, "normalize", NORMALIZATIONS)
    functions = _functions(rescore, checks.choice(missing, "missing", MISSING), method, len(rankings))
    lowest = _floors(floors, method, normalize, len(rankings))
    scale = _weights(weights, method, len(rankings))
    candidates = fusion.align(rankings)
    if method == "rrf":
        total = fusion.reciprocal(rankings, candidates, scale, _positive(constant))
    else:
        scored = [_scored(*each, candidates.ids) for each in zip(rankings, candidates.columns)]
        for place, function in enumerate(functions):
            _rescore(scored[place], candidates.ids, function, f"rescore[{place}]")
        terms = [fusion.normalized(s, normalize, low, each.name) for s, low, each in zip(scored, lowest, rankings)]
        total = fusion.product(terms, rankings) if method == "product" else fusion.weighted(terms, scale / sum(scale))
    scores, ids = fusion.best(round_score(total), candidates.ids, k)
    certified = np.logical_and.reduce([each.certified for each in rankings]) & (missing != "rescore")
    return TopK(*(as_input(part, results[0].ids) for part in (scores, ids, certified)))


def _rankings(results: Any) -> list[Ranking]:
    rankings = [_ranking(result, f"results[{place}]") for place, result in enumerate(_listed(results, "results"))]
    if not rankings:
        raise ValueError("results must hold at least one TopK; got none")
    n_queries = len(rankings[0].ids)
    for each in rankings:
        if len(each.ids) != n_queries:
            raise ValueError(f"{each.name} must have {n_queries} rows, as results[0] has; got {len(each.ids)}")
    return rankings


def _ranking(result: Any, name: str) -> Ranking:
    if not isinstance(result, TopK):
        raise TypeError(f"{name} must be a TopK; got a {type(result).__name__}")
    ids, scores = checks.host_array(result.ids, f"{name}.ids"), _reals(result.scores, f"{name}.scores")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}.ids must be integers; got dtype {ids.dtype}")
    if ids.ndim != 2 or ids.shape != scores.shape:
        raise ValueError(f"{name} must have scores and ids of one shape [Q, K]; got {scores.shape} and {ids.shape}")
    if ids.size and (int(ids.min()) < -1 or int(ids.max()) > np.iinfo(np.int64).max):
        raise ValueError(f"{name}.ids must lie in 0 .. 2^63-1, or be -1 (a pad); got {ids.min()} to {ids.max()}")
    certified = np.zeros(len(ids), bool)
    if result.certified is not None:
        certified = checks.host_array(result.certified, f"{name}.certified")
        if certified.dtype != np.bool_ or certified.shape != (len(ids),):
            got = f"{certified.dtype} of shape {certified.shape}"
            raise ValueError(f"{name}.certified must be bool of shape ({len(ids)},), or None; got {got}")
    with np.errstate(over="ignore", under="ignore"):
        return Ranking(scores.astype(np.float32), np.ascontiguousarray(ids, np.int64), certified, name)


def _reals(value: Any, name: str) -> np.ndarray:
    array = checks.host_array(value, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers (float or int); got dtype {array.dtype}")
    return array


def _scored(ranking: Ranking, columns: I64, ids: I64) -> F64:
    """A ranking's scores in the columns of the candidates [Q, C], checked: finite, and none above one before it."""
    real = ranking.ids >= 0
    _finite(ranking.scores, real, f"{ranking.name} must have scores that are finite in float32; row")
    before = np.minimum.accumulate(np.where(real, ranking.scores, np.float32(np.inf)), axis=1)
    rising = np.flatnonzero((real & (ranking.scores > before)).any(axis=1))
    if rising.size:
        remedy = "larger is better: negate distances, or take method='rrf'"
        raise ValueError(f"{ranking.name} must be best first; row {rising[0]} has scores that rise ({remedy})")
    return fusion.spread(ranking.scores.astype(np.float64), ranking, columns, ids)


def _finite(scores: F32, read: Any, sentence: str) -> None:
    bad = np.flatnonzero((read & ~np.isfinite(scores)).any(axis=1))
    if bad.size:
        raise ValueError(f"{sentence} {bad[0]} has others")


def _rescore(scores: F64, ids: I64, function: Any, name: str) -> None:
    """Fill in what a caller's function says of the candidates [Q, C] that have no score."""
    absent = (ids >= 0) & np.isnan(scores)
    if function is None or not absent.any():
        return
    asked = np.sort(np.where(absent, ids, -1).view(np.uint64), axis=1).view(np.int64)  # -1 comes last
    asked = np.ascontiguousarray(asked[:, : int(absent.sum(axis=1).max(initial=0))])
    given = _reals(function(asked.copy()), f"the result of {name}")
    if given.shape != asked.shape:
        raise ValueError(f"{name} must return scores of the shape of its ids, {asked.shape}; got {given.shape}")
    with np.errstate(over="ignore", under="ignore"):
        rounded = given.astype(np.float32)
    _finite(rounded, asked >= 0, f"{name} must return scores that are finite in float32; row")
    scores[absent] = rounded[asked >= 0]


def _functions(rescore: Any, missing: str, method: str, length: int) -> list[Any]:
    if missing == "rescore" and method == "rrf":
        raise ValueError("missing='rescore' must come with method='convex' or 'product'; 'rrf' reads no scores")
    if (missing == "rescore") != (rescore is not None):
        got = "none" if rescore is None else f"missing={missing!r}"
        raise ValueError(f"missing='rescore' must come with rescore, and rescore with it; got {got}")
    functions = [] if rescore is None else _listed(rescore, "rescore", length)
    for place, function in enumerate(functions):
        if not (function is None or callable(function)):
            raise TypeError(f"rescore[{place}] must be a function of ids, or None; got {function!r}")
    return functions


def _floors(floors: Any, method: str, normalize: str, length: int) -> list[float | None]:
    if floors is None:
        return [None] * length
    if method == "rrf" or normalize != "minmax":
        got = f"method={method!r}, normalize={normalize!r}"
        raise ValueError(f"floors must come with normalize='minmax', and not with method='rrf'; got {got}")
    return [
        None if low is None else _number(low, f"floors[{p}]") for p, low in enumerate(_listed(floors, "floors", length))
    ]


def _weights(weights: Any, method: str, length: int) -> F64:
    if weights is None:
        return np.ones(length)
    if method == "product":
        raise ValueError("weights must come with method='rrf' or 'convex'; a factor changes no order")
    array = _reals(weights, "weights").astype(np.float64)
    if array.shape != (length,):
        raise ValueError(f"weights must have shape ({length},), one for each of the results; got {array.shape}")
    if not (np.isfinite(array).all() and (array >= 0).all() and 0 < array.sum() < np.inf):
        raise ValueError(f"weights must be finite, none negative and not all 0; got {array.tolist()}")
    return array


def _positive(constant: Any) -> float:
    number = _number(constant, "constant")
    if number <= 0:
        raise ValueError(f"constant must be above 0; got {constant!r}")
    return number


def _number(value: Any, name: str) -> float:
    array = checks.host_array(value, name)
    if array.shape != () or array.dtype.kind not in "fiu" or not np.isfinite(array):
        raise ValueError(f"{name} must be one finite number; got {value!r}")
    return float(array)


def _listed(value: Any, name: str, length: int | None = None) -> list[Any]:
    if isinstance(value, (TopK, str)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list with one entry for each ranking; got a {type(value).__name__}")
    if length is not None and len(value) != length:
        raise ValueError(f"{name} must have one entry for each of the {length} results; got {len(value)}")
    return list(value)

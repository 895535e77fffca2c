"""Made-up vectors with the statistics of real ones.

A document is the direction of ``common * m + c + spread * u``: m a direction that all share, c one of the centres, u a
draw; c and u are unit vectors with the spectrum j ** -decay, rotated. Its length is log-normal. A query is a document's
direction and ``asking`` times a draw. `fit` chooses the numbers so that four statistics are those of the sample:

| parameter | statistic, of directions |
|---|---|
| common | the length of their mean |
| decay | how many directions the variance is spread over: (sum of eigenvalues)^2 / (sum of their squares) |
| spread | the mean cosine of a document and its tenth neighbour, in a sample of as many |
| asking | the mean cosine of a query and its nearest document |
| length, sigma | of the logarithm of lengths: mean, standard deviation |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import pyengine
from bench.workloads import data
from pyengine.types import F32

SEED = 20261122
SAMPLE = 2048  # vectors that a fit looks at
NEIGHBOUR = 10
PER_CENTRE = 64  # documents, on average: as `bench.workloads.data` has it
ROUNDS = 12  # of the bisections that simulate


class Clustered(NamedTuple):
    """A law of vectors: the module says what each number is."""

    dim: int
    common: float
    decay: float
    spread: float
    asking: float
    length: float
    sigma: float


class Statistics(NamedTuple):
    """What `fit` matches."""

    mean: float
    dimensions: float
    neighbour: float
    nearest: float
    length: float
    sigma: float


def statistics(docs: F32, queries: F32) -> Statistics:
    """Of vectors [N, D] and [Q, D]; of `SAMPLE` spread over them where there are more. None may be zero."""
    docs, queries = _spread_over(docs), _spread_over(queries)
    lengths = np.log(np.linalg.norm(docs, axis=1))
    units = data.unit(docs)
    centre = units.mean(axis=0)
    energy = np.linalg.eigvalsh(np.cov(units.T))
    return Statistics(
        float(np.linalg.norm(centre)),
        float(energy.sum() ** 2 / (energy**2).sum()),
        float(pyengine.topk(units, units, NEIGHBOUR + 1).scores[:, NEIGHBOUR].mean()),
        float(pyengine.topk(queries, units, 1).scores[:, 0].mean()),
        float(lengths.mean()),
        float(lengths.std()),
    )


def fit(docs: F32, queries: F32) -> Clustered:
    """The law whose statistics are those of these documents [N, D] and queries [Q, D]. ValueError for fewer than 64
    documents, or a vector of zeros."""
    if len(docs) < PER_CENTRE or not len(queries):
        raise ValueError(f"docs must have at least {PER_CENTRE} rows and queries 1; got {len(docs)} and {len(queries)}")
    if not (np.any(docs, axis=1).all() and np.any(queries, axis=1).all()):
        raise ValueError("docs and queries must have no rows of zeros")
    real, dim, count = statistics(docs, queries), docs.shape[1], min(len(docs), SAMPLE)
    decay = bisect(lambda value: -_dimensions(dim, value), -real.dimensions, 0.0, 3.0, 60)

    def law(spread: float, asking: float = 0.5) -> Clustered:
        return Clustered(dim, _common(real.mean, spread), decay, spread, asking, real.length, real.sigma)

    def neighbour(spread: float) -> float:
        made = documents(law(spread), count)
        return -float(pyengine.topk(made, made, NEIGHBOUR + 1).scores[:, NEIGHBOUR].mean())

    spread = bisect(neighbour, -real.neighbour, 0.05, 8.0, ROUNDS)
    made = documents(law(spread), count)

    def nearest(asking: float) -> float:
        asked = questions(law(spread, asking), made, min(len(queries), SAMPLE))
        return -float(pyengine.topk(asked, made, 1).scores[:, 0].mean())

    return law(spread, bisect(nearest, -real.nearest, 0.0, 8.0, ROUNDS))


def documents(law: Clustered, count: int) -> F32:
    """float32 [count, D]."""
    draw = data.directions(law.dim, law.decay)
    centres = draw(np.random.default_rng([SEED, 1]), max(1, count // PER_CENTRE))
    shared = np.random.default_rng([SEED, 2]).standard_normal((1, law.dim), dtype=np.float32)
    centres += np.float32(law.common) * data.unit(shared)
    made = np.empty((count, law.dim), np.float32)
    for start in range(0, count, data.CHUNK):
        rng = np.random.default_rng([SEED, 3, start])
        part = made[start : start + data.CHUNK]
        near = centres[rng.integers(len(centres), size=len(part))]
        lengths = np.exp(law.length + law.sigma * rng.standard_normal((len(part), 1)))
        part[:] = data.unit(near + np.float32(law.spread) * draw(rng, len(part))) * lengths
    return made


def questions(law: Clustered, docs: F32, count: int) -> F32:
    """float32 [count, D], of length 1: each near one of the documents."""
    rng = np.random.default_rng([SEED, 4])
    near = data.unit(docs[rng.integers(len(docs), size=count)])
    asked = near + np.float32(law.asking) * data.directions(law.dim, law.decay)(rng, count)
    return data.unit(asked)


def _common(mean: float, spread: float) -> float:
    """That makes ``mean`` of the mean's length: the three parts are orthogonal, on average."""
    mean = min(mean, 0.999)
    return mean * math.sqrt((1 + spread**2) / (1 - mean**2))


def _dimensions(dim: int, decay: float) -> float:
    energy = np.arange(1, dim + 1) ** (-2 * decay)
    return float(energy.sum() ** 2 / (energy**2).sum())


def bisect(rising: Callable[[float], float], target: float, low: float, high: float, rounds: int) -> float:
    """Where a function that rises reaches the target, between the two."""
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _spread_over(rows: F32) -> F32:
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64)]

"""Both directions of a dense search, as the tests of both kinds of GPU kernels ask for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends.shared.dense_terms import Scale
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.searches import dense
from pyengine.specification import reference
from pyengine.types import F32
from tests.dense_cases import rows

KINDS = ["random", "magnitudes", "ties", "zeros", "equal", "tiny", "sorted"]


def made(kind: str, seed: int, count: int, dim: int) -> F32:
    values, rng = rows(seed, count, dim), np.random.default_rng(seed)
    if kind == "magnitudes":
        values *= np.float32(10.0) ** rng.uniform(-18, 18, (count, 1)).astype(np.float32)
    if kind == "ties":
        values = rows(0, 4, dim)[rng.integers(0, 4, count)]
    if kind == "zeros":
        values[rng.random(count) < 0.4] = 0
    if kind == "equal":
        values[:] = 1
    if kind == "tiny":
        values *= np.float32(1e-42)
    if kind == "sorted":
        values = np.linspace(1, 3, count, dtype=np.float32)[:, None] * np.ones((1, dim), np.float32)
    return values


def watched(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[int]:
    """How many queries each search by this module's `attempt` has, from now on."""
    found: list[int] = []
    attempt = module.attempt

    def watching(problem: DenseProblem, asked: DenseProblem, width: int) -> Any:
        found.append(problem.n_queries)
        return attempt(problem, asked, width)

    monkeypatch.setattr(module, "attempt", watching)
    return found


def problems(a: Any, b: Any, k: int, metric: str, dims: int | None = None) -> tuple[DenseProblem, DenseProblem]:
    forth = dense.prepare(a, Documents(b, cache={}, checked=True), k, metric=metric, dims=dims)
    return forth, dense.prepare(b, Documents(a, cache={}, checked=True), k, metric=metric, dims=dims)


def check(a: F32, b: F32, k: int, metric: str, name: str, dims: int | None = None) -> None:
    got = pe.topk_both(a, b, k, metric=metric, dims=dims, backend=name)
    conformance.same(got[0], reference.topk(a, b, k, metric, dims=dims), "b for a")
    conformance.same(got[1], reference.topk(b, a, k, metric, dims=dims), "a for b")


def check_tensors(kind: str, device: str, name: str) -> None:
    """Tensors of 16 bits are searched as they are rounded; both sides may be the same tensor."""
    import torch

    values = rows(15, 20, 37), rows(16, 30, 37)
    a, b = (torch.from_numpy(each).to(getattr(torch, kind)).to(device) for each in values)
    for x, y in ((a, b), (a, a)):
        got = pe.topk_both(x, y, 4, metric="l2", backend=name)
        one, other = (each.float().cpu().numpy() for each in (x, y))
        for found, want in zip(got, (reference.topk(one, other, 4, "l2"), reference.topk(other, one, 4, "l2"))):
            assert [each.device.type for each in found] == [device] * 3
            conformance.same(pe.TopK(*(each.cpu().numpy() for each in found)), want, kind)


class Offered(NamedTuple):
    """Pools on the host: ``counts`` [Q], and of as many places [Q, C] the items and their bounds."""

    counts: Any
    items: Any
    upper: Any
    lower: Any
    scale: Scale


def check_offered(asked: DenseProblem, found: Offered) -> None:
    """Of a scan without thresholds and with room for all: each row has met each column once, and the bounds hold."""
    scores = conformance.rank_scores(asked)
    assert (found.counts == scores.shape[1]).all()
    assert (np.sort(found.items, axis=1) == np.arange(scores.shape[1])).all()
    exact = np.take_along_axis(scores, found.items.astype(np.int64), axis=1)
    unit, base = found.scale.unit[:, None], found.scale.base[:, None]
    assert (unit * found.lower + base <= exact + 1e-12 * abs(base)).all()
    assert (exact <= unit * found.upper + base + 1e-12 * abs(base)).all()
    assert (unit * (found.upper - found.lower)).mean() < 0.1 * np.abs(exact).max()

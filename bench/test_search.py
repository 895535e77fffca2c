"""The main searches under pytest-benchmark: ``pytest bench/ --benchmark-only``, with its own statistics and comparisons
(``--benchmark-autosave``, ``--benchmark-compare``). Every answer is checked by the specification first.

It is no part of `make test`. The corpora are those of the presets of `bench.run`, ten times smaller or so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("rich")
pytest.importorskip("tqdm")

from bench import registry
from bench.operations.arena import Arena
from bench.ours.contestants import Unavailable
from bench.racing import gate
from bench.racing.race import Settings
from bench.racing.side import Unmeasured
from bench.workloads.shapes import BASE, Workload
from bench.workloads.sparse_shapes import HEAVY, LIGHT, together
from bench.workloads.token_shapes import A, C

THREADS = 1
WORKLOADS: list[tuple[str, Workload]] = [
    *(("dense_topk", replace(BASE, n_docs=20_000, n_queries=count)) for count in (1, 32, 512)),
    *(("maxsim", replace(each, n_docs=200)) for each in (A, C)),
    *(("sparse_topk", together(replace(each, n_docs=100_000), 32)) for each in (LIGHT, HEAVY)),
]
RACES = [
    pytest.param(op, workload, who, id=f"{op}-{workload.name}-{who.name}")
    for op, workload in WORKLOADS
    for who in registry.OPS[op].contestants
    if registry.Choice().takes(who)
]


@pytest.fixture(scope="module")
def arenas() -> Iterator[dict[Any, Arena]]:
    """By corpus, the one that was used last: the cases of a corpus follow each other."""
    kept: dict[Any, Arena] = {}
    yield kept
    for arena in kept.values():
        arena.__exit__(None, None, None)


def arena_of(kept: dict[Any, Arena], op: str, workload: Workload) -> Arena:
    if workload.corpus not in kept:
        for arena in kept.values():
            arena.__exit__(None, None, None)
        kept.clear()
        n_queries = max(each.n_queries for _, each in WORKLOADS if each.corpus == workload.corpus)
        kept[workload.corpus] = registry.OPS[op].arena(workload.corpus, n_queries, Settings(Unmeasured(THREADS)))
    return kept[workload.corpus]


@pytest.mark.parametrize(("op", "workload", "who"), RACES)
def test_search(arenas: dict[Any, Arena], op: str, workload: Workload, who: Any, benchmark: Any) -> None:
    arena = arena_of(arenas, op, workload)
    arena.release(but=[who])
    try:
        search = arena.search(who, workload)
    except Unavailable as reason:
        pytest.skip(str(reason))
    call, truth = partial(search, arena.asked(workload), workload.k), arena.truth(workload)
    answer = arena.reader(who, workload)(call())
    verdict = gate.judge(answer, truth, truth.sample(workload.n_queries), workload.k)
    assert verdict.exact or not who.ours, verdict.reason
    benchmark.group = f"{op} {workload.name}"
    benchmark.extra_info.update(exact=verdict.exact, recall=verdict.recall, version=who.version)
    benchmark(call)

"""What the ablation builds and measures, on a toy collection."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

import pyengine
from bench.ablation import approximate, measures, stages
from bench.ablation.cells import made
from bench.datasets.collection import Collection, Rows, numbered
from bench.limits import machine
from bench.ours.contestants import Unavailable
from pyengine.types import TopK
from tests.ablate_toy import DIM, N_DOCS, N_QUERIES, TOY

EVERY = [
    {"family": "dense", "store": store} for store in ("float32", "int8", "float16", "bfloat16", "binary", "residual2")
] + [
    {"family": "dense", "store": "int8", "originals": "disk"},
    {"family": "dense", "candidates": "codes", "store": "binary", "depth": 100},
    {"family": "dense", "candidates": "projection", "project": 8, "depth": 60},
    {"family": "dense", "candidates": "projection", "project": 8, "depth": 0, "store": "int8"},
    {"family": "dense", "candidates": "ivf", "lists": 4, "probes": 4},
    {"family": "dense", "candidates": "hnsw", "links": 8, "ef": 50},
    {"family": "dense", "candidates": "pq", "code_bytes": 4, "depth": 100},
    {"family": "dense", "candidates": "hamming", "bits": 64, "depth": 100},
    {"family": "dense", "candidates": "hamming", "bits": 8, "depth": 0},
    {"family": "dense", "candidates": "sparse", "depth": 100, "dims": 8},
    {"family": "dense", "candidates": "run", "depth": 20},
    {"family": "maxsim"},
    {"family": "maxsim", "store": "residual2"},
    {"family": "maxsim", "pool": 2},
    {"family": "maxsim", "candidates": "codes", "store": "binary", "depth": 60},
    {"family": "maxsim", "candidates": "dense", "depth": 60},
    {"family": "maxsim", "candidates": "sparse", "depth": 60},
    {"family": "sparse", "store": "uint8", "originals": "disk"},
    {"family": "hybrid", "fusion": "product", "depth": 40},
]  # fmt: skip


@pytest.mark.parametrize("settings", EVERY, ids=lambda each: "-".join(str(value) for value in each.values()))
def test_every_stage_searches(settings: dict[str, Any], tmp_path: Path) -> None:
    cell = made("c", settings | {"k": 5, "backend": "auto"})
    try:
        built = stages.build(cell, TOY, tmp_path)
    except (Unavailable, RuntimeError) as error:
        pytest.skip(str(error))
    found, truth = built.search(TOY.queries, 5), measures.exact(cell, TOY)
    assert found.ids.shape == (N_QUERIES, 5)
    assert measures.recall(found, truth) > 0.2
    assert built.memory > 0
    assert measures.disk_bytes(built, tmp_path / "saved") > 0
    alone = built.search(TOY.queries.take(np.array([3])), 5)
    assert np.array_equal(alone.ids[0], found.ids[3])


def test_rescoring_is_the_exact_search_where_all_are_candidates() -> None:
    docs, queries = TOY.docs.dense, TOY.queries.dense
    assert docs is not None
    assert queries is not None
    everything = np.tile(np.arange(N_DOCS), (N_QUERIES, 1))
    for metric in ("cosine", "dot", "l2"):
        found = approximate.rescored(approximate.comparable(docs, metric), metric, queries, everything, 7)
        assert np.array_equal(found.ids, pyengine.topk(queries, docs, 7, metric=metric).ids)


def test_rescoring_pads_where_there_are_too_few_candidates() -> None:
    docs, queries = TOY.docs.dense, TOY.queries.dense
    assert docs is not None
    assert queries is not None
    found = approximate.rescored(docs, "dot", queries[:1], np.array([[5, -1, 9]]), 4)
    assert set(found.ids[0, :2]) == {5, 9}
    assert list(found.ids[0, 2:]) == [-1, -1]
    assert np.isneginf(found.scores[0, 2:]).all()


def test_principal_directions_keep_the_products_of_a_subspace() -> None:
    rng = np.random.default_rng(0)
    docs = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, DIM))).astype(np.float32)
    basis = approximate.principal(docs, 4)
    assert basis.shape == (DIM, 4)
    assert np.allclose(basis.T @ basis, np.eye(4), atol=1e-5)
    assert np.allclose((docs @ basis) @ (docs @ basis).T, docs @ docs.T, atol=1e-3)


def test_significance_is_of_paired_differences() -> None:
    rng = np.random.default_rng(1)
    base = rng.random(100)
    assert measures.significance(base, base, 7) == 1
    better = base + 0.1 + 0.01 * rng.random(100)
    assert measures.significance(better, base, 7) == 1 / (1 + measures.FLIPS)
    assert measures.significance(base, better, 7) == measures.significance(better, base, 7)
    exact = measures.significance(np.ones(5), np.zeros(5), 7)  # 2 of 32 sign patterns reach it
    assert abs(exact - 2 / 32) < 0.01
    noise = measures.significance(rng.standard_normal(100), rng.standard_normal(100), 7)
    assert 0.01 < noise <= 1


def test_significance_of_many_queries_needs_little_memory() -> None:
    own = np.random.default_rng(0).random(4_000)
    tracemalloc.start()
    measures.significance(own, own[::-1].copy(), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e8  # all draws in float64: 320 MB


def test_exactness_knows_a_bit_from_a_proof() -> None:
    truth = pyengine.topk(TOY.queries.dense, TOY.docs.dense, 5)
    unproven = truth._replace(certified=np.zeros(N_QUERIES, bool))
    nudged = np.nextafter(truth.scores, np.float32(2))
    swapped = truth.ids[:, ::-1]
    assert measures.exactness(truth, truth) == "exact"
    assert measures.exactness(unproven, truth) == "same"
    assert measures.exactness(TopK(nudged, truth.ids, truth.certified), truth) == "ids"
    assert measures.exactness(TopK(truth.scores, swapped, truth.certified), truth) == "certified"
    assert measures.exactness(TopK(truth.scores, swapped, unproven.certified), truth) == "approximate"
    assert measures.recall(TopK(truth.scores, swapped, None), truth) == 1


def test_quality_counts_a_query_without_results_as_nothing() -> None:
    pytest.importorskip("ir_measures")
    ids = np.full((N_QUERIES, 10), -1, np.int64)
    ids[0, 0], ids[1, :2] = 0, (7, 1)
    values = measures.quality(ids, 10, replace(TOY, qrels={**(TOY.qrels or {}), "another": {"d1": 1}}))
    assert list(values["mrr_10"]) == [1, 0.5, *[0] * 6]
    assert "map_50" not in values
    assert values["ndcg_10"][1] == pytest.approx(1 / np.log2(3))


def test_batches_ask_every_query_once() -> None:
    assert [len(each) for each in measures.batches(TOY.queries, 1)] == [1] * N_QUERIES
    assert [len(each) for each in measures.batches(TOY.queries, 3)] == [3, 3]
    assert [len(each) for each in measures.batches(TOY.queries, 32)] == [N_QUERIES]


def test_calls_that_are_compared_ask_the_same_queries() -> None:
    asked: dict[str, list[float]] = {"own": [], "other": []}

    def noting(name: str) -> stages.Search:
        def search(queries: Rows, k: int) -> TopK:
            assert queries.dense is not None
            asked[name].append(float(queries.dense[0, 0]))
            return pyengine.topk(queries.dense, TOY.docs.dense, k)

        return search

    samples = measures.clock({name: (noting(name), 3) for name in asked}, TOY.queries, 1, 0.01)
    assert asked["own"] == asked["other"]
    assert len(samples["own"].wall) >= measures.FEWEST
    assert len(set(asked["own"])) == min(N_QUERIES, len(samples["own"].wall))


def test_more_threads_than_cores_are_a_sentence(tmp_path: Path) -> None:
    cell = made("crowd", {"family": "dense", "threads": machine.cores() + 1})
    with pytest.raises(Unavailable, match=f"threads must be at most the {machine.cores()} cores"):
        stages.build(cell, TOY, tmp_path)


def test_a_missing_form_is_a_sentence() -> None:
    bare = Collection("bare", Rows(TOY.docs.dense), Rows(TOY.queries.dense), numbered(N_DOCS), numbered(N_QUERIES))
    with pytest.raises(Unavailable, match=r"bare has no token vectors: docs\.tokens\.npy"):
        bare.holding("tokens")
    assert bare.holding("dense") is bare
    assert replace(bare, part=TOY).holding("dense", "tokens") is TOY

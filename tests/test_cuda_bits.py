"""Documents of one bit a dimension on the GPU, in the emulator: counted by popc and by tensor cores, with the answers
of the specification to the bit, and bounds that hold in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_documents
from pyengine.backends.cuda.cuda_device import Array, Gpu
from pyengine.backends.shared import parts
from pyengine.indexes import stores
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from pyengine.searches.search import exact_search
from pyengine.types import F32, U8
from tests.cuda_driver import FakeDriver
from tests.dense_cases import check, rows, within_bounds
from tests.stream_cases import seventy

Given = Callable[[int, int, int], F32]
pytestmark = pytest.mark.usefixtures("emulated", "poison")


def binary(vectors: F32, originals: str | None = None) -> Documents:
    kept = stores.make("binary", originals, vectors.shape[1])
    kept.append(vectors)
    return kept.documents(cache={})


def signs(seed: int, count: int, dim: int) -> F32:
    found: F32 = np.sign(rows(seed, count, dim)) * np.float32(0.3)
    return found


def scans(driver: FakeDriver) -> set[str]:
    return {line.split()[0] for line in driver.log if line.startswith("dense_")}


@pytest.mark.parametrize(
    ("n_queries", "dim", "given", "metric", "form"),
    [(1, 2, rows, "cosine", "dense_bits_8"), (3, 200, rows, "l2", "dense_bits_8"),
     (17, 37, rows, "dot", "dense_bits_16"), (9, 1100, rows, "cosine", "dense_bits_16"),
     (1, 64, signs, "l2", "dense_signs_4"), (4, 1100, signs, "cosine", "dense_signs_4"),
     (5, 37, signs, "dot", "dense_signs_64"), (66, 50, signs, "l2", "dense_signs_64")],
)  # fmt: skip
def test_forms(n_queries: int, dim: int, given: Given, metric: str, form: str, emulated: FakeDriver) -> None:
    """Over several parts of a scan and steps of a row, masked and not."""
    queries = given(2, n_queries, dim)
    mask = np.random.default_rng(3).random((n_queries, 700)) < 0.6
    mask[:, 200:500] = False
    for masked in (None, mask):
        check(dense.prepare(queries, binary(rows(1, 700, dim)), 3, metric=metric, mask=masked), "cuda")
    assert scans(emulated) == {form}


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("given", [rows, signs])
def test_bounds(metric: str, given: Given) -> None:
    """Of signs they are as narrow as rounding; with a bias and a prefix they hold as well."""
    docs, asked = binary(rows(4, 150, 90)), given(5, 5, 90)
    bias = 3 * np.random.default_rng(0).standard_normal(150)
    for dims in (90, 41):
        within_bounds(dense.prepare(asked, docs, 150, metric=metric, bias=bias, dims=dims))


def hostile(dim: int) -> F32:
    found = rows(6, 90, dim)
    found[:20] *= np.float32(1e37)
    found[20:40] *= np.float32(1e-42)
    found[40:50] = 0
    found[50:70] = found[70]
    found[71:75] = np.abs(found[71:75])
    return found


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dim", [1, 7, 130])
def test_hostile_vectors(metric: str, dim: int) -> None:
    """Huge, tiny, zero and equal ones, on both sides."""
    docs = binary(hostile(dim))
    for asked in (hostile(dim)[::9], np.full((2, dim), -1e-40, np.float32)):
        problem = dense.prepare(asked, docs, 12, metric=metric)
        conformance.same(exact_search(problem, registry.get("cuda")), conformance.specified(problem), metric)


def test_long_rows() -> None:
    """More than six steps of 1,024 dimensions."""
    docs = binary(rows(7, 40, 6209))
    for asked in (rows(8, 2, 6209), signs(8, 2, 6209), signs(8, 5, 6209)):
        check(dense.prepare(asked, docs, 3, metric="cosine"), "cuda")


def test_ties() -> None:
    """Of few dimensions nearly all scores tie."""
    check(dense.prepare(signs(10, 2, 6), binary(rows(9, 600, 6)), 40, metric="cosine"), "cuda")


@pytest.mark.parametrize("given", [rows, signs])
def test_filters_ranges_and_ranks(given: Given, emulated: FakeDriver) -> None:
    """Between two limits they are counted and listed by the same bits."""
    filters = FilterArguments(exclude=[[1, 2], [3]], threshold=-1.0)
    problem = dense.prepare(given(11, 2, 24), binary(rows(10, 200, 24)), 9, metric="dot", filters=filters)
    check(problem, "cuda")
    conformance.check_ranges_and_ranks(problem, registry.get("cuda"))
    assert "dense_between_bits" in scans(emulated)


def test_a_prefix_of_signs_is_of_planes(emulated: FakeDriver) -> None:
    """What lies beyond it differs, and does not count."""
    check(dense.prepare(signs(12, 2, 70), binary(rows(13, 150, 70)), 5, metric="cosine", dims=33), "cuda")
    assert scans(emulated) == {"dense_bits_8"}


def test_bits_are_all_that_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, 16 bytes for each 128 dimensions, and by nothing else: not decoded, not coded."""
    strides, copied = list[int](), cuda_documents._bits

    def counting(planes: U8, dim: int, gpu: Gpu) -> Array:
        made = copied(planes, dim, gpu)
        strides.append(made.stride)
        return made

    monkeypatch.setattr(cuda_documents, "_bits", counting)
    monkeypatch.setattr(cuda_documents, "code_docs", lambda *given: pytest.fail("coded"))
    problem = dense.prepare(rows(14, 2, 300), binary(rows(15, 100, 300)), 5, metric="cosine")
    for _ in range(2):
        check(problem, "cuda")
    assert strides == [48]


def test_a_fast_search_ranks_by_the_bits_beside_originals(emulated: FakeDriver) -> None:
    """Estimates are those of the codes; what is rescored has the specification's scores. An exact search scans the
    originals."""
    docs, asked = rows(16, 300, 96), rows(17, 3, 96)
    index = pe.DenseIndex(96, store="binary", backend="cuda")
    index.add(docs)
    units = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    by_codes = units @ np.sign(docs).T * (np.abs(docs).mean(axis=1) / np.linalg.norm(docs, axis=1))
    found = index.search(asked, 5, precision="fast")
    assert scans(emulated) == {"dense_bits_8"}
    best = -np.sort(-by_codes, axis=1)[:, :5]
    assert np.abs(found.scores - best).max() < 0.02  # what rounding queries to int8 leaves
    rescored = index.search(asked, 5, precision="fast", rescore=60)
    truth = pe.topk(asked, docs, 5, backend="numpy")
    assert np.isin(rescored.ids, truth.ids).mean() > 0.9
    both = np.isin(rescored.scores, truth.scores)
    assert (both == np.isin(rescored.ids, truth.ids)).all()
    emulated.forget()
    conformance.same(index.search(asked, 5), truth, "exact")
    assert scans(emulated) == {"dense_few"}


def test_explain_says_what_is_scanned() -> None:
    index = pe.DenseIndex(256, store="binary", originals=None, backend="cuda")
    index.add(rows(18, 1000, 256))
    plan = index.explain(signs(19, 3, 256), 10)
    assert plan.facts["store"] == "binary, scanned as bits: documents are of one bit a dimension"
    assert plan.facts["tile"] == "128 x 4 x 1024, 1 part"
    assert plan.facts["reads"] == "32,000 bytes or more"
    plan = index.explain(rows(19, 3, 256), 10)
    assert plan.facts["tile"] == "128 x 8 x 1024, 8 parts"
    assert plan.rejected["popc"] == "queries are not signs, and have 8 planes of bits"


def test_parts_of_documents_that_the_gpu_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "cuts", seventy)
    docs = replace(binary(rows(20, 300, 72)), cache=None)
    problem = dense.prepare(rows(21, 3, 72), docs, 5, metric="l2")
    conformance.same(exact_search(problem, registry.get("cuda")), conformance.specified(problem), "parts")

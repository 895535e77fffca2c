"""Float32 products without tensor cores, in the emulator: documents as they are, the answers of the specification to
the bit, bounds that hold in float64; and where they take the place of int8 codes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

import pyengine as pe
from pyengine import checks, conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_documents
from pyengine.backends.shared.float32 import error_factor
from pyengine.conformance import Case
from pyengine.indexes import stores
from pyengine.inputs.filters import FilterArguments
from pyengine.kernels import dense_forms, dense_sm90_plan
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from pyengine.searches.explain import explain
from pyengine.searches.search import exact_search
from pyengine.types import F32
from tests import dense_cases
from tests.cuda_driver import FakeDriver
from tests.dense_cases import CASES, rows, within_bounds

check = partial(dense_cases.check, name="cuda")
pytestmark = pytest.mark.usefixtures("emulated", "poison")


@pytest.fixture
def asked_for() -> Iterator[None]:
    with dense_forms.float32_forced():
        yield


def scans(driver: FakeDriver) -> set[str]:
    return {line.split()[0] for line in driver.log if line.startswith("dense_")}


@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("names", CASES, ids="-".join)
def test_conformance(names: tuple[str, str, str, str]) -> None:
    check(Case(*names).problem())


@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize(("n_queries", "dim", "tile"), [(1, 1, 16), (16, 37, 16), (60, 70, 64), (128, 33, 128)])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles(n_queries: int, dim: int, tile: int, masked: bool, emulated: FakeDriver) -> None:
    """Each over several parts of a scan and steps of a row; where few are allowed, whole tiles are passed over. A form
    for Hopper is not to be had."""
    rng, mask = np.random.default_rng(4), None
    if masked:
        mask = rng.random((n_queries, 900)) < 0.7
        mask[:, 300:700] = False
    problem = dense.prepare(rows(5, n_queries, dim), Documents(rows(3, 900, dim)), 3, metric="l2", mask=mask)
    scores = conformance.rank_scores(problem)
    with dense_sm90_plan.forced("sm_90"):
        found = registry.get("cuda").propose(problem, 3)
    conformance.check_candidates(problem, found, scores)
    best = np.where(True if mask is None else mask, scores, -np.inf)
    assert (found.dropped < np.sort(best, axis=1)[:, -3]).mean() > 0.9
    assert scans(emulated) == {f"dense_{tile}_float32"}


@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dim", [1, 7, 90, 6209])
def test_bounds(metric: str, dim: int) -> None:
    """They hold, with a bias and a prefix, too; and are as narrow as is proven of float32."""
    few = 30 if dim > 1000 else 150
    docs, asked, bias = Documents(rows(6, few, dim)), rows(7, 5, dim), np.random.default_rng(0).standard_normal(few)
    for dims in {dim, (dim + 1) // 2}:
        within_bounds(dense.prepare(asked, docs, few, metric=metric, bias=bias, dims=dims))
    widths = within_bounds(dense.prepare(asked, docs, few, metric="cosine"))
    assert widths.max() < 2.1 * (error_factor(dim) + 2.0**-18)


def hostile(dim: int) -> F32:
    """Huge, tiny and both in one row; zeros; ties; what float32 cannot square."""
    found = rows(8, 120, dim)
    found[:20] *= np.float32(1e37)
    found[20:40] *= np.float32(1e-42)
    found[40:60] *= (10.0 ** np.random.default_rng(1).uniform(-44, 37, (20, dim))).astype(np.float32)
    found[60:65] = 0
    found[65:80] = found[80]
    found[90:] *= np.float32(1e20)
    return found


@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dim", [1, 7, 65])
def test_hostile_vectors(metric: str, dim: int) -> None:
    """They are bounded or they pass; the answer is the specification's either way."""
    problem = dense.prepare(hostile(dim)[::9], Documents(hostile(dim)), 12, metric=metric)
    scores = conformance.rank_scores(problem)
    conformance.check_candidates(problem, registry.get("cuda").propose(problem, 12), scores)
    conformance.same(exact_search(problem, registry.get("cuda")), conformance.specified(problem), metric)


@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_ranges_ranks_and_pages(metric: str, emulated: FakeDriver) -> None:
    """Between two limits they are counted and listed by the same products."""
    problem = dense.prepare(rows(21, 5, 37), Documents(rows(20, 300, 37)), 9, metric=metric)
    conformance.check_ranges_and_ranks(problem, registry.get("cuda"))
    first = exact_search(problem, registry.get("cuda"))
    after = FilterArguments(after=first)
    check(dense.prepare(rows(21, 5, 37), Documents(rows(20, 300, 37)), 9, metric=metric, filters=after))
    assert "dense_between_float32" in scans(emulated)


def with_outliers(count: int, dim: int) -> F32:
    """One value of each row is so large that int8 rounds the others away."""
    found = rows(9, count, dim)
    found[:, 3] = np.random.default_rng(2).uniform(80, 90, count)
    return found


@pytest.mark.parametrize("store", ["float32", "int8"])
def test_loose_codes_are_not_scanned(store: str, emulated: FakeDriver) -> None:
    """Where rows have a wide range, codes would leave all documents; `explain` says so, too."""
    index = pe.DenseIndex(256, store=store, backend="cuda")
    index.add(with_outliers(700, 256))
    asked = rows(10, 3, 256)
    want = pe.topk(asked, with_outliers(700, 256), 4, backend="numpy")
    for _ in range(2):
        conformance.same(index.search(asked, 4), want, store)
    assert scans(emulated) == {"dense_16_float32"}
    assert len([line for line in emulated.log if line.startswith("code_float32")]) == (store == "float32")
    plan = index.explain(asked, 4)
    assert plan.rejected["products of int8"].startswith("int8 codes are off by 0.0")
    assert plan.rejected["products of int8"].endswith("of a document's length on average, and 0.031 is the most")
    assert plan.facts["store"] == f"{store}, scanned as float32: {plan.rejected['products of int8']}"


def test_codes_are_scanned_where_they_will_do(emulated: FakeDriver) -> None:
    index = pe.DenseIndex(64, store="float32", backend="cuda")
    index.add(rows(11, 300, 64))
    for _ in range(2):
        plan = index.explain(rows(12, 3, 64), 4)
        assert plan.facts["store"] == "float32, scanned as int8: codes are made on the GPU"
        assert plan.rejected["products of float32"].endswith("it is for codes that are off by more than 0.031")
        index.search(rows(12, 3, 64), 4)
    assert scans(emulated) == {"dense_few"}


def test_documents_beside_which_codes_have_no_room(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tensors nothing is copied or coded then; with room for codes, they are made: that reads less."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(checks, "RESIDENT", ("cpu",))
    monkeypatch.setattr(cuda_documents, "copied", lambda *given: pytest.fail("copied"))
    docs, queries = torch.from_numpy(rows(13, 300, 4000)), torch.from_numpy(rows(14, 2, 4000))
    want = pe.topk(queries.numpy(), docs.numpy(), 4, dims=61, backend="numpy")
    for free, form in ((1, "dense_16_float32"), (2, "dense_few")):
        emulated.forget()
        emulated.tell(megabytes=free)
        found = pe.topk(queries, docs, 4, dims=61, backend="cuda")
        conformance.same(pe.TopK(*map(np.asarray, found)), want, form)
        assert scans(emulated) == {form}
    docs[11, 2] = float("nan")
    emulated.tell(megabytes=1)
    with pytest.raises(ValueError, match="row 11"):
        pe.topk(queries, docs, 4, backend="cuda")
    emulated.tell(megabytes=0)
    with pytest.raises(RuntimeError, match="it needs 0 MB of the GPU, of which 0 are free"):
        pe.topk(queries, docs, 4, backend="cuda")


def test_rows_that_begin_anywhere_are_coded(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(checks, "RESIDENT", ("cpu",))
    docs, queries = torch.from_numpy(rows(15, 90, 37)), torch.from_numpy(rows(16, 3, 37))
    with dense_forms.float32_forced():
        plan = explain(dense.prepare(queries, Documents(docs), 4, metric="cosine"), "cuda")
        pe.topk(queries, docs, 4, backend="cuda")
    assert plan.facts["store"].endswith("rows of the documents do not begin at multiples of 16 bytes")
    assert scans(emulated) == {"dense_few"}


def test_a_row_with_nan_is_named() -> None:
    docs = with_outliers(50, 300)
    docs[41, 7] = np.inf
    with pytest.raises(ValueError, match="row 41"):
        pe.topk(rows(7, 2, 300), docs, 3, backend="cuda")


def test_documents_of_sixteen_bits_stay_so(emulated: FakeDriver) -> None:
    kept = stores.make("float16", "ram", 40)
    kept.append(rows(1, 100, 40))
    with dense_forms.float32_forced():
        check(dense.prepare(rows(2, 2, 40), kept.documents(cache={}), 5, metric="cosine"))
    assert scans(emulated) == {"dense_16_float16"}

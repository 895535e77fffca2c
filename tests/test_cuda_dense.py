"""Dense search by the CUDA kernels, run by an emulator: bounds that hold in float64, answers of the specification to
the bit, nothing written where nothing is."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import pyengine as pe
from pyengine import checks, conformance
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_dense, cuda_documents
from pyengine.conformance import Case
from pyengine.indexes import stores
from pyengine.inputs.filters import FilterArguments
from pyengine.kernels import dense_sm90_plan
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from pyengine.searches.search import exact_search
from tests import dense_cases
from tests.cuda_driver import FakeDriver
from tests.dense_cases import CASES, rows

check = partial(dense_cases.check, name="cuda")
pytestmark = pytest.mark.usefixtures("emulated", "poison")


@pytest.mark.parametrize("names", CASES, ids="-".join)
def test_conformance(names: tuple[str, str, str, str]) -> None:
    check(Case(*names).problem())


@pytest.mark.parametrize(
    ("store", "metric"),
    [("float32", "l2"), ("float16", "cosine"), ("bfloat16", "l2"), ("int8", "cosine"), ("own codes", "dot"),
     ("residual4", "cosine")],
)  # fmt: skip
def test_stores(store: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of vector finds the answer at its first attempt, and keeps what it derives."""
    originals = None if store == "residual4" else "ram"
    kept = stores.make("int8", None, 40) if store == "own codes" else stores.make(store, originals, 40)
    kept.append(rows(1, 150, 40))
    problem = dense.prepare(rows(2, 2, 40), kept.documents(cache={}), 5, metric=metric)
    monkeypatch.setattr(cuda_dense, "score_everything", lambda problem: pytest.fail("not certified"))
    for _ in range(2):
        conformance.same(exact_search(problem, registry.get("cuda")), conformance.specified(problem), store)
        monkeypatch.setattr(cuda_documents, "code_docs", lambda *given: pytest.fail("coded again"))
    monkeypatch.undo()


@pytest.mark.parametrize(("n_queries", "dim"), [(1, 24), (4, 200), (5, 300), (17, 24), (65, 130)])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles(n_queries: int, dim: int, masked: bool) -> None:
    """Every kernel, over several parts of a scan, the later of which meet thresholds, and several steps of a row; where
    few are allowed, whole tiles are passed over."""
    rng = np.random.default_rng(4)
    mask = None
    if masked:
        mask = rng.random((n_queries, 900)) < 0.7
        mask[:, 300:700] = False
    problem = dense.prepare(rows(5, n_queries, dim), Documents(rows(3, 900, dim)), 3, metric="dot", mask=mask)
    scores = conformance.rank_scores(problem)
    found = registry.get("cuda").propose(problem, 3)
    conformance.check_candidates(problem, found, scores)
    assert (np.diff(found.offsets) < 200).all()
    best = np.where(True if mask is None else mask, scores, -np.inf)
    assert (found.dropped < np.sort(best, axis=1)[:, -3]).mean() > 0.9


@pytest.mark.parametrize(
    ("n_queries", "tile", "kind"), [(4, 16, "float16"), (20, 64, "bfloat16"), (66, 128, "float16")]
)
def test_documents_of_sixteen_bits(n_queries: int, tile: int, kind: str, emulated: FakeDriver) -> None:
    """They are multiplied as they are, in each tile, whole and by their first dimensions."""
    kept = stores.make(kind, "ram", 140)
    kept.append(rows(1, 400, 140))
    for dims in (140, 67):
        problem = dense.prepare(rows(2, n_queries, 140), kept.documents(cache={}), 5, metric="l2", dims=dims)
        scores = conformance.rank_scores(problem)
        found = registry.get("cuda").propose(problem, 5)
        conformance.check_candidates(problem, found, scores)
        assert (found.dropped < np.sort(scores, axis=1)[:, -5]).all()
    launched = {line.split()[0] for line in emulated.log}
    assert launched == {f"code_queries_{kind}", f"dense_{tile}_{kind}", "tighten", "pack_pools"}


@pytest.mark.parametrize("form", dense_sm90_plan.FORMS)
def test_tensors_of_sixteen_bits_are_not_coded(
    form: str, emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that begin at multiples of 16 bytes."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(checks, "RESIDENT", ("cpu",))
    docs, queries = torch.from_numpy(rows(12, 90, 40)).half(), torch.from_numpy(rows(13, 3, 40))
    want = pe.topk(queries.numpy(), docs.float().numpy(), 4, dims=37, backend="numpy")
    with dense_sm90_plan.forced(form):
        found = pe.topk(queries, docs, 4, dims=37, backend="cuda")
    conformance.same(pe.TopK(*(each.numpy() for each in found)), want, form)
    launched = {line.split()[0] for line in emulated.log}
    assert f"dense_16_float16{'_sm90' * (form == 'sm_90')}" in launched
    assert "norms_float16" in launched
    assert "code_float16" not in launched
    docs[7, 2] = float("inf")
    with pytest.raises(ValueError, match="row 7"):
        pe.topk(queries, docs, 4, backend="cuda")


def test_a_pool_that_overflows() -> None:
    """All 600 documents pass, and find 256 places: what is lost is bounded."""
    docs = np.repeat(rows(14, 1, 24), 600, axis=0)
    docs[np.random.default_rng(1).permutation(600), 0] += np.linspace(0, 1e-6, 600, dtype=np.float32)
    problem = dense.prepare(rows(15, 2, 24), Documents(docs), 2, metric="cosine")
    found = registry.get("cuda").propose(problem, 2)
    assert np.diff(found.offsets).tolist() == [256, 256]
    scores = conformance.rank_scores(problem)
    conformance.check_candidates(problem, found, scores)
    assert (found.dropped < scores.max(axis=1) + 0.1).all()


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dims", [37, 9])
def test_tensors_stay_where_they_are(kind: str, dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(checks, "RESIDENT", ("cpu",))
    docs, queries = torch.from_numpy(rows(12, 90, 37)).to(getattr(torch, kind)), torch.from_numpy(rows(13, 3, 37))
    want = pe.topk(queries.numpy(), docs.float().numpy(), 4, dims=dims, backend="numpy")
    monkeypatch.setattr(cuda_documents, "copied", lambda *given: pytest.fail("copied"))
    for kept in (docs, docs.T.contiguous().T):
        found = pe.topk(queries, kept, 4, dims=dims, backend="cuda")
        conformance.same(pe.TopK(*(each.numpy() for each in found)), want, kind)
    docs[7, 2] = float("inf")
    with pytest.raises(ValueError, match="row 7"):
        pe.topk(queries, docs, 4, dims=dims, backend="cuda")


def test_a_row_with_nan_is_named() -> None:
    docs = rows(6, 50, 8)
    docs[41, 3] = np.inf
    with pytest.raises(ValueError, match="row 41"):
        pe.topk(rows(7, 2, 8), docs, 3, backend="cuda")


def test_ids_break_ties() -> None:
    """By id, where ids do not rise with the rows."""
    docs = Documents(np.repeat(rows(8, 5, 6), 20, axis=0), cache={})
    ids = np.random.default_rng(0).permutation(100) * 7 + (1 << 40)
    problem = dense.prepare(rows(9, 2, 6), docs, 30, metric="l2", ids=ids)
    conformance.same(exact_search(problem, registry.get("cuda")), conformance.specified(problem), "ids")


def test_filters_and_ranges() -> None:
    filters = FilterArguments(exclude=[[1, 2], [3]], threshold=0.1)
    problem = dense.prepare(rows(11, 2, 16), Documents(rows(10, 200, 16)), 9, metric="cosine", filters=filters)
    check(problem)
    conformance.check_ranges_and_ranks(problem, registry.get("cuda"))


def test_what_the_kernels_cannot_do_is_refused() -> None:
    long = np.zeros((2, 8193), np.float32)
    with pytest.raises(RuntimeError, match="cuda: its kernels take at most 8,192 dimensions, and 8,193 are scored"):
        pe.topk(long, long, 1, backend="cuda")
    assert pe.topk(long, long, 1, dims=9, backend="cuda").certified.all()

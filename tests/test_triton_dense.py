"""Dense search by Triton's kernels: bounds that hold in float64, answers of the specification to the bit.

A part of the conformance suite, since the interpreter takes half a second for a search."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import pyengine as pe
from pyengine import checks, conformance
from pyengine.backends import registry
from pyengine.conformance import Case
from pyengine.indexes import stores
from pyengine.inputs.filters import FilterArguments
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from pyengine.searches.search import exact_search
from tests import dense_cases
from tests.dense_cases import CASES, rows

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.backends.triton import triton_dense  # noqa: E402
from pyengine.kernels import dense_topk  # noqa: E402

check = partial(dense_cases.check, name="triton")
pytestmark = [
    pytest.mark.usefixtures("interpreter", "poison"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),  # in the interpreter
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
BACKEND = registry.get("triton")


@pytest.mark.parametrize("names", CASES, ids="-".join)
def test_conformance(names: tuple[str, str, str, str]) -> None:
    known = {(each.corpus, each.options, each.metric, each.store) for each in conformance.cases()}
    if names not in known and names[3] == "int8":
        pytest.skip("int8 codes need the compiled extension")
    check(Case(*names).problem())


@pytest.mark.parametrize(
    ("store", "metric"),
    [
        ("float32", "l2"), ("float16", "cosine"), ("bfloat16", "l2"), ("int8", "cosine"), ("own codes", "dot"),
        ("residual4", "cosine"),
    ],
)  # fmt: skip
def test_stores(store: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of operand finds the answer at its first attempt, and keeps what it derives."""
    kept = stores.make("int8", None, 40) if store == "own codes" else stores.make(store, _originals(store), 40)
    kept.append(rows(1, 150, 40))
    docs = kept.documents(cache={})
    problem = dense.prepare(rows(2, 2, 40), docs, 5, metric=metric)
    monkeypatch.setattr(triton_dense, "score_everything", lambda problem: pytest.fail("not certified"))
    for _ in range(2):
        conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), store)
        monkeypatch.setattr(triton_dense, "code_docs", lambda *given: pytest.fail("coded again"))
    asked = replace(problem, dims=33, bias=np.linspace(-1, 1, 150))
    monkeypatch.undo()
    candidates = BACKEND.propose(asked, 50)
    conformance.check_candidates(asked, candidates, conformance.rank_scores(asked))
    assert len(candidates.rows) < 2 * 150 / 2


def _originals(store: str) -> str | None:
    return None if store == "residual4" else "ram"


@pytest.mark.parametrize(("kind", "n_queries"), [("float16", 1), ("bfloat16", 17), ("float32", 1), ("float16", 65)])
def test_tiles(kind: str, n_queries: int) -> None:
    """Every tile and kind, over several parts of a scan, the later of which meet thresholds."""
    store = stores.make(kind, "ram", 24)
    store.append(rows(3, 900, 24))
    problem = dense.prepare(rows(4, n_queries, 24), replace(store.documents(), cache=None), 3, metric="dot")
    scores = conformance.rank_scores(problem)
    found = BACKEND.propose(problem, 3)
    conformance.check_candidates(problem, found, scores)
    assert (np.diff(found.offsets) < 200).all()
    assert (found.dropped < np.sort(scores, axis=1)[:, -3]).mean() > 0.9


def test_codes_have_their_bounds() -> None:
    """|u - scale * code| <= residual, of rows of all magnitudes; and the norms are those of the rows."""
    docs = rows(5, 60, 70) * np.float32(10.0) ** np.linspace(-37, 37, 60, dtype=np.float32)[:, None]
    docs[3], docs[4, 1:], docs[5] = 0, 0, 1e-45
    codes, scale, residual, norms = (each.numpy() for each in dense_topk.code_docs(torch.from_numpy(docs), 67))
    exact = docs[:, :67].astype(np.float64)
    assert np.allclose(norms, np.linalg.norm(exact, axis=1), rtol=1e-14, atol=0)
    units = exact / np.where(norms > 0, norms, 1)[:, None]
    off = np.linalg.norm(units - scale[:, None].astype(np.float64) * codes[:, :67], axis=1)
    assert (off <= residual + 2.0**-22).all()  # 2^-19 of `dense_terms` covers that of the scale
    assert (residual < 0.02).all()
    assert codes.shape == (60, 128)
    assert not codes[:, 67:].any()


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dims", [37, 9])
def test_tensors_stay_where_they_are(kind: str, dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of 16 bits are never float32 ones."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(checks, "RESIDENT", ("cpu",))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    docs = torch.from_numpy(rows(12, 90, 37)).to(getattr(torch, kind)).to(device)
    queries = docs[:3] if kind == "float32" else torch.from_numpy(rows(13, 3, 37)).to(device)
    want = pe.topk(queries.cpu().numpy(), docs.float().cpu().numpy(), 4, dims=dims, backend="numpy")
    for backend in ("triton", "torch"):
        found = pe.topk(queries, docs, 4, dims=dims, backend=backend)
        assert [each.device.type for each in found] == [device] * 3
        conformance.same(pe.TopK(*(each.cpu().numpy() for each in found)), want, backend)
    docs[7, 2] = float("inf")
    with pytest.raises(ValueError, match="row 7"):
        pe.topk(queries, docs, 4, dims=dims, backend="triton")


def test_a_row_with_nan_is_named() -> None:
    docs = rows(6, 50, 8)
    docs[41, 3] = np.inf
    with pytest.raises(ValueError, match="row 41"):
        pe.topk(rows(7, 2, 8), docs, 3, backend="triton")


def test_ids_break_ties() -> None:
    """By id, where ids do not rise with the rows."""
    docs = Documents(np.repeat(rows(8, 5, 6), 20, axis=0), cache={})
    ids = np.random.default_rng(0).permutation(100) * 7 + (1 << 40)
    problem = dense.prepare(rows(9, 2, 6), docs, 30, metric="l2", ids=ids)
    conformance.same(exact_search(problem, BACKEND), conformance.specified(problem), "ids")


def test_filters_and_ranges() -> None:
    docs = Documents(rows(10, 200, 16))
    filters = FilterArguments(exclude=[[1, 2], [3]], threshold=0.1)
    problem = dense.prepare(rows(11, 2, 16), docs, 9, metric="cosine", filters=filters)
    check(problem)
    conformance.check_ranges_and_ranks(problem, BACKEND)


def test_what_the_kernels_cannot_do_is_refused() -> None:
    long = np.zeros((2, 8193), np.float32)
    with pytest.raises(RuntimeError, match="triton: its kernels take at most 8,192 dimensions, and 8,193 are scored"):
        pe.topk(long, long, 1, backend="triton")
    assert pe.topk(long, long, 1, dims=9, backend="triton").certified.all()
